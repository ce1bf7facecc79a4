//! One value on its way from a server.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use super::assembly::{Assembly, Mismatch};
use super::block_range::BlockRange;
use super::event::LinkEvent;
use dkvs_common::kv::Key;
use dkvs_common::model::{ReplicaCommand, ReplicaResponse};
use dkvs_common::quorum::FetchFailure;
use dkvs_common::wire::v2::message::{REPLY_HEAD_BYTES, RequestId};
use dkvs_common::wire::v2::request::Request;

/// What a server may put around a block beyond what the protocol requires, in bytes.
const REPLY_RESERVE_BYTES: usize = 32;

/// A server is waited for twice as long each time, so many times: a request ends before that.
const STALLS_MAX: u32 = 12;

/// One fetch.
#[derive(Debug)]
pub(super) struct Fetch {
    key: Key,
    assembly: Assembly,
    outstanding: BTreeMap<u32, RequestId>,
    /// When a block arrived last, or the fetch took its first turn; none before that.
    last_progress: Option<Instant>,
    /// How often the server has stalled before.
    stalls: u32,
}

impl Fetch {
    pub(super) fn new(key: Key, assembly: Assembly, stalls: u32) -> Self {
        Self {
            key,
            assembly,
            outstanding: BTreeMap::new(),
            last_progress: None,
            stalls,
        }
    }

    /// The longest block, in bytes, that a message of at most `message_bytes_max` carries.
    pub(super) fn block_bytes_max(message_bytes_max: usize) -> usize {
        message_bytes_max.saturating_sub(REPLY_HEAD_BYTES + 4 + REPLY_RESERVE_BYTES)
    }

    /// From now on, a server that sends nothing has stalled.
    pub(super) fn start(&mut self, now: Instant) {
        self.last_progress = Some(now);
    }

    /// When the fetch has stalled for `stall`, doubled for each time that the server stalled before;
    /// none before its first turn.
    pub(super) fn stalls_at(&self, stall: Duration) -> Option<Instant> {
        let patience = stall * (1 << self.stalls.min(STALLS_MAX));
        self.last_progress.map(|progress| progress + patience)
    }

    /// The request for the next block, and which block that is.
    pub(super) fn poll_request(
        &mut self,
        message_bytes_max: usize,
        now: Instant,
    ) -> Option<(Request, BlockRange)> {
        if self.outstanding.is_empty() {
            self.last_progress = Some(now);
        }
        let bytes = Self::block_bytes_max(message_bytes_max);
        let range = self
            .assembly
            .poll_block(u16::try_from(bytes).unwrap_or(u16::MAX))?;
        let request = Request::Command(ReplicaCommand::GetBlock {
            key: self.key.clone(),
            tag: self.assembly.digest().tag,
            offset: range.offset,
            block_bytes: range.bytes,
        });
        Some((request, range))
    }

    /// The request for a block was opened.
    pub(super) fn handle_sent(&mut self, range: BlockRange, id: RequestId) {
        self.outstanding.insert(range.offset, id);
    }

    /// The requests that were opened and not answered.
    pub(super) fn outstanding(&self) -> Vec<RequestId> {
        self.outstanding.values().copied().collect()
    }

    /// Handles the reply to a request for a block. Returns whether the fetch is over: the value is
    /// complete, or the server does not have it.
    pub(super) fn handle_response(
        &mut self,
        range: BlockRange,
        response: &ReplicaResponse,
        now: Instant,
    ) -> bool {
        self.outstanding.remove(&range.offset);
        let is_useful = match response {
            ReplicaResponse::Block { offset, block } => {
                self.assembly.handle_block(range, *offset, block)
            }
            _ => false,
        };
        self.last_progress = Some(now);
        !is_useful || self.assembly.is_complete()
    }

    /// The value, if it is complete and matches its digest.
    pub(super) fn finish<T>(self, token: T) -> LinkEvent<T> {
        if !self.assembly.is_complete() {
            return self.give_up(token, FetchFailure::Gone);
        }
        match self.assembly.finish(&self.key) {
            Ok(value) => LinkEvent::Fetched { token, value },
            Err(Mismatch) => LinkEvent::FetchFailed {
                token,
                failure: FetchFailure::Failed,
                assembly: None,
            },
        }
    }

    /// Ends without the value, for another server to supply the missing blocks, or this one later.
    pub(super) fn give_up<T>(self, token: T, failure: FetchFailure) -> LinkEvent<T> {
        let mut assembly = self.assembly;
        assembly.requeue_outstanding();
        let assembly = Some(assembly);
        LinkEvent::FetchFailed {
            token,
            failure,
            assembly,
        }
    }
}
