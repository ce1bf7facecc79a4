//! The requests open towards one server.
//!
//! Invariants: a request is open from [`Peer::request`] until its reply, its deadline,
//! [`Peer::cancel`], or the server's turning out to speak DKVS/1 only, and each of these is told
//! exactly once; a reply is taken at most once; what is in flight is never more than the window
//! allows, but for a single datagram.

use std::collections::{BTreeMap, VecDeque};
use std::time::{Duration, Instant};

use bytes::Bytes;
use thiserror::Error;

use super::rtt::RoundTrip;
use super::window::{RetryBudget, Window};
use crate::wire::v2::envelope::{self, Builder, Envelope, PLAIN_BYTES, Proof, Sender};
use crate::wire::v2::message::{REQUEST_HEAD_BYTES, RequestId, RequestMessage, next_reply};
use crate::wire::v2::reply::{Greeting, Reply};
use crate::wire::v2::request::Request;

/// Most requests open towards one server.
pub const REQUESTS_MAX: usize = 16_384;

/// How often a server that is in use is greeted, so that one that was restarted, in another
/// version even, is noticed within a second.
pub const GREETING_INTERVAL: Duration = Duration::from_millis(500);

/// What is the same for all servers.
#[derive(Debug, Clone, Copy)]
pub struct Config {
    /// The longest datagram to send and to take, in bytes.
    pub datagram_bytes_max: usize,
    /// The ring that this client belongs to.
    pub epoch: u32,
}

/// What a server turned out to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Speaks {
    /// It has not answered a greeting yet.
    Unknown,
    /// DKVS/2, and this is what it said of itself.
    V2(Greeting),
    /// DKVS/1 only: it answered a greeting as a put with an empty key.
    V1,
}

/// Something that the caller has to know.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// A request was answered.
    Reply {
        /// Which one.
        id: RequestId,
        /// The answer.
        reply: Reply,
        /// From its first transmission until now.
        after: Duration,
    },
    /// A request's deadline has passed.
    Expired {
        /// Which one.
        id: RequestId,
    },
    /// The server speaks DKVS/1 only, so that this request is not going to be answered.
    NotV2 {
        /// Which one.
        id: RequestId,
    },
    /// The server was started anew since it was last greeted: what it held in memory is gone.
    Restarted,
}

/// A request cannot be opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[expect(missing_docs, reason = "each variant's message is its documentation")]
pub enum RequestError {
    #[error("{REQUESTS_MAX} requests are open towards this server")]
    TooMany,
    #[error("the request takes {message_bytes} bytes, and a datagram holds {message_bytes_max}")]
    TooLong {
        message_bytes: usize,
        message_bytes_max: usize,
    },
}

/// Counts since the start.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Counters {
    /// Requests sent for the first time.
    pub sent: u64,
    /// Requests sent again.
    pub sent_again: u64,
    /// Requests that were due to be sent again and were not, for want of budget.
    pub over_budget: u64,
    /// Datagrams sent.
    pub datagrams_sent: u64,
    /// Replies that matched no open request.
    pub strays: u64,
    /// Datagrams that did not prove, or whose messages were not understood.
    pub damaged: u64,
}

/// One server, as a client sees it.
#[derive(Debug)]
pub struct Peer {
    config: Config,
    speaks: Speaks,
    open: BTreeMap<RequestId, Open>,
    next_id: u64,
    /// Requests to be sent, for the first time or again.
    outbox: VecDeque<RequestId>,
    events: VecDeque<Event>,
    round_trip: RoundTrip,
    window: Window,
    budget: RetryBudget,
    /// No request is due before this.
    next_due: Option<Instant>,
    greeting: Option<RequestId>,
    greet_at: Instant,
    random: u64,
    counters: Counters,
}

#[derive(Debug)]
struct Open {
    /// The encoded message; the bytes that say how long the client waits are written on sending.
    message: Vec<u8>,
    deadline: Instant,
    transmissions: u32,
    first_sent: Instant,
    /// When to send it again, or, while it is in the outbox, its deadline.
    due: Instant,
    /// Whether its bytes count in the window.
    in_flight: bool,
}

impl Peer {
    /// A server of which nothing is known. `random` makes the request ids unguessable and
    /// spreads retransmissions; two peers must not be given the same.
    pub fn new(config: Config, random: u64, now: Instant) -> Self {
        Self {
            config,
            speaks: Speaks::Unknown,
            open: BTreeMap::new(),
            next_id: random,
            outbox: VecDeque::new(),
            events: VecDeque::new(),
            round_trip: RoundTrip::default(),
            window: Window::default(),
            budget: RetryBudget::default(),
            next_due: None,
            greeting: None,
            greet_at: now,
            random,
            counters: Counters::default(),
        }
    }

    /// What the server turned out to be.
    pub fn speaks(&self) -> Speaks {
        self.speaks
    }

    /// The smoothed round trip; none before the first unambiguous reply.
    pub fn round_trip(&self) -> Option<Duration> {
        self.round_trip.smoothed()
    }

    /// Counts since the start.
    pub fn counters(&self) -> Counters {
        self.counters
    }

    /// How many requests are open.
    pub fn open_requests(&self) -> usize {
        self.open.len()
    }

    /// The longest message, its head included, that fits a datagram to this server.
    pub fn message_bytes_max(&self) -> usize {
        let theirs = match self.speaks {
            Speaks::V2(greeting) => usize::from(greeting.datagram_bytes_max),
            _ => usize::MAX,
        };
        self.config.datagram_bytes_max.min(theirs) - PLAIN_BYTES
    }

    /// Opens a request. It is sent by the [`Self::poll_transmit`] that follows.
    pub fn request(
        &mut self,
        request: Request,
        now: Instant,
        deadline: Instant,
    ) -> Result<RequestId, RequestError> {
        if self.open.len() >= REQUESTS_MAX {
            return Err(RequestError::TooMany);
        }
        if self.greeting.is_none() && now >= self.greet_at {
            self.greet(now);
        }
        self.enter(request, now, deadline)
    }

    /// Greets the server, whether or not there is anything to ask of it, unless a greeting is
    /// under way.
    pub fn greet(&mut self, now: Instant) {
        if self.greeting.is_none() {
            let datagram_bytes_max =
                u16::try_from(self.config.datagram_bytes_max).unwrap_or(u16::MAX);
            let deadline = now + GREETING_INTERVAL;
            self.greet_at = deadline;
            let greeting = self.enter(Request::Greet { datagram_bytes_max }, now, deadline);
            self.greeting = greeting.ok();
        }
    }

    fn enter(
        &mut self,
        request: Request,
        now: Instant,
        deadline: Instant,
    ) -> Result<RequestId, RequestError> {
        let id = RequestId(self.next_id);
        let mut message = Vec::new();
        RequestMessage {
            id,
            wait_ms: 0,
            request,
        }
        .encode(&mut message);
        let (message_bytes, message_bytes_max) = (message.len(), self.message_bytes_max());
        if message_bytes > message_bytes_max {
            return Err(RequestError::TooLong {
                message_bytes,
                message_bytes_max,
            });
        }
        self.next_id = self.next_id.wrapping_add(1);
        let open = Open {
            message,
            deadline,
            transmissions: 0,
            first_sent: now,
            due: deadline,
            in_flight: false,
        };
        self.open.insert(id, open);
        self.outbox.push_back(id);
        self.wake_by(deadline);
        Ok(id)
    }

    /// Forgets a request: its reply, should it come, is a stray.
    pub fn cancel(&mut self, id: RequestId) {
        if let Some(open) = self.open.remove(&id)
            && open.in_flight
        {
            self.window.given_up(open.message.len());
        }
    }

    /// The next datagram to send: as many of the waiting messages as it holds and the window
    /// allows; none when there is nothing to send now.
    pub fn poll_transmit(&mut self, now: Instant) -> Option<Vec<u8>> {
        let mut builder = None;
        while let Some(id) = self.outbox.front().copied() {
            let Some(open) = self.open.get_mut(&id) else {
                // Cancelled, answered or expired while it waited.
                self.outbox.pop_front();
                continue;
            };
            if !self.window.has_room(open.message.len()) {
                break;
            }
            let (config, bytes_max) = (&self.config, self.config.datagram_bytes_max);
            let builder = builder.get_or_insert_with(|| {
                let envelope = Envelope {
                    sender: Sender::Client,
                    epoch: config.epoch,
                    authentication: None,
                };
                Builder::new(envelope, bytes_max)
            });
            let wait = open.deadline.saturating_duration_since(now).as_millis();
            let wait_ms = u16::try_from(wait).unwrap_or(u16::MAX);
            open.message[REQUEST_HEAD_BYTES - 2..REQUEST_HEAD_BYTES]
                .copy_from_slice(&wait_ms.to_be_bytes());
            if !builder.push(|datagram| datagram.extend_from_slice(&open.message)) {
                break;
            }
            self.outbox.pop_front();
            self.sent(id, now);
        }
        let datagram = builder.filter(|builder| !builder.is_empty())?.finish();
        self.counters.datagrams_sent += 1;
        Some(datagram)
    }

    fn sent(&mut self, id: RequestId, now: Instant) {
        let Some(open) = self.open.get_mut(&id) else {
            return;
        };
        open.transmissions += 1;
        open.in_flight = true;
        self.window.sent(open.message.len());
        if open.transmissions == 1 {
            open.first_sent = now;
            self.counters.sent += 1;
            self.budget.earn();
        } else {
            self.counters.sent_again += 1;
        }
        // Numerical Recipes' generator: it need not be good, only different between peers.
        self.random = self
            .random
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        let wait = self
            .round_trip
            .backed_off(open.transmissions, (self.random >> 56) as u8);
        open.due = open.deadline.min(now + wait);
        let due = open.due;
        self.wake_by(due);
    }

    /// A datagram arrived from the server.
    pub fn handle_datagram(&mut self, datagram: &Bytes, now: Instant) {
        if datagram.is_empty() {
            self.handle_v1_answer(now);
            return;
        }
        let mut messages = match envelope::open(datagram, Proof::Checksum) {
            Ok((envelope, messages)) if envelope.sender == Sender::Server => messages,
            _ => {
                self.counters.damaged += 1;
                return;
            }
        };
        loop {
            match next_reply(&mut messages) {
                Ok(Some(message)) => self.handle_reply(message.id, message.reply, now),
                Ok(None) => return,
                Err(_) => {
                    self.counters.damaged += 1;
                    return;
                }
            }
        }
    }

    fn handle_reply(&mut self, id: RequestId, reply: Reply, now: Instant) {
        let Some(open) = self.open.remove(&id) else {
            self.counters.strays += 1;
            return;
        };
        let after = now.saturating_duration_since(open.first_sent);
        if open.transmissions == 1 {
            self.round_trip.sample(after);
        }
        if open.in_flight {
            self.window.answered(open.message.len());
        }
        if self.greeting == Some(id) {
            self.greeting = None;
            if let Reply::Greeting(greeting) = reply {
                self.handle_greeting(greeting);
            }
            return;
        }
        self.events.push_back(Event::Reply { id, reply, after });
    }

    fn handle_greeting(&mut self, greeting: Greeting) {
        if let Speaks::V2(before) = self.speaks
            && before.boot_id != greeting.boot_id
        {
            self.events.push_back(Event::Restarted);
        }
        self.speaks = Speaks::V2(greeting);
    }

    /// An empty datagram is what a DKVS/1 server answers to anything of ours.
    fn handle_v1_answer(&mut self, now: Instant) {
        self.speaks = Speaks::V1;
        self.greet_at = now + GREETING_INTERVAL;
        self.window = Window::default();
        self.outbox.clear();
        let greeting = self.greeting.take();
        let given_back = std::mem::take(&mut self.open).into_keys();
        let told = given_back.filter(|id| Some(*id) != greeting);
        self.events.extend(told.map(|id| Event::NotV2 { id }));
    }

    /// When to call [`Self::handle_timeout`] next.
    pub fn poll_timeout(&self) -> Option<Instant> {
        self.next_due
    }

    /// Time has passed: requests past their deadline are told as expired, and those not answered
    /// in time are to be sent again, as far as the budget goes.
    pub fn handle_timeout(&mut self, now: Instant) {
        if self.next_due.is_none_or(|due| now < due) {
            return;
        }
        let mut expired = Vec::new();
        let mut next_due: Option<Instant> = None;
        for (id, open) in &mut self.open {
            if open.deadline <= now {
                expired.push(*id);
                continue;
            }
            if open.due <= now && open.in_flight {
                self.window.given_up(open.message.len());
                let round_trip = self.round_trip.timeout();
                self.window.lost(now, round_trip);
                open.in_flight = false;
                if self.budget.spend() {
                    self.outbox.push_back(*id);
                    open.due = open.deadline;
                } else {
                    self.counters.over_budget += 1;
                    open.in_flight = true;
                    self.window.sent(open.message.len());
                    open.due = open.deadline.min(now + round_trip);
                }
            }
            next_due = Some(next_due.map_or(open.due, |next| next.min(open.due)));
        }
        self.next_due = next_due;
        for id in expired {
            self.cancel(id);
            if self.greeting == Some(id) {
                self.greeting = None;
            } else {
                self.events.push_back(Event::Expired { id });
            }
        }
    }

    /// What has happened, in order.
    pub fn poll_event(&mut self) -> Option<Event> {
        self.events.pop_front()
    }

    fn wake_by(&mut self, due: Instant) {
        self.next_due = Some(self.next_due.map_or(due, |next| next.min(due)));
    }
}
