//! Ids for the requests of one peer.

use dkvs_common::wire::v2::message::RequestId;

/// Consecutive ids from a random start, so that an outsider cannot guess them.
#[derive(Debug)]
pub(super) struct RequestIds {
    next: u64,
}

impl RequestIds {
    pub(super) fn starting_at(random: u64) -> Self {
        Self { next: random }
    }

    pub(super) fn next(&mut self) -> RequestId {
        let id = RequestId(self.next);
        self.next = self.next.wrapping_add(1);
        id
    }
}
