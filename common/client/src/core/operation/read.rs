//! Reading a key: what [`Read`] decides, with the long values that it wants fetched.
//!
//! The machine decides by digests; this fetches the values that it names, within the memory that its
//! caller may take; a value holds that memory until the last handle to it is gone. Invariant: at most
//! one fetch from a server at a time.

use std::mem;
use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use dkvs_common::cluster::ServerId;
use dkvs_common::kv::Value;
use dkvs_common::model::{Refusal, ReplicaCommand, ReplicaResponse};
use dkvs_common::quorum::read::{Attestation, Read, ReadOutcome};
use dkvs_common::quorum::tally::ReplicaState;
use dkvs_common::quorum::{FetchFailure, FetchStart, Level};
use dkvs_common::record::Digest;
use dkvs_common::view::ClusterView;

use super::contract::{CommandId, FollowUp, Operation, Purpose, Step};
use crate::core::budget::{MemoryAccount, MemoryError, MemoryPermit, UNCOUNTED_BYTES_MAX};
use crate::core::counts::{RequestKind, RequestOutcome};
use crate::transport::assembly::Assembly;
use crate::transport::get_key_bytes_max;

/// A read, and who waits for it.
pub struct ReadOperation<F> {
    view: Arc<ClusterView>,
    read: Read,
    deadline: Instant,
    /// Whether it may go on at the agreement level where a server turns out to have no tags.
    may_fall_back: bool,
    memory: MemoryAccount,
    /// Why a value could not be kept, which ends the read.
    refused: Option<MemoryError>,
    fetches: Fetches,
    on_end: F,
}

/// A read that has ended.
pub struct ReadResult {
    /// What it found.
    pub read: Read,
    /// The cluster as it was when the read began.
    pub view: Arc<ClusterView>,
    /// Why there was no memory for a value.
    pub refused: Option<MemoryError>,
}

/// The long values of a read, on their way.
#[derive(Default)]
struct Fetches {
    /// What is being fetched, and from which server.
    under_way: Vec<(ServerId, Digest)>,
    /// The first block of a value, from the replica that answered first.
    beginning: Option<(Digest, Bytes)>,
    /// The last long block that a replica answered with. Others that answer the same share it.
    answered: Option<(Digest, Bytes)>,
    /// What has arrived from a server that did not finish it.
    assembly: Option<Assembly>,
    /// The memory for each value that is being fetched.
    memory: Vec<(Digest, MemoryPermit)>,
}

impl<F> ReadOperation<F> {
    /// A read of which nothing was sent yet. Values take of `memory`.
    pub fn new(
        view: Arc<ClusterView>,
        read: Read,
        deadline: Instant,
        may_fall_back: bool,
        memory: MemoryAccount,
        on_end: F,
    ) -> Self {
        Self {
            view,
            read,
            deadline,
            may_fall_back,
            memory,
            refused: None,
            fetches: Fetches::default(),
            on_end,
        }
    }

    /// The block with which a replica answered, with the memory that it takes; none of it if there is
    /// no memory, as if the replica had left it to be fetched.
    fn held(&mut self, digest: &Digest, block: Bytes) -> Bytes {
        let known = self.fetches.answered.as_ref();
        if let Some((_, known)) =
            known.filter(|(of, known)| of.names_same_record(digest) && *known == block)
        {
            return known.clone();
        }
        let is_counted = block.len() > UNCOUNTED_BYTES_MAX;
        match self.memory.hold(block) {
            Ok(block) => {
                if is_counted {
                    self.fetches.answered = Some((digest.clone(), block.clone()));
                }
                block
            }
            Err(error) => {
                self.refused = Some(error);
                Bytes::new()
            }
        }
    }

    /// What it decides.
    pub(super) fn read(&self) -> &Read {
        &self.read
    }

    /// From which servers values are being fetched.
    pub(super) fn fetching_from(&self) -> impl Iterator<Item = ServerId> {
        self.fetches.under_way.iter().map(|(server, _)| *server)
    }

    /// Takes memory for a value, unless there is some from an earlier fetch of the same.
    fn reserve(&mut self, digest: &Digest) -> Result<(), MemoryError> {
        let memory = &mut self.fetches.memory;
        if !memory.iter().any(|(of, _)| of.names_same_record(digest)) {
            let permit = self.memory.take(digest.value_bytes as usize)?;
            memory.push((digest.clone(), permit));
        }
        Ok(())
    }
}

impl Fetches {
    /// Where a value begins that is to be fetched: with what there is of it.
    fn begin(&mut self, digest: Digest) -> Assembly {
        let held = self
            .assembly
            .take_if(|held| held.digest().names_same_record(&digest));
        held.unwrap_or_else(|| {
            let begun = self.beginning.as_ref();
            let begun = begun.filter(|(known, _)| known.names_same_record(&digest));
            let block = begun.map_or(&[][..], |(_, block)| &block[..]);
            Assembly::new(digest, block)
        })
    }

    /// A value that was fetched, with the memory that was taken for it.
    fn held(&mut self, digest: &Digest, value: Value) -> Value {
        let mut memory = self.memory.iter();
        let Some(place) = memory.position(|(of, _)| of.names_same_record(digest)) else {
            return value;
        };
        let (_, permit) = self.memory.swap_remove(place);
        Value::new(permit.hold(value.into_bytes())).expect("it is as long as before")
    }

    /// The value that is being fetched from a server, which ends by that.
    fn take(&mut self, from: ServerId) -> Option<Digest> {
        let mut under_way = self.under_way.iter();
        let place = under_way.position(|(server, _)| *server == from)?;
        Some(self.under_way.swap_remove(place).1)
    }
}

impl<F: FnOnce(ReadResult) + Send> Operation for ReadOperation<F> {
    fn poll_step(&mut self) -> Option<Step> {
        if self.refused.is_some() {
            return None;
        }
        if let Some(Attestation { server, round, tag }) = self.read.poll_attestation() {
            let key = self.read.key().clone();
            return Some(Step::Attest {
                server,
                round,
                key,
                tag,
            });
        }
        if let Some(transmit) = self.read.poll_transmit() {
            return Some(transmit.into());
        }
        let FetchStart {
            from,
            digest,
            stalls,
        } = self.read.poll_fetch()?;
        if let Err(error) = self.reserve(&digest) {
            self.refused = Some(error);
            return None;
        }
        self.fetches.under_way.push((from, digest.clone()));
        Some(Step::Fetch {
            from,
            key: self.read.key().clone(),
            assembly: self.fetches.begin(digest),
            stalls,
        })
    }

    fn handle_response(
        &mut self,
        from: ServerId,
        id: CommandId,
        response: ReplicaResponse,
        now: Instant,
    ) {
        if id.purpose == Purpose::Fetch {
            return self.handle_fetch_failed(from, FetchFailure::Failed, None);
        }
        let mut response = response.checked(self.read.key());
        match &mut response {
            ReplicaResponse::Record { digest, block } => {
                *block = self.held(digest, mem::take(block));
            }
            ReplicaResponse::Untagged { value } => {
                match self.memory.hold(value.clone().into_bytes()) {
                    Ok(bytes) => *value = Value::new(bytes).unwrap_or_default(),
                    Err(error) => {
                        self.refused = Some(error);
                        response = ReplicaResponse::Refused(Refusal::Busy);
                    }
                }
            }
            _ => {}
        }
        if let ReplicaResponse::Record { digest, block } = &response
            && digest.is_beginning(block)
        {
            let beginning = &mut self.fetches.beginning;
            beginning.get_or_insert_with(|| (digest.clone(), block.clone()));
        }
        self.read.handle_response(from, id, response, now);
    }

    fn handle_unreachable(&mut self, to: ServerId, id: CommandId, was_sent: bool, now: Instant) {
        match id.purpose {
            Purpose::Fetch => self.handle_fetch_failed(to, FetchFailure::Failed, None),
            _ => drop(self.read.handle_unreachable(to, id, was_sent, now)),
        }
    }

    fn is_decided(&self) -> bool {
        self.refused.is_some() || self.read.outcome().is_some()
    }

    fn is_complete(&self) -> bool {
        self.refused.is_some() || self.read.is_complete()
    }

    fn handle_deadline(&mut self, now: Instant) {
        self.read.handle_timeout(now);
    }

    fn requires_tags(&self) -> bool {
        self.read.level() == Level::Linearizable
    }

    fn key_bytes_max(&self, id: CommandId, message_bytes_max: usize) -> usize {
        match id.purpose {
            Purpose::Get => get_key_bytes_max(message_bytes_max),
            // A refusal of the others does not reach the caller.
            _ => 0,
        }
    }

    fn command(&self, id: CommandId) -> Option<ReplicaCommand> {
        let key = self.read.key().clone();
        (id.purpose == Purpose::Get).then_some(ReplicaCommand::Get { key })
    }

    /// Write-backs go on, so that the replicas come together; so do attestations.
    fn is_abandoned_at_end(&self, server: ServerId, id: CommandId) -> bool {
        match id.purpose {
            Purpose::Get => {
                let mut replicas = self.read.replicas().iter();
                replicas.any(|replica| {
                    replica.server == server && matches!(replica.state, ReplicaState::Pending)
                })
            }
            Purpose::WriteBack | Purpose::Attest => false,
            _ => true,
        }
    }

    fn handle_fetched(&mut self, from: ServerId, value: Value) {
        if let Some(digest) = self.fetches.take(from) {
            let value = self.fetches.held(&digest, value);
            self.read.handle_fetched(&digest, value);
        }
    }

    fn handle_fetch_failed(
        &mut self,
        from: ServerId,
        failure: FetchFailure,
        assembly: Option<Assembly>,
    ) {
        if let Some(digest) = self.fetches.take(from) {
            self.fetches.assembly = assembly.or(self.fetches.assembly.take());
            self.read.handle_fetch_failed(&digest, from, failure);
        }
    }

    /// Only before its outcome is reported.
    fn wants_to_fall_back(&self) -> bool {
        self.may_fall_back && self.read.has_met_v1()
    }

    fn fall_back(&mut self, now: Instant) -> bool {
        if !self.may_fall_back {
            return false;
        }
        let Some(read) = self.read.at_agreement_level(now, self.deadline) else {
            return false;
        };
        self.read = read;
        self.may_fall_back = false;
        self.fetches.under_way.clear();
        true
    }

    fn follow_ups(&self) -> Vec<FollowUp> {
        let unattested = self.read.quarantined().into_iter();
        let follow_ups = unattested.map(|(server, tag)| FollowUp {
            server,
            key: self.read.key().clone(),
            tag,
        });
        follow_ups.collect()
    }

    fn counted(&self) -> Option<(Level, RequestKind, RequestOutcome)> {
        let outcome = match self.read.outcome() {
            None if self.refused.is_some() => RequestOutcome::Refused,
            _ if self.read.has_met_v1() => RequestOutcome::Refused,
            Some(ReadOutcome::Found(..)) => RequestOutcome::Found,
            Some(ReadOutcome::Absent) => RequestOutcome::Absent,
            Some(ReadOutcome::Disagree) => RequestOutcome::Disagree,
            Some(ReadOutcome::CameByV1) => RequestOutcome::Refused,
            Some(ReadOutcome::Unreachable) => RequestOutcome::Unreachable,
            Some(ReadOutcome::TimedOut) | None => RequestOutcome::TimedOut,
        };
        Some((self.read.level(), RequestKind::Read, outcome))
    }

    fn counted_as_cancelled(&self) -> Option<(Level, RequestKind, RequestOutcome)> {
        Some((
            self.read.level(),
            RequestKind::Read,
            RequestOutcome::Cancelled,
        ))
    }

    fn complete(self: Box<Self>, _puts_by_v2: bool) {
        (self.on_end)(ReadResult {
            read: self.read,
            view: self.view,
            refused: self.refused,
        });
    }
}
