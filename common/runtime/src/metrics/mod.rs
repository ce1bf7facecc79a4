//! Metrics in the format that Prometheus scrapes.
//!
//! * [`page`]: a page of metric families, rendered
//! * [`serve`]: a server of one page, over HTTP
//! * [`statistics`]: the statistics of storage servers as families
//!
//! Nothing is counted here: a page shows what others have counted.

pub mod page;
pub mod serve;
pub mod statistics;
