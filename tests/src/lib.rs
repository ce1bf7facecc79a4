//! What the end-to-end tests are made of: real programs as processes, DKVS/1 by hand, and
//! servers that misbehave.
//!
//! No test uses a fixed port, waits for a fixed time, or depends on another. A process started
//! here ends with the value that holds it.

pub mod faulty;
pub mod http;
pub mod process;
pub mod v1;

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
