//! The options of the bench.

use std::path::PathBuf;
use std::time::Duration;

use clap::Parser;

/// Measures dkvs against what this machine can do at best, side by side.
#[derive(Debug, Clone, Parser)]
#[command(name = "bench")]
pub struct Options {
    /// How often the sides of a figure take turns
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=1_000))]
    rounds: u32,

    /// How long each side is measured in each round
    #[arg(long, default_value_t = 2.0, value_parser = seconds)]
    seconds: f64,

    /// HTTP connections at a time
    #[arg(long, default_value_t = 64, value_parser = clap::value_parser!(u16).range(1..=4_096))]
    pub connections: u16,

    /// Only the figures and curves whose name has this in it
    #[arg(long, value_name = "NAME")]
    only: Option<String>,

    /// Write everything to a file as JSON
    #[arg(long, value_name = "FILE")]
    pub json: Option<PathBuf>,

    /// Measure what else is installed as well: memcached, redis-server with webdis, etcd, nginx
    #[arg(long)]
    pub peers: bool,

    /// Draw the curves as well: over connections, n, value size, servers, keys, and idle
    #[arg(long)]
    pub curves: bool,

    /// Measure the durable store as well: data beyond memory, what a put writes, space on the disk
    #[arg(long)]
    pub storage: bool,

    /// Two short rounds: to see that everything works, not to measure
    #[arg(long)]
    pub quick: bool,

    /// Further arguments of the gateway, separated by blanks
    #[arg(
        long,
        value_name = "ARGS",
        default_value = "",
        allow_hyphen_values = true
    )]
    gateway_args: String,

    /// Further arguments of each storage server, separated by blanks
    #[arg(
        long,
        value_name = "ARGS",
        default_value = "",
        allow_hyphen_values = true
    )]
    server_args: String,
}

impl Options {
    /// How often the sides take turns.
    pub fn rounds(&self) -> u32 {
        if self.quick { 2 } else { self.rounds }
    }

    /// How long a side is measured.
    pub fn duration(&self) -> Duration {
        Duration::from_secs_f64(if self.quick { 0.2 } else { self.seconds })
    }

    /// How long a side runs before it is measured.
    pub fn warm_up(&self) -> Duration {
        self.duration() / 4
    }

    /// Whether a figure or curve is wanted.
    pub fn wants(&self, name: &str) -> bool {
        self.only
            .as_ref()
            .is_none_or(|only| name.contains(only.as_str()))
    }

    /// Options of the gateway beyond its servers and its address.
    pub fn gateway_arguments(&self) -> impl Iterator<Item = &str> {
        self.gateway_args.split_whitespace()
    }

    /// Options of each storage server beyond its address.
    pub fn server_arguments(&self) -> Vec<&str> {
        let given: Vec<&str> = self.server_args.split_whitespace().collect();
        match given.contains(&"--workers") {
            true => given,
            false => [&["--workers", "1"], &given[..]].concat(),
        }
    }
}

fn seconds(text: &str) -> Result<f64, String> {
    let seconds = text
        .parse::<f64>()
        .ok()
        .filter(|seconds| (0.05..=600.0).contains(seconds));
    seconds.ok_or_else(|| "it is a number from 0.05 to 600".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(arguments: &[&str]) -> Result<Options, clap::Error> {
        Options::try_parse_from([&["bench"], arguments].concat())
    }

    #[test]
    fn a_server_has_one_worker_unless_an_option_says_otherwise() {
        let options = parse(&["--server-args", "--max-memory 1M"]).unwrap();
        assert_eq!(
            options.server_arguments(),
            ["--workers", "1", "--max-memory", "1M"]
        );
        let options = parse(&["--server-args", "--workers 2"]).unwrap();
        assert_eq!(options.server_arguments(), ["--workers", "2"]);
    }

    #[test]
    fn impossible_numbers_are_refused() {
        for arguments in [
            ["--rounds", "0"],
            ["--seconds", "0"],
            ["--seconds", "NaN"],
            ["--connections", "0"],
        ] {
            assert!(parse(&arguments).is_err(), "{arguments:?}");
        }
    }

    #[test]
    fn only_chooses_by_part_of_the_name() {
        let options = parse(&["--only", "get"]).unwrap();
        assert!(options.wants("get-p99") && !options.wants("put-agreement"));
        assert!(parse(&[]).unwrap().wants("anything"));
    }
}
