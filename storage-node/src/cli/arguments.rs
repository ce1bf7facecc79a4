//! The arguments of the program and how each of them is read.

use std::ffi::OsString;
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4};
use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::str::FromStr;

use clap::{Parser, ValueEnum};
use dkvs_common::kv::VALUE_BYTES_MAX;
use dkvs_common::model::Durability;
use dkvs_common::wire::v2::DATAGRAM_BYTES_MAX;
use dkvs_runtime::about::About;
use dkvs_runtime::hosts::{Host, parse_host};
use dkvs_runtime::log::LogFormat;
use dkvs_runtime::log::filter::LogFilter;

use crate::LOG_MODULES;
use crate::store::disk::Declaration;

/// A dkvs storage server: keeps key-value pairs, in memory or on a disk, and answers DKVS/1 and
/// DKVS/2 over UDP.
#[derive(Debug, Parser)]
#[command(name = "dkvs-storage-node", version)]
pub(super) struct Arguments {
    /// The IPv4 address to take datagrams on, by which the servers file knows the server
    #[arg(value_parser = parse_ip)]
    pub(super) ip: Ipv4Addr,

    /// The UDP port; 0 lets the system pick one, which the log tells
    pub(super) port: u16,

    /// Take datagrams on this address instead, where the network brings those for IP and PORT to
    /// it; IP and PORT are then only what the server is known by
    #[arg(long, value_name = "IP:PORT", value_parser = parse_bind)]
    pub(super) bind: Option<SocketAddrV4>,

    /// Pairs that the server holds from the start: a key, its value, the next key, ...
    #[arg(value_name = "KEY VALUE")]
    pub(super) pairs: Vec<OsString>,

    /// Keep pairs in this directory, so that they outlast the process. Keys are in memory as well,
    /// values as far as --cache has room for them
    #[arg(long, value_name = "DIR")]
    pub(super) data_dir: Option<PathBuf>,

    /// What a confirmed put survives: the loss of power, the end of the process, or neither
    /// [default: fsync with a data directory, memory without]
    #[arg(long, value_name = "fsync|buffered|memory")]
    pub(super) durability: Option<DurabilityChoice>,

    /// Say once what a data directory cannot know of itself: that it is new with its cluster, that
    /// confirmed records may be missing, or that what it holds is complete
    #[arg(long, value_name = "new|incomplete|complete", requires = "data_dir")]
    pub(super) declare: Option<DeclarationChoice>,

    /// Most memory for pairs, in bytes or with a suffix K, M, G (powers of 1024), and with a data
    /// directory for keys alone; a full server refuses puts and keeps answering gets
    #[arg(long, value_name = "SIZE", default_value = "1G", value_parser = memory_size)]
    pub(super) max_memory: Size,

    /// Most memory for values that lie in a data directory, beside --max-memory; 0 keeps none
    #[arg(
        long,
        value_name = "SIZE",
        default_value = "256M",
        requires = "data_dir"
    )]
    pub(super) cache: Size,

    /// Threads, each with a socket of its own [default: one per core]
    #[arg(long, value_parser = worker_count)]
    pub(super) workers: Option<NonZeroUsize>,

    /// The cluster's keys, `<id 1-255> <64 hexadecimal digits>` a line: what none of them proves
    /// gets no answer. SIGHUP reads the file again
    #[arg(long, value_name = "FILE")]
    pub(super) key_file: Option<PathBuf>,

    /// Take datagrams from beyond this machine although nothing authenticates them
    #[arg(long)]
    pub(super) insecure: bool,

    /// Answer DKVS/1, which nothing can authenticate [default: on without a key file, off with one]
    #[arg(long, value_name = "on|off")]
    pub(super) v1: Option<Switch>,

    /// The cluster's servers file: requests of clients with another one, or another replication, are
    /// refused
    #[arg(long, value_name = "FILE")]
    pub(super) servers: Option<PathBuf>,

    /// Whom to serve with --servers: those who state the same configuration (servers file and
    /// replication), or also clients of versions that state their ring alone [default: numbered, but
    /// either with a data directory of such a version until numbered is said once]
    #[arg(long, value_name = "numbered|either", requires = "servers")]
    pub(super) epochs: Option<Epochs>,

    /// How many replicas each key has, as the gateways are told: with --servers, a server compares what
    /// it holds with the other replicas
    #[arg(long, value_name = "N", default_value_t = 3,
          value_parser = clap::value_parser!(u8).range(1..))]
    pub(super) replication: u8,

    /// Most bytes a second of records that other replicas have and this server lacks, which it pulls
    /// from them if it has --servers; 0 pulls nothing
    #[arg(long, value_name = "SIZE", default_value = "8M")]
    pub(super) repair_rate: Size,

    /// How much of a data directory is read again a second, so that damage is found before somebody asks for
    /// it, in bytes; 0 reads nothing again
    #[arg(long, value_name = "SIZE", default_value = "1M", requires = "data_dir")]
    pub(super) scrub_rate: Size,

    /// Longest DKVS/2 datagram to send, in bytes, from 512 to 65507; every path to the clients has
    /// to carry it whole
    #[arg(long, value_name = "BYTES", default_value_t = 1200,
          value_parser = clap::value_parser!(u16).range(512..=DATAGRAM_BYTES_MAX as i64))]
    pub(super) max_datagram: u16,

    /// Longest value to store by DKVS/2, up to 16M
    #[arg(long, value_name = "SIZE", default_value = "1M", value_parser = value_size)]
    pub(super) max_value: Size,

    /// Receive and send many datagrams with one system call, where the system can
    #[arg(long, value_name = "on|off", default_value = "on")]
    pub(super) udp_offload: Switch,

    /// Serve metrics at http://ADDR/metrics, for Prometheus
    #[arg(long, value_name = "ADDR", value_parser = parse_metrics)]
    pub(super) metrics: Option<SocketAddr>,

    /// A name or address beside localhost and ADDR by which requests for metrics may call the
    /// server. Several times, or with commas
    #[arg(long, value_name = "NAME", value_delimiter = ',', value_parser = parse_host,
          requires = "metrics")]
    pub(super) allowed_host: Vec<Host>,

    /// What to log, as in `info` or `debug`
    #[arg(long, value_name = "FILTER", default_value = "info", value_parser = parse_filter)]
    pub(super) log: LogFilter,

    /// How to log: as lines for people, or as one JSON object a line
    #[arg(long, value_name = "text|json", default_value = "text")]
    pub(super) log_format: LogFormat,

    /// Read everything that the other arguments name, say what is wrong, and serve nothing. The
    /// data directory is not looked into
    #[arg(long)]
    pub(super) check_config: bool,

    #[command(flatten)]
    pub(super) about: About,
}

impl Arguments {
    /// By what the ring, the servers file and the data directory know the server. Port 0 stands
    /// for the one that the system picks.
    pub(super) fn addr(&self) -> SocketAddrV4 {
        SocketAddrV4::new(self.ip, self.port)
    }

    /// Where datagrams are taken.
    pub(super) fn bound(&self) -> SocketAddrV4 {
        self.bind.unwrap_or_else(|| self.addr())
    }

    pub(super) fn is_v1_on(&self) -> bool {
        match self.v1 {
            Some(v1) => v1 == Switch::On,
            None => self.key_file.is_none(),
        }
    }
}

/// A number of bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Size(pub(super) usize);

impl FromStr for Size {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (digits, shift) = match text.as_bytes().last() {
            Some(b'K' | b'k') => (&text[..text.len() - 1], 10),
            Some(b'M' | b'm') => (&text[..text.len() - 1], 20),
            Some(b'G' | b'g') => (&text[..text.len() - 1], 30),
            _ => (text, 0),
        };
        digits
            .parse::<usize>()
            .ok()
            .filter(|_| digits.bytes().all(|byte| byte.is_ascii_digit()))
            .and_then(|number| number.checked_mul(1 << shift))
            .map(Self)
            .ok_or_else(|| {
                "a size is a whole number of bytes, or one with K, M or G after it".into()
            })
    }
}

fn parse_ip(text: &str) -> Result<Ipv4Addr, &'static str> {
    text.parse()
        .map_err(|_| "it is an IPv4 address, as in 127.0.0.1")
}

/// Most threads, and so sockets.
const WORKERS_MAX: usize = 1_024;

fn worker_count(text: &str) -> Result<NonZeroUsize, String> {
    let count = text
        .parse()
        .ok()
        .filter(|count: &NonZeroUsize| count.get() <= WORKERS_MAX);
    count.ok_or_else(|| format!("it is a whole number from 1 to {WORKERS_MAX}"))
}

fn parse_filter(words: &str) -> Result<LogFilter, String> {
    let own = [LOG_MODULES, dkvs_client::LOG_MODULES];
    let modules = [&own.concat(), dkvs_runtime::LOG_MODULES, &["dkvs_common"]].concat();
    LogFilter::parse(words, &modules)
}

fn parse_bind(text: &str) -> Result<SocketAddrV4, &'static str> {
    text.parse()
        .map_err(|_| "it is an IPv4 address and a port, as in 10.244.1.7:4000")
}

fn parse_metrics(text: &str) -> Result<SocketAddr, &'static str> {
    text.parse()
        .map_err(|_| "it is an IP address and a port, as in 127.0.0.1:9100")
}

fn memory_size(text: &str) -> Result<Size, String> {
    match text.parse()? {
        Size(0) => {
            Err("0 has room for nothing; give as much as there is for pairs, as in 1G".into())
        }
        size => Ok(size),
    }
}

fn value_size(text: &str) -> Result<Size, String> {
    let size: Size = text.parse()?;
    match size.0 <= VALUE_BYTES_MAX {
        true => Ok(size),
        false => Err("no value can be longer than 16M".into()),
    }
}

/// Whom a server serves.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum Epochs {
    /// Who states the same configuration.
    Numbered,
    /// Also who states the same ring.
    Either,
}

/// What a confirmed put survives.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum DurabilityChoice {
    /// The loss of power: each put is synced before it is confirmed.
    Fsync,
    /// The end of the process, not that of the machine.
    Buffered,
    /// Neither.
    Memory,
}

impl DurabilityChoice {
    /// What there is to be, with a data directory or without.
    ///
    /// # Errors
    ///
    /// If the two do not go together; the text says why.
    pub fn resolve(choice: Option<Self>, has_data_dir: bool) -> Result<Durability, &'static str> {
        match (choice, has_data_dir) {
            (None | Some(Self::Fsync), true) => Ok(Durability::Fsync),
            (Some(Self::Buffered), true) => Ok(Durability::Buffered),
            (None | Some(Self::Memory), false) => Ok(Durability::Memory),
            (Some(Self::Memory), true) => Err(
                "--durability memory keeps nothing, so there is nothing to keep in --data-dir: \
                 leave out one of them",
            ),
            (Some(Self::Fsync | Self::Buffered), false) => Err(
                "--durability fsync and buffered need a place for the pairs: give one with \
                 --data-dir DIR",
            ),
        }
    }
}

/// What is declared of a data directory.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum DeclarationChoice {
    /// It is new, together with its whole cluster.
    New,
    /// Records that the server confirmed may be missing.
    Incomplete,
    /// It holds whatever the server confirmed.
    Complete,
}

impl From<DeclarationChoice> for Declaration {
    fn from(choice: DeclarationChoice) -> Self {
        match choice {
            DeclarationChoice::New => Self::New,
            DeclarationChoice::Incomplete => Self::Incomplete,
            DeclarationChoice::Complete => Self::Complete,
        }
    }
}

/// Whether something is done.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum Switch {
    On,
    Off,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_take_binary_suffixes_and_nothing_else() {
        for (text, bytes) in [
            ("0", 0),
            ("17", 17),
            ("2K", 2048),
            ("3m", 3 << 20),
            ("1G", 1 << 30),
        ] {
            assert_eq!(text.parse(), Ok(Size(bytes)));
        }
        for text in [
            "",
            "K",
            "1.5G",
            "-1",
            "+1",
            "1T",
            "1 K",
            "99999999999999999999",
            "99999999999999G",
        ] {
            assert!(text.parse::<Size>().is_err(), "{text:?}");
        }
    }

    #[test]
    fn limits_outside_their_range_are_refused() {
        let parse = |flag, value| {
            let fixed = ["dkvs-storage-node", "127.0.0.1", "4000"];
            Arguments::try_parse_from(fixed.into_iter().chain([flag, value]))
        };
        for value in ["512", "1200", "65507"] {
            assert!(parse("--max-datagram", value).is_ok(), "{value}");
        }
        for value in ["511", "65508", "0", "1K"] {
            assert!(parse("--max-datagram", value).is_err(), "{value}");
        }
        for value in ["0", "16M", "16777216"] {
            assert!(parse("--max-value", value).is_ok(), "{value}");
        }
        for value in ["17M", "16777217", "-1"] {
            assert!(parse("--max-value", value).is_err(), "{value}");
        }
    }
}
