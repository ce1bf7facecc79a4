//! Whether servers answer, and what they report of themselves.

use std::time::Instant;

use dkvs_common::cluster::ServerId;
use dkvs_common::model::{ReplicaCommand, ReplicaResponse};

use super::contract::{CommandId, Operation, Purpose, Step};
use super::outgoing::Outgoing;

/// A server's numbers, by the byte of their statistic; none by DKVS/1.
pub type Statistics = Vec<(u8, u64)>;

/// Each server's statistics; none if it did not answer.
pub(super) type StatusResult = Vec<(ServerId, Option<Statistics>)>;

const GET_STATISTICS: CommandId = CommandId {
    round: 0,
    purpose: Purpose::Statistics,
};

/// Asks each server once for its statistics.
pub struct StatusOperation<F> {
    servers: Vec<(ServerId, Answer)>,
    sent: usize,
    pending: usize,
    on_end: F,
}

/// What came of asking one server.
#[derive(Debug)]
enum Answer {
    Pending,
    Answered(Statistics),
    Silent,
}

impl<F> StatusOperation<F> {
    /// A request of which nothing was sent yet.
    pub fn new(servers: impl IntoIterator<Item = ServerId>, on_end: F) -> Self {
        let pending = |server| (server, Answer::Pending);
        let servers: Vec<_> = servers.into_iter().map(pending).collect();
        Self {
            sent: 0,
            pending: servers.len(),
            servers,
            on_end,
        }
    }

    fn record(&mut self, from: ServerId, answer: Answer) {
        let held = self.servers.iter_mut().find(|(server, _)| *server == from);
        if let Some((_, held @ Answer::Pending)) = held {
            *held = answer;
            self.pending = self.pending.saturating_sub(1);
        }
    }
}

impl<F: FnOnce(StatusResult) + Send> Operation for StatusOperation<F> {
    fn poll_step(&mut self) -> Option<Step> {
        let (to, _) = self.servers.get(self.sent)?;
        self.sent += 1;
        Some(Step::Send {
            to: *to,
            id: GET_STATISTICS,
            outgoing: Outgoing::Command(ReplicaCommand::GetStatistics),
        })
    }

    fn handle_response(
        &mut self,
        from: ServerId,
        _id: CommandId,
        response: ReplicaResponse,
        _now: Instant,
    ) {
        let answer = match response {
            ReplicaResponse::Statistics(statistics) => Answer::Answered(statistics),
            // By DKVS/1 it is asked for a key, and any answer will do.
            ReplicaResponse::Untagged { .. } | ReplicaResponse::Absent { .. } => {
                Answer::Answered(Vec::new())
            }
            _ => Answer::Silent,
        };
        self.record(from, answer);
    }

    fn handle_unreachable(&mut self, to: ServerId, _id: CommandId, _was_sent: bool, _now: Instant) {
        self.record(to, Answer::Silent);
    }

    fn is_decided(&self) -> bool {
        self.pending == 0
    }

    fn handle_deadline(&mut self, _now: Instant) {
        self.pending = 0;
    }

    fn requires_tags(&self) -> bool {
        false
    }

    fn command(&self, id: CommandId) -> Option<ReplicaCommand> {
        (id == GET_STATISTICS).then_some(ReplicaCommand::GetStatistics)
    }

    fn is_abandoned_at_end(&self, _server: ServerId, _id: CommandId) -> bool {
        false
    }

    fn complete(self: Box<Self>, _puts_by_v2: bool) {
        let answer = |(server, answer)| match answer {
            Answer::Answered(statistics) => (server, Some(statistics)),
            Answer::Pending | Answer::Silent => (server, None),
        };
        (self.on_end)(self.servers.into_iter().map(answer).collect());
    }
}
