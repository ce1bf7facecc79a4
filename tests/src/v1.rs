//! DKVS/1 by hand, as the original C client speaks it: a socket, a datagram, a wait.

use std::io;
use std::net::{SocketAddr, UdpSocket};
use std::time::Duration;

/// How long the C client waits.
const TIMEOUT: Duration = Duration::from_secs(1);

/// A client of one server.
pub struct Client(UdpSocket);

impl Client {
    pub fn new(server: SocketAddr) -> Self {
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        socket.connect(server).unwrap();
        socket.set_read_timeout(Some(TIMEOUT)).unwrap();
        Self(socket)
    }

    /// Sends a datagram and waits for one.
    pub fn ask(&self, datagram: &[u8]) -> io::Result<Vec<u8>> {
        self.0.send(datagram)?;
        self.next()
    }

    /// The next datagram, within a second.
    pub fn next(&self) -> io::Result<Vec<u8>> {
        let mut buffer = vec![0; 65_536];
        let length = self.0.recv(&mut buffer)?;
        buffer.truncate(length);
        Ok(buffer)
    }

    pub fn get(&self, key: impl AsRef<[u8]>) -> Vec<u8> {
        self.ask(key.as_ref()).expect("an answer to a get")
    }

    pub fn put(&self, key: impl AsRef<[u8]>, value: impl AsRef<[u8]>) -> Vec<u8> {
        let datagram = [key.as_ref(), b"\0", value.as_ref()].concat();
        self.ask(&datagram).expect("an answer to a put")
    }

    /// Every datagram of a dump, until none has come for a second.
    pub fn dump(&self) -> Vec<Vec<u8>> {
        self.0.send(b"").unwrap();
        std::iter::from_fn(|| self.next().ok()).collect()
    }
}
