//! Servers that misbehave, each on a thread of its own.

use std::collections::BTreeMap;
use std::net::{SocketAddr, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

/// How a server answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Manner {
    /// As it should.
    Sound,
    /// With a datagram that is no reply to anything.
    Garbage,
    /// Twice, the second time at once.
    Twice,
    /// So much later.
    Late(Duration),
    /// From another port than it was asked at.
    FromAnotherPort,
    /// Never.
    Silent,
}

/// A server of DKVS/1 with a manner of its own.
pub struct FaultyServer {
    pub addr: SocketAddr,
    ended: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl FaultyServer {
    pub fn start(manner: Manner) -> Self {
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        let addr = socket.local_addr().unwrap();
        socket
            .set_read_timeout(Some(Duration::from_millis(20)))
            .unwrap();
        let ended = Arc::new(AtomicBool::new(false));
        let until = Arc::clone(&ended);
        let thread = std::thread::spawn(move || serve(&socket, manner, &until));
        Self {
            addr,
            ended,
            thread: Some(thread),
        }
    }
}

impl Drop for FaultyServer {
    fn drop(&mut self) {
        self.ended.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            thread.join().expect("a faulty server does what it is told");
        }
    }
}

fn serve(socket: &UdpSocket, manner: Manner, ended: &AtomicBool) {
    let other = UdpSocket::bind("127.0.0.1:0").unwrap();
    let mut pairs: BTreeMap<Vec<u8>, Vec<u8>> = BTreeMap::new();
    let mut buffer = vec![0; 65_536];
    std::thread::scope(|scope| {
        while !ended.load(Ordering::Relaxed) {
            let Ok((length, peer)) = socket.recv_from(&mut buffer) else {
                continue;
            };
            let request = &buffer[..length];
            let reply = match request.iter().position(|byte| *byte == 0) {
                Some(nul) => {
                    pairs.insert(request[..nul].to_vec(), request[nul + 1..].to_vec());
                    vec![0]
                }
                None => pairs.get(request).cloned().unwrap_or(vec![0]),
            };
            // A client that is gone makes no difference here.
            let _ = match manner {
                Manner::Sound => socket.send_to(&reply, peer),
                Manner::Garbage => socket.send_to(b"no\0 reply \0", peer),
                Manner::Twice => socket
                    .send_to(&reply, peer)
                    .and_then(|_| socket.send_to(&reply, peer)),
                Manner::FromAnotherPort => other.send_to(&reply, peer),
                Manner::Silent => Ok(0),
                Manner::Late(delay) => {
                    let socket = socket.try_clone().unwrap();
                    scope.spawn(move || {
                        std::thread::sleep(delay);
                        let _ = socket.send_to(&reply, peer);
                    });
                    Ok(0)
                }
            };
        }
    });
}
