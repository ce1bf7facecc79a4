//! The `dkvs-storage-node` program; everything is in [`dkvs_storage_node::cli`].

use std::process::ExitCode;

fn main() -> ExitCode {
    dkvs_storage_node::cli::main()
}
