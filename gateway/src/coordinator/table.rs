//! The requests in flight: request id to state machine. Bounded; past the bound a request is
//! refused before anything is sent.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use dkvs_common::cluster::ServerId;
use dkvs_common::quorum::read::{Read, ReadReply};
use dkvs_common::quorum::write::{Write, WriteReply};
use tokio::sync::oneshot;

use super::{NotBegun, Wait};

/// A request's number, never used twice by a coordinator.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct RequestId(u64);

/// A machine, and the handler that waits for it.
pub(super) enum InFlight {
    Read {
        machine: Read,
        done: oneshot::Sender<Read>,
        wait: Wait,
    },
    Write {
        machine: Write,
        done: oneshot::Sender<Write>,
        wait: Wait,
    },
}

/// What one server had to say.
#[derive(Debug)]
pub(super) enum Heard {
    Read(ReadReply),
    Write(WriteReply),
    Unreachable,
}

/// A machine that a handler gets back.
pub(super) trait Finished {}
impl Finished for Read {}
impl Finished for Write {}

impl InFlight {
    fn handle(&mut self, from: ServerId, heard: Heard, now: Instant) {
        match (self, heard) {
            (Self::Read { machine, .. }, Heard::Read(reply)) => {
                machine.handle_reply(from, reply, now);
            }
            (Self::Read { machine, .. }, Heard::Unreachable) => {
                machine.handle_unreachable(from, now);
            }
            (Self::Write { machine, .. }, Heard::Write(reply)) => {
                machine.handle_reply(from, reply, now);
            }
            (Self::Write { machine, .. }, Heard::Unreachable) => {
                machine.handle_unreachable(from, now);
            }
            (Self::Read { .. }, Heard::Write(_)) | (Self::Write { .. }, Heard::Read(_)) => {
                debug_assert!(false, "an exchange decodes the reply to what it asked");
            }
        }
    }

    fn is_due(&self) -> bool {
        let (decided, complete, wait) = match self {
            Self::Read { machine, wait, .. } => {
                (machine.outcome().is_some(), machine.is_complete(), wait)
            }
            Self::Write { machine, wait, .. } => {
                (machine.outcome().is_some(), machine.is_complete(), wait)
            }
        };
        match wait {
            Wait::Quorum => decided,
            Wait::All => complete,
        }
    }

    /// Hands the machine over. A handler that is gone does not need it.
    fn finish(self) {
        match self {
            Self::Read { machine, done, .. } => drop(done.send(machine)),
            Self::Write { machine, done, .. } => drop(done.send(machine)),
        }
    }
}

/// Clones are handles to the same table. The lock is the worker's own and never contended; it
/// is there so that handlers may be `Send`, and is never held across an await.
#[derive(Clone)]
pub(super) struct Table {
    rows: Arc<Mutex<Rows>>,
    requests_max: usize,
}

#[derive(Default)]
struct Rows {
    in_flight: HashMap<RequestId, InFlight>,
    next: u64,
}

impl Table {
    pub(super) fn new(requests_max: usize) -> Self {
        Self {
            rows: Arc::default(),
            requests_max,
        }
    }

    pub(super) fn insert(&self, in_flight: InFlight) -> Result<RequestId, NotBegun> {
        let mut rows = self.rows();
        if rows.in_flight.len() >= self.requests_max {
            let what = "too many requests are in flight";
            return Err(NotBegun::Overloaded { what });
        }
        let id = RequestId(rows.next);
        rows.next += 1;
        rows.in_flight.insert(id, in_flight);
        Ok(id)
    }

    /// Feeds a word to the request, if it is still in flight.
    pub(super) fn handle(&self, id: RequestId, from: ServerId, heard: Heard, now: Instant) {
        let mut rows = self.rows();
        let Some(in_flight) = rows.in_flight.get_mut(&id) else {
            return;
        };
        in_flight.handle(from, heard, now);
        if in_flight.is_due()
            && let Some(due) = rows.in_flight.remove(&id)
        {
            due.finish();
        }
    }

    /// Forgets a request, if it is there.
    pub(super) fn remove(&self, id: RequestId) {
        self.rows().in_flight.remove(&id);
    }

    /// The request's deadline has come.
    pub(super) fn expire(&self, id: RequestId, now: Instant) {
        let removed = self.rows().in_flight.remove(&id);
        if let Some(mut in_flight) = removed {
            match &mut in_flight {
                InFlight::Read { machine, .. } => machine.handle_timeout(now),
                InFlight::Write { machine, .. } => machine.handle_timeout(now),
            }
            in_flight.finish();
        }
    }

    fn rows(&self) -> MutexGuard<'_, Rows> {
        self.rows.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Takes a request out of the table when its handler is gone, however it went.
pub(super) struct Guard<'a> {
    table: &'a Table,
    id: RequestId,
}

impl<'a> Guard<'a> {
    pub(super) fn new(table: &'a Table, id: RequestId) -> Self {
        Self { table, id }
    }
}

impl Drop for Guard<'_> {
    fn drop(&mut self) {
        self.table.remove(self.id);
    }
}
