//! Listing keys: pages of all servers, merged by [`List`].

use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use dkvs_common::cluster::ServerId;
use dkvs_common::model::ReplicaResponse;
use dkvs_common::quorum::list::List;
use dkvs_common::view::ClusterView;

use super::contract::{CommandId, Operation, Purpose, Step};
use super::outgoing::Outgoing;
use crate::core::budget::{MemoryAccount, MemoryError, MemoryPermit, UNCOUNTED_BYTES_MAX};

const GET_PAGE: CommandId = CommandId {
    round: 0,
    purpose: Purpose::Page,
};

/// A listing of keys.
pub struct ListOperation<F> {
    view: Arc<ClusterView>,
    list: List,
    prefix: Bytes,
    account: MemoryAccount,
    memory: Option<MemoryPermit>,
    refused: Option<MemoryError>,
    on_end: F,
}

/// A listing that has ended.
pub struct ListResult {
    /// What it found.
    pub list: List,
    /// The cluster as it was when the listing began.
    pub view: Arc<ClusterView>,
    /// Why there was no memory for more keys.
    pub refused: Option<MemoryError>,
    /// The memory that the keys take, if they are many or long.
    pub memory: Option<MemoryPermit>,
}

impl<F> ListOperation<F> {
    /// Of keys that begin with `prefix`, which take of `account`'s memory.
    pub fn new(
        view: Arc<ClusterView>,
        list: List,
        prefix: Bytes,
        account: MemoryAccount,
        on_end: F,
    ) -> Self {
        Self {
            view,
            list,
            prefix,
            account,
            memory: None,
            refused: None,
            on_end,
        }
    }

    /// Takes memory for what the listing holds by now.
    fn reserve(&mut self) -> Result<(), MemoryError> {
        let held = self.list.held_bytes();
        if held <= UNCOUNTED_BYTES_MAX {
            return Ok(());
        }
        match &mut self.memory {
            Some(memory) => memory.grow_to(held),
            None => {
                self.memory = Some(self.account.take(held)?);
                Ok(())
            }
        }
    }
}

impl<F: FnOnce(ListResult) + Send> Operation for ListOperation<F> {
    fn poll_step(&mut self) -> Option<Step> {
        if self.refused.is_some() {
            return None;
        }
        let (to, page) = self.list.poll_transmit()?;
        Some(Step::Send {
            to,
            id: GET_PAGE,
            outgoing: Outgoing::Page(page, self.prefix.clone()),
        })
    }

    fn handle_response(
        &mut self,
        from: ServerId,
        _id: CommandId,
        response: ReplicaResponse,
        _now: Instant,
    ) {
        self.list.handle_response(from, response);
        if let Err(error) = self.reserve() {
            self.refused = Some(error);
        }
    }

    fn handle_unreachable(&mut self, to: ServerId, _id: CommandId, _was_sent: bool, _now: Instant) {
        self.list.handle_unreachable(to);
    }

    fn is_decided(&self) -> bool {
        self.refused.is_some() || self.list.outcome().is_some()
    }

    fn handle_deadline(&mut self, _now: Instant) {
        self.list.handle_timeout();
    }

    /// A page has tags.
    fn requires_tags(&self) -> bool {
        true
    }

    fn is_abandoned_at_end(&self, _server: ServerId, _id: CommandId) -> bool {
        true
    }

    fn soft_deadline(&self) -> Option<Instant> {
        Some(self.list.soft_deadline())
    }

    fn handle_soft_deadline(&mut self) {
        self.list.handle_soft_deadline();
    }

    fn complete(self: Box<Self>, _puts_by_v2: bool) {
        (self.on_end)(ListResult {
            list: self.list,
            view: self.view,
            refused: self.refused,
            memory: self.memory,
        });
    }
}
