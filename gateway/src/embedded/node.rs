//! One embedded server, which can be stopped and started again as a process can.

use std::net::SocketAddr;
use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError, mpsc};

use anyhow::Context;
use dkvs_common::model::Durability;
use dkvs_common::wire::v2::DATAGRAM_BYTES_MAX;
use dkvs_common::wire::v2::keys::Keys;
use dkvs_storage_node::StorageNode;
use dkvs_storage_node::anti_entropy::{PullOptions, PullThread};
use dkvs_storage_node::high_water::file as marks;
use dkvs_storage_node::leaves::Membership;
use dkvs_storage_node::scrub::{SCRUB_RATE_DEFAULT, ScrubThread};
use dkvs_storage_node::service::{Served, ServiceConfig};
use dkvs_storage_node::store::disk::directory::{self, DataDirectory, Owner};
use dkvs_storage_node::store::disk::{CommitThread, Declaration, OpenOptions};
use dkvs_storage_node::store::{MemoryStore, Store, may_be_set_back};
use dkvs_storage_node::udp::Sockets;
use tokio::runtime::Handle;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

/// Most memory for the records of each server, in bytes.
pub(super) const STORE_BYTES_MAX: usize = 256 << 20;

/// Most memory for the values of each that lie on the disk, in bytes.
const CACHE_BYTES_MAX: usize = 64 << 20;

/// Most memory that each takes in all: its records, or its keys and some values, uploads under way, what
/// waits for the disk, sessions, and what a dump notes.
pub(crate) const EMBEDDED_SERVER_BYTES_MAX: usize = STORE_BYTES_MAX + CACHE_BYTES_MAX + (160 << 20);

/// Whose requests a server answers.
#[derive(Clone)]
pub(super) struct Authentication {
    /// DKVS/2 requests that one of these proves.
    pub(super) keys: watch::Receiver<Keys>,
    /// Whether to answer DKVS/1 as well, which proves nothing.
    pub(super) is_v1_on: bool,
}

/// Where a server keeps its records.
pub(super) enum StorageLocation {
    /// In memory: they are gone when the server stops.
    Memory,
    /// In a data directory of its own.
    Directory {
        path: PathBuf,
        owner: Owner,
        durability: Durability,
        /// The name of its commit thread.
        thread: String,
    },
}

/// An open store.
pub(super) struct OpenStore {
    store: Store,
    /// Of the data directory; none in memory.
    store_id: Option<u64>,
    /// Where it is kept how far its peers have come.
    marks_file: Option<PathBuf>,
    boot_id: u64,
    disk: Option<CommitThread>,
}

impl StorageLocation {
    /// Opens the store there; in memory it is empty.
    pub(super) fn open(&self, declaration: Option<Declaration>) -> anyhow::Result<OpenStore> {
        // A new one each time tells gateways that the server has restarted.
        let boot_id = getrandom::u64()?;
        let Self::Directory {
            path,
            owner,
            durability,
            thread,
        } = self
        else {
            let store = Store::Memory(MemoryStore::new(STORE_BYTES_MAX));
            return Ok(OpenStore {
                store,
                store_id: None,
                marks_file: None,
                boot_id,
                disk: None,
            });
        };
        let options = OpenOptions {
            declaration,
            cache_bytes_max: CACHE_BYTES_MAX,
            lineage: boot_id,
            ..OpenOptions::new(STORE_BYTES_MAX, *durability, directory::machine_run())
        };
        let (directory, opened) = DataDirectory::open(path, owner.clone(), options)?;
        let store_id = Some(directory.store_id());
        let disk = CommitThread::start(opened.committer, thread.clone(), directory)?;
        Ok(OpenStore {
            store: Store::Disk(opened.store),
            store_id,
            marks_file: Some(marks::file_of(path)),
            boot_id,
            disk: Some(disk),
        })
    }
}

/// What a server is in its cluster, and how much it pulls from the others.
#[derive(Clone)]
pub(super) struct Peers {
    pub(super) membership: Membership,
    /// In bytes a second; 0 pulls nothing.
    pub(super) repair_rate: u64,
}

/// Everything that a server needs in order to run.
pub(super) struct PreparedServer {
    pub(super) sockets: Sockets,
    pub(super) location: StorageLocation,
    pub(super) opened: OpenStore,
}

/// A server, running or stopped.
pub(super) struct Node {
    addr: SocketAddr,
    location: StorageLocation,
    authentication: Authentication,
    peers: Peers,
    is_running: AtomicBool,
    /// Locked while the server stops or starts.
    running: Mutex<Option<Running>>,
}

/// What it takes to end a running server.
struct Running {
    stop: CancellationToken,
    /// Carries nothing; closed once all tasks have ended, and their sockets with them.
    ended: mpsc::Receiver<()>,
    disk: Option<CommitThread>,
    pulling: Option<PullThread>,
    scrubbing: Option<ScrubThread>,
}

impl Node {
    /// Starts a server on this runtime.
    pub(super) fn run(
        addr: SocketAddr,
        PreparedServer {
            sockets,
            location,
            opened,
        }: PreparedServer,
        authentication: Authentication,
        peers: Peers,
        runtime: &Handle,
    ) -> anyhow::Result<Self> {
        let running = run(opened, sockets, &authentication, &peers, runtime)?;
        Ok(Self {
            addr,
            location,
            authentication,
            peers,
            is_running: AtomicBool::new(true),
            running: Mutex::new(Some(running)),
        })
    }

    /// Whether it has not been stopped.
    pub(super) fn is_running(&self) -> bool {
        self.is_running.load(Ordering::Relaxed)
    }

    /// Ends the server if it runs, which closes its port. Waits for its disk.
    pub(super) fn stop(&self) {
        let mut running = self.running.lock().unwrap_or_else(PoisonError::into_inner);
        self.is_running.store(false, Ordering::Relaxed);
        if let Some(Running {
            stop,
            ended,
            disk,
            pulling,
            scrubbing,
        }) = running.take()
        {
            drop((pulling, scrubbing));
            stop.cancel();
            // The error means that all tasks have ended.
            let _ = ended.recv();
            drop(disk);
        }
    }

    /// Starts the server on its port if it is stopped, with the records of its data directory.
    pub(super) fn start(&self, runtime: &Handle) -> anyhow::Result<()> {
        let mut running = self.running.lock().unwrap_or_else(PoisonError::into_inner);
        if running.is_none() {
            let sockets = Sockets::bind(self.addr, NonZeroUsize::MIN)
                .with_context(|| format!("it cannot have its port {} back", self.addr))?;
            let opened = self.location.open(None)?;
            *running = Some(run(
                opened,
                sockets,
                &self.authentication,
                &self.peers,
                runtime,
            )?);
            self.is_running.store(true, Ordering::Relaxed);
        }
        Ok(())
    }
}

fn run(
    opened: OpenStore,
    sockets: Sockets,
    authentication: &Authentication,
    peers: &Peers,
    runtime: &Handle,
) -> anyhow::Result<Running> {
    let OpenStore {
        store,
        store_id,
        marks_file,
        boot_id,
        disk,
    } = opened;
    let Membership {
        view, replication, ..
    } = &peers.membership;
    let config = ServiceConfig {
        served: Some(Served::of(view.cluster(), *replication, false)),
        store_id: store_id.unwrap_or(boot_id),
        asks_peers_first: peers.repair_rate > 0 && may_be_set_back(&store, boot_id),
        // Loopback carries the longest datagrams.
        datagram_bytes_max: DATAGRAM_BYTES_MAX,
        is_v1_on: authentication.is_v1_on,
        ..ServiceConfig::new(boot_id)
    };
    let membership = Some(peers.membership.clone());
    let mut node = StorageNode::new(sockets, store, config, membership)?;
    let service = Arc::clone(node.service());
    if let Some(file) = &marks_file {
        marks::load(&service, file);
    }
    let mut secret = [0; 32];
    getrandom::fill(&mut secret)?;
    node.set_keys(&authentication.keys, &secret);
    let stop = CancellationToken::new();
    let (alive, ended) = mpsc::channel();
    for worker in node.into_workers() {
        let (stop, alive) = (stop.clone(), alive.clone());
        runtime.spawn(async move {
            if let Err(error) = worker.run(stop).await {
                tracing::error!(%error, "an embedded server could not run");
            }
            drop(alive);
        });
    }
    let pulling = match peers.repair_rate {
        0 => None,
        bytes_per_second => PullThread::start(
            &service,
            PullOptions {
                bytes_per_second,
                keys: Some(authentication.keys.clone()),
                datagram_bytes_max: DATAGRAM_BYTES_MAX,
                offload: true,
                marks_file,
            },
        )
        .context("cannot start a thread that pulls from replicas")?,
    };
    let scrubbing = ScrubThread::start(&service, SCRUB_RATE_DEFAULT)
        .context("cannot start a thread that reads records again")?;
    Ok(Running {
        stop,
        ended,
        disk,
        pulling,
        scrubbing,
    })
}
