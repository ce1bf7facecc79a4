//! The sockets of new servers, and the cluster that they make.

use std::net::{Ipv4Addr, SocketAddr};
use std::num::{NonZeroU8, NonZeroUsize};

use anyhow::{Context as _, anyhow};
use dkvs_common::cluster::{Cluster, Server};
use dkvs_storage_node::udp::Sockets;

/// Ring points of each server.
const RING_POINTS: u32 = 64;

/// Sockets for so many servers, on loopback ports that the system picks.
pub(super) fn bind_any(servers: NonZeroU8) -> anyhow::Result<Vec<Sockets>> {
    let addr = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
    let bind = |_| Sockets::bind(addr, NonZeroUsize::MIN);
    let sockets = (0..servers.get()).map(bind).collect::<Result<_, _>>();
    sockets.context("cannot start the embedded servers")
}

/// The cluster of the servers at these sockets.
pub(super) fn cluster_of(sockets: &[Sockets]) -> anyhow::Result<Cluster> {
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
