//! Ports to which a late reply by DKVS/1 may still come.
//!
//! DKVS/1 has no request ids. A socket that is closed while a server owes it a reply leaves a port
//! to which that reply may come at any later time: a server that was stopped for an hour then
//! answers the requests from before. If the system assigned the port to a new socket towards the
//! same server, the late reply would be taken for that of another request. So such a port is burned:
//! not used towards that server until it has answered a request that was sent later.
//!
//! A server that owes too many replies gets one request a second, until it answers.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::{Duration, Instant};

use dkvs_common::cluster::ServerId;
use dkvs_common::server_map::ServerMap;

/// With this many burned ports, a server gets one request in [`TRICKLE_INTERVAL`]. It is well below
/// the 28,232 ports that Linux assigns by default, so that a free one is soon found.
const PORTS_MAX: usize = 16_384;

/// Most burned ports remembered for one server: [`PORTS_MAX`], and an hour of one a second.
const PORTS_KEPT_MAX: usize = 20_000;

/// The time between two requests to a server that owes too many replies.
const TRICKLE_INTERVAL: Duration = Duration::from_secs(1);

/// How much replies may be out of order: a server may have several threads, and the network several
/// paths.
const REORDERING: Duration = Duration::from_secs(1);

/// The burned ports of every server.
#[derive(Default)]
pub(super) struct BurnedPorts {
    servers: RwLock<ServerMap<Arc<Mutex<ServerPorts>>>>,
}

/// The burned ports of one server.
#[derive(Default)]
struct ServerPorts {
    /// By port, when the request was sent whose reply may still come.
    sent_at: HashMap<u16, Instant>,
    /// The same ports, the first burned first.
    order: VecDeque<u16>,
    answered: Option<AnsweredRequest>,
    /// When a request was last admitted to a server that owes too many replies.
    last_trickle: Option<Instant>,
}

/// A request that the server has answered.
#[derive(Clone, Copy)]
struct AnsweredRequest {
    sent_at: Instant,
    answered_at: Instant,
}

impl BurnedPorts {
    /// Burns `port`: `server` may still answer a request that was sent at `sent_at`.
    pub(super) fn burn(&self, server: ServerId, port: u16, sent_at: Instant) {
        self.with_ports(server, |ports| ports.burn(port, sent_at));
    }

    /// At `now`, `server` has answered a request that was sent at `sent_at`.
    pub(super) fn answered(&self, server: ServerId, sent_at: Instant, now: Instant) {
        self.with_ports(server, |ports| ports.answered(sent_at, now));
    }

    /// Whether a request may be sent to `server` on a new socket. If the server owes too many
    /// replies, this is true once a second.
    pub(super) fn admits(&self, server: ServerId, now: Instant) -> bool {
        self.with_ports(server, |ports| ports.admits(now))
    }

    /// Whether a late reply from `server` may come to `port`.
    pub(super) fn is_burned(&self, server: ServerId, port: u16) -> bool {
        self.with_ports(server, |ports| ports.sent_at.contains_key(&port))
    }

    fn with_ports<R>(&self, server: ServerId, work: impl FnOnce(&mut ServerPorts) -> R) -> R {
        let servers = self.servers.read().unwrap_or_else(PoisonError::into_inner);
        let known = servers.get(server).map(Arc::clone);
        drop(servers);
        let ports = known.unwrap_or_else(|| {
            let servers = self.servers.write();
            let mut servers = servers.unwrap_or_else(PoisonError::into_inner);
            Arc::clone(servers.get_or_insert_with(server, Arc::default))
        });
        work(&mut ports.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl ServerPorts {
    fn burn(&mut self, port: u16, sent_at: Instant) {
        if self.sent_at.insert(port, sent_at).is_none() {
            self.order.push_back(port);
        }
        while self.order.len() > PORTS_KEPT_MAX
            && let Some(oldest) = self.order.pop_front()
        {
            self.sent_at.remove(&oldest);
        }
    }

    fn answered(&mut self, sent_at: Instant, now: Instant) {
        if !self.sent_at.is_empty() {
            self.release(now);
            // Only the first answer counts: each later one would postpone the release.
            self.answered.get_or_insert(AnsweredRequest {
                sent_at,
                answered_at: now,
            });
        }
    }

    fn admits(&mut self, now: Instant) -> bool {
        self.release(now);
        if self.sent_at.len() < PORTS_MAX {
            return true;
        }
        let is_over = |last: Instant| now >= last + TRICKLE_INTERVAL;
        let is_admitted = self.last_trickle.is_none_or(is_over);
        if is_admitted {
            self.last_trickle = Some(now);
        }
        is_admitted
    }

    /// Releases the ports of requests that were sent well before one that was answered a while ago.
    fn release(&mut self, now: Instant) {
        if let Some(request) = self.answered
            && now >= request.answered_at + REORDERING
        {
            self.answered = None;
            self.sent_at
                .retain(|_, sent_at| *sent_at + REORDERING > request.sent_at);
            self.order.retain(|port| self.sent_at.contains_key(port));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ONE: ServerId = ServerId(0);
    const OTHER: ServerId = ServerId(1);

    #[test]
    fn a_port_is_burned_for_its_server_until_a_later_request_was_answered() {
        let ports = BurnedPorts::default();
        let sent_at = Instant::now();
        ports.burn(ONE, 7, sent_at);
        assert!(ports.is_burned(ONE, 7));
        assert!(!ports.is_burned(OTHER, 7));

        // The answer to a request of the same time proves nothing about this one.
        ports.answered(ONE, sent_at, sent_at);
        assert!(ports.admits(ONE, sent_at + REORDERING) && ports.is_burned(ONE, 7));

        let later = sent_at + REORDERING;
        ports.answered(ONE, later, later);
        ports.answered(ONE, later, later + REORDERING / 2);
        assert!(ports.admits(ONE, later + REORDERING / 2) && ports.is_burned(ONE, 7));
        assert!(ports.admits(ONE, later + REORDERING) && !ports.is_burned(ONE, 7));
    }

    #[test]
    fn a_server_that_owes_too_many_replies_gets_one_request_a_second_until_it_answers() {
        let ports = BurnedPorts::default();
        let sent_at = Instant::now();
        for port in 0..PORTS_MAX {
            assert!(ports.admits(ONE, sent_at));
            ports.burn(ONE, port as u16, sent_at);
        }
        assert!(ports.admits(ONE, sent_at));
        assert!(!ports.admits(ONE, sent_at + TRICKLE_INTERVAL / 2));
        assert!(ports.admits(ONE, sent_at + TRICKLE_INTERVAL));
        assert!(ports.admits(OTHER, sent_at + TRICKLE_INTERVAL));

        let later = sent_at + 2 * REORDERING;
        ports.answered(ONE, later, later);
        assert!((0..3).all(|_| ports.admits(ONE, later + REORDERING)));
        assert!(!ports.is_burned(ONE, 0));
    }

    #[test]
    fn the_number_of_burned_ports_is_bounded() {
        let ports = BurnedPorts::default();
        let sent_at = Instant::now();
        for port in 0..=PORTS_KEPT_MAX {
            ports.burn(ONE, port as u16, sent_at);
        }
        assert!(!ports.is_burned(ONE, 0));
        assert!(ports.is_burned(ONE, 1) && ports.is_burned(ONE, PORTS_KEPT_MAX as u16));
    }
}
