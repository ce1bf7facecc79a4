//! How far a peer has come: the response to `NoteHighWater`.

use dkvs_common::model::{HighWater, Refusal, ReplicaResponse};

use super::replica::Replica;

impl Replica {
    /// Notes it, or says that the peer is set back.
    pub(super) fn note_high_water(&self, told: HighWater) -> ReplicaResponse {
        let is_peer = self.leaf_sums.as_ref().is_some_and(|leaf_sums| {
            let cluster = leaf_sums.membership().view.cluster();
            cluster.find(told.server).is_some()
        });
        match is_peer {
            false => ReplicaResponse::Refused(Refusal::Unsupported),
            true if self.peer_marks.note(told) => {
                // It is kept by whoever compares this server with its peers.
                self.nudges.wake();
                ReplicaResponse::Done
            }
            true => ReplicaResponse::Refused(Refusal::SetBack),
        }
    }
}
