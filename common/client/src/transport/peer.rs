//! The requests open towards one server.
//!
//! ```text
//!               greeting answered
//!   Unknown -------------------------> V2
//!      |  ^                             |
//!      |  +---- port unreachable -------+
//!      |
//!      +--- greetings in a row answered by DKVS/1 ---> V1 --- greeting answered ---> V2
//! ```
//!
//! An empty datagram is how a server of DKVS/1 answers a greeting, and it proves nothing: it has no
//! checksum and no request id, and a damaged greeting may draw it from a server that speaks DKVS/2.
//! So a server passes for one of DKVS/1 only after [`V1_GREETINGS`] greetings in a row had that
//! answer and no other; and one that has spoken DKVS/2 never does, until its port was unreachable:
//! then it may have been started anew.
//!
//! Nothing but greetings is sent to a server that has not answered one: so no request reaches a
//! server that cannot read it, and a request that ends before then was certainly never sent.
//!
//! Invariants: a request is open from [`Peer::request`] until its reply, its deadline, or the
//! server's turning out to be unreachable or to speak DKVS/1 only, and is told exactly once how it
//! ended, unless it was abandoned; a reply is taken at most once; what is in flight is never more
//! than the window allows, but for a single message.

use dkvs_common::model::ReplicaCommand;
use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap, VecDeque};
use std::net::SocketAddrV4;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use thiserror::Error;

use super::rtt::RoundTrip;
use super::window::{RetryBudget, Window};
use dkvs_common::mutants::{self, Mutant};
use dkvs_common::trace::Trace;
use dkvs_common::wire::v2::envelope::{
    self, AUTHENTICATED_BYTES, Authentication, Builder, Envelope, PLAIN_BYTES, Proof, Sender,
};
use dkvs_common::wire::v2::keys::Keys;
use dkvs_common::wire::v2::message::{REQUEST_HEAD_BYTES, RequestId, RequestMessage, next_reply};
use dkvs_common::wire::v2::reply::{Greeting, Reply};
use dkvs_common::wire::v2::request::Request;

/// Most requests open towards one server.
pub const REQUESTS_MAX: usize = 16_384;

/// How often a server that is in use is greeted, so that one that was restarted, in another
/// version even, is noticed within a second.
pub const GREETING_INTERVAL: Duration = Duration::from_millis(500);

/// How many greetings in a row have to be answered by DKVS/1, and not by DKVS/2, before a server
/// passes for one that speaks DKVS/1 only.
pub const V1_GREETINGS: u32 = 4;

/// From such an answer to the next greeting, so that a copy of the answer, which names no greeting,
/// has arrived by then as a rule.
pub const V1_PAUSE: Duration = Duration::from_millis(3);

/// For how long a server whose port was unreachable is taken to be so, without asking it again.
pub const UNREACHABLE_REST: Duration = Duration::from_millis(10);

/// What a client knows before it meets a server.
#[derive(Debug, Clone)]
pub struct Config {
    /// The longest datagram to send, in bytes.
    pub datagram_bytes_max: usize,
    /// The most that may be on its way, in bytes: what the system keeps until it is received.
    pub window_bytes_max: usize,
    /// The ring that this client belongs to.
    pub epoch: u32,
    /// Whether a server that speaks DKVS/1 only is going to be asked by that, for which nothing here
    /// is too long. So what is too long is told of only when it is known that the server is none.
    pub is_v1_asked: bool,
    /// The cluster's keys, if it has any, and this client's address as the server sees it.
    pub keys: Option<(Arc<Keys>, SocketAddrV4)>,
}

/// What a server turned out to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Speaks {
    /// It has not answered a greeting yet.
    Unknown,
    /// DKVS/2, and this is what it said of itself.
    V2(Greeting),
    /// DKVS/1 only: it answered [`V1_GREETINGS`] greetings in a row as puts with an empty key.
    V1,
}

/// A start of the server's process, as far as it can be told from here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Incarnation {
    /// Its random number.
    pub boot_id: u64,
    /// When the first answer that told the number arrived. The server had been started by then;
    /// when the greeting was sent, it may not have been.
    pub known_since: Instant,
}

/// Something that the caller has to know. A request is named by the token it was opened with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event<T> {
    /// A request was answered.
    Reply {
        /// Which one.
        token: T,
        /// The answer.
        reply: Reply,
        /// From its first transmission until now.
        after: Duration,
        /// Whether it was sent more than once: what the answer says holds for one of the copies.
        was_repeated: bool,
    },
    /// A request's deadline has passed.
    Expired {
        /// Which one.
        token: T,
    },
    /// The server speaks DKVS/1 only, so that this request is not going to be answered. It
    /// changed nothing there.
    NotV2 {
        /// Which one.
        token: T,
    },
    /// Nothing listens at the server's port.
    Unreachable {
        /// Which request ends by that.
        token: T,
        /// Whether it was sent before, and so may have been carried out.
        sent: bool,
    },
    /// The request is longer than the server turned out to take. It was not sent.
    TooLong {
        /// Which one.
        token: T,
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
    #[error("nothing listens at the server's port")]
    Unreachable,
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
    /// Requests that were sent and not answered before they were given up.
    pub unanswered: u64,
    /// Replies to open requests.
    pub replies: u64,
    /// How often the system told that nothing listens at the server's port.
    pub unreachable: u64,
    /// Datagrams sent.
    pub datagrams_sent: u64,
    /// Replies that matched no open request.
    pub strays: u64,
    /// Datagrams that did not prove, or whose messages were not understood.
    pub damaged: u64,
    /// Empty datagrams, which are answers by DKVS/1.
    pub v1_answers: u64,
}

/// One server, as a client sees it. `T` names a request to the caller.
#[derive(Debug)]
pub struct Peer<T> {
    config: Config,
    speaks: Speaks,
    open: BTreeMap<RequestId, Open<T>>,
    /// For [`Mutant::RepeatsCounted`]: what was answered.
    #[cfg(feature = "mutants")]
    answered: BTreeMap<RequestId, T>,
    next_id: u64,
    /// Requests to be sent again, and those to be sent for the first time.
    again: VecDeque<RequestId>,
    fresh: VecDeque<RequestId>,
    events: VecDeque<Event<T>>,
    /// When something is due for which request; those that were rescheduled or have ended are
    /// skipped.
    dues: BinaryHeap<Reverse<(Instant, RequestId)>>,
    greeting: Greeted,
    /// How many greetings in a row were answered by DKVS/1 and not by DKVS/2.
    v1_greetings: u32,
    /// The last of these. An answer by DKVS/2 to any of them counts, however late.
    v1_answered: VecDeque<RequestId>,
    /// Of the server that was last met.
    incarnation: Option<Incarnation>,
    session: u64,
    sequence: u64,
    unreachable_until: Option<Instant>,
    round_trip: RoundTrip,
    window: Window,
    budget: RetryBudget,
    random: u64,
    counters: Counters,
}

#[derive(Debug)]
struct Open<T> {
    token: T,
    /// The encoded message, but for [`Self::block`] at its end; the bytes that say how long the
    /// client waits are written on sending.
    message: Vec<u8>,
    /// The block of an upload, which is not copied before it is sent.
    block: Bytes,
    /// What it takes of the window: its own bytes, or those of the reply if they are many more.
    window_bytes: usize,
    deadline: Instant,
    transmissions: u32,
    first_sent: Instant,
    last_sent: Instant,
    /// Its place in [`Peer::dues`]; none while it has not been sent and was not held up.
    due: Option<Instant>,
    /// Whether its bytes count in the window.
    in_flight: bool,
    /// Nobody waits for the reply: it is not sent again.
    is_abandoned: bool,
    /// What is sent before it the first time, where that fits.
    trace: Option<Vec<u8>>,
}

/// The greeting that is under way, if one is, and when the next one is due.
#[derive(Debug)]
struct Greeted {
    under_way: Option<RequestId>,
    transmissions: u32,
    first_sent: Option<Instant>,
    /// Whether it was answered by DKVS/1. The answer by DKVS/2 may yet come.
    is_answered_by_v1: bool,
    /// When to send it, for the first time or again; none if that is not due before it ends.
    send_at: Option<Instant>,
    ends: Instant,
}

impl<T: Copy> Peer<T> {
    /// A server of which nothing is known. `random` makes the request ids unguessable and
    /// spreads retransmissions; two peers must not be given the same.
    pub fn new(config: Config, random: u64, now: Instant) -> Self {
        Self {
            window: Window::new(config.datagram_bytes_max, config.window_bytes_max),
            config,
            speaks: Speaks::Unknown,
            open: BTreeMap::new(),
            #[cfg(feature = "mutants")]
            answered: BTreeMap::new(),
            next_id: random,
            again: VecDeque::new(),
            fresh: VecDeque::new(),
            events: VecDeque::new(),
            dues: BinaryHeap::new(),
            greeting: Greeted {
                under_way: None,
                transmissions: 0,
                first_sent: None,
                is_answered_by_v1: false,
                send_at: None,
                ends: now,
            },
            v1_greetings: 0,
            v1_answered: VecDeque::new(),
            incarnation: None,
            session: 0,
            sequence: 0,
            unreachable_until: None,
            round_trip: RoundTrip::default(),
            budget: RetryBudget::default(),
            random,
            counters: Counters::default(),
        }
    }

    /// What the server turned out to be.
    pub fn speaks(&self) -> Speaks {
        self.speaks
    }

    /// Whether the server, which spoke DKVS/2 and was not seen to end since, answers greetings by
    /// DKVS/1 instead. It is not asked by that: whoever looks after it has to see to it.
    pub fn is_downgraded(&self) -> bool {
        matches!(self.speaks, Speaks::V2(_)) && self.v1_greetings >= V1_GREETINGS
    }

    /// The server's last start, as far as is known.
    pub fn incarnation(&self) -> Option<Incarnation> {
        self.incarnation
    }

    /// The smoothed round trip; none before the first unambiguous reply.
    pub fn round_trip(&self) -> Option<Duration> {
        self.round_trip.smoothed()
    }

    /// How long to wait for a reply before asking again.
    pub fn retransmission_timeout(&self) -> Duration {
        self.round_trip.timeout()
    }

    /// Counts since the start.
    pub fn counters(&self) -> Counters {
        self.counters
    }

    /// How many bytes are on their way to the server or asked of it.
    pub fn in_flight_bytes(&self) -> usize {
        self.window.in_flight()
    }

    /// How many may be.
    pub fn window_bytes(&self) -> usize {
        self.window.bytes_max()
    }

    /// The longest message, its head included, that fits a datagram to this server.
    pub fn message_bytes_max(&self) -> usize {
        self.datagram_bytes_max() - self.envelope_bytes()
    }

    /// Takes other keys into use, from the next datagram on.
    pub fn set_keys(&mut self, keys: Arc<Keys>) {
        if let Some((held, _)) = &mut self.config.keys {
            *held = keys;
        }
    }

    /// Opens a request. It is sent by the [`Self::poll_transmit`] that follows, or, if the server
    /// has not answered a greeting yet, once it has.
    pub fn request(
        &mut self,
        request: Request,
        token: T,
        now: Instant,
        deadline: Instant,
    ) -> Result<RequestId, RequestError> {
        if self.is_unreachable(now) {
            return Err(RequestError::Unreachable);
        }
        if self.open.len() >= REQUESTS_MAX {
            return Err(RequestError::TooMany);
        }
        if self.speaks == Speaks::V1 && self.greeting.under_way.is_none() {
            // It would wait for the next greeting, which nothing else brings about.
            self.greet(now);
        } else {
            self.greet_if_due(now);
        }
        let reply_bytes = match &request {
            Request::Command(ReplicaCommand::GetBlock { block_bytes, .. }) => {
                usize::from(*block_bytes)
            }
            _ => 0,
        };
        let id = self.next_id();
        let (message, block) = encode(id, request);
        let message_bytes = message.len() + block.len();
        let message_bytes_max = self.message_bytes_max();
        let may_speak_v1 = self.config.is_v1_asked && self.speaks == Speaks::Unknown;
        if message_bytes > message_bytes_max && !may_speak_v1 {
            return Err(RequestError::TooLong {
                message_bytes,
                message_bytes_max,
            });
        }
        let open = Open {
            token,
            window_bytes: message_bytes + reply_bytes,
            message,
            block,
            deadline,
            transmissions: 0,
            first_sent: now,
            last_sent: now,
            due: None,
            in_flight: false,
            is_abandoned: false,
            trace: None,
        };
        self.open.insert(id, open);
        self.fresh.push_back(id);
        Ok(id)
    }

    /// Tells the server which trace a request belongs to, if that was not sent yet.
    pub fn trace(&mut self, of: RequestId, trace: Trace) {
        let id = self.next_id();
        if let Some(open) = self.open.get_mut(&of) {
            open.trace = Some(encode(id, Request::Trace { of, trace }).0);
        }
    }

    /// Greets the server if it was not greeted for [`GREETING_INTERVAL`].
    pub fn greet_if_due(&mut self, now: Instant) {
        if now >= self.greeting.ends {
            self.greet(now);
        }
    }

    /// Greets the server, whether or not there is anything to ask of it.
    pub fn greet(&mut self, now: Instant) {
        self.greet_at(now);
    }

    fn greet_at(&mut self, at: Instant) {
        self.greeting = Greeted {
            under_way: Some(self.next_id()),
            transmissions: 0,
            first_sent: None,
            is_answered_by_v1: false,
            send_at: Some(at),
            ends: at + GREETING_INTERVAL,
        };
    }

    /// Whether nothing listened at the server's port a moment ago.
    pub(super) fn is_unreachable(&self, now: Instant) -> bool {
        self.unreachable_until.is_some_and(|until| now < until)
    }

    /// Whether there is nothing left to send, and room for `window_bytes` more.
    pub(super) fn is_hungry(&self, window_bytes: usize) -> bool {
        matches!(self.speaks, Speaks::V2(_))
            && self.again.is_empty()
            && self.fresh.is_empty()
            && self.window.has_room(window_bytes)
    }

    /// Nobody waits for the reply any more: the request is not sent again. Its reply is still
    /// told, should it come; its end otherwise is not.
    pub fn abandon(&mut self, id: RequestId) {
        if let Some(open) = self.open.get_mut(&id) {
            open.is_abandoned = true;
        }
    }

    /// The next datagram to send: a greeting, or as many of the waiting messages as it holds and
    /// the window allows; none when there is nothing to send now.
    pub fn poll_transmit(&mut self, now: Instant) -> Option<Vec<u8>> {
        if let Some(greeting) = self.poll_greeting(now) {
            return Some(greeting);
        }
        if !matches!(self.speaks, Speaks::V2(_)) {
            self.schedule_held_up();
            return None;
        }
        let mut builder: Option<Builder> = None;
        while let Some((id, is_again)) = self.next_to_send() {
            let bytes_max = self.datagram_bytes_max();
            let Some(open) = self.open.get_mut(&id) else {
                // Answered while it waited.
                self.sent_or_gone(is_again);
                continue;
            };
            if open.is_abandoned && open.transmissions == 0 {
                self.sent_or_gone(is_again);
                self.open.remove(&id);
                continue;
            }
            if !self.window.has_room(open.window_bytes) {
                break;
            }
            write_wait(&mut open.message, open.deadline, now);
            let builder = match &mut builder {
                Some(builder) => builder,
                None => {
                    self.sequence += 1;
                    let envelope = envelope_of(&self.config, self.session, self.sequence);
                    builder.insert(Builder::new(envelope, bytes_max))
                }
            };
            let trace = open.trace.take();
            let write = |datagram: &mut Vec<u8>| {
                datagram.extend_from_slice(trace.as_deref().unwrap_or_default());
                datagram.extend_from_slice(&open.message);
                datagram.extend_from_slice(&open.block);
            };
            if !builder.push(write) {
                if !builder.is_empty() {
                    open.trace = trace;
                    break;
                }
                if trace.is_some() {
                    // Alone it may fit.
                    continue;
                }
                // It was opened before the server told what it takes.
                let token = open.token;
                self.sent_or_gone(is_again);
                self.open.remove(&id);
                self.events.push_back(Event::TooLong { token });
                continue;
            }
            self.sent_or_gone(is_again);
            self.sent(id, now);
        }
        if builder.is_none() {
            self.schedule_held_up();
        }
        let datagram = self.finish(builder.filter(|builder| !builder.is_empty())?);
        Some(datagram)
    }

    fn next_to_send(&self) -> Option<(RequestId, bool)> {
        let again = self.again.front().map(|id| (*id, true));
        again.or_else(|| self.fresh.front().map(|id| (*id, false)))
    }

    fn sent_or_gone(&mut self, is_again: bool) {
        if is_again {
            self.again.pop_front();
        } else {
            self.fresh.pop_front();
        }
    }

    /// What cannot be sent now may have to be told as expired. The newest are at the end, and
    /// those before one that was scheduled were scheduled with it.
    fn schedule_held_up(&mut self) {
        for id in self.fresh.iter().rev() {
            let Some(open) = self.open.get_mut(id) else {
                continue;
            };
            if open.due.is_some() {
                break;
            }
            open.due = Some(open.deadline);
            self.dues.push(Reverse((open.deadline, *id)));
        }
    }

    fn poll_greeting(&mut self, now: Instant) -> Option<Vec<u8>> {
        let id = self.greeting.under_way?;
        self.greeting.send_at.filter(|at| *at <= now)?;
        let datagram_bytes_max = u16::try_from(self.config.datagram_bytes_max).unwrap_or(u16::MAX);
        let mut message = Vec::new();
        RequestMessage {
            id,
            wait_ms: 0,
            request: Request::Greet { datagram_bytes_max },
        }
        .encode(&mut message);
        write_wait(&mut message, self.greeting.ends, now);
        let envelope = envelope_of(&self.config, 0, 0);
        let mut builder = Builder::new(envelope, self.datagram_bytes_max());
        builder.push(|datagram| datagram.extend_from_slice(&message));

        self.greeting.transmissions += 1;
        self.greeting.first_sent.get_or_insert(now);
        let random = self.random();
        let wait = self
            .round_trip
            .backed_off(self.greeting.transmissions, random);
        self.greeting.send_at = Some(now + wait).filter(|at| *at < self.greeting.ends);
        Some(self.finish(builder))
    }

    fn finish(&mut self, builder: Builder) -> Vec<u8> {
        self.counters.datagrams_sent += 1;
        match &self.config.keys {
            None => builder.finish(),
            Some((keys, client)) => builder.finish_with(keys.sending().1, *client),
        }
    }

    fn sent(&mut self, id: RequestId, now: Instant) {
        let random = self.random();
        let Some(open) = self.open.get_mut(&id) else {
            return;
        };
        open.transmissions += 1;
        open.in_flight = true;
        open.last_sent = now;
        self.window.sent(open.window_bytes);
        if open.transmissions == 1 {
            open.first_sent = now;
            self.counters.sent += 1;
            self.budget.earn();
        } else {
            self.counters.sent_again += 1;
        }
        let wait = self.round_trip.backed_off(open.transmissions, random);
        let due = open.deadline.min(now + wait);
        open.due = Some(due);
        self.dues.push(Reverse((due, id)));
    }

    /// Numerical Recipes' generator: it need not be good, only different between peers.
    fn random(&mut self) -> u8 {
        self.random = self
            .random
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (self.random >> 56) as u8
    }

    fn next_id(&mut self) -> RequestId {
        let id = RequestId(self.next_id);
        self.next_id = self.next_id.wrapping_add(1);
        id
    }

    fn datagram_bytes_max(&self) -> usize {
        match self.speaks {
            Speaks::V2(greeting) => usize::from(greeting.datagram_bytes_max)
                .min(self.config.datagram_bytes_max)
                .max(DATAGRAM_BYTES_MIN),
            _ => self.config.datagram_bytes_max,
        }
    }

    fn envelope_bytes(&self) -> usize {
        match self.config.keys {
            None => PLAIN_BYTES,
            Some(_) => AUTHENTICATED_BYTES,
        }
    }

    /// A datagram arrived from the server.
    pub fn handle_datagram(&mut self, datagram: &Bytes, now: Instant) {
        let opened = match &self.config.keys {
            // An empty datagram is what a DKVS/1 server answers to anything of ours. Where there
            // are keys it proves nothing.
            None if datagram.is_empty() => return self.handle_v1_answer(now),
            None => envelope::open(datagram, Proof::Checksum),
            Some((keys, client)) => open_with(keys, *client, datagram),
        };
        let mut messages = match opened {
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
        if self.greeting.under_way == Some(id) {
            let first = (self.greeting.transmissions, self.greeting.first_sent);
            if let (1, Some(sent), Reply::Greeting(_)) = (first.0, first.1, &reply) {
                self.round_trip.sample(now.saturating_duration_since(sent));
            }
            return self.handle_greeting_reply(&reply, now);
        }
        if self.v1_answered.contains(&id) && !matches!(self.speaks, Speaks::V2(_)) {
            return self.handle_greeting_reply(&reply, now);
        }
        #[cfg(feature = "mutants")]
        if let Some(token) = self.answered.get(&id).copied() {
            let after = std::time::Duration::ZERO;
            return self.events.push_back(Event::Reply {
                token,
                reply,
                after,
                was_repeated: true,
            });
        }
        let mut removed = self.open.remove(&id);
        if removed.is_none() && mutants::is_on(Mutant::OlderRequestAnswered) {
            removed = self.open.pop_first().map(|(_, open)| open);
        }
        let Some(open) = removed else {
            self.counters.strays += 1;
            return;
        };
        self.counters.replies += 1;
        let after = now.saturating_duration_since(open.first_sent);
        if open.transmissions == 1 {
            self.round_trip.sample(after);
        } else if self.is_sooner_than_possible(now.saturating_duration_since(open.last_sent)) {
            // It is the answer to a transmission before the last.
            self.window.was_late();
        }
        if open.in_flight {
            self.window.answered(open.window_bytes);
        }
        let token = open.token;
        #[cfg(feature = "mutants")]
        if mutants::is_on(Mutant::RepeatsCounted) {
            self.answered.insert(id, token);
        }
        self.events.push_back(Event::Reply {
            token,
            reply,
            after,
            was_repeated: open.transmissions > 1,
        });
    }

    /// Whether no reply comes so soon after its request.
    fn is_sooner_than_possible(&self, after: Duration) -> bool {
        let smoothed = self.round_trip.smoothed();
        smoothed.is_some_and(|smoothed| after < smoothed / 2)
    }

    fn handle_greeting_reply(&mut self, reply: &Reply, now: Instant) {
        let Reply::Greeting(greeting) = reply else {
            return;
        };
        self.greeting.under_way = None;
        self.greeting.send_at = None;
        self.v1_greetings = 0;
        self.v1_answered.clear();
        let before = self.incarnation;
        if before.is_none_or(|before| before.boot_id != greeting.boot_id) {
            self.incarnation = Some(Incarnation {
                boot_id: greeting.boot_id,
                known_since: now,
            });
            if before.is_some() {
                // Whatever the process before it was asked, nobody is going to answer any more.
                self.take_back_unanswered();
                self.events.push_back(Event::Restarted);
            }
        }
        // Sequences go on from session to session: each is greater than all before it.
        self.session = greeting.session;
        self.speaks = Speaks::V2(*greeting);
    }

    /// An empty datagram: the greeting that is under way counts as answered by DKVS/1, once.
    fn handle_v1_answer(&mut self, now: Instant) {
        self.counters.v1_answers += 1;
        let Some(greeting) = self.greeting.under_way else {
            return;
        };
        if self.greeting.transmissions == 0
            || std::mem::replace(&mut self.greeting.is_answered_by_v1, true)
        {
            return;
        }
        self.v1_greetings = self.v1_greetings.saturating_add(1);
        if self.v1_answered.len() == V1_GREETINGS as usize {
            self.v1_answered.pop_front();
        }
        self.v1_answered.push_back(greeting);
        let is_believed = mutants::is_on(Mutant::V1AnswerBelieved);
        if matches!(self.speaks, Speaks::V2(_)) && !is_believed {
            return;
        }
        if self.v1_greetings < V1_GREETINGS && self.speaks != Speaks::V1 && !is_believed {
            // The answer by DKVS/2 to this one may be under way: that to the next will be as well.
            return self.greet_at(now + V1_PAUSE);
        }
        self.speaks = Speaks::V1;
        self.greeting.under_way = None;
        self.greeting.send_at = None;
        // None was sent: nothing goes to a server before it has spoken DKVS/2, and what went to one
        // that has, ended with it.
        for open in self.take_all() {
            if !open.is_abandoned {
                let token = open.token;
                self.events.push_back(Event::NotV2 { token });
            }
        }
    }

    /// The system tells that nothing listens at the server's port.
    pub fn handle_unreachable(&mut self, now: Instant) {
        self.speaks = Speaks::Unknown;
        self.v1_greetings = 0;
        self.v1_answered.clear();
        self.greeting.under_way = None;
        self.greeting.send_at = None;
        self.greeting.ends = now;
        self.unreachable_until = Some(now + UNREACHABLE_REST);
        self.counters.unreachable += 1;
        for open in self.take_all() {
            self.counters.unanswered += u64::from(open.transmissions > 0);
            if !open.is_abandoned {
                self.events.push_back(Event::Unreachable {
                    token: open.token,
                    sent: open.transmissions > 0,
                });
            }
        }
    }

    fn take_all(&mut self) -> Vec<Open<T>> {
        self.window = Window::new(self.config.datagram_bytes_max, self.config.window_bytes_max);
        self.again.clear();
        self.fresh.clear();
        self.dues.clear();
        std::mem::take(&mut self.open).into_values().collect()
    }

    /// All that was sent is to be sent again, as soon as the server has answered a greeting.
    fn take_back_unanswered(&mut self) {
        self.window = Window::new(self.config.datagram_bytes_max, self.config.window_bytes_max);
        for (id, open) in &mut self.open {
            if open.in_flight {
                open.in_flight = false;
                open.due = Some(open.deadline);
                self.dues.push(Reverse((open.deadline, *id)));
                self.again.push_back(*id);
            }
        }
    }

    /// When to call [`Self::handle_timeout`] next. Earlier than necessary, at times.
    pub fn poll_timeout(&self) -> Option<Instant> {
        let due = self.dues.peek().map(|Reverse((due, _))| *due);
        let greeting = self.greeting.under_way.map(|_| {
            let send_at = self.greeting.send_at;
            send_at.unwrap_or(self.greeting.ends)
        });
        due.into_iter().chain(greeting).min()
    }

    /// Time has passed: requests past their deadline are told as expired, and those not answered
    /// in time are to be sent again, as far as the budget goes.
    pub fn handle_timeout(&mut self, now: Instant) {
        if self.greeting.under_way.is_some() && self.greeting.ends <= now {
            self.greeting.under_way = None;
            // As long as something waits for the answer, the question is repeated.
            if !self.open.is_empty() {
                self.greet(now);
            }
        }
        while let Some(Reverse((due, id))) = self.dues.peek().copied()
            && due <= now
        {
            self.dues.pop();
            let Some(open) = self.open.get(&id) else {
                continue;
            };
            if open.due == Some(due) {
                self.handle_due(id, now);
            }
        }
    }

    fn handle_due(&mut self, id: RequestId, now: Instant) {
        let Some(open) = self.open.get_mut(&id) else {
            return;
        };
        let was_in_flight = std::mem::take(&mut open.in_flight);
        let (deadline, is_abandoned, token) = (open.deadline, open.is_abandoned, open.token);
        let was_sent = open.transmissions > 0;
        let timeout = self.round_trip.timeout();
        if was_in_flight {
            self.window.given_up(open.window_bytes);
            self.window.lost(now, timeout);
        }
        if is_abandoned || deadline <= now {
            self.open.remove(&id);
            self.counters.unanswered += u64::from(was_sent);
            if !is_abandoned {
                self.events.push_back(Event::Expired { token });
            }
            return;
        }
        if was_in_flight && self.config.keys.is_some() {
            // A server that was started anew with keys is silent to whoever does not greet it.
            self.greet_if_due(now);
        }
        let Some(open) = self.open.get_mut(&id) else {
            return;
        };
        if !was_in_flight {
            // It waits to be sent.
            open.due = Some(deadline);
            self.dues.push(Reverse((deadline, id)));
        } else if self.budget.spend() {
            open.due = Some(deadline);
            self.dues.push(Reverse((deadline, id)));
            self.again.push_back(id);
        } else {
            self.counters.over_budget += 1;
            open.in_flight = true;
            self.window.sent(open.window_bytes);
            let due = deadline.min(now + timeout);
            open.due = Some(due);
            self.dues.push(Reverse((due, id)));
        }
    }

    /// What has happened, in order.
    pub fn poll_event(&mut self) -> Option<Event<T>> {
        self.events.pop_front()
    }
}

/// What the message of a small pair takes.
const MESSAGE_BYTES_USUAL: usize = 128;

/// The shortest that a server may refuse to go beyond, in bytes.
pub const DATAGRAM_BYTES_MIN: usize = 512;

fn envelope_of(config: &Config, session: u64, sequence: u64) -> Envelope {
    let authentication = config.keys.as_ref().map(|(keys, _)| Authentication {
        key_id: keys.sending().0,
        session,
        sequence,
    });
    Envelope {
        sender: Sender::Client,
        epoch: config.epoch,
        authentication,
    }
}

fn open_with(
    keys: &Keys,
    client: SocketAddrV4,
    datagram: &Bytes,
) -> Result<(Envelope, Bytes), envelope::EnvelopeError> {
    let named = envelope::peek(datagram)?.authentication;
    let named = named.ok_or(envelope::EnvelopeError::WrongProof)?;
    let key = keys.find(named.key_id);
    let key = key.ok_or(envelope::EnvelopeError::NotAuthentic)?;
    envelope::open(datagram, Proof::Key { key, client })
}

/// Encodes a request, with the block of an upload apart.
fn encode(id: RequestId, mut request: Request) -> (Vec<u8>, Bytes) {
    let block = match &mut request {
        Request::Command(ReplicaCommand::Stage { block, .. }) => std::mem::take(block),
        _ => Bytes::new(),
    };
    let mut message = Vec::with_capacity(MESSAGE_BYTES_USUAL);
    RequestMessage {
        id,
        wait_ms: 0,
        request,
    }
    .encode(&mut message);
    // A message that is too long for its length field is refused for being too long for any
    // datagram.
    let length = u16::try_from(message.len() + block.len()).unwrap_or(u16::MAX);
    message[..2].copy_from_slice(&length.to_be_bytes());
    (message, block)
}

/// Writes how long the client waits into a request, rounded up: with nothing left there would be
/// no point in sending it.
fn write_wait(message: &mut [u8], deadline: Instant, now: Instant) {
    let left = deadline.saturating_duration_since(now).as_micros();
    let wait_ms = u16::try_from(left.div_ceil(1_000)).unwrap_or(u16::MAX);
    message[REQUEST_HEAD_BYTES - 2..REQUEST_HEAD_BYTES].copy_from_slice(&wait_ms.to_be_bytes());
}
