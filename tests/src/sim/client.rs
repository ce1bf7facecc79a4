//! A client: one operation at a time, and a while of thought between two.
//!
//! It asks any gateway that is up, or stays at one. A write of unknown outcome it may send again
//! under the tag of the answer, at any gateway: that is the same operation still.

use std::collections::BTreeMap;
use std::time::Duration;

use dkvs_client::core::CallerId;
use dkvs_common::quorum::conditional::Condition;
use dkvs_common::record::{Attributes, Content};
use dkvs_common::tag::Tag;

use super::chance::Chance;
use super::ledger::{Entry, Ledger};
use super::moment::Moment;
use super::plan::{KeyPlan, WorkloadPlan};
use super::request::{Request, RequestKind};
use super::values;
use crate::history::{Action, Expectation};
use crate::random::Random;

/// One client.
pub struct Client {
    /// Its place among the clients.
    number: usize,
    /// Its number in the history. It takes another when it does not know whether the operation
    /// that it left is still under way.
    pub name: u32,
    pub state: State,
    plan: WorkloadPlan,
    random: Random,
    /// How likely a request may do with the level agreement.
    falls_back: Chance,
    /// How likely a write is conditional.
    conditional: Chance,
    /// For that, so that a world without conditional writes is what it would be if there were none.
    random_of_conditional: Random,
    /// By key: the newest version that it has seen, and its value.
    pub seen: BTreeMap<usize, (Tag, u64)>,
    /// For that, so that a world without DKVS/1 is what it would be if there were none.
    random_of_v1: Random,
    gateway: Option<usize>,
    /// On whose behalf it asks.
    caller: CallerId,
}

/// What a client does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    /// It thinks about what to do next.
    Thinks,
    /// It waits for the answer to this operation.
    Waits { operation: usize, gateway: usize },
    /// It is going to ask for this operation again, under the same tag.
    Retries { operation: usize },
    /// It has done its share.
    Rests,
}

/// Most bytes of a value that fits a datagram anywhere, and of one that may not.
const SHORT_BYTES_MAX: usize = 64;
const LONG_BYTES_MAX: usize = 8_192;

/// How often an operation is asked at most.
const ATTEMPTS_MAX: u32 = 6;

impl Client {
    /// A client that has not asked anything yet.
    pub fn new(
        seed: u64,
        number: usize,
        plan: WorkloadPlan,
        (falls_back, conditional): (Chance, Chance),
        callers: usize,
    ) -> Self {
        Self {
            falls_back,
            conditional,
            random_of_conditional: Random::of(seed, &format!("client {number} and conditions")),
            seen: BTreeMap::new(),
            random_of_v1: Random::of(seed, &format!("client {number} and DKVS/1")),
            number,
            name: number as u32,
            state: State::Thinks,
            plan,
            random: Random::of(seed, &format!("client {number}")),
            gateway: None,
            caller: CallerId::Token((number % callers) as u64),
        }
    }

    /// How long it thinks this time.
    pub fn thinks(&mut self) -> Duration {
        self.plan.thinks.draw(&mut self.random) + Duration::from_nanos(1)
    }

    /// Which of the gateways that are up it asks, if any is.
    pub fn choose(&mut self, up: &[usize]) -> Option<usize> {
        let stays = self.plan.stays.happens(&mut self.random);
        let place = self.random.below(up.len().max(1));
        let kept = self.gateway.filter(|kept| stays && up.contains(kept));
        self.gateway = kept.or_else(|| up.get(place).copied());
        self.gateway
    }

    /// A new operation, entered in the ledger.
    pub fn begin(&mut self, keys: &[KeyPlan], ledger: &mut Ledger, now: Moment) -> Request {
        let key = self.random.below(keys.len());
        let number = ledger.next_number() as u64;
        let is_read = self.plan.reads.happens(&mut self.random);
        let is_delete = self.plan.deletes.happens(&mut self.random);
        let is_long = self.plan.long_values.happens(&mut self.random);
        let bytes_max = match is_long {
            true => LONG_BYTES_MAX,
            false => SHORT_BYTES_MAX,
        };
        let value_bytes = self.random.below(bytes_max);
        let action = match (is_read, is_delete) {
            (true, _) => Action::Read,
            (false, true) => Action::Delete,
            (false, false) => Action::Write(number),
        };
        let level = keys[key].level;
        let (action, expected) = self.condition(key, &keys[key], action);
        let operation = ledger.enter(self.name, key, action, level, value_bytes, now);
        ledger.entry_mut(operation).expected = expected;
        self.request(operation, keys, ledger, now)
    }

    /// The same, or a write of it on a condition; and the tag of what that expects.
    fn condition(&mut self, key: usize, plan: &KeyPlan, action: Action) -> (Action, Option<Tag>) {
        let then = match action {
            Action::Write(number) => Some(number),
            Action::Delete => None,
            Action::Read | Action::Conditional { .. } => return (action, None),
        };
        let random = &mut self.random_of_conditional;
        if !plan.may_be_conditional || !self.conditional.happens(random) {
            return (action, None);
        }
        let kind = random.below(8);
        let (expects, expected) = match (kind, self.seen.get(&key)) {
            (0..5, Some((tag, value))) => (Expectation::Value(*value), Some(*tag)),
            (0..6, _) if then.is_some() => (Expectation::NoValue, None),
            _ => (Expectation::AnyValue, None),
        };
        (Action::Conditional { expects, then }, expected)
    }

    /// The same operation once more.
    pub fn repeat(
        &mut self,
        operation: usize,
        keys: &[KeyPlan],
        ledger: &mut Ledger,
        now: Moment,
    ) -> Request {
        ledger.entry_mut(operation).retry();
        self.request(operation, keys, ledger, now)
    }

    /// How long it waits for an answer to come within `timeout`, if it goes away before that.
    pub fn leaves_after(&mut self, timeout: Duration) -> Option<Duration> {
        let leaves = self.plan.leaves.happens(&mut self.random);
        let part = self.random.below(1 << 10) as u32;
        leaves.then(|| timeout / (1 << 10) * part)
    }

    /// Whether it asks again for an operation whose outcome it does not know.
    pub fn retries(&mut self, attempts: u32) -> bool {
        attempts < ATTEMPTS_MAX && self.plan.resubmits.happens(&mut self.random)
    }

    fn request(
        &mut self,
        operation: usize,
        keys: &[KeyPlan],
        ledger: &mut Ledger,
        now: Moment,
    ) -> Request {
        let timeout = self.random.one_of(&self.plan.timeouts);
        let waits_for_all = self.plan.waits_for_all.happens(&mut self.random);
        let may_fall_back = self.falls_back.happens(&mut self.random_of_v1);
        let entry = ledger.entry_mut(operation);
        entry.deadline = now + timeout;
        entry.requester = Some(self.number);
        entry.may_fall_back = may_fall_back;
        entry.waits_for_all = waits_for_all;
        let key = &keys[entry.operation.key as usize];
        let attributes = values::attributes(operation as u64, entry.attempts);
        let kind = kind(entry, attributes);
        Request {
            operation,
            attempt: entry.attempts,
            caller: self.caller,
            key: key.key.clone(),
            quorum: match kind {
                RequestKind::Read => key.read,
                RequestKind::Write { .. } | RequestKind::WriteIf { .. } => key.write,
            },
            kind,
            level: entry.level,
            may_fall_back,
            timeout,
            waits_for_all,
        }
    }
}

fn kind(entry: &Entry, attributes: Attributes) -> RequestKind {
    let content = match entry.operation.action {
        Action::Read => return RequestKind::Read,
        Action::Write(number) => values::content(number, entry.value_bytes),
        Action::Delete => Content::Tombstone,
        Action::Conditional { expects, then } => {
            return RequestKind::WriteIf {
                content: then.map_or(Content::Tombstone, |number| {
                    values::content(number, entry.value_bytes)
                }),
                attributes,
                condition: match expects {
                    Expectation::Value(_) => {
                        Condition::Matches(entry.expected.into_iter().collect())
                    }
                    Expectation::AnyValue => Condition::Exists,
                    Expectation::NoValue => Condition::Absent,
                },
                attempt: entry.attempt,
            };
        }
    };
    RequestKind::Write {
        content,
        attributes,
        tag: entry.tag,
    }
}
