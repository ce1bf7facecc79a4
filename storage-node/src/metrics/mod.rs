//! Metrics in the format that Prometheus scrapes.
//!
//! * [`page`]: families of numbers, and the text that they make
//! * [`statistics`]: what a server says of itself, as families
//! * [`serve`]: a server's own page, over HTTP and off the request path
//!
//! Nothing is counted here: a page is made of what others have counted, when somebody asks for it.
//! Every metric is documented in docs/metrics.md.

pub mod page;
pub mod serve;
pub mod statistics;
