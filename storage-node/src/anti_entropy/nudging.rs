//! Servers that are told to compare themselves now, instead of when it is time.
//!
//! ```text
//!   gateway --- C is behind A ---> A --- you are behind me ---> C --- comparison, pulls ---> A
//!                                  '---- again, until C answers
//! ```
//!
//! What A has to tell is forgotten when A ends. C finds out by itself then, at its next comparison.

use std::time::Instant;

use dkvs_common::cluster::ServerId;
use dkvs_common::model::{Nudge, ReplicaCommand, ReplicaResponse};

use super::state::{AntiEntropy, Asked};
use crate::nudges::Told;

impl AntiEntropy {
    /// Takes note of what this server was told.
    pub(super) fn handle_nudges(&mut self, now: Instant) {
        let Told { behind, ahead } = self.service.nudges().take();
        let due = now + self.timing.nudge;
        for peer in behind {
            if self.peers.contains_key(&peer) {
                // Also where it is being told: something more may be missing by now.
                self.behind.insert(peer, due);
            }
        }
        for peer in ahead {
            if let Some(at) = self.peers.get_mut(&peer) {
                *at = due.min(*at);
                if self.sessions.contains_key(&peer) {
                    self.nudged.insert(peer);
                }
            }
        }
    }

    /// Tells the servers that are behind this one, as far as it is time.
    pub(super) fn pass_nudges_on(&mut self, now: Instant) {
        let due = self.behind.iter().filter(|(_, at)| **at <= now);
        let due: Vec<ServerId> = due.map(|(peer, _)| *peer).collect();
        let again = now + self.timing.retry;
        for peer in due {
            let cluster = self.leaf_sums.membership().view.cluster();
            let Some(behind) = cluster.addr(peer) else {
                self.behind.remove(&peer);
                continue;
            };
            self.behind.insert(peer, again);
            let ahead = self.addr;
            let command = ReplicaCommand::Nudge(Nudge { behind, ahead });
            self.ask(peer, command, Asked::Nudge { again });
        }
    }

    /// A server that is behind this one was told so, or was not there. If it answers, it need not be told
    /// again, unless there was something new meanwhile.
    pub(super) fn handle_nudge_answer(
        &mut self,
        peer: ServerId,
        again: Instant,
        answer: Option<&ReplicaResponse>,
    ) {
        if answer.is_some() && self.behind.get(&peer) == Some(&again) {
            self.behind.remove(&peer);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::SocketAddrV4;
    use std::sync::Arc;

    use dkvs_common::cluster::Cluster;
    use dkvs_common::view::ClusterView;

    use crate::anti_entropy::Timing;
    use crate::leaves::Membership;
    use crate::nudges::Nudges;
    use crate::service::{Service, ServiceConfig};
    use crate::store::{MemoryStore, Store};

    /// The first of three servers; its peers do not answer.
    fn machine(now: Instant) -> AntiEntropy {
        let servers = b"127.0.0.1 4000 2\n127.0.0.1 4001 2\n127.0.0.1 4002 2\n";
        let membership = Membership {
            view: Arc::new(ClusterView::first(
                Cluster::parse("servers", servers).unwrap(),
            )),
            own: ServerId(0),
            replication: 3,
        };
        let store = Store::Memory(MemoryStore::new(1 << 20));
        let service = Service::of_member(store, ServiceConfig::new(1), Some(membership));
        let timing = Timing {
            retry: Timing::default().interval,
            ..Timing::default()
        };
        AntiEntropy::new(Arc::new(service), timing, 1, now, || {}).unwrap()
    }

    /// What is asked of whom at this time; nobody answers.
    fn asked(machine: &mut AntiEntropy, now: Instant) -> Vec<(ServerId, ReplicaCommand)> {
        machine.handle_timeout(now);
        let mut asked = Vec::new();
        while let Some(ask) = machine.poll_ask() {
            asked.push((ask.to, ask.command));
            machine.handle_answer(ask.id, None, now);
        }
        asked
    }

    /// A machine whose peers were asked already, and when it is to follow what it was told since then.
    fn told(start: Instant, note: impl FnOnce(&Nudges) -> bool) -> (AntiEntropy, Instant) {
        let mut machine = machine(start);
        asked(&mut machine, start);
        assert!(note(machine.service.nudges()));
        machine.handle_wake(start);
        let due = start + machine.timing.nudge;
        assert_eq!(machine.poll_timeout(), Some(due));
        (machine, due)
    }

    fn addr(server: u16) -> SocketAddrV4 {
        SocketAddrV4::new(std::net::Ipv4Addr::LOCALHOST, 4_000 + server)
    }

    #[test]
    fn a_server_that_is_behind_is_told_so_until_it_answers() {
        let start = Instant::now();
        let mut machine = machine(start);
        assert_eq!(asked(&mut machine, start).len(), 2, "both are compared");
        let nudge = ReplicaCommand::Nudge(Nudge {
            behind: addr(1),
            ahead: addr(0),
        });
        assert!(machine.service.nudges().note_behind(ServerId(1)));
        machine.handle_wake(start);
        let due = start + machine.timing.nudge;
        assert_eq!(machine.poll_timeout(), Some(due));
        assert_eq!(asked(&mut machine, start), []);
        assert_eq!(asked(&mut machine, due), [(ServerId(1), nudge.clone())]);
        // It did not answer.
        let again = due + machine.timing.retry;
        let is_told =
            |asked: &[(ServerId, ReplicaCommand)]| asked.contains(&(ServerId(1), nudge.clone()));
        assert!(is_told(&asked(&mut machine, again)));
        machine.handle_timeout(again + machine.timing.retry);
        let mut told = 0;
        while let Some(ask) = machine.poll_ask() {
            let is_nudge = ask.command == nudge;
            told += u32::from(is_nudge);
            let answer = is_nudge.then_some(ReplicaResponse::Done);
            machine.handle_answer(ask.id, answer, again);
        }
        assert_eq!((told, machine.behind.len()), (1, 0));
    }

    #[test]
    fn what_is_missed_while_a_server_is_told_is_told_once_more() {
        let start = Instant::now();
        let (mut machine, due) = told(start, |nudges| nudges.note_behind(ServerId(1)));
        machine.handle_timeout(due);
        let ask = machine.poll_ask().unwrap();
        machine.service.nudges().note_behind(ServerId(1));
        machine.handle_wake(due);
        machine.handle_answer(ask.id, Some(ReplicaResponse::Done), due);
        let once_more = due + machine.timing.nudge;
        assert_eq!(machine.poll_timeout(), Some(once_more));
        assert_eq!(asked(&mut machine, once_more).len(), 1);
    }

    #[test]
    fn a_server_that_is_told_compares_itself_before_it_is_time() {
        let start = Instant::now();
        let (mut machine, due) = told(start, |nudges| nudges.note_ahead(ServerId(2)));
        let asked = asked(&mut machine, due);
        assert!(matches!(
            asked[..],
            [(ServerId(2), ReplicaCommand::GetLeafSums { .. })]
        ));
    }
}
