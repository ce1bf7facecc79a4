//! DKVS/1 by hand, as the original C client speaks it: a socket, a datagram, a wait.

use std::io;
use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::time::{Duration, Instant};

use crate::waiting::PATIENCE;

/// The reply that means stored, or no such key.
pub const NUL: &[u8] = b"\0";

/// The reply that means not stored, or an empty value.
pub const EMPTY: &[u8] = b"";

/// How long the C client waits for one datagram more.
const SILENCE: Duration = Duration::from_secs(1);

/// A client of one server.
pub struct Client(UdpSocket);

impl Client {
    pub fn new(server: SocketAddr) -> Self {
        let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        socket.connect(server).unwrap();
        Self(socket)
    }

    /// Sends a datagram and waits for one.
    pub fn ask(&self, datagram: &[u8]) -> io::Result<Vec<u8>> {
        self.0.send(datagram)?;
        self.receive(PATIENCE)
    }

    /// Sends a datagram.
    pub fn send(&self, datagram: &[u8]) {
        self.0.send(datagram).unwrap();
    }

    /// Whether a datagram is there that was not received.
    pub fn has_more(&self) -> bool {
        self.0.set_nonblocking(true).unwrap();
        let received = self.0.recv(&mut [0; 65_536]);
        self.0.set_nonblocking(false).unwrap();
        received.is_ok()
    }

    /// The next datagram, within a second.
    pub fn next(&self) -> io::Result<Vec<u8>> {
        self.receive(SILENCE)
    }

    fn receive(&self, within: Duration) -> io::Result<Vec<u8>> {
        self.0.set_read_timeout(Some(within))?;
        let mut buffer = vec![0; 65_536];
        let length = self.0.recv(&mut buffer)?;
        buffer.truncate(length);
        Ok(buffer)
    }

    pub fn get(&self, key: impl AsRef<[u8]>) -> Vec<u8> {
        self.ask(key.as_ref()).expect("an answer to a get")
    }

    pub fn put(&self, key: impl AsRef<[u8]>, value: impl AsRef<[u8]>) -> Vec<u8> {
        let datagram = [key.as_ref(), NUL, value.as_ref()].concat();
        self.ask(&datagram).expect("an answer to a put")
    }

    /// Stores a pair, which has to succeed.
    pub fn store(&self, key: impl AsRef<[u8]>, value: impl AsRef<[u8]>) {
        assert_eq!(self.put(key, value), NUL, "stored");
    }

    /// Every datagram of a dump, until none has come for a second.
    pub fn dump(&self) -> Vec<Vec<u8>> {
        self.0.send(b"").unwrap();
        std::iter::from_fn(|| self.next().ok()).collect()
    }

    /// A dump in which as many pairs came as it announced. A datagram of a large dump may get
    /// lost on a busy machine, as with the C client, and the dump is asked for again.
    pub fn whole_dump(&self) -> Dump {
        let begun = Instant::now();
        loop {
            let datagrams = self.dump();
            match Dump::of(&datagrams) {
                Some(dump) if dump.pairs.len() == dump.announced => return dump,
                _ => assert!(begun.elapsed() < PATIENCE, "no whole dump ever came"),
            }
        }
    }
}

/// What a server answers that it holds.
#[derive(Debug)]
pub struct Dump {
    /// The number in the first line.
    pub announced: usize,
    /// The lines of the pairs, sorted.
    pub pairs: Vec<String>,
    /// How many datagrams it took.
    pub datagrams: usize,
}

impl Dump {
    /// None if the first datagram is not there. Each datagram has to be made of whole lines.
    fn of(datagrams: &[Vec<u8>]) -> Option<Self> {
        let text = |datagram: &Vec<u8>| {
            let text = String::from_utf8(datagram.clone()).expect("a dump of text");
            assert!(text.ends_with('\n'), "a datagram of whole lines");
            text
        };
        let text: String = datagrams.iter().map(text).collect();
        let (first, rest) = text.split_once('\n')?;
        let announced = first
            .strip_prefix("storing ")?
            .strip_suffix(" key-value pairs:")?;
        let mut pairs: Vec<String> = rest.lines().map(str::to_owned).collect();
        pairs.sort_unstable();
        Some(Self {
            announced: announced.parse().ok()?,
            pairs,
            datagrams: datagrams.len(),
        })
    }
}
