//! The proxy's thread: its sockets, and what it holds back for a while.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap};
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use mio::net::UdpSocket;
use mio::{Events, Interest, Poll, Token, Waker};

use super::conditions::Fate;
use super::shared::{Direction, Owner, Shared, Way};
use crate::random::Random;

/// Sockets of gateways that are known at most.
const CLIENTS_MAX: usize = 256;

/// Most that is held back, in bytes of datagrams.
const HELD_BYTES_MAX: usize = 16 << 20;

/// What each socket asks the system to buffer, so that the machine being busy drops nothing.
const SOCKET_BUFFER_BYTES: usize = 1 << 20;

const WAKER: Token = Token(0);

/// Relays until the handle ends it.
pub(super) struct Relay {
    poll: Poll,
    /// By server; the tokens after the waker's.
    fronts: Vec<UdpSocket>,
    servers: Vec<SocketAddr>,
    /// The tokens after those of the fronts.
    clients: Vec<Client>,
    /// Clients by their addresses and servers, also of gateways that have been replaced.
    known: HashMap<(SocketAddr, usize), usize>,
    held: BinaryHeap<Reverse<Held>>,
    held_bytes: usize,
    /// How many were held back so far: what is due at one time goes in the order it came.
    next_held: u64,
    shared: Arc<Shared>,
    random: Random,
}

/// A gateway's socket, as one front knows it.
struct Client {
    addr: SocketAddr,
    owner: Owner,
    server: usize,
    /// Connected to the server.
    upstream: UdpSocket,
}

/// A copy of a datagram that goes on later.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
struct Held {
    due: Instant,
    number: u64,
    client: usize,
    direction: Direction,
    datagram: Vec<u8>,
}

impl Relay {
    pub(super) fn new(
        fronts: Vec<std::net::UdpSocket>,
        servers: Vec<SocketAddr>,
        shared: Arc<Shared>,
        seed: u64,
    ) -> (Self, Waker) {
        let poll = Poll::new().expect("the system has a poll");
        let waker = Waker::new(poll.registry(), WAKER).expect("the poll takes a waker");
        let fronts = fronts.into_iter().enumerate().map(|(server, front)| {
            let token = Token(1 + server);
            registered(&poll, front, token).expect("the poll takes a socket")
        });
        let relay = Self {
            fronts: fronts.collect(),
            servers,
            clients: Vec::new(),
            known: HashMap::new(),
            held: BinaryHeap::new(),
            held_bytes: 0,
            next_held: 0,
            shared,
            random: Random::new(seed),
            poll,
        };
        (relay, waker)
    }

    pub(super) fn run(mut self) {
        let mut events = Events::with_capacity(64);
        let mut buffer = vec![0; 65_536];
        while !self.shared.ended.load(Ordering::Relaxed) {
            match self.poll.poll(&mut events, self.until_due()) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                polled => polled.expect("the poll waits"),
            }
            for event in &events {
                match event.token().0.checked_sub(1) {
                    None => {}
                    Some(server) if server < self.fronts.len() => {
                        self.take_from_gateways(server, &mut buffer);
                    }
                    Some(number) => {
                        self.take_from_server(number - self.fronts.len(), &mut buffer);
                    }
                }
            }
            self.release();
        }
    }

    /// How long until something that is held back is due.
    fn until_due(&self) -> Option<Duration> {
        let Reverse(next) = self.held.peek()?;
        Some(next.due.saturating_duration_since(Instant::now()))
    }

    fn take_from_gateways(&mut self, server: usize, buffer: &mut [u8]) {
        while let Some((length, from)) = received(|| self.fronts[server].recv_from(buffer)) {
            let known = self.known.get(&(from, server)).copied();
            let client = known
                .filter(|client| self.shared.is_alive(self.clients[*client].owner))
                .or_else(|| self.meet(from, server));
            match client {
                Some(client) => self.relay(client, Direction::ToServer, &buffer[..length]),
                None => count(&self.shared.dropped),
            }
        }
    }

    fn take_from_server(&mut self, client: usize, buffer: &mut [u8]) {
        while let Some(length) = received(|| self.clients[client].upstream.recv(buffer)) {
            self.relay(client, Direction::FromServer, &buffer[..length]);
        }
    }

    /// Makes a client of an address that was unknown; not past the limit.
    fn meet(&mut self, addr: SocketAddr, server: usize) -> Option<usize> {
        let number = self.clients.len();
        if number == CLIENTS_MAX {
            return None;
        }
        let upstream = std::net::UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).ok()?;
        upstream.connect(self.servers[server]).ok()?;
        let token = Token(1 + self.fronts.len() + number);
        let upstream = registered(&self.poll, upstream, token).ok()?;
        self.clients.push(Client {
            addr,
            owner: self.shared.meet(server),
            server,
            upstream,
        });
        self.known.insert((addr, server), number);
        Some(number)
    }

    fn relay(&mut self, client: usize, direction: Direction, datagram: &[u8]) {
        let Client { owner, server, .. } = self.clients[client];
        let conditions = self.shared.conditions(Way {
            gateway: owner.gateway,
            server,
            direction,
        });
        match conditions.fate(datagram.len(), &mut self.random) {
            Fate::Lost => count(&self.shared.dropped),
            Fate::Once(delay) => self.pass(client, direction, datagram, delay),
            Fate::Twice(first, second) => {
                count(&self.shared.duplicated);
                self.pass(client, direction, datagram, first);
                self.pass(client, direction, datagram, second);
            }
        }
    }

    /// Sends a copy now, or holds it back.
    fn pass(
        &mut self,
        client: usize,
        direction: Direction,
        datagram: &[u8],
        delay: Option<Duration>,
    ) {
        let Some(delay) = delay else {
            if self.send(client, direction, datagram) {
                count(&self.shared.passed);
            }
            return;
        };
        if self.held_bytes + datagram.len() > HELD_BYTES_MAX {
            count(&self.shared.dropped);
            return;
        }
        self.held_bytes += datagram.len();
        self.next_held += 1;
        self.held.push(Reverse(Held {
            due: Instant::now() + delay,
            number: self.next_held,
            client,
            direction,
            datagram: datagram.to_vec(),
        }));
    }

    /// Sends what is due of that which was held back.
    fn release(&mut self) {
        let now = Instant::now();
        while self.held.peek().is_some_and(|held| held.0.due <= now) {
            let Some(Reverse(held)) = self.held.pop() else {
                return;
            };
            self.held_bytes -= held.datagram.len();
            if self.send(held.client, held.direction, &held.datagram) {
                count(&self.shared.delayed);
            }
        }
    }

    /// Sends a datagram on. Where the system takes none, or the server is gone, it is dropped.
    fn send(&self, client: usize, direction: Direction, datagram: &[u8]) -> bool {
        let client = &self.clients[client];
        let sent = match direction {
            Direction::ToServer => client.upstream.send(datagram),
            Direction::FromServer => self.fronts[client.server].send_to(datagram, client.addr),
        };
        match sent {
            Ok(_) => drop(
                self.shared
                    .bytes
                    .fetch_add(datagram.len() as u64, Ordering::Release),
            ),
            Err(_) => count(&self.shared.dropped),
        }
        sent.is_ok()
    }
}

fn registered(poll: &Poll, socket: std::net::UdpSocket, token: Token) -> io::Result<UdpSocket> {
    socket.set_nonblocking(true)?;
    socket2::SockRef::from(&socket).set_recv_buffer_size(SOCKET_BUFFER_BYTES)?;
    let mut socket = UdpSocket::from_std(socket);
    poll.registry()
        .register(&mut socket, token, Interest::READABLE)?;
    Ok(socket)
}

/// The next that is there to be received, if any is.
fn received<T>(mut receive: impl FnMut() -> io::Result<T>) -> Option<T> {
    loop {
        match receive() {
            Ok(received) => return Some(received),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return None,
            // The system reports so that a server is gone; what comes after it is still there.
            Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {}
            Err(error) => panic!("a socket of the proxy is broken: {error}"),
        }
    }
}

fn count(counter: &AtomicU64) {
    counter.fetch_add(1, Ordering::Release);
}
