//! The cluster that runs inside the gateway when no servers file is given: real storage servers
//! on real sockets, on loopback ports that the system picks.
//!
//! With a data directory they outlast the process, on the same ports, so that the ring stays what
//! it was:
//!
//! ```text
//!   DIR/servers.txt    the servers file of the cluster
//!   DIR/server-1/      the data directory of the first, and so on
//! ```

use std::fs::{self, File};
use std::io::{self, Write};
use std::net::{Ipv4Addr, SocketAddr};
use std::num::{NonZeroU8, NonZeroUsize};
use std::path::{Path, PathBuf};
use std::thread::{self, JoinHandle};

use anyhow::{Context, anyhow, ensure};
use dkvs_common::cluster::{Cluster, Server};
use dkvs_common::ring::Ring;
use dkvs_common::wire::v2::DATAGRAM_BYTES_MAX;
use dkvs_storage_node::StorageNode;
use dkvs_storage_node::service::Config;
use dkvs_storage_node::store::disk::directory::{self, DataDirectory, Owner};
use dkvs_storage_node::store::disk::{CommitThread, Declaration, Options};
use dkvs_storage_node::store::{MemoryStore, Store};
use dkvs_storage_node::udp::Sockets;
use tokio_util::sync::CancellationToken;

use crate::config::Embedded;

/// Ring points of each server.
pub const RING_POINTS: u32 = 64;

/// How many servers there are unless something else is said.
pub const SERVERS_DEFAULT: NonZeroU8 = NonZeroU8::new(5).unwrap();

/// Most memory for each server's pairs, in bytes.
pub const STORE_BYTES_MAX: usize = 256 << 20;

const SERVERS_FILE: &str = "servers.txt";

/// The servers file's name until all data directories are there.
const SERVERS_FILE_NEW: &str = "servers.new";

/// Storage servers in this process. They end when the value is dropped.
pub struct EmbeddedCluster {
    cluster: Cluster,
    shutdown: CancellationToken,
    thread: Option<JoinHandle<()>>,
    /// Dropped after the servers have ended, and in good order then.
    _disks: Vec<CommitThread>,
}

impl EmbeddedCluster {
    /// Starts the servers, all on one thread of their own.
    pub fn start(embedded: &Embedded) -> anyhow::Result<Self> {
        let (cluster, nodes, disks) = match &embedded.data_dir {
            None => {
                let sockets = bind_any(embedded.servers.unwrap_or(SERVERS_DEFAULT))?;
                let cluster = cluster_of(&sockets)?;
                let store = || Store::Memory(MemoryStore::new(STORE_BYTES_MAX));
                let nodes = sockets.into_iter().map(|sockets| node(sockets, store()));
                (cluster, nodes.collect::<Result<_, _>>()?, Vec::new())
            }
            Some(path) => on_disk(path, embedded)
                .with_context(|| format!("cannot use the data directory {}", path.display()))?,
        };
        let shutdown = CancellationToken::new();
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .context("cannot start a runtime for the embedded servers")?;
        let stop = shutdown.clone();
        let run = move || {
            let workers = nodes.into_iter().flat_map(StorageNode::into_workers);
            let workers: Vec<_> = workers.map(|worker| worker.run(stop.clone())).collect();
            for ended in runtime.block_on(futures_util::future::join_all(workers)) {
                if let Err(error) = ended {
                    tracing::error!(%error, "an embedded server could not run");
                }
            }
        };
        let thread = thread::Builder::new()
            .name("embedded".into())
            .spawn(run)
            .context("cannot start a thread for the embedded servers")?;
        Ok(Self {
            cluster,
            shutdown,
            thread: Some(thread),
            _disks: disks,
        })
    }

    /// The servers.
    pub fn cluster(&self) -> &Cluster {
        &self.cluster
    }
}

impl Drop for EmbeddedCluster {
    fn drop(&mut self) {
        self.shutdown.cancel();
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!("the embedded servers panicked");
        }
    }
}

type Nodes = (Cluster, Vec<StorageNode>, Vec<CommitThread>);

/// The servers whose data directories are in one directory, or new ones.
fn on_disk(path: &Path, embedded: &Embedded) -> anyhow::Result<Nodes> {
    fs::create_dir_all(path)?;
    let servers_file = path.join(SERVERS_FILE);
    match fs::read(&servers_file) {
        Ok(text) => start_again(path, &text, embedded),
        Err(error) if error.kind() == io::ErrorKind::NotFound => start_new(path, embedded),
        Err(error) => Err(error).with_context(|| format!("cannot read {}", servers_file.display())),
    }
}

fn start_new(path: &Path, embedded: &Embedded) -> anyhow::Result<Nodes> {
    let (new, servers_file) = (path.join(SERVERS_FILE_NEW), path.join(SERVERS_FILE));
    let is_left_over = new.exists();
    for number in 1..=u8::MAX {
        let directory = server_directory(path, number);
        if !directory.exists() {
            continue;
        }
        ensure!(
            is_left_over,
            "there is {} and no {SERVERS_FILE} that says on which ports the servers were; put it \
             back, or give an empty directory",
            directory.display()
        );
        // A first start that did not come to its end: nobody was ever served from here.
        fs::remove_dir_all(&directory)?;
    }
    let sockets = bind_any(embedded.servers.unwrap_or(SERVERS_DEFAULT))?;
    let cluster = cluster_of(&sockets)?;
    let mut text = String::from("# The servers that run inside the gateway.\n");
    for server in cluster.servers() {
        let (ip, port) = (server.addr.ip(), server.addr.port());
        text += &format!("{ip} {port} {}\n", server.ring_points);
    }
    let mut file = File::create(&new)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()?;
    let nodes = open_all(path, cluster, sockets, embedded, |_| Some(Declaration::New))?;
    fs::rename(&new, &servers_file)?;
    File::open(path)?.sync_all()?;
    Ok(nodes)
}

fn start_again(path: &Path, text: &[u8], embedded: &Embedded) -> anyhow::Result<Nodes> {
    let cluster = Cluster::parse(&path.join(SERVERS_FILE).display().to_string(), text)?;
    let servers = cluster.servers();
    if let Some(wanted) = embedded.servers {
        ensure!(
            usize::from(wanted.get()) == servers.len(),
            "it has {} servers, and `embedded` is {wanted}; leave that out, or give another \
             directory",
            servers.len()
        );
    }
    let bind = |server: &Server| {
        Sockets::bind(server.addr.into(), NonZeroUsize::MIN).with_context(|| {
            format!(
                "the servers in it were on {} and have to be there again; is another gateway \
                 running?",
                server.addr
            )
        })
    };
    let sockets = servers.iter().map(bind).collect::<Result<Vec<_>, _>>()?;
    open_all(path, cluster, sockets, embedded, |directory| {
        let is_there = DataDirectory::is_one(directory);
        if !is_there {
            tracing::warn!(
                path = %directory.display(),
                "the directory of a server is gone: it begins without records, and answers for no \
                 key until the other servers told it what they hold"
            );
        }
        (!is_there).then_some(Declaration::Incomplete)
    })
}

fn open_all(
    path: &Path,
    cluster: Cluster,
    sockets: Vec<Sockets>,
    embedded: &Embedded,
    declaration: impl Fn(&Path) -> Option<Declaration>,
) -> anyhow::Result<Nodes> {
    let ring = Ring::new(&cluster).epoch();
    let (mut nodes, mut disks) = (Vec::new(), Vec::new());
    let mut is_declared = embedded.declaration.is_none();
    for ((number, server), sockets) in (1..).zip(cluster.servers()).zip(sockets) {
        let directory = server_directory(path, number);
        let options = Options {
            bytes_max: STORE_BYTES_MAX,
            durability: embedded.durability,
            declaration: declaration(&directory),
            is_doubtful: false,
            machine_run: directory::machine_run(),
        };
        let owner = Owner {
            server: server.addr,
            ring: Some(ring),
        };
        let opened = DataDirectory::open(&directory, owner, options);
        let (directory, store, committer) = match (opened, embedded.declaration) {
            (Err(error), Some(declaration)) => {
                tracing::warn!(%error, "declared {declaration:?}, and started");
                is_declared = true;
                let options = Options {
                    declaration: Some(declaration),
                    ..options
                };
                DataDirectory::open(&directory, owner, options)?
            }
            (opened, _) => opened?,
        };
        let name = format!("storage-{number}");
        disks.push(CommitThread::start(committer, name, directory)?);
        nodes.push(node(sockets, Store::Disk(store))?);
    }
    ensure!(
        is_declared,
        "there is nothing to declare; start without --declare"
    );
    Ok((cluster, nodes, disks))
}

fn server_directory(path: &Path, number: u8) -> PathBuf {
    path.join(format!("server-{number}"))
}

/// Sockets for so many servers, on ports that the system picks.
fn bind_any(servers: NonZeroU8) -> anyhow::Result<Vec<Sockets>> {
    let addr = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
    let bind = |_| Sockets::bind(addr, NonZeroUsize::MIN);
    let sockets = (0..servers.get()).map(bind).collect::<Result<_, _>>();
    sockets.context("cannot start the embedded servers")
}

fn cluster_of(sockets: &[Sockets]) -> anyhow::Result<Cluster> {
    let server = |sockets: &Sockets| match sockets.local_addr()? {
        SocketAddr::V4(addr) => Ok(Server {
            addr,
            ring_points: RING_POINTS,
        }),
        SocketAddr::V6(addr) => Err(anyhow!("an IPv4 socket is bound to {addr}")),
    };
    let listed = sockets.iter().map(server).collect::<Result<Vec<_>, _>>()?;
    Ok(Cluster::from_servers(&listed)?)
}

fn node(sockets: Sockets, store: Store) -> anyhow::Result<StorageNode> {
    let config = Config {
        // Loopback carries the longest there are.
        datagram_bytes_max: DATAGRAM_BYTES_MAX,
        ..Config::new(getrandom::u64()?)
    };
    Ok(StorageNode::new(sockets, store, config)?)
}
