//! Servers that misbehave, each on a thread of its own.

use std::collections::BTreeMap;
use std::net::{SocketAddr, UdpSocket};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use dkvs_common::wire::v1::KEY_OR_VALUE_BYTES_MAX;
use dkvs_common::wire::v2::{DatagramKind, kind_of};

use crate::process::own_loopback;

/// How a server answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Manner {
    /// As it should.
    Sound,
    /// With a datagram that is no reply to anything.
    Garbage,
    /// With a datagram that is no reply to anything, and then as it should.
    GarbageFirst,
    /// Gets with a value that nobody has written, puts as it should.
    WrongValue,
    /// Twice, the second time at once.
    Twice,
    /// So much later.
    Late(Duration),
    /// Once [`FaultyServer::release`] is called.
    Held,
    /// From another port than it was asked at.
    FromAnotherPort,
    /// Never.
    Silent,
    /// Puts with a failure, gets as it should.
    Refusing,
    /// Puts with what says "failed", though it stores them, as the 2018 edition of the original
    /// server does; gets as it should.
    OldEdition,
    /// One in three times as it should, one in three twice, else never.
    Moody,
}

/// A value that nobody writes.
pub const WRONG_VALUE: &[u8] = b"a value that nobody wrote";

/// A server of DKVS/1 with a manner of its own.
pub struct FaultyServer {
    pub addr: SocketAddr,
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

struct Shared {
    socket: UdpSocket,
    manner: Mutex<Manner>,
    pairs: Mutex<BTreeMap<Vec<u8>, Vec<u8>>>,
    held: Mutex<Vec<(Vec<u8>, SocketAddr)>>,
    asked: AtomicUsize,
    asked_by_v2: AtomicUsize,
    ended: AtomicBool,
}

impl FaultyServer {
    pub fn start(manner: Manner) -> Self {
        Self::start_at((own_loopback(), 0).into(), manner)
    }

    /// The same at a given address, for one that takes the place of another.
    pub fn start_at(addr: SocketAddr, manner: Manner) -> Self {
        let socket = UdpSocket::bind(addr).unwrap();
        let addr = socket.local_addr().unwrap();
        socket
            .set_read_timeout(Some(Duration::from_millis(20)))
            .unwrap();
        let shared = Arc::new(Shared {
            socket,
            manner: Mutex::new(manner),
            pairs: Mutex::default(),
            held: Mutex::default(),
            asked: AtomicUsize::new(0),
            asked_by_v2: AtomicUsize::new(0),
            ended: AtomicBool::new(false),
        });
        let serving = Arc::clone(&shared);
        Self {
            addr,
            shared,
            thread: Some(std::thread::spawn(move || serving.serve())),
        }
    }

    /// From its next request on, it answers so.
    pub fn set(&self, manner: Manner) {
        *self.shared.manner.lock().unwrap() = manner;
    }

    /// How many requests have reached it.
    pub fn asked(&self) -> usize {
        self.shared.asked.load(Ordering::Acquire)
    }

    /// How many datagrams of DKVS/2 were among them.
    pub fn asked_by_v2(&self) -> usize {
        self.shared.asked_by_v2.load(Ordering::Acquire)
    }

    /// What it holds.
    pub fn value(&self, key: impl AsRef<[u8]>) -> Option<Vec<u8>> {
        self.shared.pairs.lock().unwrap().get(key.as_ref()).cloned()
    }

    /// Sends the replies that were held back, in their order; how many those were.
    pub fn release(&self) -> usize {
        let held = std::mem::take(&mut *self.shared.held.lock().unwrap());
        for (reply, peer) in &held {
            // A client that is gone makes no difference here.
            let _ = self.shared.socket.send_to(reply, peer);
        }
        held.len()
    }
}

impl Drop for FaultyServer {
    fn drop(&mut self) {
        self.shared.ended.store(true, Ordering::Relaxed);
        let ended = self.thread.take().map(JoinHandle::join);
        if !std::thread::panicking() {
            assert!(
                !matches!(ended, Some(Err(_))),
                "the thread ends without a panic"
            );
        }
    }
}

impl Shared {
    fn serve(&self) {
        let other = UdpSocket::bind((self.socket.local_addr().unwrap().ip(), 0)).unwrap();
        let mut buffer = vec![0; 65_536];
        std::thread::scope(|scope| {
            while !self.ended.load(Ordering::Relaxed) {
                let Ok((length, peer)) = self.socket.recv_from(&mut buffer) else {
                    continue;
                };
                let manner = *self.manner.lock().unwrap();
                if kind_of(&buffer[..length]) == DatagramKind::V2 {
                    self.asked_by_v2.fetch_add(1, Ordering::Release);
                }
                let reply = self.reply(&buffer[..length], manner);
                let send = |reply: &[u8]| drop(self.socket.send_to(reply, peer));
                match manner {
                    Manner::Sound | Manner::WrongValue | Manner::Refusing | Manner::OldEdition => {
                        send(&reply)
                    }
                    Manner::Garbage => send(GARBAGE),
                    Manner::GarbageFirst => {
                        send(GARBAGE);
                        send(&reply);
                    }
                    Manner::Twice => send_twice(send, &reply),
                    Manner::Moody => match self.asked.load(Ordering::Relaxed) % 3 {
                        0 => send(&reply),
                        1 => send_twice(send, &reply),
                        _ => {}
                    },
                    Manner::FromAnotherPort => drop(other.send_to(&reply, peer)),
                    Manner::Silent => {}
                    Manner::Held => self.held.lock().unwrap().push((reply, peer)),
                    Manner::Late(delay) => {
                        scope.spawn(move || {
                            std::thread::sleep(delay);
                            drop(self.socket.send_to(&reply, peer));
                        });
                    }
                }
                self.asked.fetch_add(1, Ordering::Release);
            }
        });
    }

    fn reply(&self, request: &[u8], manner: Manner) -> Vec<u8> {
        let mut pairs = self.pairs.lock().unwrap();
        match request.iter().position(|byte| *byte == 0) {
            // A put with an empty key, which is what DKVS/2 looks like to it, or with a NUL in the
            // value, or with a longer one than there may be.
            Some(0) => Vec::new(),
            Some(_) if manner == Manner::Refusing => Vec::new(),
            Some(nul) if request[nul + 1..].contains(&0) => Vec::new(),
            Some(nul) if nul.max(request.len() - nul - 1) > KEY_OR_VALUE_BYTES_MAX => Vec::new(),
            Some(nul) => {
                pairs.insert(request[..nul].to_vec(), request[nul + 1..].to_vec());
                match manner {
                    Manner::OldEdition => Vec::new(),
                    _ => vec![0],
                }
            }
            None if manner == Manner::WrongValue => WRONG_VALUE.to_vec(),
            None => pairs.get(request).cloned().unwrap_or(vec![0]),
        }
    }
}

const GARBAGE: &[u8] = b"no\0 reply \0";

/// The same datagram twice, unless this thread was held up in between for so long that the
/// second would no longer come at once.
fn send_twice(send: impl Fn(&[u8]), reply: &[u8]) {
    let begun = Instant::now();
    send(reply);
    if begun.elapsed() < Duration::from_millis(5) {
        send(reply);
    }
}
