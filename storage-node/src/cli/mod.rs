//! The `dkvs-storage-node` program.
//!
//! * `arguments`: what can be said on the command line
//! * `settings`: whether the arguments agree, and the server's settings that follow from them
//! * `store`, `disk`: the store that they name, its thread, and backups
//! * `run`: the server from its start to its end

mod arguments;
mod disk;
mod run;
mod settings;
mod store;

use std::process::ExitCode;

use anyhow::Context;
use clap::Parser;
use dkvs_runtime::about::{self, About};
use dkvs_runtime::{log, program};

use arguments::Arguments;

pub use arguments::{DeclarationChoice, DurabilityChoice};

/// What can be asked without an address.
#[derive(Debug, Parser)]
#[command(disable_help_flag = true)]
struct AboutAlone {
    #[command(flatten)]
    about: About,
}

/// Runs the program to its end.
pub fn main() -> ExitCode {
    program::run("dkvs-storage-node", || {
        // These stand without the address that everything else needs.
        if let Ok(alone) = AboutAlone::try_parse()
            && let Some(text) = alone.about.text::<Arguments>()?
        {
            return Ok(about::print(&text)?);
        }
        let arguments = Arguments::parse();
        log::start(&arguments.log, arguments.log_format).context(log::NO_THREAD)?;
        match arguments.check_config {
            true => settings::check(&arguments),
            false => run::run(&arguments),
        }
    })
}
