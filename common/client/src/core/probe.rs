//! Whether servers answer, and what they say of themselves.

use dkvs_common::cluster::ServerId;

/// Asks each server once.
pub struct Probe {
    transmitted: bool,
    answers: Vec<Answer>,
    pending: usize,
}

/// What came of asking one server.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) enum Answer {
    /// Nothing yet.
    #[default]
    Pending,
    /// It answered, with its statistics if its protocol has any.
    Answered(Vec<(u8, u64)>),
    /// It did not.
    None,
}

impl Probe {
    pub(super) fn new(servers: usize) -> Self {
        Self {
            transmitted: false,
            answers: vec![Answer::Pending; servers],
            pending: servers,
        }
    }

    /// Everyone, once.
    pub(super) fn poll_transmit(&mut self) -> Option<Vec<ServerId>> {
        let servers = (0..self.answers.len()).map(|number| ServerId(number as u16));
        (!std::mem::replace(&mut self.transmitted, true)).then(|| servers.collect())
    }

    pub(super) fn handle_answer(&mut self, from: ServerId, statistics: Vec<(u8, u64)>) {
        self.record(from, Answer::Answered(statistics));
    }

    pub(super) fn handle_unreachable(&mut self, from: ServerId) {
        self.record(from, Answer::None);
    }

    /// Whoever has not answered by now does not count as reachable.
    pub(super) fn handle_timeout(&mut self) {
        self.pending = 0;
    }

    pub(super) fn is_complete(&self) -> bool {
        self.pending == 0
    }

    /// Each server's statistics; none if it did not answer. In the cluster's order.
    pub(crate) fn into_answers(self) -> Vec<Option<Vec<(u8, u64)>>> {
        let answer = |answer| match answer {
            Answer::Answered(statistics) => Some(statistics),
            Answer::Pending | Answer::None => None,
        };
        self.answers.into_iter().map(answer).collect()
    }

    fn record(&mut self, from: ServerId, answer: Answer) {
        let held = &mut self.answers[from.index()];
        if *held == Answer::Pending {
            *held = answer;
            self.pending -= 1;
        }
    }
}
