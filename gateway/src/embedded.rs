//! The cluster that runs inside the gateway when no servers file is given: real storage servers
//! on real sockets, on loopback ports that the system picks, in memory.

use std::net::{Ipv4Addr, SocketAddr};
use std::num::{NonZeroU8, NonZeroUsize};
use std::thread::{self, JoinHandle};

use anyhow::{Context, anyhow};
use dkvs_common::cluster::{Cluster, Server};
use dkvs_common::wire::v2::DATAGRAM_BYTES_MAX;
use dkvs_storage_node::StorageNode;
use dkvs_storage_node::service::Config;
use dkvs_storage_node::store::{MemoryStore, Store};
use tokio_util::sync::CancellationToken;

/// Ring points of each server.
pub const RING_POINTS: u32 = 64;

/// Most memory for each server's pairs, in bytes.
pub const STORE_BYTES_MAX: usize = 256 << 20;

/// Storage servers in this process. They end when the value is dropped.
pub struct EmbeddedCluster {
    cluster: Cluster,
    shutdown: CancellationToken,
    thread: Option<JoinHandle<()>>,
}

impl EmbeddedCluster {
    /// Starts `servers` servers, all on one thread of their own.
    pub fn start(servers: NonZeroU8) -> anyhow::Result<Self> {
        let addr = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
        let start = || -> anyhow::Result<StorageNode> {
            let config = Config {
                // Loopback carries the longest there are.
                datagram_bytes_max: DATAGRAM_BYTES_MAX,
                ..Config::new(getrandom::u64()?)
            };
            let store = Store::Memory(MemoryStore::new(STORE_BYTES_MAX));
            Ok(StorageNode::bind(addr, NonZeroUsize::MIN, store, config)?)
        };
        let nodes: Vec<StorageNode> = (0..servers.get())
            .map(|_| start())
            .collect::<Result<_, _>>()
            .context("cannot start the embedded servers")?;
        let server = |node: &StorageNode| match node.local_addr() {
            SocketAddr::V4(addr) => Ok(Server {
                addr,
                ring_points: RING_POINTS,
            }),
            SocketAddr::V6(addr) => Err(anyhow!("an IPv4 socket is bound to {addr}")),
        };
        let listed = nodes.iter().map(server).collect::<Result<Vec<_>, _>>()?;
        let cluster = Cluster::from_servers(&listed)?;

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
