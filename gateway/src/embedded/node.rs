//! One embedded server, which can be stopped and started again as a process can.

use std::net::SocketAddr;
use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError, mpsc};

use anyhow::Context;
use dkvs_common::model::Durability;
use dkvs_common::wire::v2::DATAGRAM_BYTES_MAX;
use dkvs_common::wire::v2::keys::Keys;
use dkvs_storage_node::StorageNode;
use dkvs_storage_node::service::Config;
use dkvs_storage_node::store::disk::directory::{self, DataDirectory, Owner};
use dkvs_storage_node::store::disk::{CommitThread, Declaration, Options};
use dkvs_storage_node::store::{MemoryStore, Store};
use dkvs_storage_node::udp::Sockets;
use tokio::runtime::Handle;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::{Prepared, STORE_BYTES_MAX};

/// Whom a server answers.
#[derive(Clone)]
pub(super) struct Doors {
    /// Who proves to have one of these.
    pub(super) keys: watch::Receiver<Keys>,
    /// And whoever speaks DKVS/1, which proves nothing.
    pub(super) is_v1_on: bool,
}

/// Where a server keeps what it holds.
pub(super) enum Home {
    /// In memory, and it is gone when the server stops.
    Memory,
    /// In a data directory of its own.
    Directory {
        path: PathBuf,
        owner: Owner,
        durability: Durability,
        /// What its thread is called.
        thread: String,
    },
}

/// What a server serves from.
pub(super) struct Opened {
    store: Store,
    disk: Option<CommitThread>,
}

impl Home {
    /// What it holds, or an empty store if it keeps nothing.
    pub(super) fn open(&self, declaration: Option<Declaration>) -> anyhow::Result<Opened> {
        let Self::Directory {
            path,
            owner,
            durability,
            thread,
        } = self
        else {
            let store = Store::Memory(MemoryStore::new(STORE_BYTES_MAX));
            return Ok(Opened { store, disk: None });
        };
        let options = Options {
            bytes_max: STORE_BYTES_MAX,
            durability: *durability,
            declaration,
            is_doubtful: false,
            machine_run: directory::machine_run(),
        };
        let (directory, store, committer) = DataDirectory::open(path, owner.clone(), options)?;
        let disk = CommitThread::start(committer, thread.clone(), directory)?;
        Ok(Opened {
            store: Store::Disk(store),
            disk: Some(disk),
        })
    }
}

/// A server that runs or is stopped.
pub(super) struct Node {
    addr: SocketAddr,
    home: Home,
    doors: Doors,
    is_running: AtomicBool,
    /// Held for as long as it takes to stop or start it.
    running: Mutex<Option<Running>>,
}

/// What ends a server that runs.
struct Running {
    stop: CancellationToken,
    /// Nothing ever comes; it is closed once all tasks have ended, and their sockets with them.
    ended: mpsc::Receiver<()>,
    disk: Option<CommitThread>,
}

impl Node {
    /// One that runs from now on, on this runtime.
    pub(super) fn run(
        addr: SocketAddr,
        Prepared {
            sockets,
            home,
            opened,
        }: Prepared,
        doors: Doors,
        runtime: &Handle,
    ) -> anyhow::Result<Self> {
        let running = run(opened, sockets, &doors, runtime)?;
        Ok(Self {
            addr,
            home,
            doors,
            is_running: AtomicBool::new(true),
            running: Mutex::new(Some(running)),
        })
    }

    /// Whether it has not been stopped.
    pub(super) fn is_running(&self) -> bool {
        self.is_running.load(Ordering::Relaxed)
    }

    /// Ends it, if it runs: its port is closed then. Waits for its disk.
    pub(super) fn stop(&self) {
        let mut running = self.running.lock().unwrap_or_else(PoisonError::into_inner);
        self.is_running.store(false, Ordering::Relaxed);
        if let Some(Running { stop, ended, disk }) = running.take() {
            stop.cancel();
            // An error is what says that they have ended.
            let _ = ended.recv();
            drop(disk);
        }
    }

    /// Starts it on its port, if it is stopped, with what its home has kept.
    pub(super) fn start(&self, runtime: &Handle) -> anyhow::Result<()> {
        let mut running = self.running.lock().unwrap_or_else(PoisonError::into_inner);
        if running.is_none() {
            let sockets = Sockets::bind(self.addr, NonZeroUsize::MIN)
                .with_context(|| format!("it cannot have its port {} back", self.addr))?;
            let opened = self.home.open(None)?;
            *running = Some(run(opened, sockets, &self.doors, runtime)?);
            self.is_running.store(true, Ordering::Relaxed);
        }
        Ok(())
    }
}

fn run(
    opened: Opened,
    sockets: Sockets,
    doors: &Doors,
    runtime: &Handle,
) -> anyhow::Result<Running> {
    let Opened { store, disk } = opened;
    let config = Config {
        // Loopback carries the longest there are.
        datagram_bytes_max: DATAGRAM_BYTES_MAX,
        is_v1_on: doors.is_v1_on,
        // With another boot id each time, by which gateways see that it was started anew.
        ..Config::new(getrandom::u64()?)
    };
    let mut node = StorageNode::new(sockets, store, config)?;
    let mut secret = [0; 32];
    getrandom::fill(&mut secret)?;
    node.set_keys(&doors.keys, &secret);
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
    Ok(Running { stop, ended, disk })
}
