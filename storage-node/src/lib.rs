//! The dkvs storage server: keeps key-value pairs and answers datagrams.
//!
//! ```text
//!   udp --> protocol --> handlers --> store
//!    '----> maintenance --------------^
//! ```
//!
//! * [`store`]: the pairs, bounded in memory, and on a disk if they are to last
//! * `handlers`: what a replica does for each command
//! * [`protocol`]: datagrams to commands, responses to datagrams; [`service`]: both together
//! * [`maintenance`]: background work of each worker
//! * [`leaves`], [`anti_entropy`]: what is held, as sums; and pulling what peers have that is newer; `nudges`: what
//!   others say of who lacks what; [`high_water`]: how far they have come
//! * [`scrub`]: reading again what lies on the disk, before anybody asks for it
//! * [`udp`]: sockets, and the workers that drive the rest
//! * [`statistics`], [`metrics`]: the numbers that a server reports of itself, for Prometheus, too
//! * [`cli`]: the `dkvs-storage-node` program
//!
//! A [`StorageNode`] is the whole server as a value: the program runs one, and the gateway's
//! embedded cluster runs several in one process, through the same sockets.

#![cfg_attr(
    test,
    expect(clippy::unwrap_used, reason = "a test fails by panicking")
)]

mod allowance;
pub mod anti_entropy;
pub mod cli;
mod config;
mod handlers;
pub mod high_water;
pub mod leaves;
pub mod maintenance;
pub mod metrics;
mod nudges;
mod peer;
pub mod protocol;
pub mod scrub;
pub mod service;
pub mod statistics;
pub mod store;
mod turns;
pub mod udp;

/// The modules of this package that log something.
pub const LOG_MODULES: &[&str] = &[
    "dkvs_storage_node::anti_entropy::machine",
    "dkvs_storage_node::anti_entropy::marking",
    "dkvs_storage_node::anti_entropy::task",
    "dkvs_storage_node::cli::disk",
    "dkvs_storage_node::cli::run",
    "dkvs_storage_node::cli::settings",
    "dkvs_storage_node::handlers::list::page",
    "dkvs_storage_node::handlers::outcome",
    "dkvs_storage_node::handlers::stage",
    "dkvs_storage_node::high_water::file",
    "dkvs_storage_node::protocol::dump",
    "dkvs_storage_node::protocol::v1",
    "dkvs_storage_node::protocol::v2",
    "dkvs_storage_node::scrub::task",
    "dkvs_storage_node::store::disk::backup",
    "dkvs_storage_node::store::disk::committer",
    "dkvs_storage_node::store::disk::convert",
    "dkvs_storage_node::store::disk::directory",
    "dkvs_storage_node::store::disk::scrub",
    "dkvs_storage_node::store::disk::store",
    "dkvs_storage_node::store::disk::thread",
    "dkvs_storage_node::udp",
    "dkvs_storage_node::udp::send",
];

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use dkvs_common::wire::v2::keys::Keys;
use dkvs_common::wire::v2::session::SessionSecret;
use leaves::Membership;
use protocol::Issuer;
use service::{Service, ServiceConfig};
use store::Store;
use tokio::sync::watch;
use udp::{KeySource, Sockets, Worker};

/// A storage server that has its sockets and waits to be run.
pub struct StorageNode {
    local_addr: SocketAddr,
    service: Arc<Service>,
    workers: Vec<Worker>,
}

impl StorageNode {
    /// A server over one store, with a worker for each socket; as a member of its cluster, if it knows
    /// that.
    pub fn new(
        sockets: Sockets,
        store: Store,
        config: ServiceConfig,
        membership: Option<Membership>,
    ) -> io::Result<Self> {
        let service = Arc::new(Service::of_member(store, config, membership));
        let local_addr = sockets.local_addr()?;
        let sockets = sockets.into_inner();
        let worker = |socket| Worker::new(socket, Arc::clone(&service));
        Ok(Self {
            local_addr,
            workers: sockets.into_iter().map(worker).collect(),
            service,
        })
    }

    /// From now on answers only DKVS/2 that is authenticated by one of these keys, as they are at
    /// the time, and DKVS/1 if that is on. Sessions are proved by `secret`, which has to be random
    /// and another one after every start.
    pub fn set_keys(&mut self, keys: &watch::Receiver<Keys>, secret: &[u8; 32]) {
        let issuer = Arc::new(Issuer::new(SessionSecret::new(secret)));
        for worker in &mut self.workers {
            worker.set_keys(KeySource {
                keys: keys.clone(),
                issuer: Arc::clone(&issuer),
            });
        }
    }

    /// Whether to receive and send several datagrams with one system call, where the system can. It
    /// does by default.
    pub fn set_offload(&mut self, is_on: bool) {
        for worker in &mut self.workers {
            worker.set_offload(is_on);
        }
    }

    /// Where it takes datagrams.
    pub fn local_addr(&self) -> SocketAddr {
        self.local_addr
    }

    /// The request handling that all workers share.
    pub fn service(&self) -> &Arc<Service> {
        &self.service
    }

    /// The workers, each to be run on a runtime of its own or together on one.
    pub fn into_workers(self) -> Vec<Worker> {
        self.workers
    }
}
