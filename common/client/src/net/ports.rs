//! Ports that may still get a late reply.
//!
//! DKVS/1 has no request ids. A socket that was closed while a server owed it a reply leaves a
//! port at which that reply may arrive any time later: a server that was stopped for an hour
//! answers what it was asked before. If the system gave the port to a new socket towards the same
//! server, the late reply would be taken for another request's. So such ports are burned for that
//! server, until it has answered a question that was asked later.
//!
//! A server that owes too many replies is asked once a second only, until it answers.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::{Duration, Instant};

use dkvs_common::cluster::ServerId;
use dkvs_common::server_map::ServerMap;

/// Burned ports of one server from which on it is asked once in [`TRICKLE`] only. It is well
/// below the 28,232 ports that Linux hands out by default, so that a free one is soon found.
const PORTS_MAX: usize = 16_384;

/// Most burned ports remembered for one server: an hour of trickle more.
const PORTS_KEPT_MAX: usize = 20_000;

/// Between two questions to a server that owes too many replies.
const TRICKLE: Duration = Duration::from_secs(1);

/// A server answers in the order in which it was asked, give or take this much: it may have
/// several threads, and the network several paths.
const GRACE: Duration = Duration::from_secs(1);

/// For each server, the ports not to be used towards it.
#[derive(Default)]
pub struct BurnedPorts {
    servers: RwLock<ServerMap<Arc<Mutex<Ledger>>>>,
}

#[derive(Default)]
struct Ledger {
    /// When the question was asked whose reply may still come to a port.
    asked: HashMap<u16, Instant>,
    /// The same ports, the first burned first.
    order: VecDeque<u16>,
    /// A question that was answered, by the time it was asked and the time of the answer.
    answered: Option<(Instant, Instant)>,
    trickled: Option<Instant>,
}

impl BurnedPorts {
    /// From now on, `port` may get a late reply from `server`, to a question asked at `asked`.
    pub fn burn(&self, server: ServerId, port: u16, asked: Instant) {
        self.with_ledger(server, |ledger| ledger.burn(port, asked));
    }

    /// At `now`, `server` has answered a question asked at `asked`.
    pub fn answered(&self, server: ServerId, asked: Instant, now: Instant) {
        self.with_ledger(server, |ledger| ledger.answered(asked, now));
    }

    /// Whether one more question may be asked of `server` on a new socket. A yes where it owes
    /// too many replies is the only one in a while.
    pub fn admits(&self, server: ServerId, now: Instant) -> bool {
        self.with_ledger(server, |ledger| ledger.admits(now))
    }

    /// Whether `port` may get a late reply from `server`.
    pub fn is_burned(&self, server: ServerId, port: u16) -> bool {
        self.with_ledger(server, |ledger| ledger.asked.contains_key(&port))
    }

    fn with_ledger<R>(&self, server: ServerId, work: impl FnOnce(&mut Ledger) -> R) -> R {
        let servers = self.servers.read().unwrap_or_else(PoisonError::into_inner);
        let known = servers.get(server).map(Arc::clone);
        drop(servers);
        let ledger = known.unwrap_or_else(|| {
            let servers = self.servers.write();
            let mut servers = servers.unwrap_or_else(PoisonError::into_inner);
            Arc::clone(servers.get_or_insert_with(server, Arc::default))
        });
        work(&mut ledger.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Ledger {
    fn burn(&mut self, port: u16, asked: Instant) {
        if self.asked.insert(port, asked).is_none() {
            self.order.push_back(port);
        }
        while self.order.len() > PORTS_KEPT_MAX
            && let Some(oldest) = self.order.pop_front()
        {
            self.asked.remove(&oldest);
        }
    }

    fn answered(&mut self, asked: Instant, now: Instant) {
        if !self.asked.is_empty() {
            self.forget(now);
            // The first answer counts, or one after the other would put off the forgetting.
            self.answered.get_or_insert((asked, now));
        }
    }

    fn admits(&mut self, now: Instant) -> bool {
        self.forget(now);
        let is_over = |trickled: Instant| now >= trickled + TRICKLE;
        if self.asked.len() < PORTS_MAX {
            return true;
        }
        let admitted = self.trickled.is_none_or(is_over);
        if admitted {
            self.trickled = Some(now);
        }
        admitted
    }

    /// Forgets the questions that were asked well before one that was answered a while ago.
    fn forget(&mut self, now: Instant) {
        if let Some((later, at)) = self.answered
            && now >= at + GRACE
        {
            self.answered = None;
            self.asked.retain(|_, asked| *asked + GRACE > later);
            self.order.retain(|port| self.asked.contains_key(port));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ONE: ServerId = ServerId(0);
    const OTHER: ServerId = ServerId(1);

    #[test]
    fn a_port_is_burned_for_its_server_until_a_later_question_was_answered() {
        let ports = BurnedPorts::default();
        let asked = Instant::now();
        ports.burn(ONE, 7, asked);
        assert!(ports.is_burned(ONE, 7));
        assert!(!ports.is_burned(OTHER, 7));

        // An answer to a question of the same time says nothing of this one.
        ports.answered(ONE, asked, asked);
        assert!(ports.admits(ONE, asked + GRACE) && ports.is_burned(ONE, 7));

        let later = asked + GRACE;
        ports.answered(ONE, later, later);
        ports.answered(ONE, later, later + GRACE / 2);
        assert!(ports.admits(ONE, later + GRACE / 2) && ports.is_burned(ONE, 7));
        assert!(ports.admits(ONE, later + GRACE) && !ports.is_burned(ONE, 7));
    }

    #[test]
    fn a_server_that_owes_too_many_replies_is_asked_once_a_second_until_it_answers() {
        let ports = BurnedPorts::default();
        let asked = Instant::now();
        for port in 0..PORTS_MAX {
            assert!(ports.admits(ONE, asked));
            ports.burn(ONE, port as u16, asked);
        }
        assert!(ports.admits(ONE, asked));
        assert!(!ports.admits(ONE, asked + TRICKLE / 2));
        assert!(ports.admits(ONE, asked + TRICKLE));
        assert!(ports.admits(OTHER, asked + TRICKLE));

        let later = asked + 2 * GRACE;
        ports.answered(ONE, later, later);
        assert!((0..3).all(|_| ports.admits(ONE, later + GRACE)));
        assert!(!ports.is_burned(ONE, 0));
    }

    #[test]
    fn what_is_remembered_is_bounded() {
        let ports = BurnedPorts::default();
        let asked = Instant::now();
        for port in 0..=PORTS_KEPT_MAX {
            ports.burn(ONE, port as u16, asked);
        }
        assert!(!ports.is_burned(ONE, 0));
        assert!(ports.is_burned(ONE, 1) && ports.is_burned(ONE, PORTS_KEPT_MAX as u16));
    }
}
