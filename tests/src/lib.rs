//! What the end-to-end tests are made of: real programs as processes, DKVS/1 and DKVS/2 by
//! hand, HTTP as bytes, and servers that misbehave or are not alone.
//!
//! No test uses a fixed port, waits for a fixed time, or depends on another. A process started
//! here ends with the value that holds it.

pub mod chaos;
pub mod exposition;
pub mod faulty;
pub mod flood;
pub mod history;
pub mod http;
pub mod keys;
pub mod load;
pub mod members;
pub mod memory_limit;
pub mod process;
pub mod proxy;
pub mod random;
pub mod replicas;
pub mod sim;
pub mod stamps;
pub mod stores;
pub mod tmpfs;
pub mod v1;
pub mod v2;
mod waiting;

pub use waiting::{PATIENCE, patiently, until};

/// The programs under test; to be used in integration tests, where cargo tells the paths.
#[macro_export]
macro_rules! programs {
    () => {
        $crate::process::Programs {
            gateway: env!("CARGO_BIN_EXE_gateway-under-test"),
            storage_node: env!("CARGO_BIN_EXE_storage-node-under-test"),
        }
    };
}
