//! That a server may lack what another holds: the response to `Nudge`.

use dkvs_common::model::{Nudge, Refusal, ReplicaResponse};

use super::replica::Replica;

impl Replica {
    /// Notes it, if this server is one of the two and compares itself with the other.
    pub(super) fn nudge(&self, nudge: Nudge) -> ReplicaResponse {
        let is_noted = self.leaf_sums.as_ref().is_some_and(|leaf_sums| {
            let membership = leaf_sums.membership();
            let cluster = membership.view.cluster();
            let (Some(behind), Some(ahead)) =
                (cluster.find(nudge.behind), cluster.find(nudge.ahead))
            else {
                return false;
            };
            match membership.own {
                own if own == ahead && own != behind => self.nudges.note_behind(behind),
                own if own == behind && own != ahead => self.nudges.note_ahead(ahead),
                _ => false,
            }
        });
        match is_noted {
            true => ReplicaResponse::Done,
            false => ReplicaResponse::Refused(Refusal::Unsupported),
        }
    }
}
