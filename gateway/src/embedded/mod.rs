//! The cluster that runs inside the gateway when no servers file is given: real storage servers
//! on real sockets, on loopback ports that the system picks. Each can be stopped and started again
//! by a [`ServerSwitch`].
//!
//! Every program of the machine reaches those ports. So the servers answer only requests that prove
//! knowledge of a key, which is made at the start and stays in this process unless a key file is given.
//!
//! * `options`: which servers there are to be
//! * `sockets`: the ports of new servers
//! * `node`: one server
//! * `directory`: servers that outlast the process
//!
//! Nothing else in the gateway names the storage server's package.

mod directory;
mod node;
mod options;
mod sockets;

use std::num::NonZeroU8;
use std::sync::Arc;
use std::thread::{self, JoinHandle};

use anyhow::Context as _;
use dkvs_common::cluster::{Cluster, Server, ServerId};
use dkvs_common::server_map::ServerMap;
use dkvs_common::view::ClusterView;
use dkvs_common::wire::v2::envelope::ClusterKey;
use dkvs_common::wire::v2::keys::Keys;
use tokio::runtime::Handle;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

pub use dkvs_storage_node::LOG_MODULES as STORAGE_LOG_MODULES;
use dkvs_storage_node::leaves::Membership;
pub(crate) use node::EMBEDDED_SERVER_BYTES_MAX;
use node::{Authentication, Node, Peers, PreparedServer, StorageLocation};
pub use options::{Declaration, DeclarationChoice, DurabilityChoice, EmbeddedOptions};
use sockets::{bind_any, cluster_of};

/// What each pulls a second at most of what the others have and it lacks, in bytes.
const REPAIR_BYTES_PER_SECOND: u64 = 8 << 20;

/// Storage servers in this process. They end when the value is dropped.
pub struct EmbeddedCluster {
    cluster: Cluster,
    nodes: Arc<Nodes>,
    keys: watch::Receiver<Keys>,
    /// Ends the thread that all of them run on.
    shutdown: CancellationToken,
    thread: Option<JoinHandle<()>>,
}

struct Nodes {
    /// In the order of the cluster.
    map: ServerMap<Node>,
    runtime: Handle,
}

impl EmbeddedCluster {
    /// How many servers would be started, found out without opening anything.
    ///
    /// # Errors
    ///
    /// If they certainly would not start.
    pub fn check(embedded: &EmbeddedOptions) -> anyhow::Result<usize> {
        let found = match &embedded.data_dir {
            Some(path) => directory::check(path, embedded)
                .with_context(|| format!("cannot use the data directory {}", path.display()))?,
            None => None,
        };
        let wanted = embedded.servers_or_default();
        Ok(found.unwrap_or_else(|| wanted.get().into()))
    }

    /// Starts the servers, all on one thread of their own. They answer requests that one of these
    /// keys proves, as the keys change; without keys they get a new one.
    pub fn start(
        embedded: &EmbeddedOptions,
        keys: Option<watch::Receiver<Keys>>,
    ) -> anyhow::Result<Self> {
        let keys = keys.map_or_else(new_key, Ok)?;
        let (cluster, prepared) = match &embedded.data_dir {
            None => in_memory(embedded)?,
            Some(path) => directory::prepare(path, embedded)
                .with_context(|| format!("cannot use the data directory {}", path.display()))?,
        };
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .context("cannot start a runtime for the embedded servers")?;
        let handle = runtime.handle().clone();
        let authentication = Authentication {
            keys: keys.clone(),
            is_v1_on: embedded.is_v1_on,
        };
        let view = Arc::new(ClusterView::first(cluster.clone()));
        let replication = embedded.replication(cluster.servers().len());
        let run = |((id, server), prepared): ((ServerId, Server), PreparedServer)| {
            let authentication = authentication.clone();
            let peers = Peers {
                membership: Membership {
                    view: Arc::clone(&view),
                    own: id,
                    replication,
                },
                repair_rate: REPAIR_BYTES_PER_SECOND,
            };
            let node = Node::run(server.addr.into(), prepared, authentication, peers, &handle)?;
            anyhow::Ok((id, node))
        };
        let nodes = cluster.iter().zip(prepared).map(run);
        let nodes = nodes.collect::<Result<_, _>>()?;
        let shutdown = CancellationToken::new();
        let ended = shutdown.clone().cancelled_owned();
        let thread = thread::Builder::new()
            .name("embedded".into())
            .spawn(move || runtime.block_on(ended))
            .context("cannot start a thread for the embedded servers")?;
        Ok(Self {
            cluster,
            nodes: Arc::new(Nodes {
                map: nodes,
                runtime: handle,
            }),
            keys,
            shutdown,
            thread: Some(thread),
        })
    }

    /// The servers.
    pub fn cluster(&self) -> &Cluster {
        &self.cluster
    }

    /// The keys that prove requests to them.
    pub fn keys(&self) -> watch::Receiver<Keys> {
        self.keys.clone()
    }

    /// A handle that stops and starts single servers.
    pub fn switch(&self) -> ServerSwitch {
        ServerSwitch(Arc::clone(&self.nodes))
    }
}

impl Drop for EmbeddedCluster {
    fn drop(&mut self) {
        for (_, node) in self.nodes.map.iter() {
            node.stop();
        }
        self.shutdown.cancel();
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!("the embedded servers panicked");
        }
    }
}

/// Stops and starts the servers of an embedded cluster one by one, to show how the cluster does
/// without them.
#[derive(Clone)]
pub struct ServerSwitch(Arc<Nodes>);

impl ServerSwitch {
    /// Whether a server has not been stopped.
    pub fn is_running(&self, server: ServerId) -> bool {
        self.0.map.get(server).is_some_and(Node::is_running)
    }

    /// Ends a server as if its process had ended: its port is closed, and what it had only in memory
    /// is gone. Blocks until it has ended.
    pub fn stop(&self, server: ServerId) {
        if let Some(node) = self.0.map.get(server) {
            node.stop();
        }
    }

    /// Starts a stopped server at the same port, with the records of its data directory if it has
    /// one. Blocks until it takes datagrams.
    ///
    /// # Errors
    ///
    /// If another process has its port, or the data directory cannot be opened. The server then
    /// stays stopped.
    pub fn start(&self, server: ServerId) -> anyhow::Result<()> {
        let node = self.0.map.get(server);
        node.context("no such server")?.start(&self.0.runtime)
    }
}

fn in_memory(embedded: &EmbeddedOptions) -> anyhow::Result<(Cluster, Vec<PreparedServer>)> {
    let sockets = bind_any(embedded.servers_or_default())?;
    let cluster = cluster_of(&sockets)?;
    let prepare = |sockets| {
        let location = StorageLocation::Memory;
        let opened = location.open(None)?;
        Ok(PreparedServer {
            sockets,
            location,
            opened,
        })
    };
    let prepared = sockets.into_iter().map(prepare);
    Ok((cluster, prepared.collect::<anyhow::Result<_>>()?))
}

/// A new key, known to this process alone, which never changes.
fn new_key() -> anyhow::Result<watch::Receiver<Keys>> {
    let mut key = [0; 32];
    getrandom::fill(&mut key).context("the system has no random bytes")?;
    let keys = Keys::of_one(NonZeroU8::MIN, ClusterKey::new(&key));
    Ok(watch::channel(keys).1)
}
