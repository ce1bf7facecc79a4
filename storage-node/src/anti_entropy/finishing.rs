//! What was accepted and left: a gateway ended before the replicas had agreed, or before it said so.
//!
//! A server that finds something accepted of which nothing has come for an interval makes the conditional
//! write that it was once more, for the same version. So it is agreed on, or something else is, and the
//! server can vouch for the key to those that lost records.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use dkvs_common::kv::Key;
use dkvs_common::quorum::conditional::{Attempt, Condition};
use dkvs_common::record::{Attributes, Content};
use dkvs_common::slot::Ballot;
use dkvs_common::tag::Tag;

use crate::service::Service;
use crate::store::RecordStore as _;

/// Most keys that are looked at in an interval, and of which something is finished at a time.
const LOOKED_AT_MAX: usize = 256;
const FINISHED_MAX: usize = 16;

/// A conditional write to be made once more.
#[derive(Debug, Clone)]
pub struct Finish {
    /// Of which key.
    pub key: Key,
    /// What it writes.
    pub content: Content,
    /// What the record says beside that.
    pub attributes: Attributes,
    /// What has to be there.
    pub condition: Condition,
    /// Which write it was, and for which version.
    pub attempt: Attempt,
    /// How long it may take.
    pub timeout: Duration,
}

/// What a server has seen accepted.
pub(super) struct Finishing {
    service: Arc<Service>,
    interval: Duration,
    timeout: Duration,
    due: Instant,
    /// Behind which key it looks next.
    after: Bytes,
    /// What it saw the last time.
    seen: BTreeMap<Bytes, (Tag, Ballot)>,
    finishes: VecDeque<Finish>,
}

impl Finishing {
    pub(super) fn new(
        service: Arc<Service>,
        interval: Duration,
        timeout: Duration,
        now: Instant,
    ) -> Self {
        Self {
            service,
            interval,
            timeout,
            due: now + interval,
            after: Bytes::new(),
            seen: BTreeMap::new(),
            finishes: VecDeque::new(),
        }
    }

    pub(super) fn poll(&mut self) -> Option<Finish> {
        self.finishes.pop_front()
    }

    pub(super) fn due(&self) -> Instant {
        self.due
    }

    pub(super) fn handle_timeout(&mut self, now: Instant) {
        if now < self.due {
            return;
        }
        self.due = now + self.interval;
        let store = self.service.store();
        let open = store.open_slots(&self.after, LOOKED_AT_MAX);
        self.after = match open.last() {
            Some((last, ..)) if open.len() == LOOKED_AT_MAX => last.clone(),
            _ => Bytes::new(),
        };
        for (key, base, ballot) in &open {
            let is_left = self.seen.get(key) == Some(&(*base, *ballot));
            if is_left && self.finishes.len() < FINISHED_MAX {
                self.finishes.extend(self.finish(key, *base));
            }
        }
        let seen = open.into_iter();
        self.seen = seen
            .map(|(key, base, ballot)| (key, (base, ballot)))
            .collect();
    }

    fn finish(&self, key: &Bytes, base: Tag) -> Option<Finish> {
        let key = Key::new(key.clone()).ok()?;
        let store = self.service.store();
        let (held, accepted) = store.accepted(&key)?;
        let record = &accepted.record;
        let operation = record.attributes.operation.filter(|_| held == base)?;
        let is_value = store.peek(&key).is_some_and(|head| !head.is_tombstone);
        Some(Finish {
            content: record.content.clone(),
            attributes: record.attributes,
            condition: match is_value {
                true => Condition::Exists,
                false => Condition::Absent,
            },
            attempt: Attempt { base, operation },
            timeout: self.timeout,
            key,
        })
    }
}
