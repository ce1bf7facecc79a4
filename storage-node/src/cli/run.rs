//! Runs a server until a signal ends it.

use std::net::{SocketAddr, TcpListener};
use std::path::PathBuf;
use std::sync::Arc;
use std::thread;

use anyhow::{Context, bail, ensure};
use dkvs_common::model::Durability;
use dkvs_runtime::hosts::Hosts;
use dkvs_runtime::key_file::{self, KeyFile};
use dkvs_runtime::metrics::serve;
use dkvs_runtime::open_files;
use dkvs_runtime::signals::{Backups, Signals};
use tokio_util::sync::CancellationToken;

use super::arguments::{Arguments, Switch};
use super::disk::{Disk, back_up_when_asked};
use super::settings::{NO_RANDOM, check_exposure, cluster, config, membership, with_directory};
use super::store::store;
use crate::StorageNode;
use crate::anti_entropy::{PullOptions, PullThread};
use crate::high_water::file as marks;
use crate::metrics;
use crate::scrub::ScrubThread;
use crate::service::{Service, ServiceConfig};
use crate::store::RecordStore as _;
use crate::store::may_be_set_back;
use crate::udp::{SOCKET_BUFFER_BYTES, Sockets, workers_default};

pub(super) fn run(arguments: &Arguments) -> anyhow::Result<()> {
    check_exposure(arguments)?;
    let workers = arguments.workers.unwrap_or_else(workers_default);
    let files = open_files::raise_limit();
    check_open_files(files, workers.get())?;
    let cluster = cluster(arguments)?;
    let servers = cluster
        .as_ref()
        .map_or(0, |cluster| cluster.servers().len());
    warn_of_few_files(files, workers.get(), servers);
    let config = config(arguments, cluster.as_ref())?;
    let key_file = arguments
        .key_file
        .as_deref()
        .map(KeyFile::open)
        .transpose()?;
    let metrics = arguments.metrics.map(bind_metrics).transpose()?;
    let bind = || {
        let bound = arguments.bound();
        Sockets::bind(bound.into(), workers)
            .with_context(|| format!("cannot take datagrams on {bound}"))
    };
    // What is declared is not taken before it is known that the server can start. The port is not kept
    // meanwhile, since a port that is silent is waited for.
    drop(bind()?);
    let membership = membership(arguments, cluster.as_ref());
    let (store, disk) = store(arguments, cluster, config.boot_id)?;
    let config = match &disk {
        Some(disk) => ServiceConfig {
            asks_peers_first: membership.is_some()
                && arguments.repair_rate.0 > 0
                && may_be_set_back(&store, config.boot_id),
            ..with_directory(arguments, config, &disk.directory)
        },
        None => config,
    };
    let sockets = bind()?;
    let mut node = StorageNode::new(sockets, store, config, membership)?;
    node.set_offload(arguments.udp_offload == Switch::On);
    let marks_file = arguments.data_dir.as_deref().map(marks::file_of);
    if let Some(file) = &marks_file {
        marks::load(node.service(), file);
    }
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
    // Before the log says that the server serves: a signal may end it from then on.
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
        pairs = service.store().len(),
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
        let hosts = Hosts::new(at, &arguments.allowed_host);
        let service = Arc::clone(&service);
        let page = move |form| metrics::render(&service, addr, form);
        serve::start(listener, hosts, page).context("cannot start a thread for the metrics")?;
        tracing::info!("metrics are at http://{at}/metrics");
    }
    let disk = disk.map(Disk::start).transpose()?;
    let threads = spawn_workers(node, &shutdown)?;
    let pulling = pull(arguments, &service, key_file.as_ref(), marks_file)?;
    let scrubbing = ScrubThread::start(&service, arguments.scrub_rate.0 as u64)
        .context("cannot start a thread that reads records again")?;
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
    drop((pulling, scrubbing));
    report(&service);
    match disk {
        Some(disk) => disk
            .thread
            .stop()
            .context("the data directory was not left in good order"),
        None => Ok(()),
    }
}

/// Starts to pull what other replicas have and this server lacks, if that is wanted and it knows them.
fn pull(
    arguments: &Arguments,
    service: &Arc<Service>,
    key_file: Option<&KeyFile>,
    marks_file: Option<PathBuf>,
) -> anyhow::Result<Option<PullThread>> {
    let bytes_per_second = arguments.repair_rate.0 as u64;
    if bytes_per_second == 0 {
        return Ok(None);
    }
    let options = PullOptions {
        bytes_per_second,
        keys: key_file.map(KeyFile::subscribe),
        datagram_bytes_max: arguments.max_datagram.into(),
        offload: arguments.udp_offload == Switch::On,
        marks_file,
    };
    PullThread::start(service, options).context("cannot start a thread that pulls from replicas")
}

/// # Errors
///
/// If the process may open too few files to start.
fn check_open_files(files: usize, workers: usize) -> anyhow::Result<()> {
    let needed = open_files::needed_by_server(workers);
    ensure!(
        files >= needed,
        "a process that may open {files} files is too small for {workers} workers; it takes {needed} \
         at the least; raise the limit (ulimit -n) or lower --workers"
    );
    Ok(())
}

/// Warns where the limit on open files may be reached.
fn warn_of_few_files(files: usize, workers: usize, servers: usize) {
    let wanted = open_files::wanted_by_server(workers, servers);
    if files < wanted {
        tracing::warn!("the process may open {files} files only, and may need {wanted}");
    }
}

fn bind_metrics(addr: SocketAddr) -> anyhow::Result<TcpListener> {
    TcpListener::bind(addr).with_context(|| {
        format!("cannot serve metrics on {addr}; give --metrics an address that is free")
    })
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

fn report(service: &Service) {
    let counters = &service.counters;
    tracing::info!(
        pairs = service.store().len(),
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
