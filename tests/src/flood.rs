//! A server's address at which a true server answers, and a flood beside it: random datagrams,
//! damaged copies of true replies, and true replies again, at once and much later.
//!
//! It stands between the gateway and a server of its own. No empty datagrams are among the flood:
//! where there are no keys, they are how a DKVS/1 server answers a greeting.

use std::collections::{HashMap, VecDeque};
use std::io;
use std::net::{SocketAddr, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use dkvs_common::wire::v2::MAGIC;

use crate::process::own_loopback;
use crate::random::Random;

/// How many replies are kept to be sent again.
const KEPT: usize = 256;

/// How long the threads wait before they see whether they are to end.
const WAIT: Duration = Duration::from_millis(20);

/// A flood in front of a server.
pub struct Flood {
    /// Where the gateway takes the server to be.
    pub addr: SocketAddr,
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

struct Shared {
    server: SocketAddr,
    ended: AtomicBool,
    sent: AtomicUsize,
}

impl Flood {
    /// Floods every client that sends to `server` through it.
    pub fn before(server: SocketAddr, seed: u64) -> Self {
        let socket = UdpSocket::bind((own_loopback(), 0)).unwrap();
        socket.set_read_timeout(Some(WAIT)).unwrap();
        let addr = socket.local_addr().unwrap();
        let shared = Arc::new(Shared {
            server,
            ended: AtomicBool::new(false),
            sent: AtomicUsize::new(0),
        });
        let serving = Arc::clone(&shared);
        let thread = thread::spawn(move || serving.serve(&socket, seed));
        Self {
            addr,
            shared,
            thread: Some(thread),
        }
    }

    /// How many datagrams it has sent that were not asked for.
    pub fn sent(&self) -> usize {
        self.shared.sent.load(Ordering::Relaxed)
    }
}

impl Drop for Flood {
    fn drop(&mut self) {
        self.shared.ended.store(true, Ordering::Relaxed);
        let ended = self.thread.take().map(JoinHandle::join);
        if !thread::panicking() {
            assert!(!matches!(ended, Some(Err(_))), "it floods to the end");
        }
    }
}

impl Shared {
    /// Hands requests on to the server, each client's by a socket of its own.
    fn serve(&self, socket: &UdpSocket, seed: u64) {
        let mut upstream: HashMap<SocketAddr, Arc<UdpSocket>> = HashMap::new();
        let mut buffer = vec![0; 65_536];
        thread::scope(|scope| {
            while !self.ended.load(Ordering::Relaxed) {
                let Ok((length, client)) = socket.recv_from(&mut buffer) else {
                    continue;
                };
                let known = upstream.len() as u64;
                let upstream = upstream.entry(client).or_insert_with(|| {
                    let upstream = UdpSocket::bind((own_loopback(), 0)).unwrap();
                    upstream.connect(self.server).unwrap();
                    upstream.set_read_timeout(Some(WAIT)).unwrap();
                    let upstream = Arc::new(upstream);
                    let replies = Arc::clone(&upstream);
                    let random = Random::new(seed + known);
                    scope.spawn(move || self.answer(socket, client, &replies, random));
                    upstream
                });
                // What does not get through is sent again.
                let _ = upstream.send(&buffer[..length]);
            }
        });
    }

    /// Hands replies back to a client, in the midst of the flood.
    fn answer(
        &self,
        socket: &UdpSocket,
        client: SocketAddr,
        replies: &UdpSocket,
        mut random: Random,
    ) {
        let mut buffer = vec![0; 65_536];
        let mut kept: VecDeque<Vec<u8>> = VecDeque::new();
        while !self.ended.load(Ordering::Relaxed) {
            let Ok(length) = receive(replies, &mut buffer) else {
                continue;
            };
            let reply = &buffer[..length];
            let mut damaged = reply.to_vec();
            let bit = random.below(8 * length);
            damaged[bit / 8] ^= 1 << (bit % 8);
            let mut cut = reply[..1 + random.below(length)].to_vec();
            cut.truncate(length - 1);
            let noise = 1 + random.below(1_500);
            let marked = [&MAGIC[..], &[2, 2, 0, 0], &random.bytes(noise)].concat();
            let noise = random.bytes(noise);
            for unasked in [&damaged, &cut, &noise, &marked] {
                self.send(socket, client, unasked);
            }
            let _ = socket.send_to(reply, client);
            self.send(socket, client, reply);
            kept.push_back(reply.to_vec());
            for _ in 0..2 {
                self.send(socket, client, &kept[random.below(kept.len())]);
            }
            if kept.len() > KEPT {
                kept.pop_front();
            }
        }
    }

    fn send(&self, socket: &UdpSocket, client: SocketAddr, datagram: &[u8]) {
        if socket.send_to(datagram, client).is_ok() {
            self.sent.fetch_add(1, Ordering::Relaxed);
        }
    }
}

/// The next reply that is not empty.
fn receive(socket: &UdpSocket, buffer: &mut [u8]) -> io::Result<usize> {
    match socket.recv(buffer)? {
        0 => Err(io::ErrorKind::InvalidData.into()),
        length => Ok(length),
    }
}
