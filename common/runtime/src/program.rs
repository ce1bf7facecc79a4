//! What both programs are from beginning to end, whatever they do in between.

use std::process::ExitCode;

use anyhow::Context as _;

use crate::{log, panics};

/// Runs a program: prints what it fails with on standard error, after all that it has logged. From
/// here on nobody waits for standard error, and a panic in any thread ends the process with status
/// [`panics::STATUS`].
pub fn run(name: &str, body: impl FnOnce() -> anyhow::Result<()>) -> ExitCode {
    panics::end_the_process();
    let result = log::open().context(log::NO_THREAD).and_then(|()| body());
    if let Err(error) = &result {
        log::print(&format!("{name}: {error:#}"));
    }
    log::flush();
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(_) => ExitCode::FAILURE,
    }
}
