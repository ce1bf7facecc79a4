//! Operations for tests, each in one short line. They are on key 1 unless a test says otherwise.

use std::ops::RangeInclusive;

use super::{Action, Operation, Reply};

/// A read that returned this.
pub(super) fn read(client: u32, time: RangeInclusive<u64>, seen: Option<u64>) -> Operation {
    operation(client, time, Action::Read, Reply::Holds(seen))
}

/// A write that was done.
pub(super) fn write(client: u32, time: RangeInclusive<u64>, value: u64) -> Operation {
    operation(client, time, Action::Write(value), Reply::Done)
}

/// A delete that was done.
pub(super) fn delete(client: u32, time: RangeInclusive<u64>) -> Operation {
    operation(client, time, Action::Delete, Reply::Done)
}

fn operation(client: u32, time: RangeInclusive<u64>, action: Action, reply: Reply) -> Operation {
    Operation {
        client,
        key: 1,
        action,
        invoked: *time.start(),
        returned: Some(*time.end()),
        reply,
    }
}

impl Operation {
    /// The same on another key.
    pub(super) fn on(self, key: u32) -> Self {
        Self { key, ..self }
    }

    /// The same with a reply that leaves the outcome unknown.
    pub(super) fn unknown(self) -> Self {
        let reply = Reply::Unknown;
        Self { reply, ..self }
    }

    /// The same without a reply.
    pub(super) fn unanswered(self) -> Self {
        let returned = None;
        Self { returned, ..self }.unknown()
    }

    /// The same with a reply that it is not done.
    pub(super) fn never_done(self) -> Self {
        let reply = Reply::NotDone;
        Self { reply, ..self }
    }
}
