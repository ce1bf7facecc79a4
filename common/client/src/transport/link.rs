//! A server as the quorum machines want it: any record goes in, any value comes out, whatever
//! datagrams that takes.
//!
//! ```text
//!   ask, fetch                                      poll_event: Reply, Fetched, FetchFailed, ...
//!      |                                                 ^
//!      v                                                 |
//!   [ small requests ] ---------------> peer ------------+
//!   [ uploads, fetches ] --- blocks ---> |
//! ```
//!
//! Small requests go first. Uploads and fetches share, in turns, what is left of the peer's
//! window, and hold no more requests in the peer than that: so a long value never makes a short
//! one wait for more than what is already on its way.

use dkvs_common::model::{Refusal, ReplicaCommand, ReplicaResponse};
use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;

use super::fetch::{Assembly, Mismatch};
use super::peer::{
    self, Config, Counters, DATAGRAM_BYTES_MIN, Incarnation, Peer, RequestError, Speaks,
};
use super::upload::{Progress, TooLong, Upload};
use dkvs_common::kv::{Key, Value};
use dkvs_common::record::Record;
use dkvs_common::trace::Trace;
use dkvs_common::wire::v2::envelope::AUTHENTICATED_BYTES;
use dkvs_common::wire::v2::keys::Keys;
use dkvs_common::wire::v2::message::{REPLY_HEAD_BYTES, RequestId};
use dkvs_common::wire::v2::reply::Reply;
use dkvs_common::wire::v2::request::Request;

/// Most uploads and fetches under way towards one server.
pub const TRANSFERS_MAX: usize = 1_024;

/// How many of them take turns; the others wait until one of those has ended. So each is done
/// sooner, and a server has fewer uploads to keep that are not complete.
pub const TRANSFERS_AT_ONCE: usize = 8;

/// A fetch of which nothing more has come for this long, and for eight retransmission timeouts,
/// is given up, so that another server can finish it.
pub const STALL: Duration = Duration::from_millis(50);

/// Something that the caller has to know. A request is named by the token it was opened with.
#[derive(Debug)]
pub enum Event<T> {
    /// A request was answered; an upload with what the server said to its end.
    Reply {
        /// Which one.
        token: T,
        /// The answer.
        reply: Reply,
        /// From its first transmission until now; none for an upload.
        after: Option<Duration>,
        /// Whether it was sent more than once, or may have been: what the answer says holds for one
        /// of the copies.
        was_repeated: bool,
    },
    /// A value has arrived, and matches its digest.
    Fetched {
        /// Which fetch.
        token: T,
        /// The value.
        value: Value,
    },
    /// A value will not arrive from this server.
    FetchFailed {
        /// Which fetch.
        token: T,
        /// What has arrived, to be gone on with elsewhere; none if it did not match the digest.
        assembly: Option<Assembly>,
    },
    /// A request's deadline has passed.
    Expired {
        /// Which one.
        token: T,
    },
    /// The server speaks DKVS/1 only. It did not carry out the request.
    NotV2 {
        /// Which one.
        token: T,
    },
    /// Nothing listens at the server's port.
    Unreachable {
        /// Which request ends by that.
        token: T,
        /// Whether it may have been carried out.
        sent: bool,
    },
    /// The request is longer than the server takes, and was not sent.
    TooLong {
        /// Which one.
        token: T,
    },
    /// The server was started anew: what it held in memory is gone.
    Restarted,
}

/// Names an open request, to take back interest in it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ticket {
    /// A request of one message.
    Request(RequestId),
    /// An upload or a fetch.
    Transfer(u64),
}

#[derive(Debug, Clone, Copy)]
enum Part<T> {
    Whole(T),
    /// A block of an upload, or its end.
    Staged(u64, Option<u32>),
    /// Part of a fetch: offset and length.
    Fetched(u64, (u32, u16)),
}

#[derive(Debug)]
struct Transfer<T> {
    token: T,
    deadline: Instant,
    kind: Kind,
}

#[derive(Debug)]
enum Kind {
    Upload(Upload),
    Fetch {
        key: Key,
        assembly: Assembly,
        outstanding: BTreeMap<u32, RequestId>,
        /// When something came last, or it took its first turn; none before that.
        progress: Option<Instant>,
    },
}

/// One server, with transfers. `T` names a request to the caller.
#[derive(Debug)]
pub struct Link<T> {
    peer: Peer<Part<T>>,
    transfers: BTreeMap<u64, Transfer<T>>,
    /// Those that take turns, and whose it is.
    turns: VecDeque<u64>,
    /// Those that wait to take turns, the first to come first.
    waiting: VecDeque<u64>,
    next_transfer: u64,
    events: VecDeque<Event<T>>,
}

impl<T: Copy> Link<T> {
    /// A server of which nothing is known; as [`Peer::new`].
    pub fn new(config: Config, random: u64, now: Instant) -> Self {
        Self {
            peer: Peer::new(config, random, now),
            transfers: BTreeMap::new(),
            turns: VecDeque::new(),
            waiting: VecDeque::new(),
            // Uploads are told apart by the server, even those of a client before this one.
            next_transfer: random.rotate_left(32),
            events: VecDeque::new(),
        }
    }

    /// What the server turned out to be.
    pub fn speaks(&self) -> Speaks {
        self.peer.speaks()
    }

    /// Whether the server spoke DKVS/2 and answers greetings by DKVS/1 now; see
    /// [`Peer::is_downgraded`].
    pub fn is_downgraded(&self) -> bool {
        self.peer.is_downgraded()
    }

    /// The server's last start, as far as is known.
    pub fn incarnation(&self) -> Option<Incarnation> {
        self.peer.incarnation()
    }

    /// The smoothed round trip; none before the first unambiguous reply.
    pub fn round_trip(&self) -> Option<Duration> {
        self.peer.round_trip()
    }

    /// Counts since the start.
    pub fn counters(&self) -> Counters {
        self.peer.counters()
    }

    /// How many bytes are on their way to the server or asked of it.
    pub fn in_flight_bytes(&self) -> usize {
        self.peer.in_flight_bytes()
    }

    /// How many may be.
    pub fn window_bytes(&self) -> usize {
        self.peer.window_bytes()
    }

    /// The longest message that fits a datagram to the server, as far as is known.
    pub fn message_bytes_max(&self) -> usize {
        self.peer.message_bytes_max()
    }

    /// Greets the server if it was not greeted lately.
    pub fn greet_if_due(&mut self, now: Instant) {
        self.peer.greet_if_due(now);
    }

    /// Takes other keys into use.
    pub fn set_keys(&mut self, keys: Arc<Keys>) {
        self.peer.set_keys(keys);
    }

    /// Opens a request. A put whose record fits no datagram becomes an upload; its one reply is
    /// that to the put which ends it.
    pub fn ask(
        &mut self,
        request: Request,
        token: T,
        now: Instant,
        deadline: Instant,
    ) -> Result<Ticket, RequestError> {
        let request = match request {
            Request::Command(ReplicaCommand::Put { key, record })
                if self.may_be_too_long(&key, &record) =>
            {
                let upload = Upload::new(self.next_transfer, key, record);
                return self.transfer(token, now, deadline, Kind::Upload(upload));
            }
            request => request,
        };
        let id = self
            .peer
            .request(request, Part::Whole(token), now, deadline)?;
        Ok(Ticket::Request(id))
    }

    /// Tells the server which trace a request belongs to. Of transfers nothing is told.
    pub fn trace(&mut self, ticket: Ticket, trace: Trace) {
        if let Ticket::Request(id) = ticket {
            self.peer.trace(id, trace);
        }
    }

    /// Fetches what is missing of a value.
    pub fn fetch(
        &mut self,
        key: Key,
        assembly: Assembly,
        token: T,
        now: Instant,
        deadline: Instant,
    ) -> Result<Ticket, RequestError> {
        let kind = Kind::Fetch {
            key,
            assembly,
            outstanding: BTreeMap::new(),
            progress: None,
        };
        self.transfer(token, now, deadline, kind)
    }

    /// A server that was not met yet may take less than we do, but not less than the least.
    fn may_be_too_long(&self, key: &Key, record: &Record) -> bool {
        let bytes_max = self.peer.message_bytes_max();
        let certain = match self.peer.speaks() {
            Speaks::V2(_) => bytes_max,
            _ => bytes_max.min(MESSAGE_BYTES_CERTAIN),
        };
        Request::put_bytes(key, record) > certain
    }

    fn transfer(
        &mut self,
        token: T,
        now: Instant,
        deadline: Instant,
        kind: Kind,
    ) -> Result<Ticket, RequestError> {
        if self.transfers.len() >= TRANSFERS_MAX {
            return Err(RequestError::TooMany);
        }
        if self.peer.is_unreachable(now) {
            return Err(RequestError::Unreachable);
        }
        self.peer.greet_if_due(now);
        let number = self.next_transfer;
        self.next_transfer = self.next_transfer.wrapping_add(1);
        let transfer = Transfer {
            token,
            deadline,
            kind,
        };
        self.transfers.insert(number, transfer);
        self.waiting.push_back(number);
        Ok(Ticket::Transfer(number))
    }

    /// Nobody waits for the answer any more. What is under way is not sent again; an upload or a
    /// fetch ends.
    pub fn abandon(&mut self, ticket: Ticket) {
        match ticket {
            Ticket::Request(id) => self.peer.abandon(id),
            Ticket::Transfer(number) => drop(self.end(number)),
        }
    }

    /// The next datagram to send; none when there is nothing to send now.
    pub fn poll_transmit(&mut self, now: Instant) -> Option<Vec<u8>> {
        loop {
            if let Some(datagram) = self.peer.poll_transmit(now) {
                return Some(datagram);
            }
            if !self.feed(now) {
                // A request that turned out to fit no datagram has ended by that.
                self.handle_events(now);
                return None;
            }
        }
    }

    /// Lets the transfer whose turn it is ask for or send one block, if the peer has room.
    fn feed(&mut self, now: Instant) -> bool {
        self.admit(now);
        for _ in 0..self.turns.len() {
            let Some(number) = self.turns.pop_front() else {
                return false;
            };
            let Some(transfer) = self.transfers.get_mut(&number) else {
                continue;
            };
            self.turns.push_back(number);
            let deadline = transfer.deadline;
            match &mut transfer.kind {
                Kind::Upload(upload) => {
                    if !matches!(self.peer.speaks(), Speaks::V2(_)) {
                        return false;
                    }
                    let bytes_max = self.peer.message_bytes_max();
                    if let Err(TooLong) = upload.cut(bytes_max) {
                        let error = RequestError::TooLong {
                            message_bytes: bytes_max + 1,
                            message_bytes_max: bytes_max,
                        };
                        self.fail(number, error);
                        return true;
                    }
                    if !self.peer.is_hungry(upload.window_bytes()) {
                        return false;
                    }
                    let Some(request) = upload.poll_request() else {
                        continue;
                    };
                    let block = upload.next_block();
                    let part = Part::Staged(number, block);
                    match self.peer.request(request, part, now, deadline) {
                        Ok(id) => upload.sent(id),
                        Err(error) => self.fail(number, error),
                    }
                    return true;
                }
                Kind::Fetch {
                    key,
                    assembly,
                    outstanding,
                    progress,
                } => {
                    let overhead = REPLY_HEAD_BYTES + 4 + REPLY_RESERVE_BYTES;
                    let bytes = self.peer.message_bytes_max().saturating_sub(overhead);
                    let block_bytes = u16::try_from(bytes).unwrap_or(u16::MAX);
                    if !self.peer.is_hungry(bytes) {
                        return false;
                    }
                    if outstanding.is_empty() {
                        *progress = Some(now);
                    }
                    let Some(asked) = assembly.poll_part(block_bytes) else {
                        continue;
                    };
                    let request = Request::Command(ReplicaCommand::GetBlock {
                        key: key.clone(),
                        tag: assembly.digest().tag,
                        offset: asked.0,
                        block_bytes: asked.1,
                    });
                    let part = Part::Fetched(number, asked);
                    match self.peer.request(request, part, now, deadline) {
                        Ok(id) => drop(outstanding.insert(asked.0, id)),
                        Err(error) => self.fail(number, error),
                    }
                    return true;
                }
            }
        }
        false
    }

    /// Lets those that wait take turns, as far as there is room.
    fn admit(&mut self, now: Instant) {
        let transfers = &mut self.transfers;
        self.turns.retain(|number| transfers.contains_key(number));
        while self.turns.len() < TRANSFERS_AT_ONCE
            && let Some(number) = self.waiting.pop_front()
        {
            if let Some(transfer) = transfers.get_mut(&number) {
                if let Kind::Fetch { progress, .. } = &mut transfer.kind {
                    *progress = Some(now);
                }
                self.turns.push_back(number);
            }
        }
    }

    fn fail(&mut self, number: u64, error: RequestError) {
        let Some(transfer) = self.end(number) else {
            return;
        };
        let token = transfer.token;
        let event = match (transfer.kind, error) {
            (Kind::Fetch { assembly, .. }, _) => failed(token, assembly),
            (Kind::Upload(_), RequestError::TooLong { .. }) => Event::TooLong { token },
            (Kind::Upload(_), RequestError::Unreachable) => {
                Event::Unreachable { token, sent: false }
            }
            (Kind::Upload(_), RequestError::TooMany) => Event::Reply {
                token,
                reply: Reply::Response(ReplicaResponse::Refused(Refusal::Busy)),
                after: None,
                was_repeated: false,
            },
        };
        self.events.push_back(event);
    }

    /// A datagram arrived from the server.
    pub fn handle_datagram(&mut self, datagram: &Bytes, now: Instant) {
        self.peer.handle_datagram(datagram, now);
        self.handle_events(now);
    }

    /// The system tells that nothing listens at the server's port.
    pub fn handle_unreachable(&mut self, now: Instant) {
        self.peer.handle_unreachable(now);
        self.handle_events(now);
        // A transfer that waited for its turn had no request in the peer.
        let waiting: Vec<u64> = self.transfers.keys().copied().collect();
        for number in waiting {
            self.fail(number, RequestError::Unreachable);
        }
    }

    /// When to call [`Self::handle_timeout`] next.
    pub fn poll_timeout(&self) -> Option<Instant> {
        let own = self.transfers.values().map(|transfer| self.due(transfer));
        self.peer.poll_timeout().into_iter().chain(own).min()
    }

    /// When a transfer has stalled, or its deadline.
    fn due(&self, transfer: &Transfer<T>) -> Instant {
        match &transfer.kind {
            Kind::Fetch {
                progress: Some(progress),
                ..
            } => {
                let stall = STALL.max(8 * self.peer.retransmission_timeout());
                transfer.deadline.min(*progress + stall)
            }
            Kind::Fetch { progress: None, .. } | Kind::Upload(_) => transfer.deadline,
        }
    }

    /// Time has passed.
    pub fn handle_timeout(&mut self, now: Instant) {
        self.peer.handle_timeout(now);
        self.handle_events(now);
        let due = |(number, transfer): (&u64, &Transfer<T>)| {
            (self.due(transfer) <= now).then_some(*number)
        };
        let due: Vec<u64> = self.transfers.iter().filter_map(due).collect();
        for number in due {
            let Some(transfer) = self.end(number) else {
                continue;
            };
            let token = transfer.token;
            self.events.push_back(match transfer.kind {
                Kind::Fetch { assembly, .. } => failed(token, assembly),
                Kind::Upload(_) => Event::Expired { token },
            });
        }
    }

    /// What has happened, in order.
    pub fn poll_event(&mut self) -> Option<Event<T>> {
        self.events.pop_front()
    }

    fn handle_events(&mut self, now: Instant) {
        while let Some(event) = self.peer.poll_event() {
            match event {
                peer::Event::Reply {
                    token,
                    reply,
                    after,
                    was_repeated,
                } => self.handle_reply(token, reply, after, was_repeated, now),
                peer::Event::Expired { token } => {
                    self.ended(token, |token| Event::Expired { token });
                }
                peer::Event::NotV2 { token } => self.ended(token, |token| Event::NotV2 { token }),
                peer::Event::Unreachable { token, sent } => {
                    self.ended(token, |token| Event::Unreachable { token, sent });
                }
                peer::Event::TooLong { token } => {
                    self.ended(token, |token| Event::TooLong { token });
                }
                peer::Event::Restarted => self.events.push_back(Event::Restarted),
            }
        }
        if self.peer.speaks() == Speaks::V1 {
            let waiting: Vec<u64> = self.transfers.keys().copied().collect();
            for number in waiting {
                self.ended(Part::Staged(number, None), |token| Event::NotV2 { token });
            }
        }
    }

    fn handle_reply(
        &mut self,
        part: Part<T>,
        reply: Reply,
        after: Duration,
        was_repeated: bool,
        now: Instant,
    ) {
        let was_put_again;
        let (number, progress) = match part {
            Part::Whole(token) => {
                let after = Some(after);
                self.events.push_back(Event::Reply {
                    token,
                    reply,
                    after,
                    was_repeated,
                });
                return;
            }
            Part::Staged(number, block) => {
                let Some(Kind::Upload(upload)) = self.kind(number) else {
                    return;
                };
                // Blocks alone store nothing.
                was_put_again = was_repeated && block.is_none();
                (number, upload.handle_reply(block, reply))
            }
            Part::Fetched(number, asked) => return self.handle_block(number, asked, reply, now),
        };
        match progress {
            Progress::Abandon(ids) => ids.into_iter().for_each(|id| self.peer.abandon(id)),
            Progress::Ended(reply) => {
                if let Some(Transfer { token, .. }) = self.end(number) {
                    self.events.push_back(Event::Reply {
                        token,
                        reply,
                        after: None,
                        was_repeated: was_put_again,
                    });
                }
            }
        }
    }

    fn handle_block(&mut self, number: u64, asked: (u32, u16), reply: Reply, now: Instant) {
        let Some(Kind::Fetch {
            assembly,
            outstanding,
            progress,
            ..
        }) = self.kind(number)
        else {
            return;
        };
        outstanding.remove(&asked.0);
        let is_of_use = match &reply {
            Reply::Response(ReplicaResponse::Block { offset, block }) => {
                assembly.handle_block(asked, *offset, block)
            }
            _ => false,
        };
        let is_whole = assembly.is_whole();
        *progress = Some(now);
        if is_of_use && !is_whole {
            return;
        }
        let Some(transfer) = self.end(number) else {
            return;
        };
        let token = transfer.token;
        let Kind::Fetch { key, assembly, .. } = transfer.kind else {
            return;
        };
        self.events.push_back(if !is_whole {
            failed(token, assembly)
        } else {
            match assembly.finish(&key) {
                Ok(value) => Event::Fetched { token, value },
                Err(Mismatch) => Event::FetchFailed {
                    token,
                    assembly: None,
                },
            }
        });
    }

    /// A part has ended without a reply, and with it what it is part of.
    fn ended(&mut self, part: Part<T>, event: impl FnOnce(T) -> Event<T>) {
        let event = match part {
            Part::Whole(token) => event(token),
            Part::Staged(number, _) | Part::Fetched(number, _) => match self.end(number) {
                None => return,
                Some(Transfer { token, kind, .. }) => match kind {
                    Kind::Upload(_) => event(token),
                    Kind::Fetch { assembly, .. } => failed(token, assembly),
                },
            },
        };
        self.events.push_back(event);
    }

    fn kind(&mut self, number: u64) -> Option<&mut Kind> {
        self.transfers
            .get_mut(&number)
            .map(|transfer| &mut transfer.kind)
    }

    /// Takes a transfer out; what it has asked is not asked again.
    fn end(&mut self, number: u64) -> Option<Transfer<T>> {
        let transfer = self.transfers.remove(&number)?;
        let outstanding = match &transfer.kind {
            Kind::Upload(upload) => upload.outstanding(),
            Kind::Fetch { outstanding, .. } => outstanding.values().copied().collect(),
        };
        for id in outstanding {
            self.peer.abandon(id);
        }
        Some(transfer)
    }
}

/// What fits a datagram of any server.
pub const MESSAGE_BYTES_CERTAIN: usize = DATAGRAM_BYTES_MIN - AUTHENTICATED_BYTES;

/// What servers may put around a block beyond what the protocol asks for.
const REPLY_RESERVE_BYTES: usize = 32;

fn failed<T>(token: T, mut assembly: Assembly) -> Event<T> {
    assembly.ask_anew();
    let assembly = Some(assembly);
    Event::FetchFailed { token, assembly }
}
