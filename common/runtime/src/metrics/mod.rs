//! Metrics in the format that Prometheus scrapes.
//!
//! Nothing is counted here: a page is made of what others have counted, when somebody asks for it.

pub mod page;
pub mod serve;
