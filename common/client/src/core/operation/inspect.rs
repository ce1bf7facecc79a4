//! What each replica of a key holds, by [`Inspect`].

use std::sync::Arc;
use std::time::Instant;

use dkvs_common::cluster::ServerId;
use dkvs_common::model::ReplicaResponse;
use dkvs_common::quorum::inspect::Inspect;
use dkvs_common::view::ClusterView;

use super::contract::{CommandId, Operation, Step};
use crate::transport::get_key_bytes_max;

/// A question to the replicas of a key, and who waits for the answers.
pub struct InspectOperation<F> {
    view: Arc<ClusterView>,
    inspect: Inspect,
    on_end: F,
}

/// What the replicas of a key hold.
pub struct InspectResult {
    /// Each replica.
    pub inspect: Inspect,
    /// The cluster with which it began.
    pub view: Arc<ClusterView>,
}

impl<F> InspectOperation<F> {
    /// One of which nothing was sent yet.
    pub fn new(view: Arc<ClusterView>, inspect: Inspect, on_end: F) -> Self {
        Self {
            view,
            inspect,
            on_end,
        }
    }
}

impl<F: FnOnce(InspectResult) + Send> Operation for InspectOperation<F> {
    fn poll_step(&mut self) -> Option<Step> {
        self.inspect.poll_transmit().map(Step::from)
    }

    fn handle_response(
        &mut self,
        from: ServerId,
        _id: CommandId,
        response: ReplicaResponse,
        now: Instant,
    ) {
        self.inspect.handle_response(from, response, now);
    }

    fn handle_unreachable(&mut self, to: ServerId, _id: CommandId, _was_sent: bool, now: Instant) {
        self.inspect.handle_unreachable(to, now);
    }

    fn is_decided(&self) -> bool {
        self.inspect.is_complete()
    }

    fn handle_deadline(&mut self, _now: Instant) {
        self.inspect.handle_timeout();
    }

    /// By DKVS/1 there is nothing to name a value but its bytes.
    fn requires_tags(&self) -> bool {
        true
    }

    /// It is as long as a get.
    fn key_bytes_max(&self, _id: CommandId, message_bytes_max: usize) -> usize {
        get_key_bytes_max(message_bytes_max)
    }

    fn is_abandoned_at_end(&self, _server: ServerId, _id: CommandId) -> bool {
        true
    }

    fn complete(self: Box<Self>, _puts_by_v2: bool) {
        (self.on_end)(InspectResult {
            inspect: self.inspect,
            view: self.view,
        });
    }
}
