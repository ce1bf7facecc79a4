//! Finding out whether this server is set back: started with an older copy of its data directory.
//!
//! ```text
//!   start:       tell each peer how far the store is --> one says "you were further" --> set back --> answer
//!                                                    '-> none does, or is there in time ------------> answer
//!   comparison:  the same, to that peer ------------------> "you were further" --> set back
//! ```
//!
//! A server that is set back holds records that were replaced since, and answers for keys which it has
//! forgotten. So it answers for none, as one that lost its disk, until it is complete again. A peer
//! that is not there in time is not waited for: it tells at the next comparison. What no peer has
//! noted is not found.

use std::sync::Arc;
use std::time::{Duration, Instant};

use dkvs_common::cluster::ServerId;
use dkvs_common::model::{HighWater, Refusal, ReplicaCommand, ReplicaResponse};
use dkvs_common::mutants::{self, Mutant};

use super::completing::Completing;
use super::session::Waits;
use super::state::{AntiEntropy, Asked};
use crate::store::{Progress, RecordStore as _};

/// At a start, a peer that did not answer is told once more after so long.
const AGAIN: Duration = Duration::from_millis(100);

impl AntiEntropy {
    /// Begins to ask the peers, before anybody is answered.
    pub(super) fn begin_start(&mut self, now: Instant) {
        if !self.service.is_starting() {
            return;
        }
        if self.peers.is_empty() {
            return self.service.end_start();
        }
        let peers = self.peers.keys().map(|peer| (*peer, now)).collect();
        self.marking.start = Some((now + self.timing.start, peers));
    }

    /// Whether nothing but that is to be done.
    pub(super) fn is_starting(&self) -> bool {
        self.marking.start.is_some()
    }

    /// When [`Self::go_on_with_start`] is to be called next.
    pub(super) fn next_mark(&self) -> Option<Instant> {
        let (until, peers) = self.marking.start.as_ref()?;
        let waiting = peers
            .iter()
            .filter(|(peer, _)| !self.marking.told.contains(peer));
        Some(waiting.map(|(_, at)| *at).fold(*until, Instant::min))
    }

    /// Tells those peers that are to be told, or ends the start.
    pub(super) fn go_on_with_start(&mut self, now: Instant) {
        let Some((until, peers)) = &self.marking.start else {
            return;
        };
        if now >= *until || peers.is_empty() {
            return self.end_start();
        }
        let due = peers.iter().filter(|(_, at)| **at <= now);
        let due: Vec<ServerId> = due.map(|(peer, _)| *peer).collect();
        for peer in due {
            let _ = self.tell_mark(peer);
        }
    }

    fn end_start(&mut self) {
        self.marking.start = None;
        self.service.end_start();
    }

    /// Tells a peer how far this server is, unless it is being told. Returns whether it is.
    pub(super) fn tell_mark(&mut self, peer: ServerId) -> bool {
        let Some(Progress {
            lineage,
            start,
            sequence,
        }) = self.service.store().progress()
        else {
            return false;
        };
        if !self.marking.told.insert(peer) {
            return true;
        }
        let mark = HighWater {
            server: self.addr,
            lineage,
            boot_id: self.service.config().boot_id,
            start,
            sequence,
        };
        self.ask(peer, ReplicaCommand::NoteHighWater(mark), Asked::HighWater);
        true
    }

    /// A peer knows now how far this server is, or did not answer.
    pub(super) fn handle_mark_answer(
        &mut self,
        peer: ServerId,
        answer: Option<&ReplicaResponse>,
        now: Instant,
    ) {
        self.marking.told.remove(&peer);
        if answer == Some(&ReplicaResponse::Refused(Refusal::SetBack)) {
            self.set_back(peer, now);
        }
        if let Some(session) = self.sessions.get_mut(&peer)
            && session.waits == Waits::Mark
        {
            match answer {
                Some(_) => session.waits = Waits::Not,
                None => self.put_off(peer, false, now),
            }
        }
        let Some((_, peers)) = &mut self.marking.start else {
            return;
        };
        match answer {
            Some(_) => drop(peers.remove(&peer)),
            None => drop(peers.insert(peer, now + AGAIN)),
        }
        self.go_on_with_start(now);
    }

    fn set_back(&mut self, peer: ServerId, now: Instant) {
        if self.marking.is_set_back || mutants::is_on(Mutant::SetBackUnnoticed) {
            return;
        }
        self.marking.is_set_back = true;
        let by = self.leaf_sums.membership().view.name(peer);
        tracing::error!(
            %by,
            "a replica has noted that this server had stored more than its data directory holds: an older \
             copy was put in place. It answers for no key until it holds what the other replicas do"
        );
        // Random, as lineages have to be, and of this start alone.
        let lineage = self.service.config().boot_id.max(1);
        if self.service.store().set_back(lineage).is_err() {
            tracing::warn!("that this server lost records is not noted on its disk");
        }
        self.service.wake_disk();
        self.leaf_sums.lose_all();
        let from = now + self.timing.settling;
        self.completing = Completing::new(&Arc::clone(&self.leaf_sums), from);
        // Comparisons that are under way count for nothing.
        self.peers.values_mut().for_each(|at| *at = from.min(*at));
    }
}
