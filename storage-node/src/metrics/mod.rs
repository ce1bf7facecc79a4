//! Metrics in the format that Prometheus scrapes.
//!
//! * [`statistics`]: the numbers of servers, as families
//! * [`page`]: a server's own page
//!
//! Nothing is counted here: a page is made of what was counted elsewhere, when it is asked for.
//! Every metric is documented in docs/metrics.md.

pub mod page;
pub mod statistics;
