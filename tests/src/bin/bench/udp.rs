//! Datagrams in batches, and the loads over UDP: so many datagrams on their way at a time, each
//! answer making room for the next.

use std::io::{self, IoSlice, IoSliceMut};
use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::time::{Duration, Instant};

use quinn_udp::{BATCH_SIZE, RecvMeta, UdpSocketState};
use rustix::event::{PollFd, PollFlags, Timespec, poll};

use crate::load::Measured;

/// Longest datagram that is taken.
const DATAGRAM_BYTES_MAX: usize = 2_048;

/// Datagrams on their way at a time.
const WINDOW: usize = 16;

/// Past this without an answer, what was on its way is lost.
const PATIENCE: Duration = Duration::from_millis(200);

/// What a socket asks the system to buffer in each direction.
const BUFFER_BYTES: usize = 1 << 20;

/// A socket, and the datagrams that it received last.
pub struct Batch {
    socket: UdpSocket,
    state: UdpSocketState,
    buffers: Vec<Vec<u8>>,
    metas: Vec<RecvMeta>,
    received: usize,
}

impl Batch {
    /// Takes over a socket.
    pub fn new(socket: UdpSocket) -> io::Result<Self> {
        socket.set_nonblocking(true)?;
        let buffers = socket2::SockRef::from(&socket);
        buffers.set_recv_buffer_size(BUFFER_BYTES)?;
        buffers.set_send_buffer_size(BUFFER_BYTES)?;
        // The state asks the system for more data about each datagram, which costs: so it is
        // that of another socket, and this one stays as cheap as it can be.
        let other = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0))?;
        Ok(Self {
            state: UdpSocketState::new((&other).into())?,
            socket,
            buffers: vec![vec![0; DATAGRAM_BYTES_MAX]; BATCH_SIZE],
            metas: vec![RecvMeta::default(); BATCH_SIZE],
            received: 0,
        })
    }

    /// A socket that talks to one address only.
    pub fn connected(server: SocketAddr) -> io::Result<Self> {
        let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0))?;
        socket.connect(server)?;
        Self::new(socket)
    }

    /// Waits for datagrams and takes those that are there; none came within `patience`.
    pub fn receive(&mut self, patience: Option<Duration>) -> io::Result<usize> {
        let mut waited = false;
        self.received = loop {
            let mut slices: Vec<IoSliceMut<'_>> = self
                .buffers
                .iter_mut()
                .map(|buffer| IoSliceMut::new(buffer))
                .collect();
            let socket = (&self.socket).into();
            match self.state.recv(socket, &mut slices, &mut self.metas) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    if waited {
                        break 0;
                    }
                    waited = patience.is_some();
                    self.wait(patience)?;
                }
                received => break received?,
            }
        };
        Ok(self.received)
    }

    fn wait(&self, patience: Option<Duration>) -> io::Result<()> {
        let timeout = patience.and_then(|patience| Timespec::try_from(patience).ok());
        let mut readable = [PollFd::new(&self.socket, PollFlags::IN)];
        match poll(&mut readable, timeout.as_ref()) {
            Err(error) if error != rustix::io::Errno::INTR => Err(error.into()),
            _ => Ok(()),
        }
    }

    /// What was received last.
    pub fn datagrams(&self) -> impl Iterator<Item = &[u8]> {
        let received = self.buffers.iter().zip(&self.metas).take(self.received);
        received.map(|(buffer, meta)| &buffer[..meta.len])
    }

    /// Sends what was received last back to where it came from.
    pub fn send_back(&self) -> io::Result<()> {
        let addrs: Vec<_> = self.metas[..self.received]
            .iter()
            .map(|meta| meta.addr)
            .collect();
        let datagrams: Vec<&[u8]> = self.datagrams().collect();
        self.send_all(&datagrams, Some(&addrs))
    }

    /// Sends datagrams to the connected peer.
    pub fn send(&self, datagrams: &[&[u8]]) -> io::Result<()> {
        self.send_all(datagrams, None)
    }

    #[cfg(target_os = "linux")]
    fn send_all(&self, datagrams: &[&[u8]], addrs: Option<&[SocketAddr]>) -> io::Result<()> {
        use rustix::net::{MMsgHdr, SendAncillaryBuffer, SendFlags, SocketAddrAny, sendmmsg};
        let addrs: Option<Vec<SocketAddrAny>> =
            addrs.map(|addrs| addrs.iter().map(|addr| (*addr).into()).collect());
        let slices: Vec<[IoSlice<'_>; 1]> = datagrams
            .iter()
            .map(|datagram| [IoSlice::new(datagram)])
            .collect();
        let mut controls: Vec<SendAncillaryBuffer<'_, '_, '_>> = slices
            .iter()
            .map(|_| SendAncillaryBuffer::default())
            .collect();
        let mut messages: Vec<MMsgHdr<'_>> = slices
            .iter()
            .zip(&mut controls)
            .enumerate()
            .map(|(at, (slice, control))| match &addrs {
                Some(addrs) => MMsgHdr::new_with_addr(&addrs[at], slice, control),
                None => MMsgHdr::new(slice, control),
            })
            .collect();
        let mut sent = 0;
        while sent < messages.len() {
            match sendmmsg(&self.socket, &mut messages[sent..], SendFlags::empty()) {
                Ok(count) => sent += count,
                Err(rustix::io::Errno::AGAIN) => self.wait_to_send()?,
                Err(rustix::io::Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }

    #[cfg(not(target_os = "linux"))]
    fn send_all(&self, datagrams: &[&[u8]], addrs: Option<&[SocketAddr]>) -> io::Result<()> {
        for (at, datagram) in datagrams.iter().enumerate() {
            loop {
                let sent = match addrs {
                    Some(addrs) => self.socket.send_to(datagram, addrs[at]),
                    None => self.socket.send(datagram),
                };
                match sent {
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                        self.wait_to_send()?
                    }
                    sent => break sent.map(drop)?,
                }
            }
        }
        Ok(())
    }

    fn wait_to_send(&self) -> io::Result<()> {
        let mut writable = [PollFd::new(&self.socket, PollFlags::OUT)];
        poll(&mut writable, None)?;
        Ok(())
    }
}

/// What is asked again and again over one socket.
pub struct Talk<'a> {
    /// Whom.
    pub server: SocketAddr,
    /// The datagrams, one after the other, from the start again after the last.
    pub datagrams: &'a [Vec<u8>],
    /// How many answers each of them gets.
    pub answers_per_datagram: usize,
    /// How many answers a datagram that came back has; none if it is not as it should be.
    pub answers: &'a dyn Fn(&[u8]) -> Option<usize>,
}

impl Talk<'_> {
    /// Keeps [`WINDOW`] datagrams on their way for `warm_up` and then `duration`.
    pub fn measure(&self, warm_up: Duration, duration: Duration) -> anyhow::Result<Measured> {
        let mut batch = Batch::connected(self.server)?;
        let mut next = self.datagrams.iter().cycle();
        let mut measured = Measured::default();
        let (mut owed, mut begun) = (0, None);
        let start = Instant::now() + warm_up;
        loop {
            let room = WINDOW - usize::div_ceil(owed, self.answers_per_datagram).min(WINDOW);
            let datagrams: Vec<&[u8]> = next.by_ref().take(room).map(Vec::as_slice).collect();
            owed += datagrams.len() * self.answers_per_datagram;
            batch.send(&datagrams)?;
            let received = batch.receive(Some(PATIENCE))?;
            let now = Instant::now();
            if begun.is_none() && now >= start {
                begun = Some(now);
                measured = Measured::default();
            }
            if received == 0 {
                measured.fail(owed, || format!("{owed} answers did not come"));
                owed = 0;
            }
            for datagram in batch.datagrams() {
                match (self.answers)(datagram).filter(|answers| *answers <= owed) {
                    Some(answers) => {
                        measured.requests += answers as u64;
                        owed -= answers;
                    }
                    None => measured.fail(1, || format!("a wrong answer: {datagram:.40?}")),
                }
            }
            if let Some(elapsed) = begun.map(|begun| now - begun).filter(|e| *e >= duration) {
                measured.seconds = elapsed.as_secs_f64();
                return Ok(measured);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_batch_goes_out_and_comes_back_whole() {
        let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let addr = socket.local_addr().unwrap();
        let mut echo = Batch::new(socket).unwrap();
        let mut client = Batch::connected(addr).unwrap();
        let datagrams = [&b"one"[..], b"", &[7; 1_200]];
        client.send(&datagrams).unwrap();
        let (mut seen, mut returned) = (0, Vec::new());
        while seen < datagrams.len() {
            seen += echo.receive(Some(dkvs_tests::PATIENCE)).unwrap();
            echo.send_back().unwrap();
        }
        while returned.len() < datagrams.len() {
            assert!(client.receive(Some(dkvs_tests::PATIENCE)).unwrap() > 0);
            returned.extend(client.datagrams().map(<[u8]>::to_vec));
        }
        assert_eq!(returned, datagrams);
    }

    #[test]
    fn answers_that_are_wrong_or_do_not_come_are_counted() {
        let silent = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let talk = Talk {
            server: silent.local_addr().unwrap(),
            datagrams: &[b"x".to_vec()],
            answers_per_datagram: 2,
            answers: &|_| None,
        };
        let measured = talk.measure(Duration::ZERO, Duration::ZERO).unwrap();
        assert_eq!(
            (measured.requests, measured.failures),
            (0, 2 * WINDOW as u64)
        );
    }
}
