//! The bench: how fast the programs are, as ratios to what the same machine can do at best.
//!
//! One program plays all the parts, each in a process of its own ([`role`]): storage servers, the
//! gateway, the points of reference ([`reference`]). This process makes the load ([`load`] over
//! HTTP, [`udp`] and [`wire`] over UDP), lets the sides take turns ([`contest`]), and prints the result
//! ([`report`]). `docs/performance.md` says what is measured and how.

mod absence;
mod cluster;
mod contest;
mod curves;
mod directory;
mod figures;
mod histogram;
mod http;
mod in_step;
mod load;
mod machine;
mod options;
mod overload;
mod peers;
mod reference;
mod repair;
mod report;
mod role;
mod spread;
mod storage;
mod udp;
mod wire;

use std::process::ExitCode;

use clap::Parser as _;

use options::Options;
use report::Report;
use role::Role;

fn main() -> ExitCode {
    if let Some(role) = Role::of_this_process() {
        return role.run();
    }
    match bench(&Options::parse()) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => {
            eprintln!("bench: some figures are invalid: requests failed");
            ExitCode::FAILURE
        }
        Err(error) => {
            eprintln!("bench: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// Measures and prints; whether every figure is valid.
fn bench(options: &Options) -> anyhow::Result<bool> {
    let mut report = Report::new(options)?;
    print!("{}", report.head());
    figures::measure(options, &mut report)?;
    overload::measure(options, &mut report)?;
    repair::measure(options, &mut report)?;
    absence::measure(options, &mut report)?;
    in_step::measure(options, &mut report)?;
    if options.storage {
        storage::measure(options, &mut report)?;
    }
    if options.peers {
        peers::measure(options, &mut report)?;
    }
    if options.curves {
        curves::measure(options, &mut report)?;
    }
    print!("{}", report.markdown());
    if let Some(path) = &options.json {
        report.write_json(path)?;
    }
    Ok(report.is_valid())
}
