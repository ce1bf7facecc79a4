//! Metrics in the format that Prometheus scrapes.
//!
//! * [`serve`]: a server's own page, over HTTP and off the request path
//!
//! Nothing is counted here: a page is made of what others have counted, when somebody asks for it.
//! Every metric is documented in docs/metrics.md.

pub mod serve;
