//! The simulator's program: many seeds, one seed again, or seeds without end.
//!
//! Exit code 1 means that something did not hold; the seed and how to see it again are printed.

use std::ops::Range;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use clap::{Args, Parser, Subcommand};
use dkvs_common::mutants::Mutant;

use dkvs_tests::sim::campaign::{Campaign, Totals};
use dkvs_tests::sim::invariants::Violation;
use dkvs_tests::sim::{Options, run};

/// Simulates clusters with everything that can go wrong, from seeds.
#[derive(Debug, Parser)]
#[command(name = "sim")]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Runs many seeds
    Run {
        /// The seeds, from the first up to but without the last
        #[arg(long, value_name = "A..B", default_value = "0..10000", value_parser = seeds)]
        seeds: Range<u64>,

        /// Ends after so many seconds rather than at the last seed
        #[arg(long)]
        seconds: Option<u64>,

        /// But not before so many seeds
        #[arg(long, value_name = "SEEDS", default_value_t = 0, requires = "seconds")]
        at_least: u64,

        #[command(flatten)]
        how: How,
    },

    /// Runs one seed again
    Replay {
        seed: u64,

        /// Prints what happened, line by line
        #[arg(long)]
        log: bool,

        /// Which mutant of the code runs
        #[arg(long, value_parser = mutant)]
        mutant: Option<Mutant>,
    },

    /// Runs seeds with each mutant until one shows it
    Mutants {
        /// One mutant rather than all of them
        #[arg(long, value_parser = mutant)]
        mutant: Option<Mutant>,

        /// A mutant that so many seeds do not show survives
        #[arg(long, default_value_t = 50_000, value_name = "SEEDS")]
        seeds: u64,

        /// How many seeds run at a time
        #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u16).range(1..=256))]
        jobs: u16,
    },

    /// Runs seeds until it is stopped or something does not hold
    Soak {
        /// The first seed
        #[arg(long, default_value_t = 0)]
        from: u64,

        #[command(flatten)]
        how: How,
    },
}

#[derive(Debug, Args)]
struct How {
    /// How many seeds run at a time
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u16).range(1..=256))]
    jobs: u16,

    /// After so many violations no more are looked for
    #[arg(long, default_value_t = 5, value_name = "COUNT")]
    violations: usize,

    /// Which mutant of the code runs
    #[arg(long, value_parser = mutant)]
    mutant: Option<Mutant>,
}

/// How often a long run says how far it is.
const PROGRESS_EVERY: Duration = Duration::from_secs(60);

fn main() -> ExitCode {
    match Arguments::parse().command {
        Command::Run {
            seeds,
            seconds,
            at_least,
            how,
        } => {
            let end = seconds.map(|seconds| Instant::now() + Duration::from_secs(seconds));
            let seeds = match end {
                Some(_) => seeds.start..u64::MAX,
                None => seeds,
            };
            run_many(seeds, end.map(|end| (end, at_least)), how)
        }
        Command::Replay { seed, log, mutant } => replay(seed, log, mutant),
        Command::Mutants {
            mutant,
            seeds,
            jobs,
        } => hunt(mutant, seeds, jobs),
        Command::Soak { from, how } => run_many(from..u64::MAX, None, how),
    }
}

fn run_many(seeds: Range<u64>, ends: Option<(Instant, u64)>, how: How) -> ExitCode {
    let options = Options {
        mutant: how.mutant,
        ..Options::default()
    };
    let mutant = options.mutant;
    let campaign = Campaign {
        options,
        ends,
        violations_max: how.violations,
        ..Campaign::of(seeds, how.jobs.into())
    };
    let begun = Instant::now();
    let mut said = begun;
    let totals = campaign.run(|totals, violated| {
        if let Some((seed, violation)) = violated {
            print_violation(*seed, violation, mutant);
        }
        if said.elapsed() >= PROGRESS_EVERY {
            said = Instant::now();
            println!("sim: {} seeds so far", totals.statistics.worlds);
        }
    });
    print_totals(&totals, begun.elapsed(), how.jobs);
    exit_code(totals.violations.is_empty())
}

fn replay(seed: u64, keeps_log: bool, mutant: Option<Mutant>) -> ExitCode {
    let options = Options {
        keeps_log,
        mutant,
        ..Options::default()
    };
    let outcome = run(seed, &options);
    for line in &outcome.log {
        println!("{line}");
    }
    print!("{}", outcome.statistics);
    println!("sim: seed {seed} has hash {:016x}", outcome.hash);
    if let Some(violation) = &outcome.violation {
        print_violation(seed, violation, mutant);
    }
    exit_code(outcome.violation.is_none())
}

/// Hunts every mutant, or one; each is to be shown by a seed before so many were run.
fn hunt(one: Option<Mutant>, seeds: u64, jobs: u16) -> ExitCode {
    let mutants = one.as_ref().map_or(Mutant::ALL, std::slice::from_ref);
    if mutant(mutants[0].name()).is_err() {
        eprintln!("sim: {NO_MUTANTS}");
        return ExitCode::FAILURE;
    }
    println!("{:<28} {:>7}  what shows it", "mutant", "seeds");
    let mut has_survivor = false;
    for mutant in mutants {
        if one.is_none() && is_rare(*mutant) {
            println!(
                "{:<28} {:>7}  hunted by name alone: see docs/testing.md",
                mutant.name(),
                "-"
            );
            continue;
        }
        let first = first_seed(*mutant);
        let options = Options {
            mutant: Some(*mutant),
            ..Options::default()
        };
        let campaign = Campaign {
            options,
            violations_max: 1,
            ..Campaign::of(first..first + seeds, jobs.into())
        };
        let totals = campaign.run(|_, _| {});
        match totals.violations.first() {
            Some((seed, violation)) => {
                let needed = seed - first + 1;
                println!("{:<28} {needed:>7}  {}", mutant.name(), violation.of);
            }
            None => {
                has_survivor = true;
                println!("{:<28} {:>7}  survives", mutant.name(), format!(">{seeds}"));
            }
        }
    }
    exit_code(!has_survivor)
}

/// Whether one in many thousands of seeds shows a mutant, which a test of the store shows at once.
fn is_rare(mutant: Mutant) -> bool {
    matches!(mutant, Mutant::QuarantineNotCopied)
}

/// The seed with which the hunt for a mutant begins. One in thousands of seeds shows this one: it begins
/// shortly before such a one, and goes on to others if that does not show it any more.
fn first_seed(mutant: Mutant) -> u64 {
    match mutant {
        Mutant::QuarantineNotCopied => 8_600,
        _ => 0,
    }
}

fn print_violation(seed: u64, violation: &Violation, mutant: Option<Mutant>) {
    println!("sim: seed {seed} violates {violation}");
    let mutant = mutant.map_or(String::new(), |mutant| {
        format!(" --mutant {}", mutant.name())
    });
    println!("sim: to see it again: sim replay {seed} --log{mutant}");
}

fn print_totals(totals: &Totals, took: Duration, jobs: u16) {
    print!("{}", totals.statistics);
    let worlds = totals.statistics.worlds.max(1) as f64;
    let seconds = took.as_secs_f64();
    let ms = seconds * 1_000.0 * f64::from(jobs) / worlds;
    println!("{:>14} violations", totals.violations.len());
    println!("sim: {seconds:.1} s, {ms:.2} ms a seed on each of {jobs} threads");
    println!("sim: the hash of all is {:016x}", totals.hash);
}

fn exit_code(is_well: bool) -> ExitCode {
    match is_well {
        true => ExitCode::SUCCESS,
        false => ExitCode::FAILURE,
    }
}

const NO_MUTANTS: &str = "no mutants were built in: build with --features mutants";

fn mutant(name: &str) -> Result<Mutant, String> {
    if !cfg!(feature = "mutants") {
        return Err(NO_MUTANTS.to_owned());
    }
    let mut mutants = Mutant::ALL.iter().copied();
    let found = mutants.find(|mutant| mutant.name() == name);
    found.ok_or_else(|| {
        let names: Vec<_> = Mutant::ALL.iter().map(|mutant| mutant.name()).collect();
        format!("the mutants are {}", names.join(", "))
    })
}

fn seeds(text: &str) -> Result<Range<u64>, String> {
    let range = text.split_once("..").and_then(|(start, end)| {
        let (start, end) = (start.parse().ok()?, end.parse().ok()?);
        (start < end).then_some(start..end)
    });
    range.ok_or_else(|| "seeds are two numbers, such as 0..1000".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seeds_are_a_range_that_is_not_empty() {
        assert_eq!(seeds("3..17"), Ok(3..17));
        for text in ["", "3", "3..", "..3", "5..5", "6..5", "a..b"] {
            assert!(seeds(text).is_err(), "{text:?}");
        }
    }
}
