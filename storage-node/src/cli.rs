//! The `dkvs-storage-node` program: arguments, logs, signals.

use std::ffi::OsString;
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4, TcpListener};
use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::process::ExitCode;
use std::str::FromStr;
use std::sync::Arc;
use std::thread;
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::{Context, bail, ensure};
use bytes::Bytes;
use clap::{Parser, ValueEnum};
use dkvs_common::cluster::Cluster;
use dkvs_common::kv::{Key, VALUE_BYTES_MAX, Value};
use dkvs_common::model::Durability;
use dkvs_common::record::{Content, ContentType, Record};
use dkvs_common::ring::Ring;
use dkvs_common::tag::Tag;
use dkvs_common::wire::v1;
use dkvs_common::wire::v2::DATAGRAM_BYTES_MAX;
use tokio_util::sync::CancellationToken;

use crate::metrics;
use crate::service::{Config, Service};
use crate::store::disk::directory::{self, DataDirectory, Owner};
use crate::store::disk::{CommitThread, Committer, Declaration, DiskStore, Options};
use crate::store::{MemoryStore, Store};
use crate::udp::{SOCKET_BUFFER_BYTES, Sockets, workers_default};
use crate::{LOG_MODULES, StorageNode};
use dkvs_runtime::about::{self, About};
use dkvs_runtime::key_file::{self, KeyFile};
use dkvs_runtime::log::filter::LogFilter;
use dkvs_runtime::log::{self, LogFormat};
use dkvs_runtime::open_files;
use dkvs_runtime::program;
use dkvs_runtime::signals::{Backups, Signals};

/// A dkvs storage server: keeps key-value pairs, in memory or on a disk, and answers DKVS/1 and
/// DKVS/2 over UDP.
#[derive(Debug, Parser)]
#[command(name = "dkvs-storage-node", version)]
struct Arguments {
    /// The IPv4 address to take datagrams on, by which the servers file knows the server
    #[arg(value_parser = parse_ip)]
    ip: Ipv4Addr,

    /// The UDP port; 0 lets the system pick one, which the log tells
    port: u16,

    /// Take datagrams on this address instead, where the network brings those for IP and PORT to
    /// it; IP and PORT are then only what the server is known by
    #[arg(long, value_name = "IP:PORT", value_parser = parse_bind)]
    bind: Option<SocketAddrV4>,

    /// Pairs that the server holds from the start: a key, its value, the next key, ...
    #[arg(value_name = "KEY VALUE")]
    pairs: Vec<OsString>,

    /// Keep pairs in this directory, so that they outlast the process. All of them are in memory
    /// as well
    #[arg(long, value_name = "DIR")]
    data_dir: Option<PathBuf>,

    /// What a confirmed put survives: the loss of power, the end of the process, or neither
    /// [default: fsync with a data directory, memory without]
    #[arg(long, value_name = "fsync|buffered|memory")]
    durability: Option<DurabilityChoice>,

    /// Say once what a data directory cannot know of itself: that it is new with its cluster, that
    /// confirmed records may be missing, or that what it holds is complete
    #[arg(long, value_name = "new|incomplete|complete", requires = "data_dir")]
    declare: Option<DeclarationChoice>,

    /// Most memory for pairs, in bytes or with a suffix K, M, G (powers of 1024); a full server
    /// refuses puts and keeps answering gets
    #[arg(long, value_name = "SIZE", default_value = "1G", value_parser = memory_size)]
    max_memory: Size,

    /// Threads, each with a socket of its own [default: one per core]
    #[arg(long, value_parser = worker_count)]
    workers: Option<NonZeroUsize>,

    /// The cluster's keys, `<id 1-255> <64 hexadecimal digits>` a line: what none of them proves
    /// gets no answer. SIGHUP reads the file again
    #[arg(long, value_name = "FILE")]
    key_file: Option<PathBuf>,

    /// Take datagrams from beyond this machine although nothing authenticates them
    #[arg(long)]
    insecure: bool,

    /// Answer DKVS/1, which nothing can authenticate [default: on without a key file, off with one]
    #[arg(long, value_name = "on|off")]
    v1: Option<Switch>,

    /// The cluster's servers file: requests of clients with another ring are refused
    #[arg(long, value_name = "FILE")]
    servers: Option<PathBuf>,

    /// Longest DKVS/2 datagram to send, in bytes, from 512 to 65507; every path to the clients has
    /// to carry it whole
    #[arg(long, value_name = "BYTES", default_value_t = 1200,
          value_parser = clap::value_parser!(u16).range(512..=DATAGRAM_BYTES_MAX as i64))]
    max_datagram: u16,

    /// Longest value to store by DKVS/2, up to 16M
    #[arg(long, value_name = "SIZE", default_value = "1M", value_parser = value_size)]
    max_value: Size,

    /// Receive and send many datagrams with one system call, where the system can
    #[arg(long, value_name = "on|off", default_value = "on")]
    udp_offload: Switch,

    /// Serve metrics at http://ADDR/metrics, for Prometheus
    #[arg(long, value_name = "ADDR", value_parser = parse_metrics)]
    metrics: Option<SocketAddr>,

    /// What to log, as in `info` or `debug`
    #[arg(long, value_name = "FILTER", default_value = "info", value_parser = parse_filter)]
    log: LogFilter,

    /// How to log: as lines for people, or as one JSON object a line
    #[arg(long, value_name = "text|json", default_value = "text")]
    log_format: LogFormat,

    /// Read everything that the other arguments name, say what is wrong, and serve nothing. The
    /// data directory is not looked into
    #[arg(long)]
    check_config: bool,

    #[command(flatten)]
    about: About,
}

/// What can be asked without an address.
#[derive(Debug, Parser)]
#[command(disable_help_flag = true)]
struct AboutAlone {
    #[command(flatten)]
    about: About,
}

impl Arguments {
    /// By what the ring, the servers file and the data directory know the server. Port 0 stands
    /// for the one that the system picks.
    fn addr(&self) -> SocketAddrV4 {
        SocketAddrV4::new(self.ip, self.port)
    }

    /// Where datagrams are taken.
    fn bound(&self) -> SocketAddrV4 {
        self.bind.unwrap_or_else(|| self.addr())
    }

    fn is_v1_on(&self) -> bool {
        match self.v1 {
            Some(v1) => v1 == Switch::On,
            None => self.key_file.is_none(),
        }
    }
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
    let modules = [LOG_MODULES, dkvs_runtime::LOG_MODULES, &["dkvs_common"]].concat();
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
enum Switch {
    On,
    Off,
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
            true => check(&arguments),
            false => run(&arguments),
        }
    })
}

/// Whether the arguments, and the files that they name, are such as to serve with.
fn check(arguments: &Arguments) -> anyhow::Result<()> {
    let addr = arguments.addr();
    refuse_strangers(arguments)?;
    let cluster = cluster(arguments)?;
    let config = config(arguments, cluster.as_ref())?;
    let key_file = arguments.key_file.as_deref();
    let key_file = key_file.map(KeyFile::open).transpose()?;
    let durability = DurabilityChoice::resolve(arguments.durability, arguments.data_dir.is_some())
        .map_err(anyhow::Error::msg)?;
    let keys = key_file.as_ref().map_or(0, |file| file.ids().len());
    let epoch = config
        .epoch
        .map_or_else(|| "any".to_owned(), |epoch| format!("{epoch:08x}"));
    let text = format!(
        "the settings are good, and nothing was started\n  address {addr}, ring {epoch}, {keys} keys, \
         durability {}\n",
        format!("{durability:?}").to_lowercase()
    );
    Ok(about::print(text.as_bytes())?)
}

fn run(arguments: &Arguments) -> anyhow::Result<()> {
    refuse_strangers(arguments)?;
    let workers = arguments.workers.unwrap_or_else(workers_default);
    let (files, wanted) = (
        open_files::raise_limit(),
        open_files::wanted_by_server(workers.get()),
    );
    if files < wanted {
        tracing::warn!("the process may open {files} files only, and may need {wanted}");
    }
    let cluster = cluster(arguments)?;
    let config = config(arguments, cluster.as_ref())?;
    let key_file = arguments
        .key_file
        .as_deref()
        .map(KeyFile::open)
        .transpose()?;
    let metrics = arguments.metrics.map(bind_metrics).transpose()?;
    let (store, disk) = store(arguments, cluster)?;
    let bound = arguments.bound();
    let sockets = Sockets::bind(bound.into(), workers)
        .with_context(|| format!("cannot take datagrams on {bound}"))?;
    let mut node = StorageNode::new(sockets, store, config)?;
    node.set_offload(arguments.udp_offload == Switch::On);
    if let Some(key_file) = &key_file {
        let mut secret = [0; 32];
        getrandom::fill(&mut secret).context(NO_RANDOM)?;
        node.set_keys(&key_file.subscribe(), &secret);
    }

    let addr = match arguments.bind {
        Some(_) => arguments.addr().into(),
        None => node.local_addr(),
    };
    let shutdown = CancellationToken::new();
    let service = node.service().clone();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    // Before anyone is told that the server serves, and might tell it to end.
    let signals = runtime.block_on(async { Signals::new() });
    let signals = signals.context("cannot take over signals")?;
    let backups = runtime.block_on(async { Backups::new() });
    let backups = backups.context("cannot take over SIGUSR1")?;
    let reloads = runtime.block_on(async { key_file::reloads(key_file.as_ref()) });
    let reloads = reloads.context("cannot take over SIGHUP")?;
    tracing::info!(
        %addr,
        bound = %node.local_addr(),
        workers,
        max_memory_bytes = arguments.max_memory.0,
        pairs = service.store().records().len(),
        keys = ?key_file.as_ref().map_or(Vec::new(), KeyFile::ids),
        v1 = config.is_v1_on,
        "serving; {}",
        match service.store().durability() {
            Durability::Memory => "pairs are in memory and end with this process",
            Durability::Buffered => "what is confirmed outlasts this process, not the machine",
            Durability::Fsync => "what is confirmed is synced to the disk",
        }
    );
    if let Some(listener) = metrics {
        let at = listener.local_addr()?;
        metrics::serve::start(listener, addr, Arc::clone(&service))
            .context("cannot start a thread for the metrics")?;
        tracing::info!("metrics are at http://{at}/metrics");
    }
    let disk = disk.map(Disk::start).transpose()?;
    let threads = spawn_workers(node, &shutdown)?;
    runtime.block_on(async {
        tokio::select! {
            () = wait_for_signal(signals, &shutdown) => {}
            never = reloads => match never {},
            never = back_up_when_asked(disk.as_ref(), backups) => match never {},
        }
    });
    for thread in threads {
        match thread.join() {
            Ok(result) => result.context("a worker failed")?,
            Err(_) => bail!("a worker panicked"),
        }
    }
    report(&service);
    match disk {
        Some(disk) => disk
            .thread
            .stop()
            .context("the data directory was not left in good order"),
        None => Ok(()),
    }
}

fn bind_metrics(addr: SocketAddr) -> anyhow::Result<TcpListener> {
    TcpListener::bind(addr).with_context(|| {
        format!("cannot serve metrics on {addr}; give --metrics an address that is free")
    })
}

/// Beyond loopback, what is answered has to be authenticated, unless the opposite is said aloud.
fn refuse_strangers(arguments: &Arguments) -> anyhow::Result<()> {
    let addr = arguments.addr();
    ensure!(
        arguments.bind.is_none() || addr.port() != 0,
        "with --bind the server needs the port that it is known by, which is not 0"
    );
    if let Some(metrics) = arguments.metrics {
        ensure!(
            metrics.ip().is_loopback() || arguments.insecure,
            "metrics on {metrics} can be read from other machines, and nothing authenticates who \
             asks; serve them on 127.0.0.1, or say --insecure if the network is yours alone"
        );
    }
    // Whoever brings datagrams to the one address from the other may bring those of strangers.
    let is_local = addr.ip().is_loopback() && arguments.bound().ip().is_loopback();
    if is_local || arguments.insecure {
        return Ok(());
    }
    ensure!(
        arguments.key_file.is_some(),
        "{addr} can be reached from other machines, and anyone there could read and write every \
         pair; give the cluster's keys with --key-file FILE, or bind to 127.0.0.1, or say \
         --insecure if the network is yours alone"
    );
    ensure!(
        !arguments.is_v1_on(),
        "{addr} can be reached from other machines, and the keys do not keep anyone there from \
         reading and writing every pair by DKVS/1; leave out --v1 on, or bind to 127.0.0.1, or say \
         --insecure if the network is yours alone"
    );
    Ok(())
}

const NO_RANDOM: &str = "the system has no random bytes";

fn config(arguments: &Arguments, cluster: Option<&Cluster>) -> anyhow::Result<Config> {
    let boot_id = getrandom::u64().context(NO_RANDOM)?;
    Ok(Config {
        datagram_bytes_max: arguments.max_datagram.into(),
        value_bytes_max: arguments.max_value.0,
        epoch: cluster.map(|cluster| Ring::new(cluster).epoch()),
        is_v1_on: arguments.is_v1_on(),
        ..Config::new(boot_id)
    })
}

/// The servers file, if there is one, in which the server itself has to be.
fn cluster(arguments: &Arguments) -> anyhow::Result<Option<Cluster>> {
    let Some(path) = &arguments.servers else {
        return Ok(None);
    };
    let addr = arguments.addr();
    let name = path.display().to_string();
    let text = std::fs::read(path).with_context(|| format!("cannot read {name}"))?;
    let cluster = Cluster::parse(&name, &text)?;
    ensure!(
        cluster.servers().iter().any(|server| server.addr == addr),
        "{name} does not list {addr}: no client would ask this server; add a line, or start it at \
         an address that is listed"
    );
    Ok(Some(cluster))
}

/// A durable store that is not yet at work.
struct Opened {
    directory: DataDirectory,
    committer: Committer,
}

/// A durable store at work.
struct Disk {
    store: Arc<DiskStore>,
    directory: Arc<DataDirectory>,
    thread: CommitThread,
}

impl Disk {
    fn start(opened: Opened) -> anyhow::Result<Self> {
        let store = Arc::clone(opened.committer.store());
        let directory = Arc::new(opened.directory);
        let guard = Arc::clone(&directory);
        let thread = CommitThread::start(opened.committer, "storage".into(), guard);
        Ok(Self {
            store,
            directory,
            thread: thread.context("cannot start a thread for the disk")?,
        })
    }

    /// Copies the log into the directory, on a thread of its own.
    fn back_up(&self) {
        let since = SystemTime::now().duration_since(UNIX_EPOCH);
        let to = self
            .directory
            .backup_path(since.map_or(0, |since| since.as_secs()));
        let whose = Arc::clone(&self.directory);
        tracing::info!(path = %to.display(), "a backup begins");
        let copy = move |snapshot: Result<_, _>| {
            let copy = move || match snapshot
                .map(|snapshot| directory::back_up(&snapshot, &to, whose.owner()))
            {
                Ok(Ok(rows)) => tracing::info!(path = %to.display(), rows, "a backup is made"),
                Ok(Err(error)) => tracing::error!(%error, "a backup was not made"),
                Err(error) => tracing::error!(%error, "a backup was not made"),
            };
            if let Err(error) = thread::Builder::new().name("backup".into()).spawn(copy) {
                tracing::error!(%error, "a backup was not made");
            }
        };
        self.store.back_up(Box::new(copy));
    }
}

async fn back_up_when_asked(disk: Option<&Disk>, mut asked: Backups) -> std::convert::Infallible {
    loop {
        asked.next().await;
        match disk {
            Some(disk) => disk.back_up(),
            None => tracing::warn!("SIGUSR1: there is no data directory to back up"),
        }
    }
}

/// A store with the pairs of the command line.
fn store(
    arguments: &Arguments,
    cluster: Option<Cluster>,
) -> anyhow::Result<(Store, Option<Opened>)> {
    let addr = arguments.addr();
    let has_data_dir = arguments.data_dir.is_some();
    let durability = DurabilityChoice::resolve(arguments.durability, has_data_dir);
    let durability = durability.map_err(anyhow::Error::msg)?;
    let mut opened = None;
    let store = match &arguments.data_dir {
        None => Store::Memory(MemoryStore::new(arguments.max_memory.0)),
        Some(path) => {
            ensure!(
                addr.port() != 0,
                "with --data-dir the server needs a port that stays the same: its ring knows it \
                 by that"
            );
            let options = Options {
                bytes_max: arguments.max_memory.0,
                durability,
                declaration: arguments.declare.map(Declaration::from),
                is_doubtful: false,
                machine_run: directory::machine_run(),
            };
            let owner = Owner {
                server: addr,
                cluster,
            };
            let (directory, store, committer) = DataDirectory::open(path, owner, options)?;
            opened = Some(Opened {
                directory,
                committer,
            });
            Store::Disk(store)
        }
    };
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
        let (told, hear) = std::sync::mpsc::channel();
        let settled = store.put(&key, &record, || {
            Box::new(move |put| {
                // Whoever listens is still there: it is this function.
                let _ = told.send(put);
            })
        });
        let settled = settled.or_else(|| {
            let committer = &mut opened.as_mut()?.committer;
            let batch = committer.begin()?;
            committer.finish(batch);
            hear.try_recv().ok()
        });
        settled
            .context("the pairs on the command line are not stored")?
            .context("the pairs on the command line do not fit")?;
    }
    Ok((store, opened))
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
        pairs = service.store().records().len(),
        gets = counters.gets.count(),
        puts = counters.puts.count(),
        puts_refused_full = counters.puts_refused_full.count(),
        dumps = counters.dumps.count(),
        dumps_dropped = counters.dumps_dropped.count(),
        dumps_cut_short = counters.dumps_cut_short.count(),
        dump_pairs_left_out = counters.dump_pairs_left_out.count(),
        malformed = counters.malformed.count(),
        values_unrepresentable = counters.values_unrepresentable.count(),
        unauthenticated = counters.unauthenticated.count(),
        sessions_refused = counters.sessions_refused.count(),
        not_greetings = counters.not_greetings.count(),
        replayed = counters.replayed.count(),
        expired = counters.expired.count(),
        v1_refused = counters.v1_refused.count(),
        replies_too_long = counters.replies_too_long.count(),
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
    fn dkvs_1_is_off_with_keys_unless_it_is_asked_for() {
        let is_v1_on = |flags: &[&str]| {
            let fixed = ["dkvs-storage-node", "127.0.0.1", "4000"];
            let arguments = Arguments::parse_from(fixed.iter().chain(flags));
            config(&arguments, None).unwrap().is_v1_on
        };
        assert!(is_v1_on(&[]));
        assert!(!is_v1_on(&["--v1", "off"]));
        assert!(!is_v1_on(&["--key-file", "keys"]));
        assert!(is_v1_on(&["--key-file", "keys", "--v1", "on"]));
    }

    #[test]
    fn either_address_beyond_loopback_needs_keys() {
        let is_refused = |addr: [&str; 2], flags: &[&str]| {
            let arguments = ["dkvs-storage-node"].iter().chain(&addr).chain(flags);
            refuse_strangers(&Arguments::parse_from(arguments)).is_err()
        };
        let (near, far) = (["127.0.0.1", "4000"], ["10.0.0.1", "4000"]);
        assert!(!is_refused(near, &["--bind", "127.0.0.2:4000"]));
        assert!(is_refused(near, &["--bind", "0.0.0.0:4000"]));
        assert!(is_refused(far, &["--bind", "127.0.0.1:4000"]));
        let keys = ["--bind", "0.0.0.0:4000", "--key-file", "keys"];
        assert!(!is_refused(far, &keys));
        assert!(is_refused(["10.0.0.1", "0"], &keys), "known by no port");
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

    #[test]
    fn a_key_without_value_is_refused() {
        assert!(initial_pairs(&["k".into()]).is_err());
        assert!(initial_pairs(&["".into(), "v".into()]).is_err());
    }
}
