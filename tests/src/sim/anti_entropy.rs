//! The anti-entropy of a server: the production machine, and how it asks by the server's own client.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use dkvs_client::core::{Core, Now};
use dkvs_common::model::ReplicaResponse;
use dkvs_storage_node::anti_entropy::{AntiEntropy, Timing};
use dkvs_storage_node::service::Service;

/// What a server pulls a second at most, in bytes.
const BYTES_PER_SECOND: u64 = 1 << 20;

/// The answers to what was asked, by its number.
type Answers = VecDeque<(u64, Option<ReplicaResponse>)>;

/// A machine, and what it was answered.
pub struct Pulling {
    machine: AntiEntropy,
    answers: Arc<Mutex<Answers>>,
}

impl Pulling {
    /// That of a server that knows its cluster; none of another.
    pub fn new(service: Arc<Service>, timing: Timing, now: Now) -> Option<Self> {
        let machine = AntiEntropy::new(service, timing, BYTES_PER_SECOND, now.at, || {})?;
        let answers = Arc::default();
        Some(Self { machine, answers })
    }

    /// Does all that can be done now.
    pub fn drive(&mut self, core: &mut Core, now: Now) {
        self.machine.handle_wake(now.at);
        if self.machine.poll_timeout().is_some_and(|due| due <= now.at) {
            self.machine.handle_timeout(now.at);
        }
        loop {
            while let Some(ask) = self.machine.poll_ask() {
                let (answers, id) = (Arc::clone(&self.answers), ask.id);
                let end = move |answer| {
                    let mut answers = answers.lock().unwrap_or_else(PoisonError::into_inner);
                    answers.push_back((id, answer));
                };
                if core
                    .ask(ask.to, ask.command, ask.timeout, now, end)
                    .is_err()
                {
                    self.machine.handle_answer(id, None, now.at);
                }
            }
            while let Some(finish) = self.machine.poll_finish() {
                let (record, condition) = (
                    (finish.content, finish.attributes),
                    (finish.condition, finish.attempt),
                );
                let request = core.request_of_server(finish.key, record, condition, finish.timeout);
                // One that is refused is found again.
                let _ = core.write_if(request, now, |_| {});
            }
            let answer = {
                let mut answers = self.answers.lock().unwrap_or_else(PoisonError::into_inner);
                answers.pop_front()
            };
            let Some((id, answer)) = answer else {
                return;
            };
            self.machine.handle_answer(id, answer, now.at);
        }
    }

    /// When it is to be driven next, if nothing happens before.
    pub fn next_timeout(&self) -> Option<Instant> {
        self.machine.poll_timeout()
    }
}
