//! Writing a key: what [`Write`] decides, with the record that it stores.

use std::sync::Arc;
use std::time::Instant;

use dkvs_common::cluster::ServerId;
use dkvs_common::model::{ReplicaCommand, ReplicaResponse};
use dkvs_common::quorum::Level;
use dkvs_common::quorum::tally::ReplicaState;
use dkvs_common::quorum::write::{Write, WriteOutcome};
use dkvs_common::tag::Tag;
use dkvs_common::view::ClusterView;

use super::candidate::{Admission, Candidate, Met, pair_bytes};
use super::contract::{CommandId, Missed, Operation, Purpose, Step};
use crate::core::counts::{RequestKind, RequestOutcome};
use crate::transport::put_key_bytes_max;

/// A write; a deletion is one whose content is a tombstone.
pub struct WriteOperation<F> {
    view: Arc<ClusterView>,
    write: Write,
    deadline: Instant,
    /// Whether it may go on at the agreement level where a server turns out to have no tags.
    may_fall_back: bool,
    /// The servers that are met before it is known whether it can succeed.
    met: Vec<(ServerId, Met)>,
    on_end: F,
}

/// A write that has ended, and the tag under which; none if no server was sent it by DKVS/2.
pub struct WriteResult {
    /// What became of it.
    pub write: Write,
    /// Its tag.
    pub tag: Option<Tag>,
    /// The cluster as it was when the write began.
    pub view: Arc<ClusterView>,
}

impl<F> WriteOperation<F> {
    /// A write of which nothing was sent yet.
    pub fn new(
        view: Arc<ClusterView>,
        write: Write,
        deadline: Instant,
        may_fall_back: bool,
        on_end: F,
    ) -> Self {
        Self {
            view,
            write,
            deadline,
            may_fall_back,
            met: Vec::new(),
            on_end,
        }
    }
}

impl<F: FnOnce(WriteResult) + Send> Operation for WriteOperation<F> {
    fn poll_step(&mut self) -> Option<Step> {
        if let Some(above) = self.write.requires_tag_above() {
            return Some(Step::MintTag { above });
        }
        self.write.poll_transmit().map(Step::from)
    }

    fn handle_response(
        &mut self,
        from: ServerId,
        id: CommandId,
        response: ReplicaResponse,
        now: Instant,
    ) {
        match id.purpose {
            Purpose::Ping => self.handle_met(from, Met::Done),
            _ => drop(self.write.handle_response(from, id, response, now)),
        }
    }

    fn handle_unreachable(&mut self, to: ServerId, id: CommandId, was_sent: bool, now: Instant) {
        match id.purpose {
            Purpose::Ping => self.handle_met(to, Met::Away),
            _ => drop(self.write.handle_unreachable(to, id, was_sent, now)),
        }
    }

    fn is_decided(&self) -> bool {
        self.write.outcome().is_some()
    }

    fn is_complete(&self) -> bool {
        self.write.is_complete()
    }

    fn handle_deadline(&mut self, now: Instant) {
        self.write.handle_timeout(now);
    }

    fn requires_tags(&self) -> bool {
        self.write.level() == Level::Linearizable
    }

    fn key_bytes_max(&self, id: CommandId, message_bytes_max: usize) -> usize {
        match id.purpose {
            Purpose::GetTag | Purpose::Put => {
                let (content, attributes) = (self.write.content(), self.write.attributes());
                put_key_bytes_max(content, attributes, message_bytes_max)
            }
            // A refusal of the others does not reach the caller.
            _ => 0,
        }
    }

    fn command(&self, id: CommandId) -> Option<ReplicaCommand> {
        if id.purpose != Purpose::Put || id.round != self.write.round() {
            return None;
        }
        let (key, record) = (self.write.key().clone(), self.write.record()?.clone());
        Some(ReplicaCommand::Put { key, record })
    }

    /// Every replica is to have the record, although nobody waits for that.
    fn is_abandoned_at_end(&self, _server: ServerId, id: CommandId) -> bool {
        id.purpose != Purpose::Put
    }

    fn outlives_caller(&self) -> bool {
        true
    }

    fn candidate(&self) -> Option<Candidate<'_>> {
        self.write.is_round_unsent().then(|| Candidate {
            key: self.write.key(),
            content: self.write.content(),
            attributes: self.write.attributes(),
            replicas: self.write.replicas(),
            required: usize::from(self.write.quorum().required()),
            has_seen_no_record: self.write.has_seen_no_record(),
            is_querying_tags: self.write.is_querying_tags(),
            may_fall_back: self.may_fall_back,
            met: &self.met,
        })
    }

    fn handle_admission(&mut self, admission: Admission, now: Instant) {
        match admission {
            Admission::Meet(servers) => {
                let pinged = servers.into_iter().map(|server| (server, Met::Pinged));
                self.met.extend(pinged);
            }
            Admission::Withhold(states) => self.write.withhold(states, now),
        }
    }

    fn put_bytes(&self) -> Option<usize> {
        pair_bytes(self.write.key(), self.write.content())
    }

    fn handle_repeated_refusal(&mut self, id: CommandId) {
        if id.purpose == Purpose::Put {
            self.write.handle_repeated_refusal();
        }
    }

    fn handle_minted(&mut self, tag: Option<Tag>) {
        match tag {
            Some(tag) => self.write.begin_round(tag),
            None => self.write.give_up(),
        }
    }

    fn fall_back(&mut self, now: Instant) -> bool {
        if !self.may_fall_back || !self.write.is_querying_tags() {
            return false;
        }
        let (key, content) = (self.write.key().clone(), self.write.content().clone());
        let (list, quorum) = (self.write.list(), self.write.quorum());
        let (level, attributes) = (Level::Agreement, *self.write.attributes());
        let write = Write::new(key, content, list, quorum, level, now, self.deadline);
        self.write = write.with_attributes(attributes);
        self.may_fall_back = false;
        self.met.clear();
        true
    }

    fn fall_back_midway(&mut self) -> bool {
        self.may_fall_back && self.write.fall_back()
    }

    fn wants_another_round(&self) -> bool {
        self.write.requires_tag_above().is_some()
    }

    fn missed(&self) -> Option<Missed> {
        let (ahead, behind) = self.write.missed()?;
        let behind = behind.map(|replica| {
            let is_pending = replica.state == ReplicaState::Pending;
            (replica.server, is_pending)
        });
        let behind = behind.collect();
        Some(Missed { ahead, behind })
    }

    fn counted(&self) -> Option<(Level, RequestKind, RequestOutcome)> {
        let outcome = match self.write.outcome() {
            Some(WriteOutcome::Committed) => RequestOutcome::Committed,
            Some(WriteOutcome::Superseded) => RequestOutcome::Superseded,
            Some(WriteOutcome::Refused) => RequestOutcome::Refused,
            Some(WriteOutcome::Unreachable) => RequestOutcome::Unreachable,
            Some(WriteOutcome::TimedOut) | None => RequestOutcome::TimedOut,
        };
        Some((self.write.level(), RequestKind::Write, outcome))
    }

    fn complete(self: Box<Self>, puts_by_v2: bool) {
        let is_known = puts_by_v2 || self.write.has_sent_nothing();
        let record = self.write.record().filter(|_| is_known);
        (self.on_end)(WriteResult {
            tag: record.map(|record| record.tag),
            write: self.write,
            view: self.view,
        });
    }
}

impl<F> WriteOperation<F> {
    /// A server that had to be met has answered, or is away.
    fn handle_met(&mut self, server: ServerId, met: Met) {
        let mut pinged = self.met.iter_mut();
        if let Some((_, held)) = pinged.find(|(pinged, _)| *pinged == server) {
            *held = met;
        }
    }
}
