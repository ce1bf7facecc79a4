//! The `dkvs-gateway` program; everything is in [`dkvs_gateway::cli`].

use std::process::ExitCode;

fn main() -> ExitCode {
    dkvs_gateway::cli::main()
}
