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

const GET_PAGE: CommandId = CommandId {
    round: 0,
    purpose: Purpose::Page,
};

/// A listing of keys.
pub struct ListOperation<F> {
    view: Arc<ClusterView>,
    list: List,
    prefix: Bytes,
    on_end: F,
}

/// A listing that has ended.
pub struct ListResult {
    /// What it found.
    pub list: List,
    /// The cluster as it was when the listing began.
    pub view: Arc<ClusterView>,
}

impl<F> ListOperation<F> {
    /// Of keys that begin with `prefix`.
    pub fn new(view: Arc<ClusterView>, list: List, prefix: Bytes, on_end: F) -> Self {
        Self {
            view,
            list,
            prefix,
            on_end,
        }
    }
}

impl<F: FnOnce(ListResult) + Send> Operation for ListOperation<F> {
    fn poll_step(&mut self) -> Option<Step> {
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
    }

    fn handle_unreachable(&mut self, to: ServerId, _id: CommandId, _was_sent: bool, _now: Instant) {
        self.list.handle_unreachable(to);
    }

    fn is_decided(&self) -> bool {
        self.list.outcome().is_some()
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
        });
    }
}
