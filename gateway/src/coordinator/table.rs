//! The requests in flight: request id to state machine. Bounded; past the bound a request is
//! refused before anything is sent.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use bytes::Bytes;
use dkvs_common::cluster::ServerId;
use dkvs_common::connection::fetch::{Assembly, Digest};
use dkvs_common::connection::link::Ticket;
use dkvs_common::kv::{Key, Value};
use dkvs_common::quorum::read::{Read, ReadReply};
use dkvs_common::quorum::tally::Word;
use dkvs_common::quorum::write::{Write, WriteReply};
use dkvs_common::quorum::{Refusal, Version};
use dkvs_common::record::{Content, Record, checksum};
use dkvs_common::tag::Tag;
use tokio::sync::{OwnedSemaphorePermit, oneshot};

use super::deadlines::Deadlines;
use super::probe::Probe;
use super::{NotBegun, Wait, to_all};

/// A request's number, never used twice by a coordinator.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct RequestId(u64);

/// What the servers of a request are asked. Cheap to clone.
#[derive(Debug, Clone)]
pub(super) enum Question {
    Get { key: Key },
    Put { key: Key, record: Record },
    Status,
}

/// Which of a request's questions an answer is to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Asked {
    Get,
    Put { round: u32 },
    Fetch,
    Status,
}

/// The decisions of one request.
pub(super) enum Machine {
    Read(Read),
    Write(Write),
    Probe(Probe),
}

/// One request: its machine, and what is under way for it.
pub(super) struct InFlight {
    pub(super) machine: Machine,
    pub(super) question: Question,
    pub(super) deadline: Instant,
    pub(super) wait: Wait,
    pub(super) done: oneshot::Sender<Ended>,
    /// By DKVS/2.
    pub(super) tickets: Vec<(ServerId, Ticket)>,
    pub(super) fetches: Vec<(ServerId, Digest)>,
    /// What is known of a value that has to be fetched.
    pub(super) beginning: Option<(Digest, Bytes)>,
    pub(super) assembly: Option<Assembly>,
    pub(super) memory: Option<OwnedSemaphorePermit>,
}

/// What a handler gets back.
pub(super) struct Ended {
    pub(super) machine: Machine,
    /// Of a write: its tag, if any server was asked by DKVS/2.
    pub(super) tag: Option<Tag>,
}

/// What one server had to say.
#[derive(Debug)]
pub(super) enum Heard {
    Read(ReadReply),
    /// A record by DKVS/2: what it says of its value, and the value or its beginning.
    Record(Digest, Bytes),
    Write(WriteReply),
    /// Its statistics, by number; DKVS/1 tells none.
    Status(Vec<(u8, u64)>),
    Fetched(Value),
    FetchFailed(Option<Assembly>),
    Unreachable {
        sent: bool,
    },
}

impl Heard {
    /// A refusal, as the answer to what was asked.
    pub(super) fn refused(asked: Asked, refusal: Refusal) -> Self {
        match asked {
            Asked::Get => Self::Read(ReadReply::Refused(refusal)),
            Asked::Put { .. } => Self::Write(WriteReply::Refused(refusal)),
            Asked::Fetch => Self::FetchFailed(None),
            Asked::Status => Self::Unreachable { sent: true },
        }
    }
}

/// What has to be done before a request can go on.
pub(super) enum Next {
    /// Fetch a value.
    Fetch {
        from: ServerId,
        key: Key,
        assembly: Assembly,
        deadline: Instant,
    },
    /// Write again, with a tag greater than this one.
    Exceed(Tag),
}

/// What is asked again in a further round of a write.
pub(super) struct Round {
    pub(super) question: Question,
    pub(super) servers: Vec<ServerId>,
    pub(super) asked: Asked,
    pub(super) deadline: Instant,
}

impl InFlight {
    fn handle(&mut self, from: ServerId, asked: Asked, heard: Heard, now: Instant) {
        match (&mut self.machine, asked, heard) {
            (Machine::Read(read), Asked::Get, Heard::Read(reply)) => {
                read.handle_reply(from, reply, now);
            }
            (Machine::Read(read), Asked::Get, Heard::Record(digest, block)) => {
                let is_long = block.len() < digest.value_bytes as usize;
                let reply = match (&self.question, is_long) {
                    (_, true) => {
                        self.beginning
                            .get_or_insert_with(|| (digest.clone(), block));
                        ReadReply::Digest(digest)
                    }
                    (Question::Get { key }, false) => checked(key, digest, block),
                    (_, false) => ReadReply::Refused(Refusal::Internal),
                };
                read.handle_reply(from, reply, now);
            }
            (Machine::Read(read), Asked::Get, Heard::Unreachable { sent }) => {
                read.handle_unreachable(from, sent, now);
            }
            (Machine::Read(read), Asked::Fetch, heard) => {
                let Some(place) = self.fetches.iter().position(|(server, _)| *server == from)
                else {
                    return;
                };
                let (_, digest) = self.fetches.swap_remove(place);
                match heard {
                    Heard::Fetched(value) => read.handle_fetched(&digest, value),
                    Heard::FetchFailed(assembly) => {
                        self.assembly = assembly.or(self.assembly.take());
                        read.handle_fetch_failed(&digest, from);
                    }
                    _ => read.handle_fetch_failed(&digest, from),
                }
            }
            (Machine::Write(write), Asked::Put { round }, Heard::Write(reply)) => {
                write.handle_reply(from, round, reply, now);
            }
            (Machine::Write(write), Asked::Put { round }, Heard::Unreachable { sent }) => {
                write.handle_unreachable(from, round, sent, now);
            }
            (Machine::Probe(probe), _, Heard::Status(statistics)) => {
                probe.handle_answer(from, statistics);
            }
            (Machine::Probe(probe), _, Heard::Read(_)) => probe.handle_answer(from, Vec::new()),
            (Machine::Probe(probe), _, Heard::Unreachable { .. }) => {
                probe.handle_unreachable(from);
            }
            (_, asked, heard) => {
                debug_assert!(false, "{asked:?} was answered by {heard:?}");
            }
        }
    }

    fn is_due(&self) -> bool {
        let (is_decided, is_complete) = match &self.machine {
            Machine::Read(read) => (read.outcome().is_some(), read.is_complete()),
            Machine::Write(write) => (write.outcome().is_some(), write.is_complete()),
            Machine::Probe(probe) => (probe.is_complete(), probe.is_complete()),
        };
        match self.wait {
            Wait::Quorum => is_decided,
            Wait::All => is_decided && is_complete,
        }
    }

    fn next(&mut self) -> Option<Next> {
        match &mut self.machine {
            Machine::Read(read) => {
                let (from, digest) = read.poll_fetch()?;
                self.fetches.push((from, digest.clone()));
                let Question::Get { key } = &self.question else {
                    return None;
                };
                let assembly = self.assembly.take_if(|held| *held.digest() == digest);
                let assembly = assembly.unwrap_or_else(|| {
                    let begun = self.beginning.as_ref();
                    let begun = begun.filter(|(known, _)| *known == digest);
                    let block = begun.map_or(&[][..], |(_, block)| &block[..]);
                    Assembly::new(digest, block)
                });
                Some(Next::Fetch {
                    from,
                    key: key.clone(),
                    assembly,
                    deadline: self.deadline,
                })
            }
            Machine::Write(write) => write.overtaken_by().map(Next::Exceed),
            Machine::Probe(_) => None,
        }
    }

    /// The questions on whose answers nothing depends any more. Of a write, all do: every replica
    /// is to have the record, although nobody waits for that.
    fn abandoned(&self) -> Vec<(ServerId, Ticket)> {
        let Machine::Read(read) = &self.machine else {
            return Vec::new();
        };
        let pending = |server: ServerId| {
            let replicas = read.replicas().iter();
            let mut pending = replicas.filter(|replica| matches!(replica.word, Word::Pending));
            pending.any(|replica| replica.server == server)
        };
        let is_open = |(server, ticket): &&(ServerId, Ticket)| {
            matches!(ticket, Ticket::Transfer(_)) || pending(*server)
        };
        self.tickets.iter().filter(is_open).copied().collect()
    }

    /// Hands the machine over. A handler that is gone does not need it.
    fn finish(self) {
        let tag = match &self.question {
            Question::Put { record, .. } if !self.tickets.is_empty() => Some(record.tag),
            _ => None,
        };
        let machine = self.machine;
        drop(self.done.send(Ended { machine, tag }));
    }
}

/// A whole record, unless it was damaged.
fn checked(key: &Key, digest: Digest, value: Bytes) -> ReadReply {
    let Ok(value) = Value::new(value) else {
        return ReadReply::Refused(Refusal::Corrupt);
    };
    let version = Version {
        tag: Some(digest.tag),
        content_type: digest.content_type.clone(),
    };
    let content = Content::Value {
        content_type: digest.content_type,
        value: value.clone(),
    };
    if checksum(key, digest.tag, &content) != digest.checksum {
        return ReadReply::Refused(Refusal::Corrupt);
    }
    ReadReply::Value(value, version)
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
    deadlines: Deadlines<RequestId>,
    next: u64,
}

/// What came of a word.
pub(super) enum Handled {
    /// The request waits for more, perhaps for something that has to be done.
    Open(Option<Next>),
    /// It has ended; these questions need no answer.
    Ended(Vec<(ServerId, Ticket)>),
}

impl Table {
    pub(super) fn new(requests_max: usize) -> Self {
        Self {
            rows: Arc::default(),
            requests_max,
        }
    }

    pub(super) fn insert(&self, now: Instant, in_flight: InFlight) -> Result<RequestId, NotBegun> {
        let mut rows = self.rows();
        let rows = &mut *rows;
        if rows.in_flight.len() >= self.requests_max {
            let what = "too many requests are in flight";
            return Err(NotBegun::Overloaded { what });
        }
        let id = RequestId(rows.next);
        rows.next += 1;
        let Rows {
            in_flight: requests,
            deadlines,
            ..
        } = rows;
        deadlines.insert(now, in_flight.deadline, id, |other| {
            requests.contains_key(&other)
        });
        requests.insert(id, in_flight);
        Ok(id)
    }

    /// Feeds a word to the request, if it is still in flight.
    pub(super) fn handle(
        &self,
        id: RequestId,
        from: ServerId,
        asked: Asked,
        heard: Heard,
        now: Instant,
    ) -> Handled {
        let mut rows = self.rows();
        let Some(in_flight) = rows.in_flight.get_mut(&id) else {
            return Handled::Open(None);
        };
        in_flight.handle(from, asked, heard, now);
        if !in_flight.is_due() {
            return Handled::Open(in_flight.next());
        }
        let ended = rows.in_flight.remove(&id);
        drop(rows);
        let abandoned = ended.as_ref().map_or(Vec::new(), InFlight::abandoned);
        if let Some(ended) = ended {
            ended.finish();
        }
        Handled::Ended(abandoned)
    }

    /// Does something to a request, if it is still in flight.
    pub(super) fn with<R>(&self, id: RequestId, act: impl FnOnce(&mut InFlight) -> R) -> Option<R> {
        self.rows().in_flight.get_mut(&id).map(act)
    }

    /// Begins the next round of a write, under another tag.
    pub(super) fn restart(&self, id: RequestId, tag: Tag) -> Option<Round> {
        let mut rows = self.rows();
        let in_flight = rows.in_flight.get_mut(&id)?;
        let (Machine::Write(write), Question::Put { key, record }) =
            (&mut in_flight.machine, &mut in_flight.question)
        else {
            return None;
        };
        let content: Content = record.content.clone();
        *record = Record::new(key, tag, content);
        write.restart();
        Some(Round {
            servers: to_all(|| write.poll_transmit()),
            asked: Asked::Put {
                round: write.round(),
            },
            question: in_flight.question.clone(),
            deadline: in_flight.deadline,
        })
    }

    /// Forgets a request, if it is there; gives the questions that need no answer.
    pub(super) fn remove(&self, id: RequestId) -> Vec<(ServerId, Ticket)> {
        let removed = self.rows().in_flight.remove(&id);
        removed.map_or(Vec::new(), |in_flight| in_flight.abandoned())
    }

    /// No request's deadline is before this.
    pub(super) fn next_deadline(&self) -> Option<Instant> {
        self.rows().deadlines.next()
    }

    /// Ends the requests whose deadlines have come; gives the questions that need no answer.
    pub(super) fn expire(&self, now: Instant) -> Vec<(ServerId, Ticket)> {
        let mut abandoned = Vec::new();
        let mut rows = self.rows();
        while let Some(id) = rows.deadlines.pop_due(now) {
            let Some(mut in_flight) = rows.in_flight.remove(&id) else {
                continue;
            };
            abandoned.extend(in_flight.abandoned());
            match &mut in_flight.machine {
                Machine::Read(read) => read.handle_timeout(now),
                Machine::Write(write) => write.handle_timeout(now),
                Machine::Probe(probe) => probe.handle_timeout(),
            }
            in_flight.finish();
        }
        abandoned
    }

    /// No greater tag is to be had for a write.
    pub(super) fn give_up(&self, id: RequestId) {
        let removed = self.rows().in_flight.remove(&id);
        if let Some(mut in_flight) = removed {
            if let Machine::Write(write) = &mut in_flight.machine {
                write.give_up();
            }
            in_flight.finish();
        }
    }

    fn rows(&self) -> MutexGuard<'_, Rows> {
        self.rows.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
