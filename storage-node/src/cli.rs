//! The `dkvs-storage-node` program: arguments, logs, signals.

use std::ffi::OsString;
use std::net::{Ipv4Addr, SocketAddr};
use std::num::NonZeroUsize;
use std::process::ExitCode;
use std::str::FromStr;
use std::thread;

use anyhow::{Context, bail, ensure};
use bytes::Bytes;
use clap::Parser;
use dkvs_common::kv::{Key, Value};
use dkvs_common::record::{Content, ContentType, Record};
use dkvs_common::tag::Tag;
use dkvs_common::wire::v1;
use tokio_util::sync::CancellationToken;
use tracing_subscriber::EnvFilter;

use crate::StorageNode;
use crate::service::{Config, Service};
use crate::store::MemoryStore;
use crate::udp::{SOCKET_BUFFER_BYTES, workers_default};

/// A dkvs storage server: keeps key-value pairs in memory and answers DKVS/1 over UDP.
#[derive(Debug, Parser)]
#[command(name = "dkvs-storage-node", version)]
struct Arguments {
    /// The IPv4 address to take datagrams on
    ip: Ipv4Addr,

    /// The UDP port; 0 lets the system pick one, which the log tells
    port: u16,

    /// Pairs that the server holds from the start: a key, its value, the next key, ...
    #[arg(value_name = "KEY VALUE")]
    pairs: Vec<OsString>,

    /// Most memory for pairs, in bytes or with a suffix K, M, G (powers of 1024); a full server
    /// refuses puts and keeps answering gets
    #[arg(long, value_name = "SIZE", default_value = "1G")]
    max_memory: Size,

    /// Threads, each with a socket of its own [default: one per core]
    #[arg(long)]
    workers: Option<NonZeroUsize>,

    /// Take datagrams from beyond this machine although nothing authenticates them
    #[arg(long)]
    insecure: bool,

    /// What to log, as in `info` or `debug`
    #[arg(long, value_name = "FILTER", default_value = "info")]
    log: EnvFilter,
}

/// A number of bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Size(usize);

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

/// Runs the program to its end.
pub fn main() -> ExitCode {
    let arguments = Arguments::parse();
    tracing_subscriber::fmt()
        .with_env_filter(arguments.log.clone())
        .with_writer(std::io::stderr)
        .with_ansi(std::io::IsTerminal::is_terminal(&std::io::stderr()))
        .init();
    match run(&arguments) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("dkvs-storage-node: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: &Arguments) -> anyhow::Result<()> {
    let addr = SocketAddr::from((arguments.ip, arguments.port));
    ensure!(
        arguments.ip.is_loopback() || arguments.insecure,
        "{addr} can be reached from other machines, and anyone there could read and write every \
         pair; say --insecure if the network is yours alone, or bind to 127.0.0.1"
    );
    let workers = arguments.workers.unwrap_or_else(workers_default);
    let store = MemoryStore::new(arguments.max_memory.0);
    for (op, (key, value)) in (1..).zip(initial_pairs(&arguments.pairs)?) {
        let content_type = ContentType::default();
        // The smallest tags there are: whatever is written later is newer.
        let tag = Tag { time: 0, op };
        let record = Record::new(
            &key,
            tag,
            Content::Value {
                content_type,
                value,
            },
        );
        store
            .put(&key, &record)
            .context("the pairs on the command line do not fit")?;
    }
    let config = Config::new(getrandom::u64().context("the system has no random bytes")?);
    let node = StorageNode::bind(addr, workers, store, config)
        .with_context(|| format!("cannot take datagrams on {addr}"))?;

    let shutdown = CancellationToken::new();
    let service = node.service().clone();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    // Before anyone is told that the server serves, and might tell it to end.
    let signals = runtime.block_on(async { Signals::new() });
    let signals = signals.context("cannot take over signals")?;
    tracing::info!(
        addr = %node.local_addr(),
        workers,
        max_memory_bytes = arguments.max_memory.0,
        pairs = service.store().len(),
        "serving; pairs are in memory and end with this process"
    );
    let threads = spawn_workers(node, &shutdown)?;
    runtime.block_on(wait_for_signal(signals, &shutdown));
    for thread in threads {
        match thread.join() {
            Ok(result) => result.context("a worker failed")?,
            Err(_) => bail!("a worker panicked"),
        }
    }
    report(&service);
    Ok(())
}

type WorkerThread = thread::JoinHandle<anyhow::Result<()>>;

/// One thread with a runtime for each worker; the end of any, however it came, ends the others.
fn spawn_workers(
    node: StorageNode,
    shutdown: &CancellationToken,
) -> anyhow::Result<Vec<WorkerThread>> {
    let mut threads = Vec::new();
    for (number, worker) in node.into_workers().into_iter().enumerate() {
        let granted = worker.receive_buffer_bytes()?;
        if number == 0 && granted < SOCKET_BUFFER_BYTES {
            tracing::warn!(
                "the system grants {granted} bytes of receive buffer, {SOCKET_BUFFER_BYTES} were \
                 asked for: bursts may lose datagrams; on Linux, raise net.core.rmem_max"
            );
        }
        let shutdown = shutdown.clone();
        let thread = thread::Builder::new().name(format!("worker-{number}"));
        threads.push(thread.spawn(move || {
            let _ended = shutdown.clone().drop_guard();
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()?;
            Ok(runtime.block_on(worker.run(shutdown))?)
        })?);
    }
    Ok(threads)
}

/// Returns on SIGINT, on SIGTERM, or when a worker has ended, with `shutdown` called.
async fn wait_for_signal(mut signals: Signals, shutdown: &CancellationToken) {
    tokio::select! {
        name = signals.next() => tracing::info!("{name}: stopping"),
        () = shutdown.cancelled() => {}
    }
    shutdown.cancel();
}

/// The system's wishes that the process end. From [`Signals::new`] on none is lost, and none
/// ends the process by itself.
#[cfg(unix)]
pub struct Signals {
    interrupt: tokio::signal::unix::Signal,
    terminate: tokio::signal::unix::Signal,
}

#[cfg(unix)]
impl Signals {
    /// Takes over SIGINT and SIGTERM. Needs a runtime with I/O.
    pub fn new() -> std::io::Result<Self> {
        use tokio::signal::unix::{SignalKind, signal};
        Ok(Self {
            interrupt: signal(SignalKind::interrupt())?,
            terminate: signal(SignalKind::terminate())?,
        })
    }

    /// Waits for the next one and tells which it was.
    pub async fn next(&mut self) -> &'static str {
        tokio::select! {
            _ = self.interrupt.recv() => "SIGINT",
            _ = self.terminate.recv() => "SIGTERM",
        }
    }
}

/// As on Unix, for ctrl-c alone.
#[cfg(not(unix))]
pub struct Signals;

#[cfg(not(unix))]
impl Signals {
    /// Takes over ctrl-c.
    pub fn new() -> std::io::Result<Self> {
        Ok(Self)
    }

    /// Waits for the next one and tells which it was.
    pub async fn next(&mut self) -> &'static str {
        match tokio::signal::ctrl_c().await {
            Ok(()) => "ctrl-c",
            Err(_) => std::future::pending().await,
        }
    }
}

fn initial_pairs(arguments: &[OsString]) -> anyhow::Result<Vec<(Key, Value)>> {
    ensure!(
        arguments.len().is_multiple_of(2),
        "the pairs on the command line are a key, its value, and so on; the last key has no value"
    );
    let pair = |pair: &[OsString]| -> anyhow::Result<(Key, Value)> {
        let bytes = |text: &OsString| Bytes::copy_from_slice(text.as_encoded_bytes());
        let key = Key::new(bytes(&pair[0]))?;
        let value = Value::new(bytes(&pair[1]))?;
        v1::check_key(&key)?;
        v1::check_value(&value)?;
        Ok((key, value))
    };
    arguments
        .chunks(2)
        .map(|both| pair(both).with_context(|| format!("the pair {both:?}")))
        .collect()
}

fn report(service: &Service) {
    let counters = &service.counters;
    tracing::info!(
        pairs = service.store().len(),
        gets = counters.gets.count(),
        puts = counters.puts.count(),
        puts_refused_full = counters.puts_refused_full.count(),
        dumps = counters.dumps.count(),
        dumps_dropped = counters.dumps_dropped.count(),
        dump_pairs_left_out = counters.dump_pairs_left_out.count(),
        malformed = counters.malformed.count(),
        values_unrepresentable = counters.values_unrepresentable.count(),
        io_errors = counters.io_errors.count(),
        "stopped"
    );
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
    fn flags_may_stand_before_and_after_the_pairs() {
        let arguments = Arguments::parse_from([
            "dkvs-storage-node",
            "--workers",
            "1",
            "127.0.0.1",
            "4000",
            "k",
            "v",
            "k2",
            "",
            "--max-memory",
            "1M",
        ]);
        assert_eq!(arguments.max_memory, Size(1 << 20));
        let pairs = initial_pairs(&arguments.pairs).unwrap();
        assert_eq!(pairs.len(), 2);
        assert!(pairs[1].1.is_empty());
    }

    #[test]
    fn a_key_without_value_is_refused() {
        assert!(initial_pairs(&["k".into()]).is_err());
        assert!(initial_pairs(&["".into(), "v".into()]).is_err());
    }
}
