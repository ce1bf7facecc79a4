//! One request: its machine, what it asks next, and what is under way for it.

use std::time::Instant;

use crate::transport::fetch::Assembly;
use crate::transport::link::Ticket;
use crate::transport::put_key_bytes_max;
use bytes::Bytes;
use dkvs_common::cluster::ServerId;
use dkvs_common::kv::{Key, Value};
use dkvs_common::quorum::list::List;
use dkvs_common::quorum::read::{Read, ReadReply};
use dkvs_common::quorum::tally::Word;
use dkvs_common::quorum::write::Write;
use dkvs_common::quorum::{Ask, Level, Refusal, Transmit};
use dkvs_common::record::{Content, ContentType, Digest, Record, checksum};
use dkvs_common::tag::Tag;
use dkvs_common::trace::Trace;
use dkvs_common::wire::v2::request::Request;
use tokio::sync::OwnedSemaphorePermit;

use super::feasibility::Met;
use super::probe::Probe;
use super::words::{Asked, Heard, Question};
use crate::Wait;

/// The decisions of one request.
pub enum Machine {
    /// A read.
    Read(Read),
    /// A write.
    Write(Write),
    /// A listing of keys.
    List(List),
    /// Whether servers answer.
    Probe(Probe),
}

/// A request that has ended.
pub struct Ended {
    /// What it came to.
    pub machine: Machine,
    /// Of a write: its tag, if any server was asked by DKVS/2.
    pub tag: Option<Tag>,
}

/// What a request is about.
pub(super) enum Subject {
    Get {
        key: Key,
    },
    Put {
        key: Key,
        content: Content,
        /// With the tag of the round, once it has one.
        record: Option<Record>,
    },
    Keys {
        /// What they begin with.
        prefix: Bytes,
    },
    Status,
}

pub(super) struct InFlight<W> {
    pub(super) machine: Machine,
    pub(super) subject: Subject,
    pub(super) started: Instant,
    pub(super) deadline: Instant,
    pub(super) wait: Wait,
    pub(super) trace: Option<Trace>,
    pub(super) waiter: W,
    /// Whether it may go on at the agreement level where a server turns out to have no tags.
    pub(super) may_fall_back: bool,
    pub(super) attempt: u8,
    /// What was asked by DKVS/2, but for what nobody waits for any more.
    pub(super) tickets: Vec<(ServerId, Asked, Ticket)>,
    pub(super) fetches: Vec<(ServerId, Digest)>,
    /// What is known of a value that has to be fetched.
    pub(super) beginning: Option<(Digest, Bytes)>,
    pub(super) assembly: Option<Assembly>,
    pub(super) memory: Option<OwnedSemaphorePermit>,
    /// Of a write: the servers that are met before it is known whether it can succeed.
    pub(super) met: Vec<(ServerId, Met)>,
}

/// What has to be done for a request to go on.
pub(super) enum Next {
    /// Ask these servers.
    Ask {
        asked: Asked,
        question: Question,
        servers: Vec<ServerId>,
    },
    /// Fetch a value.
    Fetch {
        from: ServerId,
        key: Key,
        assembly: Assembly,
    },
    /// Ask this server to vouch for what it was given.
    Vouch {
        server: ServerId,
        round: u32,
        key: Key,
        tag: Tag,
    },
    /// Mint a tag greater than this one.
    Mint(Tag),
}

impl<W> InFlight<W> {
    /// What it wants to be done, until that is nothing.
    pub(super) fn next(&mut self) -> Option<Next> {
        match (&mut self.machine, &self.subject) {
            (Machine::Read(read), Subject::Get { key }) => {
                if let Some((ask, servers)) = to_all(|| read.poll_transmit()) {
                    let (round, key) = (read.round(), key.clone());
                    let (asked, question) = match ask {
                        Ask::Put => {
                            let (tag, content) = read.repair()?;
                            let record = Record::new(&key, tag, content);
                            (Asked::Repair { round }, Question::Put { key, record })
                        }
                        Ask::Vouch { tag } => {
                            return Some(Next::Vouch {
                                server: servers[0],
                                round,
                                key,
                                tag,
                            });
                        }
                        Ask::Get | Ask::Tag => (Asked::Get { round }, Question::Get { key }),
                    };
                    return Some(Next::Ask {
                        asked,
                        question,
                        servers,
                    });
                }
                let (from, digest) = read.poll_fetch()?;
                self.fetches.push((from, digest.clone()));
                let assembly = self.assembly.take_if(|held| *held.digest() == digest);
                let assembly = assembly.unwrap_or_else(|| {
                    let begun = self.beginning.as_ref();
                    let begun = begun.filter(|(known, _)| *known == digest);
                    let block = begun.map_or(&[][..], |(_, block)| &block[..]);
                    Assembly::new(digest, block)
                });
                let key = key.clone();
                Some(Next::Fetch {
                    from,
                    key,
                    assembly,
                })
            }
            (Machine::Write(write), Subject::Put { key, record, .. }) => {
                if let Some(seen) = write.wants_tag_above() {
                    return Some(Next::Mint(seen));
                }
                let (ask, servers) = to_all(|| write.poll_transmit())?;
                let (round, key) = (write.round(), key.clone());
                let (asked, question) = match (ask, record) {
                    (Ask::Put, Some(record)) => {
                        let record = record.clone();
                        (Asked::Put { round }, Question::Put { key, record })
                    }
                    _ => (Asked::Tag { round }, Question::Tag { key }),
                };
                Some(Next::Ask {
                    asked,
                    question,
                    servers,
                })
            }
            (Machine::List(list), Subject::Keys { prefix }) => {
                let (server, wish) = list.poll_transmit()?;
                let prefix = prefix.clone();
                Some(Next::Ask {
                    asked: Asked::Page,
                    question: Question::Page { wish, prefix },
                    servers: vec![server],
                })
            }
            (Machine::Probe(probe), _) => Some(Next::Ask {
                asked: Asked::Status,
                question: Question::Status,
                servers: probe.poll_transmit()?,
            }),
            _ => None,
        }
    }

    /// Begins the next round of a write under `tag`; gives what is not waited for any more.
    pub(super) fn begin_round(&mut self, tag: Tag) -> Vec<(ServerId, Ticket)> {
        if let (
            Machine::Write(write),
            Subject::Put {
                key,
                content,
                record,
            },
        ) = (&mut self.machine, &mut self.subject)
        {
            *record = Some(Record::new(key, tag, content.clone()));
            write.begin_round(tag);
        }
        self.take_tickets(|_, asked| matches!(asked, Asked::Tag { .. }))
    }

    pub(super) fn handle(&mut self, from: ServerId, asked: Asked, heard: Heard, now: Instant) {
        match (&mut self.machine, asked, heard) {
            (_, Asked::Ping, heard) => {
                let met = match heard {
                    Heard::Unreachable { .. } => Met::Away,
                    _ => Met::Done,
                };
                let pinged = self.met.iter_mut().find(|(server, _)| *server == from);
                pinged.into_iter().for_each(|(_, held)| *held = met);
            }
            (Machine::Read(read), Asked::Get { round }, Heard::Read(reply)) => {
                read.handle_reply(from, round, reply, now);
            }
            (Machine::Read(read), Asked::Get { round }, Heard::Record(digest, block)) => {
                let is_long = block.len() < digest.value_bytes as usize;
                let reply = match &self.subject {
                    _ if is_long => {
                        self.beginning
                            .get_or_insert_with(|| (digest.clone(), block));
                        ReadReply::Record(digest, None)
                    }
                    Subject::Get { key } => checked(key, digest, block),
                    _ => ReadReply::Refused(Refusal::Internal),
                };
                read.handle_reply(from, round, reply, now);
            }
            (Machine::Read(read), Asked::Get { round }, Heard::Unreachable { sent }) => {
                read.handle_unreachable(from, round, sent, now);
            }
            (Machine::Read(read), Asked::Repair { round }, Heard::Write(reply)) => {
                read.handle_repaired(from, round, Some(reply));
            }
            (Machine::Read(read), Asked::Repair { round }, Heard::Unreachable { .. }) => {
                read.handle_repaired(from, round, None);
            }
            (Machine::Read(read), Asked::Vouch { round }, heard) => {
                read.handle_vouched(from, round, matches!(heard, Heard::Vouched(true)));
            }
            (Machine::Read(_), Asked::Fetch, heard) => self.handle_fetch(from, heard),
            (
                Machine::Write(write),
                Asked::Tag { round } | Asked::Put { round },
                Heard::Write(reply),
            ) => {
                write.handle_reply(from, round, reply, now);
            }
            (
                Machine::Write(write),
                Asked::Tag { round } | Asked::Put { round },
                Heard::Unreachable { sent },
            ) => {
                write.handle_unreachable(from, round, sent, now);
            }
            (
                Machine::List(list),
                _,
                Heard::Page {
                    more,
                    is_incomplete,
                    is_left_out,
                    entries,
                },
            ) => {
                if is_left_out {
                    list.handle_left_out(from);
                }
                list.handle_page(from, more, is_incomplete, entries);
            }
            (Machine::List(list), _, Heard::PageRefused(refusal)) => {
                list.handle_refusal(from, refusal);
            }
            (Machine::List(list), _, Heard::Unreachable { .. }) => list.handle_unreachable(from),
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

    fn handle_fetch(&mut self, from: ServerId, heard: Heard) {
        let Machine::Read(read) = &mut self.machine else {
            return;
        };
        let Some(place) = self.fetches.iter().position(|(server, _)| *server == from) else {
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

    /// The deadline has passed.
    pub(super) fn handle_timeout(&mut self, now: Instant) {
        match &mut self.machine {
            Machine::Read(read) => read.handle_timeout(now),
            Machine::Write(write) => write.handle_timeout(now),
            Machine::List(list) => list.handle_timeout(),
            Machine::Probe(probe) => probe.handle_timeout(),
        }
    }

    /// Servers were silent for so long that a listing goes on without them, if it can.
    pub(super) fn handle_patience(&mut self) {
        if let Machine::List(list) = &mut self.machine {
            list.handle_patience();
        }
    }

    /// No tag is to be had that is great enough.
    pub(super) fn give_up(&mut self) {
        if let Machine::Write(write) = &mut self.machine {
            write.give_up();
        }
    }

    /// Whether whoever asked is to be told.
    pub(super) fn is_due(&self) -> bool {
        let (is_decided, is_complete) = match &self.machine {
            Machine::Read(read) => (read.outcome().is_some(), read.is_complete()),
            Machine::Write(write) => (write.outcome().is_some(), write.is_complete()),
            Machine::List(list) => (list.outcome().is_some(), list.outcome().is_some()),
            Machine::Probe(probe) => (probe.is_complete(), probe.is_complete()),
        };
        match self.wait {
            Wait::Quorum => is_decided,
            Wait::All => is_decided && is_complete,
        }
    }

    /// Whether it is a read that met a record by DKVS/1 before anyone was told what it came to, and
    /// may do with less than its level.
    pub(super) fn wants_to_fall_back(&self) -> bool {
        matches!(&self.machine, Machine::Read(read) if self.may_fall_back && read.has_met_v1())
    }

    /// Goes back to the beginning at the agreement level, if it may and if it has changed nothing
    /// yet; gives what is not waited for any more.
    pub(super) fn fall_back(&mut self, now: Instant) -> Option<Vec<(ServerId, Ticket)>> {
        let deadline = self.deadline;
        self.machine = match &self.machine {
            Machine::Read(read) if self.may_fall_back => {
                Machine::Read(read.agreeing_instead(now, deadline)?)
            }
            Machine::Write(write) if self.may_fall_back && write.is_asking() => {
                let (list, quorum, level) = (write.list(), write.quorum(), Level::Agreement);
                Machine::Write(Write::new(list, quorum, level, now, deadline))
            }
            _ => return None,
        };
        self.may_fall_back = false;
        self.met.clear();
        self.attempt += 1;
        self.fetches.clear();
        Some(self.take_all())
    }

    /// Has a write that is storing already go on at the agreement level, if it may.
    pub(super) fn fall_back_midway(&mut self) -> bool {
        match &mut self.machine {
            Machine::Write(write) if self.may_fall_back => write.fall_back(),
            _ => false,
        }
    }

    /// Whether it is a write that begins anew under a greater tag.
    pub(super) fn wants_another_round(&self) -> bool {
        matches!(&self.machine, Machine::Write(write) if write.wants_tag_above().is_some())
    }

    /// The questions on whose answers nothing depends any more. Of a put, all do: every replica
    /// is to have the record, although nobody waits for that. So it is with vouching.
    pub(super) fn take_abandoned(&mut self) -> Vec<(ServerId, Ticket)> {
        let silent: Vec<ServerId> = match &self.machine {
            Machine::Read(read) => {
                let replicas = read.replicas().iter();
                let pending = replicas.filter(|replica| matches!(replica.word, Word::Pending));
                pending.map(|replica| replica.server).collect()
            }
            Machine::Write(_) | Machine::List(_) | Machine::Probe(_) => Vec::new(),
        };
        self.take_tickets(|server, asked| match asked {
            Asked::Get { .. } => silent.contains(&server),
            Asked::Tag { .. } | Asked::Fetch | Asked::Page | Asked::Ping => true,
            Asked::Put { .. } | Asked::Repair { .. } | Asked::Vouch { .. } | Asked::Status => false,
        })
    }

    /// All of its questions.
    pub(super) fn take_all(&mut self) -> Vec<(ServerId, Ticket)> {
        self.take_tickets(|_, _| true)
    }

    fn take_tickets(
        &mut self,
        is_taken: impl Fn(ServerId, Asked) -> bool,
    ) -> Vec<(ServerId, Ticket)> {
        let taken = self
            .tickets
            .extract_if(.., |(server, asked, _)| is_taken(*server, *asked));
        taken.map(|(server, _, ticket)| (server, ticket)).collect()
    }

    /// Whether it is of no use to ask who has no tags.
    pub(super) fn needs_tags(&self) -> bool {
        let level = match &self.machine {
            Machine::Read(read) => read.level(),
            Machine::Write(write) => write.level(),
            // A page has tags.
            Machine::List(_) => Level::Linearizable,
            Machine::Probe(_) => Level::Agreement,
        };
        level == Level::Linearizable
    }

    /// Why a question whose message would be longer than `message_bytes_max` is not asked: but for
    /// its key, it would fit.
    pub(super) fn key_too_long(&self, asked: Asked, message_bytes_max: usize) -> Refusal {
        let key_bytes_max = match (asked, &self.subject) {
            (Asked::Tag { .. } | Asked::Put { .. }, Subject::Put { content, .. }) => {
                put_key_bytes_max(content, message_bytes_max)
            }
            (Asked::Get { .. }, Subject::Get { .. }) => {
                message_bytes_max.saturating_sub(Request::GET_KEY_OVERHEAD_BYTES)
            }
            // Nobody is told of the others.
            _ => 0,
        };
        let key_bytes_max = u32::try_from(key_bytes_max).unwrap_or(u32::MAX);
        Refusal::KeyTooLong { key_bytes_max }
    }

    /// What is asked by one of its questions, as it would be asked now.
    pub(super) fn question(&self, asked: Asked) -> Option<Question> {
        match (asked, &self.subject) {
            (Asked::Get { .. }, Subject::Get { key }) => Some(Question::Get { key: key.clone() }),
            (Asked::Put { round }, Subject::Put { key, record, .. }) => {
                let Machine::Write(write) = &self.machine else {
                    return None;
                };
                let (key, record) = (key.clone(), record.clone()?);
                (write.round() == round).then_some(Question::Put { key, record })
            }
            (Asked::Status, _) => Some(Question::Status),
            _ => None,
        }
    }

    pub(super) fn finish(self) -> (W, Ended) {
        let is_put = |(_, asked, _): &(ServerId, Asked, Ticket)| matches!(asked, Asked::Put { .. });
        let is_by_v2 = self.tickets.iter().any(is_put);
        let is_unasked = matches!(&self.machine, Machine::Write(write) if write.has_asked_nobody());
        let tag = match self.subject {
            Subject::Put {
                record: Some(record),
                ..
            } if is_by_v2 || is_unasked => Some(record.tag),
            _ => None,
        };
        let machine = self.machine;
        (self.waiter, Ended { machine, tag })
    }
}

/// Everyone whom a machine wants to be asked now, and what. Who is to vouch, comes alone.
fn to_all(mut poll_transmit: impl FnMut() -> Option<Transmit>) -> Option<(Ask, Vec<ServerId>)> {
    let Transmit { to, ask } = poll_transmit()?;
    if let Ask::Vouch { .. } = ask {
        return Some((ask, vec![to]));
    }
    let rest = std::iter::from_fn(poll_transmit).inspect(|transmit| {
        debug_assert_eq!(transmit.ask, ask, "a machine asks one thing at a time");
    });
    let rest = rest.map(|transmit| transmit.to);
    Some((ask, std::iter::once(to).chain(rest).collect()))
}

/// A whole record, unless it was damaged.
fn checked(key: &Key, digest: Digest, value: Bytes) -> ReadReply {
    let Ok(value) = Value::new(value) else {
        return ReadReply::Refused(Refusal::Corrupt);
    };
    let content_type: ContentType = digest.content_type.clone();
    let content = Content::Value {
        content_type,
        value: value.clone(),
    };
    if checksum(key, digest.tag, &content) != digest.checksum {
        return ReadReply::Refused(Refusal::Corrupt);
    }
    ReadReply::Record(digest, Some(value))
}
