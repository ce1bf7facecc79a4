//! A gateway: the production coordinator's core, its process, its wall clock and its ports.
//!
//! All that the simulator knows of the core's interface is here. The process may end at any time,
//! with all it has under way, and another one starts that knows nothing of it; it may stand still
//! while datagrams and requests wait. The core's decisions are its own.

use std::collections::{BTreeMap, VecDeque};
use std::net::{Ipv4Addr, SocketAddrV4};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use dkvs_client::core::{
    CallerId, ConditionalRequest, Core, CoreConfig, Endpoint, ListResult, MemoryBudget, Now,
    Protocol, ReadRequest, RequestId, RequestOptions, RoundTrips, Token, Wait, WriteRequest,
};
use dkvs_client::transport::v1::{self, Expects};
use dkvs_common::cluster::ServerId;
use dkvs_common::mutants::{self, Mutant};
use dkvs_common::view::ClusterView;
use dkvs_common::wire::v2::keys::Keys;
use dkvs_storage_node::anti_entropy::Timing;
use dkvs_storage_node::service::Service;

use super::anti_entropy::Pulling;
use super::clock::WallClock;
use super::invariants::convergence::READ_WITHIN;
use super::lister::{PageAnswer, PageOrder};
use super::moment::Moment;
use super::plan::{GatewayPlan, PlacesPlan};
use super::request::{Answer, Refused, Request, RequestKind, Response};
use crate::random::Random;

/// One gateway.
pub struct Gateway {
    number: usize,
    plan: GatewayPlan,
    setting: Setting,
    random: Random,
    /// None while it is down.
    core: Option<Core>,
    /// The requests that have ended, the first first.
    ended: Arc<Mutex<VecDeque<Answer>>>,
    /// The pages of lists that have ended.
    pages: Arc<Mutex<VecDeque<PageAnswer>>>,
    /// How many were begun and have not ended.
    pages_begun: usize,
    /// Those that were not begun; their answers come first.
    refused: VecDeque<Answer>,
    starts: u16,
    /// Towards which it may have something to send yet.
    sending_to: Option<ServerId>,
    is_paused: bool,
    /// When it last went on after it had stood still.
    pub resumed: Moment,
    pub clock: WallClock,
    inbox: VecDeque<Stimulus>,
    /// By operation: what the core calls its request.
    under_way: BTreeMap<usize, RequestId>,
    /// By operation and attempt: whose requests were begun and have not ended.
    begun: BTreeMap<(usize, u32), CallerId>,
    /// Requests to send by DKVS/1: from which socket, and to which server.
    by_v1: VecDeque<(SocketAddrV4, usize, Bytes)>,
    /// By socket: the request that was sent.
    asked_by_v1: BTreeMap<SocketAddrV4, (Token, ServerId, Expects)>,
    /// How many sockets for DKVS/1 it has opened.
    sockets: u32,
    /// What a server pulls by this, if it is a server's.
    pulling: Option<Pulling>,
}

/// What all gateways of a world have in common.
#[derive(Clone)]
pub struct Setting {
    pub view: Arc<ClusterView>,
    config: CoreConfig,
    keys: Option<Keys>,
}

impl Setting {
    /// Of a cluster that demands a proof by these keys, if it has any.
    pub fn new(
        view: Arc<ClusterView>,
        datagram_bytes_max: usize,
        keys: Option<Keys>,
        (protocol, replication): (Protocol, u8),
        places: PlacesPlan,
    ) -> Self {
        let config = CoreConfig {
            protocol,
            replication,
            datagram_bytes_max,
            timeout_max: READ_WITHIN,
            requests_max: places.undecided_max,
            decided_max: places.decided_max,
        };
        Self { view, config, keys }
    }
}

/// Something that happens to a gateway.
#[derive(Debug, Clone)]
pub enum Stimulus {
    /// A client sends a request.
    Request(Request),
    /// Somebody asks for a page of a list.
    List(PageOrder),
    /// A datagram arrives from a server, or seems to.
    Datagram { server: usize, datagram: Bytes },
    /// The system reports that nobody listens at a server's port.
    Unreachable { server: usize },
    /// The same by DKVS/1, at a socket that was opened for one question.
    ByV1 {
        socket: SocketAddrV4,
        /// None: nobody listens.
        datagram: Option<Bytes>,
    },
    /// The client of this operation is gone.
    Gone { operation: usize, is_write: bool },
}

/// What the core gives back at a request's end.
#[derive(Debug, Clone, Copy)]
struct Waiter {
    operation: usize,
    attempt: u32,
    deadline: Moment,
}

/// Datagrams and requests that wait while the process stands still, at most.
const INBOX_MAX: usize = 256;

const FIRST_PORT: u16 = 10_000;

/// What a system keeps of a socket's datagrams.
const WINDOW_BYTES_MAX: usize = 256 << 10;

const VALUE_BYTES_IN_FLIGHT_MAX: usize = 1 << 20;

impl Gateway {
    /// A gateway that is up.
    pub fn new(seed: u64, number: usize, plan: GatewayPlan, setting: Setting) -> Self {
        let mut gateway = Self {
            number,
            clock: WallClock::new(plan.ahead_ms, plan.gains_us),
            plan,
            setting,
            random: Random::of(seed, &format!("gateway {number}")),
            core: None,
            ended: Arc::default(),
            pages: Arc::default(),
            pages_begun: 0,
            refused: VecDeque::new(),
            starts: 0,
            sending_to: None,
            is_paused: false,
            resumed: Moment::START,
            inbox: VecDeque::new(),
            under_way: BTreeMap::new(),
            begun: BTreeMap::new(),
            by_v1: VecDeque::new(),
            asked_by_v1: BTreeMap::new(),
            sockets: 0,
            pulling: None,
        };
        gateway.start(Moment::START);
        gateway
    }

    /// Whether the process runs, be it paused.
    pub fn is_up(&self) -> bool {
        self.core.is_some()
    }

    /// Whether the process runs and stands still.
    pub fn is_paused(&self) -> bool {
        self.is_up() && self.is_paused
    }

    /// How long it gathers what it has to send, this time.
    pub fn turn(&mut self) -> Duration {
        self.plan.turn.draw(&mut self.random)
    }

    /// The address that a server sees.
    pub fn address(&self, server: usize) -> SocketAddrV4 {
        let start = if self.plan.keeps_ports {
            0
        } else {
            self.starts
        };
        let ip = Ipv4Addr::new(10, 1, 0, self.number as u8 + 1);
        SocketAddrV4::new(ip, FIRST_PORT + 100 * start + server as u16)
    }

    /// The process ends, with all it has under way.
    pub fn crash(&mut self) {
        self.core = None;
        self.pulling = None;
        self.is_paused = false;
        self.inbox.clear();
        self.under_way.clear();
        self.begun.clear();
        self.ended().clear();
        lock(&self.pages).clear();
        self.pages_begun = 0;
        self.refused.clear();
        self.by_v1.clear();
        self.asked_by_v1.clear();
    }

    /// A process starts that knows nothing of those before it.
    pub fn start(&mut self, now: Moment) {
        if self.core.is_some() {
            return;
        }
        self.starts += 1;
        let mut random = Random::new(self.random.number());
        let now = self.now(now);
        let Setting { view, config, keys } = &self.setting;
        let memory = MemoryBudget::new(VALUE_BYTES_IN_FLIGHT_MAX);
        // The first number distinguishes this process's operations from all others.
        let mut own = mutants::is_on(Mutant::OperationPerGateway).then_some(self.number as u64);
        let mut random = || own.take().unwrap_or_else(|| random.number());
        let mut core = Core::new(
            config.clone(),
            Arc::clone(view),
            keys.clone(),
            memory,
            RoundTrips::default(),
            random(),
        );
        for server in view.servers() {
            let endpoint = Endpoint {
                local: self.address(number_of(server)),
                window_bytes_max: WINDOW_BYTES_MAX,
            };
            core.open(server, endpoint, random(), now);
        }
        self.core = Some(core);
        self.sending_to = None;
    }

    /// The server whose client this is pulls by it from now on.
    pub fn begin_to_pull(&mut self, service: Arc<Service>, timing: Timing, now: Moment) {
        self.pulling = Pulling::new(service, timing, self.now(now));
    }

    /// It pulls nothing any more.
    pub fn end_pulling(&mut self) {
        self.pulling = None;
    }

    /// Lets the server pull what it can, unless the process stands still.
    pub fn pull(&mut self, now: Moment) {
        let at = self.now(now);
        if let (Some(core), Some(pulling), false) =
            (&mut self.core, &mut self.pulling, self.is_paused)
        {
            pulling.drive(core, at);
        }
    }

    /// The process stands still.
    pub fn pause(&mut self) {
        self.is_paused = true;
    }

    /// The process goes on, with what has come to wait for it and with what is due by now, in
    /// either order.
    pub fn resume(&mut self, now: Moment) {
        if !self.is_paused() {
            return;
        }
        self.is_paused = false;
        self.resumed = now;
        let is_late_first = self.random.below(2) == 0;
        if is_late_first {
            self.handle_timeout(now);
        }
        for stimulus in std::mem::take(&mut self.inbox) {
            self.handle(stimulus, now);
        }
        if !is_late_first {
            self.handle_timeout(now);
        }
    }

    /// Something happens; it waits while the process stands still. Gives false if there is no
    /// process, or no room to wait.
    pub fn handle(&mut self, stimulus: Stimulus, now: Moment) -> bool {
        if self.is_paused() {
            let has_room = self.inbox.len() < INBOX_MAX;
            if has_room {
                self.inbox.push_back(stimulus);
            }
            return has_room;
        }
        let moment = now;
        let now = self.now(now);
        let Some(core) = &mut self.core else {
            return false;
        };
        match stimulus {
            Stimulus::Request(request) => {
                let options = RequestOptions {
                    quorum: request.quorum,
                    level: request.level,
                    may_fall_back: request.may_fall_back,
                    timeout: request.timeout,
                    wait: match request.waits_for_all {
                        true => Wait::All,
                        false => Wait::Quorum,
                    },
                    caller: request.caller,
                    trace: None,
                };
                let waiter = Waiter {
                    operation: request.operation,
                    attempt: request.attempt,
                    deadline: moment + request.timeout,
                };
                let (key, caller) = (request.key, request.caller);
                let list = core.preference_list(&key, request.quorum);
                let answers = Arc::clone(&self.ended);
                let end = move |response| push(&answers, waiter.answer(response));
                let begun = match request.kind {
                    RequestKind::Read => {
                        let request = ReadRequest { key, list, options };
                        core.read(request, now, move |result| end(Response::Read(result.read)))
                    }
                    RequestKind::Write {
                        content,
                        attributes,
                        tag,
                    } => {
                        let request = WriteRequest {
                            key,
                            content,
                            attributes,
                            tag,
                            list,
                            options,
                        };
                        core.write(request, now, move |result| {
                            end(Response::Write(result.write, result.tag));
                        })
                    }
                    RequestKind::WriteIf {
                        content,
                        attributes,
                        condition,
                        attempt,
                    } => {
                        let request = ConditionalRequest {
                            key,
                            content,
                            attributes,
                            condition,
                            attempt,
                            list,
                            options,
                        };
                        core.write_if(request, now, move |result| end(Response::WriteIf(result)))
                    }
                };
                match begun {
                    Ok(id) => {
                        let attempt = (waiter.operation, waiter.attempt);
                        self.under_way.insert(waiter.operation, id);
                        self.begun.insert(attempt, caller);
                    }
                    Err(error) => {
                        let own = self.begun.values().filter(|it| **it == caller);
                        let refused = Refused {
                            error,
                            own: own.count(),
                            all: self.begun.len() + self.pages_begun,
                            places: self.setting.config.requests_max,
                        };
                        self.refused.push_back(Answer {
                            refused: Some(refused),
                            ..waiter.answer(Response::NotBegun)
                        });
                    }
                }
            }
            Stimulus::List(order) => {
                let PageOrder {
                    page,
                    listing,
                    timeout,
                } = order;
                let pages = Arc::clone(&self.pages);
                let end = move |result: ListResult| {
                    let list = Some(result.list);
                    push(&pages, PageAnswer { page, list });
                };
                let begun = core.list(listing, timeout, CallerId::Internal, now, end);
                match begun {
                    Ok(_) => self.pages_begun += 1,
                    Err(_) => push(&self.pages, PageAnswer { page, list: None }),
                }
            }
            Stimulus::Datagram { server, datagram } => {
                core.handle_datagram(ServerId(server as u16), &datagram, now);
            }
            Stimulus::Unreachable { server } => {
                core.handle_unreachable(ServerId(server as u16), now);
            }
            Stimulus::ByV1 { socket, datagram } => {
                let Some((token, server, expects)) = self.asked_by_v1.get(&socket).copied() else {
                    return false;
                };
                let response = match datagram.map(|datagram| v1::decode(expects, datagram)) {
                    Some(Err(_)) => return false,
                    Some(Ok(response)) => Some(response),
                    None => None,
                };
                self.asked_by_v1.remove(&socket);
                match response {
                    Some(response) => core.handle_exchange(token, server, response, now),
                    None => core.handle_exchange_unreachable(token, server, now),
                }
            }
            Stimulus::Gone {
                operation,
                is_write,
            } => {
                if let Some(id) = self.under_way.remove(&operation) {
                    core.cancel(id, now);
                    // A write goes on, and answers.
                    self.begun
                        .retain(|(begun, _), _| *begun != operation || is_write);
                }
            }
        }
        self.take_v1();
        true
    }

    /// Whether this is the address of a gateway's socket for DKVS/1.
    pub fn is_v1_socket(address: SocketAddrV4) -> bool {
        matches!(address.ip().octets(), [10, 3, ..])
    }

    /// Takes the exchanges by DKVS/1 that the core wants, each from a socket of its own.
    fn take_v1(&mut self) {
        let Some(core) = &mut self.core else { return };
        while let Some(exchange) = core.poll_exchange() {
            self.sockets += 1;
            let [.., high, low_high, low] = self.sockets.to_be_bytes();
            let ip = Ipv4Addr::new(10, 3, high, self.number as u8);
            let socket = SocketAddrV4::new(ip, u16::from_be_bytes([low_high, low]));
            let server = exchange.server;
            let asked = (exchange.token, server, exchange.expects);
            self.asked_by_v1.insert(socket, asked);
            let datagram = exchange.datagram;
            self.by_v1.push_back((socket, number_of(server), datagram));
        }
    }

    /// What is due by now is done, unless the process stands still.
    pub fn handle_timeout(&mut self, now: Moment) {
        let at = self.now(now);
        if let Some(core) = self.core.as_mut().filter(|_| !self.is_paused) {
            core.handle_timeout(at);
            self.take_v1();
        }
    }

    /// When something is due next; none while the process stands still.
    pub fn next_timeout(&self) -> Option<Moment> {
        let core = self.core.as_ref().filter(|_| !self.is_paused)?;
        let pulling = self.pulling.as_ref().and_then(Pulling::next_timeout);
        let due = core.poll_timeout().into_iter().chain(pulling).min();
        due.map(Moment::of)
    }

    /// Whether there may be something to send.
    pub fn wants_to_send(&self) -> bool {
        let core = self.core.as_ref().filter(|_| !self.is_paused);
        core.is_some_and(|core| {
            self.sending_to.is_some() || !self.by_v1.is_empty() || core.wants_to_send()
        })
    }

    /// The next datagram to send: from which address, and to which server.
    pub fn poll_transmit(&mut self, now: Moment) -> Option<(SocketAddrV4, usize, Bytes)> {
        let at = self.now(now);
        loop {
            let core = self.core.as_mut().filter(|_| !self.is_paused)?;
            if let Some(by_v1) = self.by_v1.pop_front() {
                return Some(by_v1);
            }
            let server = match self.sending_to.take() {
                Some(server) => server,
                None => core.poll_server()?,
            };
            if let Some(datagram) = core.poll_transmit(server, at) {
                self.sending_to = Some(server);
                let address = self.address(number_of(server));
                return Some((address, number_of(server), datagram.into()));
            }
            self.take_v1();
        }
    }

    /// The next page of a list that has ended.
    pub fn poll_page(&mut self) -> Option<PageAnswer> {
        if self.is_paused() {
            return None;
        }
        let answer = lock(&self.pages).pop_front()?;
        self.pages_begun -= usize::from(answer.list.is_some());
        Some(answer)
    }

    /// The next request that has ended.
    pub fn poll_answer(&mut self) -> Option<Answer> {
        if let Some(answer) = self.refused.pop_front() {
            return Some(answer);
        }
        if self.is_paused() {
            return None;
        }
        let answer = self.ended().pop_front()?;
        self.under_way.remove(&answer.operation);
        self.begun.remove(&(answer.operation, answer.attempt));
        Some(answer)
    }

    fn ended(&self) -> MutexGuard<'_, VecDeque<Answer>> {
        lock(&self.ended)
    }

    fn now(&self, now: Moment) -> Now {
        Now {
            at: now.instant(),
            unix_ms: self.clock.unix_ms(now),
        }
    }
}

impl Waiter {
    fn answer(self, response: Response) -> Answer {
        let Self {
            operation,
            attempt,
            deadline,
        } = self;
        Answer {
            operation,
            attempt,
            deadline,
            response,
            refused: None,
        }
    }
}

/// A simulated cluster has one view, whose ids follow the order of its servers.
fn number_of(server: ServerId) -> usize {
    usize::from(server.0)
}

fn push<T>(answers: &Mutex<VecDeque<T>>, answer: T) {
    lock(answers).push_back(answer);
}

fn lock<T>(answers: &Mutex<VecDeque<T>>) -> MutexGuard<'_, VecDeque<T>> {
    answers.lock().unwrap_or_else(PoisonError::into_inner)
}
