//! The runtime of a thread that asks gateways by HTTP.

use tokio::runtime::{Builder, Runtime};

/// A runtime on the calling thread alone.
pub(super) fn runtime() -> Runtime {
    let mut builder = Builder::new_current_thread();
    builder.enable_all().build().expect("a runtime")
}
