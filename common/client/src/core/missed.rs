//! What replicas have missed of writes that have ended, and who is told.

use std::time::Duration;

use dkvs_common::cluster::ServerId;
use dkvs_common::model::{Nudge, ReplicaCommand};

use super::caller::CallerId;
use super::config::Now;
use super::operation::{CommandId, Missed, Purpose};
use super::request::{InFlight, RequestId, Sent, Token};
use super::state::Core;

/// How long a server has to answer that it was told.
const NUDGE_TIMEOUT: Duration = Duration::from_secs(1);

impl Core {
    /// A request has ended: of a write, replicas may lack what others have confirmed.
    pub(super) fn note_missed(&mut self, id: RequestId, request: &InFlight, now: Now) {
        let Some(Missed { ahead, behind }) = request.operation.missed() else {
            return;
        };
        for (server, is_pending) in behind {
            let is_put = |sent: &Sent| {
                sent.to == server && matches!(sent.id.purpose, Purpose::Put | Purpose::Commit)
            };
            if !is_pending {
                self.nudge(id, server, ahead, now);
            } else if request.sent.iter().any(is_put) {
                self.nudges.remember(id, server, ahead);
            }
        }
    }

    /// A command of a request that has ended has no answer and gets none.
    pub(super) fn handle_late_failure(&mut self, token: Token, server: ServerId, now: Now) {
        match token.command.purpose {
            Purpose::WriteBack => drop(self.attestations.remove(token.request, server)),
            Purpose::Put | Purpose::Commit => {
                if let Some(ahead) = self.nudges.forget(token.request, server) {
                    self.nudge(token.request, server, ahead, now);
                }
            }
            _ => {}
        }
    }

    /// Tells `ahead` that `behind` may lack what it holds.
    fn nudge(&mut self, id: RequestId, behind: ServerId, ahead: ServerId, now: Now) {
        let cluster = self.view.cluster();
        let (Some(behind_addr), Some(ahead_addr)) = (cluster.addr(behind), cluster.addr(ahead))
        else {
            return;
        };
        if !self.nudges.is_due(behind, ahead, now.at) {
            return;
        }
        let Some(link) = self.servers.to(ahead) else {
            return;
        };
        let command = ReplicaCommand::Nudge(Nudge {
            behind: behind_addr,
            ahead: ahead_addr,
        });
        let token = Token {
            request: id,
            attempt: 0,
            command: CommandId {
                round: 0,
                purpose: Purpose::Nudge,
            },
        };
        let by = (token, CallerId::Internal.party());
        let deadline = now.at + NUDGE_TIMEOUT;
        if link.send(command, by, now.at, deadline).is_ok() {
            self.counts.of_mut(behind).nudges += 1;
        }
    }
}
