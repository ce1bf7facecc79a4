//! Ports that may still get a late reply.
//!
//! DKVS/1 has no request ids. A socket that was closed while a server owed it a reply leaves a
//! port at which that reply may arrive any time later; if the system gave the port to a new
//! socket towards the same server, the late reply would be taken for another request's. So such
//! ports are burned for that server.

use std::collections::HashSet;
use std::sync::{Mutex, MutexGuard, PoisonError};

use dkvs_common::cluster::ServerId;

/// Most ports burned for one server in one generation. Two generations are kept, so a port stays
/// burned until between one and two times as many others have been burned after it. It is well
/// below the 28,232 ports that Linux hands out by default, so that a free one is soon found.
const PORTS_PER_GENERATION: usize = 8_192;

/// For each server, the ports not to be used towards it.
pub struct BurnedPorts {
    servers: Vec<Mutex<Generations>>,
}

#[derive(Default)]
struct Generations {
    young: HashSet<u16>,
    old: HashSet<u16>,
}

impl BurnedPorts {
    /// None burned, for `servers` servers.
    pub fn new(servers: usize) -> Self {
        Self {
            servers: (0..servers).map(|_| Mutex::default()).collect(),
        }
    }

    /// From now on, `port` may get a late reply from `server`.
    pub fn burn(&self, server: ServerId, port: u16) {
        let mut generations = self.generations(server);
        if generations.young.len() == PORTS_PER_GENERATION {
            generations.old = std::mem::take(&mut generations.young);
        }
        generations.young.insert(port);
    }

    /// Whether `port` may get a late reply from `server`.
    pub fn is_burned(&self, server: ServerId, port: u16) -> bool {
        let generations = self.generations(server);
        generations.young.contains(&port) || generations.old.contains(&port)
    }

    fn generations(&self, server: ServerId) -> MutexGuard<'_, Generations> {
        let generations = self.servers[server.index()].lock();
        generations.unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_port_is_burned_for_its_server_alone_and_for_a_generation_at_least() {
        let ports = BurnedPorts::new(2);
        let (one, other) = (ServerId(0), ServerId(1));
        ports.burn(one, 7);
        for port in 0..PORTS_PER_GENERATION {
            ports.burn(one, 10_000 + port as u16);
            assert!(ports.is_burned(one, 7));
        }
        assert!(!ports.is_burned(other, 7));
        for port in 0..PORTS_PER_GENERATION {
            ports.burn(one, 20_000 + port as u16);
        }
        assert!(!ports.is_burned(one, 7));
    }
}
