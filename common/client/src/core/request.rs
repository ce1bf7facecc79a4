//! The requests in flight: of each its operation, and the commands that are under way for it.

use std::time::Instant;

use dkvs_common::cluster::ServerId;
use dkvs_common::trace::Trace;

use super::caller::CallerId;
use super::config::Wait;
use super::operation::{CommandId, Operation, Purpose};
use crate::transport::link::RequestHandle;

/// Names a request; never used twice by a core. A later request has the greater one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RequestId {
    number: u64,
    /// Its place among [`Requests`].
    place: u32,
}

#[cfg(test)]
impl RequestId {
    pub(super) fn numbered(number: u64) -> Self {
        Self { number, place: 0 }
    }
}

/// Which command of which request a response is to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Token {
    pub(crate) request: RequestId,
    /// An operation that falls back begins anew: responses to what was sent before that change
    /// nothing.
    pub(super) attempt: u8,
    pub(crate) command: CommandId,
}

/// A command that was sent by DKVS/2.
#[derive(Debug, Clone, Copy)]
pub(super) struct Sent {
    pub(super) to: ServerId,
    pub(super) id: CommandId,
    pub(super) handle: RequestHandle,
}

/// A request in flight.
pub(super) struct InFlight {
    pub(super) operation: Box<dyn Operation>,
    pub(super) started: Instant,
    pub(super) deadline: Instant,
    pub(super) wait: Wait,
    /// Who holds its place.
    pub(super) caller: CallerId,
    /// Whether it has moved to a place among the decided ones.
    pub(super) is_among_decided: bool,
    pub(super) trace: Option<Trace>,
    pub(super) attempt: u8,
    /// What was sent by DKVS/2, except what is not waited for any more.
    pub(super) sent: Vec<Sent>,
}

/// How far a request is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Progress {
    Undecided,
    /// It waits for the other replicas.
    Decided,
    /// Its caller gets an answer now.
    Due,
}

/// All requests in flight, each found by its place: a response looks its request up several times.
#[derive(Default)]
pub(super) struct Requests {
    places: Vec<Option<(RequestId, InFlight)>>,
    free: Vec<u32>,
    begun: u64,
}

impl Requests {
    /// Enters a request, and names it.
    pub(super) fn insert(&mut self, request: InFlight) -> RequestId {
        let place = self.free.pop().unwrap_or_else(|| {
            self.places.push(None);
            // There are far fewer than 2^32 at a time.
            (self.places.len() - 1) as u32
        });
        let number = self.begun;
        self.begun += 1;
        let id = RequestId { number, place };
        self.places[place as usize] = Some((id, request));
        id
    }

    pub(super) fn contains(&self, id: RequestId) -> bool {
        self.get(id).is_some()
    }

    pub(super) fn get(&self, id: RequestId) -> Option<&InFlight> {
        let (held, request) = self.places.get(id.place as usize)?.as_ref()?;
        (*held == id).then_some(request)
    }

    pub(super) fn get_mut(&mut self, id: RequestId) -> Option<&mut InFlight> {
        let (held, request) = self.places.get_mut(id.place as usize)?.as_mut()?;
        (*held == id).then_some(request)
    }

    pub(super) fn remove(&mut self, id: RequestId) -> Option<InFlight> {
        let place = self.places.get_mut(id.place as usize)?;
        let (_, request) = place.take_if(|(held, _)| *held == id)?;
        self.free.push(id.place);
        Some(request)
    }
}

impl InFlight {
    /// Names a command of this request, which is called `request`.
    pub(super) fn token(&self, request: RequestId, command: CommandId) -> Token {
        Token {
            request,
            attempt: self.attempt,
            command,
        }
    }

    /// How far it is.
    pub(super) fn progress(&self) -> Progress {
        match self.wait {
            _ if !self.operation.is_decided() => Progress::Undecided,
            Wait::All if !self.operation.is_complete() => Progress::Decided,
            Wait::Quorum | Wait::All => Progress::Due,
        }
    }

    /// Begins anew at the agreement level, if the operation may; returns what is not waited for any
    /// more.
    pub(super) fn fall_back(&mut self, now: Instant) -> Option<Vec<Sent>> {
        if !self.operation.fall_back(now) {
            return None;
        }
        self.attempt += 1;
        Some(std::mem::take(&mut self.sent))
    }

    /// Removes and returns the commands whose responses change nothing once it has ended.
    pub(super) fn take_abandoned(&mut self) -> Vec<Sent> {
        let operation = &self.operation;
        let is_abandoned = |sent: &mut Sent| operation.is_abandoned_at_end(sent.to, sent.id);
        self.sent.extract_if(.., is_abandoned).collect()
    }

    /// Removes and returns the commands that asked for tags, whose round is over.
    pub(super) fn take_tag_queries(&mut self) -> Vec<Sent> {
        let is_query = |sent: &mut Sent| sent.id.purpose == Purpose::GetTag;
        self.sent.extract_if(.., is_query).collect()
    }

    /// Forgets what was sent to a server by DKVS/2, which did not carry it out.
    pub(super) fn forget(&mut self, server: ServerId) {
        self.sent.retain(|sent| sent.to != server);
    }

    /// Hands the outcome to the caller.
    pub(super) fn complete(self) {
        let puts_by_v2 = self.sent.iter().any(|sent| sent.id.purpose == Purpose::Put);
        self.operation.complete(puts_by_v2);
    }
}
