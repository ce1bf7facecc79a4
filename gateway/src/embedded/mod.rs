//! The cluster that runs inside the gateway when no servers file is given: real storage servers
//! on real sockets, on loopback ports that the system picks. Each can be stopped and started again
//! by a [`Switch`].
//!
//! Every program of the machine reaches those ports. So the servers answer only what a key proves,
//! which is made at the start and is in this process alone unless a key file is given.
//!
//! * `node`: one of them
//! * `directory`: those that outlast the process

mod directory;
mod node;

use std::net::{Ipv4Addr, SocketAddr};
use std::num::{NonZeroU8, NonZeroUsize};
use std::sync::Arc;
use std::thread::{self, JoinHandle};

use anyhow::{Context, anyhow};
use dkvs_common::cluster::{Cluster, Server, ServerId};
use dkvs_common::server_map::ServerMap;
use dkvs_common::wire::v2::envelope::ClusterKey;
use dkvs_common::wire::v2::keys::Keys;
use dkvs_storage_node::udp::Sockets;
use node::{Doors, Home, Node, Opened};
use tokio::runtime::Handle;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::config::Embedded;

/// Ring points of each server.
pub const RING_POINTS: u32 = 64;

/// How many servers there are unless something else is said.
pub const SERVERS_DEFAULT: NonZeroU8 = NonZeroU8::new(5).unwrap();

/// Most memory for each server's pairs, in bytes.
pub const STORE_BYTES_MAX: usize = 256 << 20;

/// Storage servers in this process. They end when the value is dropped.
pub struct EmbeddedCluster {
    cluster: Cluster,
    servers: Arc<Servers>,
    keys: watch::Receiver<Keys>,
    /// Ends the thread that all of them run on.
    shutdown: CancellationToken,
    thread: Option<JoinHandle<()>>,
}

struct Servers {
    /// In the cluster's order.
    nodes: ServerMap<Node>,
    runtime: Handle,
}

/// What a server needs in order to run.
struct Prepared {
    sockets: Sockets,
    home: Home,
    opened: Opened,
}

impl EmbeddedCluster {
    /// How many servers would be started, as far as nothing has to be opened for that. Fails if they
    /// certainly would not be.
    pub fn check(embedded: &Embedded) -> anyhow::Result<usize> {
        let found = match &embedded.data_dir {
            Some(path) => directory::check(path, embedded)
                .with_context(|| format!("cannot use the data directory {}", path.display()))?,
            None => None,
        };
        let wanted = embedded.servers.unwrap_or(SERVERS_DEFAULT);
        Ok(found.unwrap_or_else(|| wanted.get().into()))
    }

    /// Starts the servers, all on one thread of their own. They answer what one of these keys
    /// proves, whichever there are at the time; if none are given, what a new one does.
    pub fn start(embedded: &Embedded, keys: Option<watch::Receiver<Keys>>) -> anyhow::Result<Self> {
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
        let doors = Doors {
            keys: keys.clone(),
            is_v1_on: embedded.is_v1_on,
        };
        let run = |((id, server), prepared): ((ServerId, Server), Prepared)| {
            let node = Node::run(server.addr.into(), prepared, doors.clone(), &handle)?;
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
            servers: Arc::new(Servers {
                nodes,
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

    /// The keys by which they are asked.
    pub fn keys(&self) -> watch::Receiver<Keys> {
        self.keys.clone()
    }

    /// What stops and starts them.
    pub fn switch(&self) -> Switch {
        Switch(Arc::clone(&self.servers))
    }
}

impl Drop for EmbeddedCluster {
    fn drop(&mut self) {
        for (_, node) in self.servers.nodes.iter() {
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

/// Stops and starts the servers of an embedded cluster one by one, to be seen doing without.
#[derive(Clone)]
pub struct Switch(Arc<Servers>);

impl Switch {
    /// Whether a server has not been stopped.
    pub fn is_running(&self, server: ServerId) -> bool {
        self.0.nodes.get(server).is_some_and(Node::is_running)
    }

    /// Ends a server as if its process did: nothing listens at its port then, and what it had in
    /// memory alone is gone. Blocks until it has ended.
    pub fn stop(&self, server: ServerId) {
        if let Some(node) = self.0.nodes.get(server) {
            node.stop();
        }
    }

    /// Starts a server that was stopped, at the same port, with what its data directory holds if
    /// it has one. Blocks until it takes datagrams.
    ///
    /// # Errors
    ///
    /// If somebody else has its port, or the data directory cannot be opened. It is stopped then,
    /// as before.
    pub fn start(&self, server: ServerId) -> anyhow::Result<()> {
        let node = self.0.nodes.get(server);
        node.context("no such server")?.start(&self.0.runtime)
    }
}

fn in_memory(embedded: &Embedded) -> anyhow::Result<(Cluster, Vec<Prepared>)> {
    let sockets = bind_any(embedded.servers.unwrap_or(SERVERS_DEFAULT))?;
    let cluster = cluster_of(&sockets)?;
    let prepare = |sockets| {
        let home = Home::Memory;
        let opened = home.open(None)?;
        Ok(Prepared {
            sockets,
            home,
            opened,
        })
    };
    let prepared = sockets.into_iter().map(prepare);
    Ok((cluster, prepared.collect::<anyhow::Result<_>>()?))
}

/// A key that nobody else has. It stays as it is.
fn new_key() -> anyhow::Result<watch::Receiver<Keys>> {
    let mut key = [0; 32];
    getrandom::fill(&mut key).context("the system has no random bytes")?;
    let keys = Keys::of_one(NonZeroU8::MIN, ClusterKey::new(&key));
    Ok(watch::channel(keys).1)
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
