//! The requests open towards one server, and what is known of that server.
//!
//! ```text
//!   request() -----> OpenRequests <------ replies --+
//!                       |                           |-- handle_datagram()
//!                       |   Greeter <-- greetings --+
//!                       v      |
//!      poll_transmit(): datagrams of a Session
//! ```
//!
//! * `greeting`: which protocol the server speaks, and whether it restarted
//! * `requests`: open requests, retransmission, deadlines; `window` and `retry_budget` limit
//!   what is in flight and what is sent again (RFC 8085)
//! * `retransmission`: the round trip and the timeout (RFC 6298)
//! * `session`: envelopes and authentication
//!
//! Only greetings are sent to a server that has not answered one. So no request reaches a server
//! that cannot read it, and a request that ends before then was certainly never sent.
//!
//! Invariants:
//! * A request is open from [`Peer::request`] until its reply, until its deadline, or until the
//!   server is found to be unreachable or to speak DKVS/1 only.
//! * Its end is reported exactly once, unless it was abandoned and ends without a reply.
//! * A second reply to a request is dropped.
//! * The bytes in flight never exceed the window, except for a single message.

mod config;
mod counters;
mod encoding;
mod event;
mod greeting;
mod requests;
pub(super) mod retransmission;
mod retry_budget;
mod session;
mod window;

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;

use dkvs_common::model::Description;
use dkvs_common::model::ReplicaCommand;
use dkvs_common::trace::Trace;
use dkvs_common::wire::v2::envelope::{Builder, Sender};
use dkvs_common::wire::v2::keys::Keys;
use dkvs_common::wire::v2::message::{RequestId, next_reply};
use dkvs_common::wire::v2::reply::Reply;
use dkvs_common::wire::v2::request::Request;

pub use config::{DATAGRAM_BYTES_MIN, PeerConfig};
pub use counters::PeerCounters;
use encoding::EncodedRequest;
pub use event::{PeerEvent, REQUESTS_MAX, RequestError};
use greeting::Greeter;
pub use greeting::{
    GREETING_INTERVAL, Incarnation, PeerVersion, UNREACHABLE_PAUSE, V1_GREETINGS, V1_PAUSE,
};
use requests::{OpenRequest, OpenRequests, RequestIds};
use retransmission::RetransmissionTimer;
use session::Session;
use window::Window;

/// One server, as a client sees it. `T` names a request to the caller.
#[derive(Debug)]
pub struct Peer<T> {
    datagram_bytes_max: usize,
    falls_back_to_v1: bool,
    greeter: Greeter,
    requests: OpenRequests<T>,
    session: Session,
    ids: RequestIds,
    timer: RetransmissionTimer,
    /// The counts of datagrams.
    counters: PeerCounters,
}

impl<T: Copy> Peer<T> {
    /// A server that was not met yet. `random` makes the request ids unguessable and spreads
    /// retransmissions; two peers must not be given the same.
    pub fn new(config: PeerConfig, random: u64, now: Instant) -> Self {
        let window = Window::new(config.datagram_bytes_max, config.window_bytes_max);
        Self {
            datagram_bytes_max: config.datagram_bytes_max,
            falls_back_to_v1: config.falls_back_to_v1,
            greeter: Greeter::new(now),
            requests: OpenRequests::new(window),
            session: Session::new((config.ring, config.epoch), config.keys),
            ids: RequestIds::starting_at(random),
            timer: RetransmissionTimer::new(random),
            counters: PeerCounters::default(),
        }
    }

    /// The protocol that the server speaks.
    pub fn speaks(&self) -> PeerVersion {
        self.greeter.version()
    }

    /// Whether the server, which spoke DKVS/2 and was reachable ever since, now answers greetings
    /// by DKVS/1. No request falls back to DKVS/1 for that: an operator has to look at it.
    pub fn is_downgraded(&self) -> bool {
        self.greeter.is_downgraded()
    }

    /// What the server has said of itself, if it is one that does.
    pub fn description(&self) -> Option<Description> {
        self.greeter.description()
    }

    /// The server's last start, as far as is known.
    pub fn incarnation(&self) -> Option<Incarnation> {
        self.greeter.incarnation()
    }

    /// The smoothed round trip; none before the first unambiguous reply.
    pub fn round_trip(&self) -> Option<Duration> {
        self.timer.smoothed()
    }

    /// How long to wait for a reply before the request is sent again.
    pub fn retransmission_timeout(&self) -> Duration {
        self.timer.timeout()
    }

    /// Counts since the peer was created.
    pub fn counters(&self) -> PeerCounters {
        PeerCounters {
            unreachable: self.counters.unreachable,
            datagrams_sent: self.counters.datagrams_sent,
            damaged: self.counters.damaged,
            v1_answers: self.counters.v1_answers,
            ..self.requests.counters()
        }
    }

    /// The bytes of requests in flight and of the blocks that they ask for.
    pub fn in_flight_bytes(&self) -> usize {
        self.requests.window().in_flight()
    }

    /// The most bytes that may be in flight.
    pub fn window_bytes(&self) -> usize {
        self.requests.window().bytes_max()
    }

    /// The longest message, its head included, that fits a datagram to this server.
    pub fn message_bytes_max(&self) -> usize {
        self.datagram_bytes_max() - self.session.envelope_bytes()
    }

    /// Uses other keys from the next datagram on.
    pub fn set_keys(&mut self, keys: Arc<Keys>) {
        self.session.set_keys(keys);
    }

    /// Opens a request. [`Self::poll_transmit`] sends it, once the server has answered a greeting.
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
        if self.requests.len() >= REQUESTS_MAX {
            return Err(RequestError::TooMany);
        }
        self.greeter.greet_for_request(&mut self.ids, now);
        let reply_bytes = match &request {
            Request::Command(ReplicaCommand::GetBlock { block_bytes, .. }) => {
                usize::from(*block_bytes)
            }
            _ => 0,
        };
        let id = self.ids.next();
        let message = EncodedRequest::new(id, request);
        let message_bytes = message.message_bytes();
        let message_bytes_max = self.message_bytes_max();
        let may_speak_v1 = self.falls_back_to_v1 && self.greeter.version() == PeerVersion::Unknown;
        if message_bytes > message_bytes_max && !may_speak_v1 {
            return Err(RequestError::TooLong {
                message_bytes,
                message_bytes_max,
            });
        }
        let request = OpenRequest::new(token, message, reply_bytes, now, deadline);
        self.requests.open(id, request);
        Ok(id)
    }

    /// Names the trace that a request belongs to, if the request was not sent yet.
    pub fn trace(&mut self, of: RequestId, trace: Trace) {
        let message = EncodedRequest::new(self.ids.next(), Request::Trace { of, trace });
        self.requests.set_trace(of, message);
    }

    /// Greets the server if it was not greeted for [`GREETING_INTERVAL`].
    pub fn greet_if_due(&mut self, now: Instant) {
        self.greeter.greet_if_due(&mut self.ids, now);
    }

    /// Whether nothing listened at the server's port a moment ago.
    pub(super) fn is_unreachable(&self, now: Instant) -> bool {
        self.greeter.is_unreachable(now)
    }

    /// Whether a request of `window_bytes` would be sent at once.
    pub(super) fn has_capacity(&self, window_bytes: usize) -> bool {
        self.greeter.is_v2() && self.requests.has_capacity(window_bytes)
    }

    /// Stops sending a request that the caller does not wait for any more. Its reply is still
    /// reported; an end without a reply is not.
    pub fn abandon(&mut self, id: RequestId) {
        self.requests.abandon(id);
    }

    /// The next datagram to send: a greeting, or as many of the waiting messages as it holds and
    /// the window allows; none when there is nothing to send now.
    pub fn poll_transmit(&mut self, now: Instant) -> Option<Vec<u8>> {
        if let Some(greeting) = self.poll_greeting(now) {
            return Some(greeting);
        }
        if !self.greeter.is_v2() {
            self.requests.schedule_held_back();
            return None;
        }
        let datagram = self.next_batch(now)?;
        self.counters.datagrams_sent += 1;
        Some(self.session.finish(datagram))
    }

    /// A datagram with as many of the waiting messages as it holds and the window allows; none if
    /// nothing can be sent now.
    fn next_batch(&mut self, now: Instant) -> Option<Builder> {
        let datagram_bytes_max = self.datagram_bytes_max();
        let mut datagram: Option<Builder> = None;
        while let Some(id) = self.requests.next_to_send() {
            let Some(request) = self.requests.sendable(id) else {
                break;
            };
            let trace = request.trace.take();
            let message = request.message_at(now);
            let builder = datagram.get_or_insert_with(|| self.session.begin(datagram_bytes_max));
            let is_written = builder.push(|datagram| {
                if let Some(trace) = &trace {
                    trace.append_to(datagram);
                }
                message.append_to(datagram);
            });
            if is_written {
                self.requests.handle_sent(id, &mut self.timer, now);
            } else if !builder.is_empty() {
                // It goes into the next datagram.
                request.trace = trace;
                break;
            } else if trace.is_some() {
                // The message may fit without its trace. It is still the next to send.
                continue;
            } else {
                // It was opened before the server announced its limit.
                self.requests.handle_too_long(id);
            }
        }
        if datagram.is_none() {
            self.requests.schedule_held_back();
        }
        datagram.filter(|builder| !builder.is_empty())
    }

    fn poll_greeting(&mut self, now: Instant) -> Option<Vec<u8>> {
        let messages = self
            .greeter
            .poll_messages(self.datagram_bytes_max, &mut self.timer, now)?;
        let mut datagram = self.session.begin_greeting(self.datagram_bytes_max());
        for message in &messages {
            datagram.push(|datagram| message.append_to(datagram));
        }
        self.counters.datagrams_sent += 1;
        Some(self.session.finish(datagram))
    }

    fn datagram_bytes_max(&self) -> usize {
        match self.greeter.version() {
            PeerVersion::V2(greeting) => usize::from(greeting.datagram_bytes_max)
                .min(self.datagram_bytes_max)
                .max(DATAGRAM_BYTES_MIN),
            _ => self.datagram_bytes_max,
        }
    }

    /// Handles a datagram from the server. One that is not valid is counted and dropped.
    pub fn handle_datagram(&mut self, datagram: &Bytes, now: Instant) {
        // Where there are keys, an empty datagram proves nothing.
        if datagram.is_empty() && !self.session.is_authenticated() {
            return self.handle_v1_answer(now);
        }
        let mut messages = match self.session.open(datagram) {
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
        if self.greeter.handle_description(id, &reply) {
            return self.session.set_description(self.greeter.description());
        }
        if !self.greeter.awaits(id) {
            return self.requests.handle_reply(id, reply, &mut self.timer, now);
        }
        let Some(answer) = self.greeter.handle_reply(id, &reply, now) else {
            return;
        };
        if let Some(round_trip) = answer.round_trip {
            self.timer.sample(round_trip);
        }
        if answer.has_restarted {
            self.requests.handle_restart();
        }
        self.session.set_description(self.greeter.description());
        self.session.set_id(answer.session);
    }

    fn handle_v1_answer(&mut self, now: Instant) {
        self.counters.v1_answers += 1;
        if self.greeter.handle_v1_answer(&mut self.ids, now) {
            self.requests.handle_not_v2();
        }
    }

    /// Handles the system's report that nothing listens at the server's port.
    pub fn handle_unreachable(&mut self, now: Instant) {
        self.counters.unreachable += 1;
        self.greeter.handle_unreachable(now);
        self.requests.handle_unreachable();
    }

    /// When to call [`Self::handle_timeout`] next. At times it is earlier than necessary.
    pub fn poll_timeout(&self) -> Option<Instant> {
        let timer = self.requests.poll_timeout();
        timer.into_iter().chain(self.greeter.poll_timeout()).min()
    }

    /// Handles the timers that have run out: requests expire at their deadline, and those without a
    /// timely reply are sent again as far as the retry budget allows.
    pub fn handle_timeout(&mut self, now: Instant) {
        let has_greeting_ended = self.greeter.handle_timeout(now);
        if has_greeting_ended && !self.requests.is_empty() {
            // The open requests wait for the answer.
            self.greeter.greet_at(now, &mut self.ids);
        }
        let has_timed_out = self.requests.handle_timeout(now, self.timer.timeout());
        if has_timed_out && self.session.is_authenticated() {
            // A server that restarted with keys does not answer a client before its greeting.
            self.greet_if_due(now);
        }
    }

    /// The next event, in order.
    pub fn poll_event(&mut self) -> Option<PeerEvent<T>> {
        self.requests.poll_event()
    }
}
