//! Whether the system notes when datagrams arrive.
//!
//! It begins to some time after the first socket asked for that, and until then says of a datagram
//! that it arrived when it was received. A test that depends on the note waits here first.

use std::io::IoSliceMut;
use std::net::{Ipv4Addr, UdpSocket};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use quinn_udp::{RecvMeta, UdpSockRef, UdpSocketState};

use crate::PATIENCE;

/// As long as it is held, the system notes the arrival of every datagram.
pub struct Stamping {
    _socket: UdpSocket,
}

/// How long a datagram lies in the socket to see whether that is noted.
const LIES: Duration = Duration::from_millis(3);

impl Stamping {
    /// Waits until the system does it.
    pub fn begin() -> Self {
        let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let state = UdpSocketState::new(UdpSockRef::from(&socket)).unwrap();
        let addr = socket.local_addr().unwrap();
        let begun = Instant::now();
        loop {
            assert!(begun.elapsed() < PATIENCE, "arrivals are never noted");
            socket.send_to(b"?", addr).unwrap();
            let sent = Instant::now();
            while sent.elapsed() < LIES {
                std::thread::yield_now();
            }
            let (mut buffer, mut metas) = ([0; 8], [RecvMeta::default()]);
            let mut slices = [IoSliceMut::new(&mut buffer)];
            let socket_ref = UdpSockRef::from(&socket);
            if state.recv(socket_ref, &mut slices, &mut metas).is_err() {
                continue;
            }
            let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
            let lay = metas[0].timestamp.and_then(|stamp| now.checked_sub(stamp));
            if lay.is_some_and(|lay| lay >= LIES) {
                return Self { _socket: socket };
            }
        }
    }
}
