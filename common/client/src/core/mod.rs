//! The coordinator without sockets, tasks or clocks: requests in, datagrams out; datagrams in,
//! what the requests came to out.
//!
//! ```text
//!   read, write --> [ requests: machines ] --ask--> [ links ] --poll_transmit--> datagrams
//!                        |        ^                    |
//!   poll_ended <---------+        +------ words -------+ <--- handle_datagram
//! ```
//!
//! Production runs it over sockets, the simulator over a network of its own. The decisions are
//! those of [`dkvs_common::quorum`]; this carries words to the machines and does what they want
//! done. Invariants: a request ends exactly once, at its deadline at the latest, unless it is
//! cancelled; a word to what was asked in an earlier round or attempt changes nothing, nor does one
//! that comes at the deadline or later.

mod counts;
mod deadlines;
mod feasibility;
mod links;
mod probe;
mod request;
#[cfg(test)]
mod tests;
mod v1_only;
mod vouching;
mod words;

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::transport::fetch::Assembly;
use crate::transport::link::{Event, Ticket};
use crate::transport::peer::{Config, RequestError, Speaks};
use bytes::Bytes;
use dkvs_common::cluster::ServerId;
use dkvs_common::kv::Key;
use dkvs_common::mutants::{self, Mutant};
use dkvs_common::quorum::list::{List, Listing};
use dkvs_common::quorum::params::Quorum;
use dkvs_common::quorum::read::Read;
use dkvs_common::quorum::write::Write;
use dkvs_common::quorum::write::WriteReply;
use dkvs_common::quorum::{Level, Refusal};
use dkvs_common::record::{Content, Record};
use dkvs_common::ring::{Position, PreferenceList};
use dkvs_common::tag::{Tag, TagClock};
use dkvs_common::trace::Trace;
use dkvs_common::wire::v2::keys::Keys;
use foldhash::fast::FixedState;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::net::{NotBegun, Protocol, Settings, Shared, Wait};
use counts::Counts;
use deadlines::Deadlines;
use dkvs_common::histogram::Histogram;
use feasibility::Full;
use links::Links;
use probe::Probe;
use request::{InFlight, Next, Subject};
use vouching::{Note, Notes};

pub use counts::{Kind, Limit, Outcome, ServerCounts, Totals};
pub use links::LinkStatus;
pub use request::{Ended, Machine};
pub use v1_only::V1Only;
pub use words::{Asked, Heard, Question, RequestId, Token};

/// What the clocks show.
#[derive(Debug, Clone, Copy)]
pub struct Now {
    /// The clock by which deadlines are kept.
    pub at: Instant,
    /// The wall clock, in milliseconds since 1970; it may show anything.
    pub unix_ms: u64,
}

/// What a request asks for beside key and content.
#[derive(Debug, Clone, Copy)]
pub struct Wish {
    /// How many replicas, and how many of them have to confirm or agree.
    pub quorum: Quorum,
    /// What it is to promise; the quorum has to allow it.
    pub level: Level,
    /// Whether it may promise less where a server has no tags.
    pub may_fall_back: bool,
    /// How long it may take.
    pub timeout: Duration,
    /// When it is answered.
    pub wait: Wait,
    /// The trace that servers are to log it under.
    pub trace: Option<Trace>,
}

impl Wish {
    /// Whether servers without tags are of no use to it.
    pub fn insists_on_tags(self) -> bool {
        self.level == Level::Linearizable && !self.may_fall_back
    }
}

/// How a server is reached.
#[derive(Debug, Clone, Copy)]
pub struct Path {
    /// This end's address, as the server sees it.
    pub local: std::net::SocketAddrV4,
    /// The most that may be on its way here, in bytes.
    pub window_bytes_max: usize,
}

/// Something to be asked by DKVS/1.
pub struct AskByV1 {
    /// What the answer is to.
    pub token: Token,
    /// Who is to be asked.
    pub server: ServerId,
    /// What.
    pub question: Question,
    /// When nobody waits for the answer any more.
    pub deadline: Instant,
}

/// A map by what this core has numbered itself: nobody else chooses the keys, so a fast hash without
/// a seed is good enough.
#[expect(clippy::disallowed_types, reason = "its hasher is named")]
type IdMap<K, V> = std::collections::HashMap<K, V, FixedState>;

/// Which part of its time a listing waits for silent servers.
const PATIENCE: u32 = 4;

/// One worker's requests and links. `W` is what the caller attaches to a request, to get it back
/// at its end.
pub struct Core<W> {
    shared: Arc<Shared>,
    protocol: Protocol,
    datagram_bytes_max: usize,
    keys: Option<Arc<Keys>>,
    /// How long an incarnation of a server has to be known before a read that is evidence for it.
    settling: Duration,
    requests_max: usize,
    requests: IdMap<RequestId, InFlight<W>>,
    next_request: u64,
    deadlines: Deadlines<RequestId>,
    /// Of reads that have ended.
    notes: Notes,
    links: Links,
    /// By server: whether it had no room a moment ago.
    full: Vec<Option<Full>>,
    /// Numbers for links to begin with, one each.
    random: Vec<u64>,
    /// Mints tags greater than those that a server was heard to hold.
    clock: TagClock,
    /// Kibibytes of long values that may be under way.
    memory: Arc<Semaphore>,
    by_v1: VecDeque<AskByV1>,
    ended: VecDeque<(W, Ended)>,
    counts: Counts,
}

impl<W> Core<W> {
    /// A core that has opened no link. `random` is asked for as many numbers as there are
    /// servers, and one more; they have to differ from those of any other core, ever.
    pub fn new(
        shared: Arc<Shared>,
        settings: &Settings,
        memory: Arc<Semaphore>,
        mut random: impl FnMut() -> u64,
    ) -> Self {
        let servers = shared.cluster.servers().len();
        let keys = settings.keys.as_ref();
        Self {
            protocol: settings.protocol,
            datagram_bytes_max: settings.datagram_bytes_max,
            keys: keys.map(|keys| Arc::new(keys.borrow().clone())),
            // A quarter more, for clocks that do not run alike.
            settling: settings.timeout_max * 5 / 4,
            requests_max: settings.limits.requests_max,
            requests: IdMap::default(),
            next_request: 0,
            deadlines: Deadlines::default(),
            notes: Notes::default(),
            links: Links::new(servers),
            full: vec![None; servers],
            clock: TagClock::new(random() as u32),
            random: (0..servers).map(|_| random()).collect(),
            memory,
            by_v1: VecDeque::new(),
            ended: VecDeque::new(),
            counts: Counts::new(servers),
            shared,
        }
    }

    /// The replicas of a key.
    pub fn preference_list(&self, key: &Key, quorum: Quorum) -> PreferenceList {
        let n = usize::from(quorum.n());
        let position = Position::of_key(key);
        self.shared.ring.preference_list(position, n)
    }

    /// Whether `server` can be asked by DKVS/2.
    pub fn is_open(&self, server: ServerId) -> bool {
        self.links.is_open(server)
    }

    /// Opens a link to `server`. Servers without one count as overloaded.
    pub fn open(&mut self, server: ServerId, path: Path, now: Now) {
        let keys = self.keys.as_ref();
        let config = Config {
            datagram_bytes_max: self.datagram_bytes_max,
            window_bytes_max: path.window_bytes_max,
            epoch: self.shared.ring.epoch(),
            is_v1_asked: self.protocol == Protocol::Auto,
            keys: keys.map(|keys| (Arc::clone(keys), path.local)),
        };
        let random = match mutants::is_on(Mutant::StrangersCounted) {
            false => self.random[server.index()],
            true => self.random[0],
        };
        self.links.open(server, config, random, now.at);
    }

    /// Begins to read `key` from the `wish.quorum.n()` replicas of `list`. Fails, with nobody
    /// asked, if it cannot begin.
    pub fn read(
        &mut self,
        key: &Key,
        list: PreferenceList,
        wish: Wish,
        waiter: W,
        now: Now,
    ) -> Result<RequestId, NotBegun> {
        self.check(key, None)?;
        let level = self.level(&list, wish, now)?;
        let deadline = now.at + wish.timeout;
        let read = Read::new(list, wish.quorum, level, now.at, deadline);
        let subject = Subject::Get { key: key.clone() };
        self.begin(Machine::Read(read), subject, wish, waiter, now)
    }

    /// Begins to write `content` to the replicas of `list`; otherwise as [`Self::read`]. With a
    /// `tag`, it is the write that had this tag once more.
    #[expect(clippy::too_many_arguments, reason = "a write is all of this")]
    pub fn write(
        &mut self,
        key: &Key,
        content: Content,
        list: PreferenceList,
        tag: Option<Tag>,
        wish: Wish,
        waiter: W,
        now: Now,
    ) -> Result<RequestId, NotBegun> {
        self.check(key, Some(&content))?;
        let level = self.level(&list, wish, now)?;
        let deadline = now.at + wish.timeout;
        let tag = tag.filter(|_| !mutants::is_on(Mutant::RetryWithNewTag));
        let write = match tag {
            Some(tag) => Write::again(list, wish.quorum, level, tag, now.at, deadline),
            None => Write::new(list, wish.quorum, level, now.at, deadline),
        };
        let subject = Subject::Put {
            key: key.clone(),
            record: tag.map(|tag| Record::new(key, tag, content.clone())),
            content,
        };
        self.begin(Machine::Write(write), subject, wish, waiter, now)
    }

    /// Begins to list keys, for up to `timeout`. Fails, with nobody asked, if it cannot begin.
    pub fn list(
        &mut self,
        listing: Listing,
        timeout: Duration,
        waiter: W,
        now: Now,
    ) -> Result<RequestId, NotBegun> {
        if self.protocol == Protocol::V1 {
            return Err(NotBegun::NoListing);
        }
        let subject = Subject::Keys {
            prefix: listing.prefix.clone(),
        };
        let servers = self.shared.cluster.iter().map(|(server, _)| server);
        let list = List::new(servers, listing, now.at, timeout / PATIENCE);
        let patience_ends = list.patience_ends();
        let wish = unanimous(timeout);
        let id = self.begin(Machine::List(list), subject, wish, waiter, now)?;
        self.wake_at(patience_ends, id, now);
        Ok(id)
    }

    /// Begins to ask every server how it does.
    pub fn probe(&mut self, timeout: Duration, waiter: W, now: Now) -> Result<RequestId, NotBegun> {
        let servers = self.shared.cluster.servers().len();
        let machine = Machine::Probe(Probe::new(servers));
        self.begin(machine, Subject::Status, unanimous(timeout), waiter, now)
    }

    /// Nobody waits for a request any more. A read ends by that; a write goes on.
    pub fn cancel(&mut self, id: RequestId) {
        if let Some(request) = self.requests.get(&id)
            && !matches!(request.machine, Machine::Write(_))
            && let Some(mut request) = self.requests.remove(&id)
        {
            self.counts.cancelled(&request.machine);
            self.part_with(id, &mut request);
        }
    }

    /// Takes back a request of which nothing was sent yet.
    pub(super) fn withdraw(&mut self, id: RequestId) {
        if let Some(mut request) = self.requests.remove(&id) {
            let tickets = request.take_all();
            self.abandon(tickets);
        }
    }

    /// A datagram arrived from `server`.
    pub fn handle_datagram(&mut self, server: ServerId, datagram: &Bytes, now: Now) {
        let spoke = self.v1_only(server);
        if let Some(link) = self.links.from(server) {
            link.handle_datagram(datagram, now.at);
        }
        let speaks = self.v1_only(server);
        if spoke != speaks
            && let Some(speaks) = speaks
        {
            let addr = self.shared.name(server);
            tracing::warn!(%addr, "{}", speaks.advice(self.protocol));
        }
        self.handle_events(server, now);
    }

    /// The system tells that nothing listens at the port of `server`.
    pub fn handle_unreachable(&mut self, server: ServerId, now: Now) {
        if let Some(link) = self.links.to(server) {
            link.handle_unreachable(now.at);
        }
        self.handle_events(server, now);
    }

    /// Time has passed.
    pub fn handle_timeout(&mut self, now: Now) {
        // Requests first: that a fetch ends at its request's deadline is no failure of the server.
        while let Some(id) = self.deadlines.pop_due(now.at) {
            match self.requests.get_mut(&id) {
                Some(request) if now.at < request.deadline => {
                    request.handle_patience();
                    self.go_on(id, now);
                }
                Some(request) => {
                    request.handle_timeout(now.at);
                    self.end(id);
                }
                None => {}
            }
        }
        for server in self.links.handle_timeout(now.at) {
            self.handle_events(server, now);
        }
    }

    /// When to call [`Self::handle_timeout`] next, once there is nothing more to send.
    pub fn poll_timeout(&self) -> Option<Instant> {
        let deadline = self.deadlines.next();
        deadline.into_iter().chain(self.links.next_due()).min()
    }

    /// A server towards which there may be something to send, each once.
    pub fn poll_server(&mut self) -> Option<ServerId> {
        self.links.poll_server()
    }

    /// Something can be sent to `server` again.
    pub fn resume(&mut self, server: ServerId) {
        self.links.to(server);
    }

    /// Whether [`Self::poll_server`] would give one.
    pub fn wants_to_send(&self) -> bool {
        self.links.is_any_dirty()
    }

    /// The next datagram to send to `to`, until there is none.
    pub fn poll_transmit(&mut self, to: ServerId, now: Now) -> Option<Vec<u8>> {
        let datagram = self.links.poll_transmit(to, now.at);
        if datagram.is_none() {
            // A request that turned out to fit no datagram, for one, has ended by that.
            self.handle_events(to, now);
        }
        datagram
    }

    /// The next request that has ended.
    pub fn poll_ended(&mut self) -> Option<(W, Ended)> {
        self.ended.pop_front()
    }

    /// Takes other keys into use.
    pub fn set_keys(&mut self, keys: Keys) {
        let keys = Arc::new(keys);
        self.links.set_keys(&keys);
        self.keys = Some(keys);
    }

    /// What `server` speaks, as far as is known.
    pub fn speaks(&self, server: ServerId) -> Speaks {
        match self.protocol {
            Protocol::V1 => Speaks::V1,
            Protocol::V2 | Protocol::Auto => self.links.speaks(server),
        }
    }

    /// Whether `server` answers by DKVS/1 alone, and since when; none if it does not, as far as is
    /// known, or nothing else is to be spoken.
    pub fn v1_only(&self, server: ServerId) -> Option<V1Only> {
        match self.links.speaks(server) {
            _ if self.protocol == Protocol::V1 => None,
            Speaks::V1 => Some(V1Only::SinceMet),
            Speaks::V2(_) if self.links.is_downgraded(server) => Some(V1Only::Downgraded),
            Speaks::V2(_) | Speaks::Unknown => None,
        }
    }

    /// What is known of the link to `server`, if it is open.
    pub fn link_status(&self, server: ServerId) -> Option<LinkStatus> {
        self.links.status(server)
    }

    /// How reads and writes ended, and which limits were hit.
    pub fn totals(&self) -> Totals {
        self.counts.totals
    }

    /// What was counted about `server`.
    pub fn server_counts(&self, server: ServerId) -> ServerCounts {
        self.counts.servers[server.index()]
    }

    /// By server, how long each took to answer.
    pub fn round_trips(&self) -> &Arc<[Histogram]> {
        &self.counts.round_trips
    }

    /// Requests in flight.
    pub fn in_flight(&self) -> usize {
        self.requests.len()
    }

    /// Something was refused for a limit that is kept elsewhere.
    pub(super) fn note_limit(&mut self, limit: Limit) {
        self.counts.limit_hit(limit);
    }

    /// A server has answered by DKVS/1.
    pub(super) fn note_round_trip(&self, server: ServerId, round_trip: Duration) {
        self.counts.round_trip(server, round_trip);
    }

    /// The next question to ask by DKVS/1. What comes of it is told by [`Self::handle_v1`].
    pub fn poll_ask_by_v1(&mut self) -> Option<AskByV1> {
        self.by_v1.pop_front()
    }

    /// What came of a question by DKVS/1.
    pub fn handle_v1(&mut self, token: Token, from: ServerId, heard: Heard, now: Now) {
        self.hear(token, from, heard, now);
    }

    /// Whether the protocols that may be spoken can carry the key and, to write it, the content.
    fn check(&self, key: &Key, content: Option<&Content>) -> Result<(), NotBegun> {
        match self.protocol {
            Protocol::V1 => words::check_v1(key, content),
            // What fits depends on what is asked, and of whom.
            Protocol::V2 | Protocol::Auto => Ok(()),
        }
    }

    /// The level that a request can have at these servers, as far as they are known.
    fn level(&mut self, list: &PreferenceList, wish: Wish, now: Now) -> Result<Level, NotBegun> {
        // Where DKVS/1 is not spoken, a server that speaks nothing else cannot be asked, and that is
        // no reason to promise less of what the others say.
        if wish.level == Level::Agreement || self.protocol == Protocol::V2 {
            return Ok(wish.level);
        }
        let speaks_v1 = |server: &ServerId| self.speaks(*server) == Speaks::V1;
        let servers = list.iter().map(|point| point.server);
        let without_tags: Vec<ServerId> = servers.filter(speaks_v1).collect();
        match without_tags[..] {
            [] => Ok(Level::Linearizable),
            _ if wish.may_fall_back => Ok(Level::Agreement),
            [server, ..] => {
                // They are not going to be asked, and so would pass for servers of DKVS/1 for ever,
                // even if they were started anew, or damage alone made it seem so.
                for server in without_tags {
                    if let Some(link) = self.links.to(server) {
                        link.greet_if_due(now.at);
                    }
                }
                let server = self.shared.name(server).to_owned();
                Err(NotBegun::NoTags { server })
            }
        }
    }

    fn begin(
        &mut self,
        machine: Machine,
        subject: Subject,
        wish: Wish,
        waiter: W,
        now: Now,
    ) -> Result<RequestId, NotBegun> {
        if self.requests.len() >= self.requests_max {
            self.counts.limit_hit(Limit::RequestsInFlight);
            let what = "too many requests are in flight";
            return Err(NotBegun::Overloaded { what });
        }
        let id = RequestId(self.next_request);
        self.next_request += 1;
        let deadline = now.at + wish.timeout;
        let request = InFlight {
            machine,
            subject,
            started: now.at,
            deadline,
            wait: wish.wait,
            trace: wish.trace,
            waiter,
            may_fall_back: wish.may_fall_back,
            attempt: 0,
            tickets: Vec::new(),
            fetches: Vec::new(),
            beginning: None,
            assembly: None,
            memory: None,
            met: Vec::new(),
        };
        self.wake_at(deadline, id, now);
        self.requests.insert(id, request);
        self.go_on(id, now);
        Ok(id)
    }

    /// Has [`Self::handle_timeout`] look at a request when `at` has come.
    fn wake_at(&mut self, at: Instant, id: RequestId, now: Now) {
        let requests = &self.requests;
        let is_in_flight = |other| requests.contains_key(&other);
        self.deadlines.insert(now.at, at, id, is_in_flight);
    }

    /// Does what a request wants done, until it waits for something or has ended.
    fn go_on(&mut self, id: RequestId, now: Now) {
        while self.admit(id, now)
            && let Some(request) = self.requests.get_mut(&id)
        {
            let Some(next) = request.next() else { break };
            match next {
                Next::Ask {
                    asked,
                    question,
                    servers,
                } => self.ask(id, asked, &question, &servers, now),
                Next::Fetch {
                    from,
                    key,
                    assembly,
                } => self.fetch(id, from, (key, assembly), now),
                Next::Vouch {
                    server,
                    round,
                    key,
                    tag,
                } => self.ask_to_vouch(id, server, round, (key, tag), now),
                Next::Mint(seen) => match self.clock.mint(now.unix_ms, seen) {
                    Ok(tag) => {
                        let abandoned = request.begin_round(tag);
                        self.abandon(abandoned);
                    }
                    Err(_) => request.give_up(),
                },
            }
        }
        if self.requests.get(&id).is_some_and(InFlight::is_due) {
            self.end(id);
        }
    }

    fn end(&mut self, id: RequestId) {
        if let Some(mut request) = self.requests.remove(&id) {
            self.part_with(id, &mut request);
            self.counts.ended(&request.machine);
            self.ended.push_back(request.finish());
        }
    }

    /// Abandons what nobody waits for any more, and notes what is to follow nevertheless.
    fn part_with(&mut self, id: RequestId, request: &mut InFlight<W>) {
        let abandoned = request.take_abandoned();
        self.abandon(abandoned);
        if let (Machine::Read(read), Subject::Get { key }) = (&request.machine, &request.subject) {
            for (server, tag) in read.unvouched() {
                let note = Note {
                    key: key.clone(),
                    tag,
                    started: request.started,
                    deadline: request.deadline,
                };
                self.notes.insert(id, server, note);
            }
        }
    }

    /// Asks each of `servers`, by the protocol that it speaks.
    fn ask(
        &mut self,
        id: RequestId,
        asked: Asked,
        question: &Question,
        servers: &[ServerId],
        now: Now,
    ) {
        let Some(request) = self.requests.get_mut(&id) else {
            return;
        };
        let (deadline, attempt) = (request.deadline, request.attempt);
        let token = Token { id, attempt, asked };
        for server in servers.iter().copied() {
            let is_v1 = match self.protocol {
                Protocol::V1 => true,
                Protocol::V2 => false,
                Protocol::Auto => self.links.speaks(server) == Speaks::V1,
            };
            if is_v1 && request.needs_tags() {
                let refused = Heard::refused(asked, Refusal::NotV2);
                request.handle(server, asked, refused, now.at);
            } else if is_v1 {
                self.by_v1.push_back(AskByV1 {
                    token,
                    server,
                    question: question.clone(),
                    deadline,
                });
                if let Some(link) = self.links.to(server) {
                    // Lest it was started anew as one that speaks DKVS/2.
                    link.greet_if_due(now.at);
                }
            } else {
                let asked_of = match self.links.to(server) {
                    Some(link) => {
                        let to_ask = question.to_request(link.message_bytes_max());
                        let asked_of = link.ask(to_ask, token, now.at, deadline);
                        if let (Ok(ticket), Some(trace)) = (&asked_of, request.trace) {
                            link.trace(*ticket, trace);
                        }
                        asked_of
                    }
                    None => Err(RequestError::TooMany),
                };
                let heard = match asked_of {
                    Ok(ticket) => {
                        if let Asked::Repair { .. } = asked {
                            self.counts.servers[server.index()].repairs_sent += 1;
                        }
                        request.tickets.push((server, asked, ticket));
                        continue;
                    }
                    Err(RequestError::TooLong { .. }) => {
                        let max = self.links.message_bytes_max(server).unwrap_or(0);
                        Heard::refused(asked, request.key_too_long(asked, max))
                    }
                    Err(RequestError::TooMany) => {
                        self.counts.limit_hit(Limit::RequestsToServer);
                        Heard::refused(asked, Refusal::Busy)
                    }
                    Err(RequestError::Unreachable) => Heard::Unreachable { sent: false },
                };
                request.handle(server, asked, heard, now.at);
            }
        }
    }

    /// Asks `server` to vouch for what it was given, if it is known to have lost nothing since long
    /// enough before the read began.
    fn ask_to_vouch(
        &mut self,
        id: RequestId,
        server: ServerId,
        round: u32,
        (key, tag): (Key, Tag),
        now: Now,
    ) {
        let asked = Asked::Vouch { round };
        let started = self.requests.get(&id).map(|request| request.started);
        if let Some(boot_id) = started.and_then(|started| self.boot_id_before(server, started)) {
            let question = Question::Vouch { boot_id, key, tag };
            self.ask(id, asked, &question, &[server], now);
        } else if let Some(request) = self.requests.get_mut(&id) {
            request.handle(server, asked, Heard::Vouched(false), now.at);
        }
    }

    /// The boot id of `server`, if it had that so long before `at` that whatever counts a word from
    /// before it was started was decided by then.
    fn boot_id_before(&self, server: ServerId, at: Instant) -> Option<u64> {
        let incarnation = self.links.incarnation(server)?;
        let is_settled = incarnation.known_since + self.settling <= at;
        is_settled.then_some(incarnation.boot_id)
    }

    /// A server had its word when the read had ended. If it has thereby confirmed what it is to
    /// vouch for, it is asked to.
    fn hear_late(&mut self, token: Token, from: ServerId, heard: &Heard, now: Now) {
        let Asked::Repair { round } = token.asked else {
            return;
        };
        let Some(note) = self.notes.remove(token.id, from) else {
            return;
        };
        let Note { key, tag, .. } = note;
        if matches!(heard, Heard::Write(reply) if reply.confirms(tag))
            && let Some(boot_id) = self.boot_id_before(from, note.started)
            && let Some(link) = self.links.to(from)
        {
            let question = Question::Vouch { boot_id, key, tag };
            let asked = Asked::Vouch { round };
            let token = Token { asked, ..token };
            // If it cannot be asked, a later read sees to it.
            let request = question.to_request(link.message_bytes_max());
            let _ = link.ask(request, token, now.at, note.deadline);
        }
    }

    fn fetch(&mut self, id: RequestId, from: ServerId, (key, assembly): (Key, Assembly), now: Now) {
        let Some(request) = self.requests.get_mut(&id) else {
            return;
        };
        let value_bytes = assembly.digest().value_bytes as usize;
        if request.memory.is_none() {
            request.memory = take_memory(&self.memory, value_bytes);
            if request.memory.is_none() {
                self.counts.limit_hit(Limit::ValueMemory);
            }
        }
        let asked = Asked::Fetch;
        let token = Token {
            id,
            attempt: request.attempt,
            asked,
        };
        let begun = match (self.links.to(from), &request.memory) {
            (Some(link), Some(_)) => link.fetch(key, assembly, token, now.at, request.deadline),
            _ => Err(RequestError::TooMany),
        };
        match begun {
            Ok(ticket) => request.tickets.push((from, asked, ticket)),
            Err(_) => request.handle(from, asked, Heard::FetchFailed(None), now.at),
        }
    }

    /// A server has its word. Whatever that makes necessary is done.
    fn hear(&mut self, token: Token, from: ServerId, heard: Heard, now: Now) {
        self.note_room(token, from, &heard, now);
        if let (Asked::Repair { .. }, Heard::Write(WriteReply::Stored)) = (token.asked, &heard) {
            self.counts.servers[from.index()].repairs_stored += 1;
        }
        let Some(request) = self.requests.get_mut(&token.id) else {
            return self.hear_late(token, from, &heard, now);
        };
        if now.at >= request.deadline {
            request.handle_timeout(now.at);
            return self.end(token.id);
        }
        if request.attempt == token.attempt {
            request.handle(from, token.asked, heard, now.at);
            if request.wants_to_fall_back()
                && let Some(abandoned) = request.fall_back(now.at)
            {
                self.abandon(abandoned);
            }
            self.go_on(token.id, now);
        }
    }

    fn handle_events(&mut self, server: ServerId, now: Now) {
        while let Some(event) = self.links.poll_event(server) {
            let (token, heard) = match event {
                Event::Reply {
                    token,
                    reply,
                    after,
                    was_repeated,
                } => {
                    if let Some(after) = after {
                        self.shared.record_round_trip(server, after);
                        self.counts.round_trip(server, after);
                    }
                    let heard = Heard::from_reply(token.asked, reply);
                    if was_repeated && matches!(heard, Heard::Write(WriteReply::Refused(_))) {
                        self.note_refused_again(token);
                    }
                    (token, heard)
                }
                Event::Fetched { token, value } => (token, Heard::Fetched(value)),
                Event::FetchFailed { token, assembly } => (token, Heard::FetchFailed(assembly)),
                Event::Unreachable { token, sent } => (token, Heard::Unreachable { sent }),
                Event::TooLong { token } => {
                    let Some(request) = self.requests.get(&token.id) else {
                        self.notes.remove(token.id, server);
                        continue;
                    };
                    let max = self.links.message_bytes_max(server).unwrap_or(0);
                    let refusal = request.key_too_long(token.asked, max);
                    (token, Heard::refused(token.asked, refusal))
                }
                Event::NotV2 { token } => {
                    self.handle_not_v2(token, server, now);
                    continue;
                }
                // The deadline is the request's own, and its end is seen to elsewhere.
                Event::Expired { token } => {
                    self.notes.remove(token.id, server);
                    continue;
                }
                Event::Restarted => {
                    self.full[server.index()] = None;
                    let addr = self.shared.name(server);
                    tracing::info!(%addr, "a server was restarted");
                    continue;
                }
            };
            self.hear(token, server, heard, now);
        }
    }

    /// A server is about to be heard that refuses what it was sent more than once.
    fn note_refused_again(&mut self, token: Token) {
        let request = self.requests.get_mut(&token.id);
        let request = request.filter(|request| request.attempt == token.attempt);
        if let Some(Machine::Write(write)) = request.map(|request| &mut request.machine)
            && matches!(token.asked, Asked::Put { .. })
        {
            write.handle_refused_again();
        }
    }

    /// A server turned out to speak DKVS/1 only: it is asked so, if that will do.
    fn handle_not_v2(&mut self, token: Token, server: ServerId, now: Now) {
        let Token { id, attempt, asked } = token;
        let Some(request) = self.requests.get_mut(&id) else {
            self.notes.remove(id, server);
            return;
        };
        if request.attempt != attempt {
            return;
        }
        let is_v2_only = matches!(asked, Asked::Fetch | Asked::Page);
        let is_v1_spoken = self.protocol != Protocol::V2 && !is_v2_only;
        if is_v1_spoken
            && request.needs_tags()
            && let Some(abandoned) = request.fall_back(now.at)
        {
            self.abandon(abandoned);
            return self.go_on(id, now);
        }
        let is_tagged = request.needs_tags() && !(is_v1_spoken && request.fall_back_midway());
        let is_put = matches!(asked, Asked::Put { .. });
        if is_put && !is_tagged && request.wants_another_round() {
            // It is asked in that, and not in this one.
            request
                .tickets
                .retain(|(asked_of, _, _)| *asked_of != server);
            return self.go_on(id, now);
        }
        let heard = if !is_v1_spoken || is_tagged || asked == Asked::Ping {
            Heard::refused(asked, Refusal::NotV2)
        } else if let Some(question) = request.question(asked) {
            request
                .tickets
                .retain(|(asked_of, _, _)| *asked_of != server);
            return self.by_v1.push_back(AskByV1 {
                token,
                server,
                question,
                deadline: request.deadline,
            });
        } else {
            return;
        };
        self.hear(token, server, heard, now);
    }

    fn abandon(&mut self, tickets: Vec<(ServerId, Ticket)>) {
        for (server, ticket) in tickets {
            self.links.abandon(server, ticket);
        }
    }
}

/// What a request that asks all servers asks for.
fn unanimous(timeout: Duration) -> Wish {
    Wish {
        quorum: Quorum::new(1, 1).expect("one of one is a quorum"),
        level: Level::Agreement,
        may_fall_back: false,
        timeout,
        wait: Wait::All,
        trace: None,
    }
}

/// Takes `value_bytes` of the memory for long values, for as long as the permit is held.
pub(super) fn take_memory(
    memory: &Arc<Semaphore>,
    value_bytes: usize,
) -> Option<OwnedSemaphorePermit> {
    let kibibytes = u32::try_from(value_bytes.div_ceil(1 << 10)).ok()?;
    Arc::clone(memory).try_acquire_many_owned(kibibytes).ok()
}
