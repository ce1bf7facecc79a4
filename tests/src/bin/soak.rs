//! The soak: the scenario of tests/tests/chaos.rs again and again, each time from another seed,
//! for as long as its options say, or until the promise is broken.
//!
//! One program plays all the parts, so that what is tested is what was built: it is started again
//! under the name of a part. Every process started here ends with the soak, however that ends.

use std::ffi::OsStr;
use std::io;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};
use std::{env, fs, thread};

use anyhow::Context;
use clap::Parser;
use dkvs_tests::chaos::{Finished, Kills, Level, PHASES, Scenario};
use dkvs_tests::process::Programs;

/// Breaks things under a running load and sees that each key stays one register.
#[derive(Debug, Parser)]
#[command(name = "soak")]
struct Options {
    /// After how many minutes no scenario begins any more; 0 for never
    #[arg(long, default_value_t = 2)]
    minutes: u64,

    /// The first scenario's seed, the next having the number after it [default: the time]
    #[arg(long)]
    seed: Option<u64>,

    /// What is asked for; agreement promises less, so that a broken promise is found before long
    #[arg(long, value_enum, default_value = "linearizable")]
    consistency: Level,

    /// Rather than that: servers with disks and gateways are killed so often, and nothing else happens
    #[arg(long)]
    kills: Option<usize>,

    /// Where the history of a scenario that fails is written [default: the system's directory for
    /// temporary files]
    #[arg(long, value_name = "DIRECTORY")]
    histories: Option<PathBuf>,
}

fn main() -> ExitCode {
    if let Some(part) = Part::of_this_process() {
        return part.play();
    }
    match soak(&Options::parse()) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("soak: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// Runs one scenario after another; whether none failed.
fn soak(options: &Options) -> anyhow::Result<bool> {
    static IS_TOLD_TO_END: AtomicBool = AtomicBool::new(false);
    thread::spawn(|| await_interrupts(&IS_TOLD_TO_END));

    let names = Names::new().context("cannot name the parts")?;
    let programs = names.programs()?;
    let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH)?;
    let begun = Instant::now();
    let mut seed = options.seed.unwrap_or(since_epoch.as_secs());
    if let Some(kills) = options.kills {
        return told(&Kills { seed, kills }.run(programs), options);
    }
    let is_over = || {
        let minutes = Duration::from_secs(60 * options.minutes);
        let is_late = options.minutes > 0 && begun.elapsed() >= minutes;
        is_late || IS_TOLD_TO_END.load(Ordering::Relaxed)
    };
    while !is_over() {
        let scenario = Scenario {
            seed,
            level: options.consistency,
            phases: PHASES,
        };
        if !told(&scenario.run(programs, &IS_TOLD_TO_END), options)? {
            return Ok(false);
        }
        seed += 1;
    }
    Ok(true)
}

/// Prints how a run ended, with its history if that was badly; whether it was well.
fn told(finished: &Finished, options: &Options) -> anyhow::Result<bool> {
    println!("{finished}");
    let Err(why) = &finished.verdict else {
        return Ok(true);
    };
    println!("{why}");
    let directory = options.histories.clone().unwrap_or_else(env::temp_dir);
    let path = finished.write_history(&directory);
    let path = path.context("cannot write the history")?;
    println!("the history is in {}", path.display());
    Ok(false)
}

/// The first interrupt ends the soak after the scenario's end, which is brought about; a second
/// ends it at once.
fn await_interrupts(is_told_to_end: &AtomicBool) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("a runtime");
    runtime.block_on(async {
        for is_first in [true, false] {
            if tokio::signal::ctrl_c().await.is_err() {
                return;
            }
            if is_first {
                is_told_to_end.store(true, Ordering::Relaxed);
            } else {
                std::process::exit(130);
            }
        }
    });
}

/// What a process of the soak may be, beside the soak itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Part {
    Gateway,
    StorageNode,
}

impl Part {
    const ALL: [Self; 2] = [Self::Gateway, Self::StorageNode];

    fn name(self) -> &'static str {
        match self {
            Self::Gateway => "dkvs-soak-gateway",
            Self::StorageNode => "dkvs-soak-storage-node",
        }
    }

    /// Which one a process is, by the name that it was started under.
    fn of(started_as: &Path) -> Option<Self> {
        let name = started_as.file_name()?;
        let mut all = Self::ALL.into_iter();
        all.find(|part| name == OsStr::new(part.name()))
    }

    fn of_this_process() -> Option<Self> {
        Self::of(Path::new(&env::args_os().next()?))
    }

    /// Plays the part to its end.
    fn play(self) -> ExitCode {
        // In a group of its own, since a terminal interrupts the whole group of the soak.
        if let Err(error) = rustix::process::setpgid(None, None) {
            eprintln!("soak: an interrupt may end this process: {error}");
        }
        end_with_parent();
        match self {
            Self::Gateway => dkvs_gateway::cli::main(),
            Self::StorageNode => dkvs_storage_node::cli::main(),
        }
    }
}

/// Asks the system to end this process when the soak ends, even if that is killed.
fn end_with_parent() {
    #[cfg(target_os = "linux")]
    {
        use rustix::process::{Signal, getppid, set_parent_process_death_signal};
        let asked = set_parent_process_death_signal(Some(Signal::KILL));
        // A parent that was gone by then sends no signal any more.
        if asked.is_err() || getppid().is_none_or(|parent| parent.is_init()) {
            eprintln!("soak: this process may outlive the soak");
        }
    }
}

/// Other names of this program, in a directory that goes with the value.
struct Names(PathBuf);

impl Names {
    fn new() -> io::Result<Self> {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let name = format!("dkvs-soak-{}-{number}", std::process::id());
        let directory = env::temp_dir().join(name);
        fs::create_dir(&directory)?;
        let names = Self(directory);
        let program = env::current_exe()?;
        for part in Part::ALL {
            std::os::unix::fs::symlink(&program, names.0.join(part.name()))?;
        }
        Ok(names)
    }

    /// The programs under these names. Their paths are kept to the end of the process.
    fn programs(&self) -> anyhow::Result<Programs> {
        let path = |part: Part| {
            let path = self.0.join(part.name()).into_os_string().into_string();
            let path = path.map_err(|path| anyhow::anyhow!("{} is no text", path.display()))?;
            anyhow::Ok(&*path.leak())
        };
        Ok(Programs {
            gateway: path(Part::Gateway)?,
            storage_node: path(Part::StorageNode)?,
        })
    }
}

impl Drop for Names {
    fn drop(&mut self) {
        // What is left of a directory for temporary files does no harm.
        let _ = fs::remove_dir_all(&self.0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_part_is_recognized_by_the_name_it_was_started_under() {
        let names = Names::new().unwrap();
        let programs = names.programs().unwrap();
        let part = |path: &str| Part::of(Path::new(path));
        assert_eq!(part(programs.gateway), Some(Part::Gateway));
        assert_eq!(part(programs.storage_node), Some(Part::StorageNode));
        assert_eq!(part("target/release/soak"), None);
        assert_eq!(Part::of_this_process(), None, "a test is no part");
    }

    #[test]
    fn the_names_go_with_their_value() {
        let names = Names::new().unwrap();
        let directory = names.0.clone();
        assert!(directory.join(Part::Gateway.name()).exists());
        drop(names);
        assert!(!directory.exists());
    }
}
