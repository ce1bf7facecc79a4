//! Whether the system notes when datagrams arrive.
//!
//! It begins to some time after the first socket asked for that, and until then says of a datagram
//! that it arrived when it was received. A test that depends on the note waits here first.

use std::io::IoSliceMut;
use std::net::{Ipv4Addr, UdpSocket};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use quinn_udp::{RecvMeta, UdpSockRef, UdpSocketState};

use crate::waiting::PATIENCE;

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
        let begun = Instant::now();
        while !is_noted(&socket, &state) {
            assert!(begun.elapsed() < PATIENCE, "arrivals are never noted");
        }
        Self { _socket: socket }
    }
}

/// Whether the system notes that a datagram arrives, and not only that it is received.
fn is_noted(socket: &UdpSocket, state: &UdpSocketState) -> bool {
    let addr = socket.local_addr().unwrap();
    socket.send_to(b"?", addr).unwrap();
    let sent = Instant::now();
    while sent.elapsed() < LIES {
        std::thread::yield_now();
    }
    let (mut buffer, mut metas) = ([0; 8], [RecvMeta::default()]);
    let mut slices = [IoSliceMut::new(&mut buffer)];
    let socket_ref = UdpSockRef::from(socket);
    if state.recv(socket_ref, &mut slices, &mut metas).is_err() {
        return false;
    }
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    shows_arrival(metas[0].timestamp, now)
}

/// Whether a stamp, seen `now` on a datagram that has lain for [`LIES`], is of its arrival.
fn shows_arrival(stamp: Option<Duration>, now: Duration) -> bool {
    let lay = stamp.and_then(|stamp| now.checked_sub(stamp));
    lay.is_some_and(|lay| lay >= LIES)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_stamp_from_before_the_datagram_lay_there_shows_its_arrival() {
        let now = Duration::from_secs(1_000);
        let instant = Duration::from_nanos(1);
        for (stamp, tells) in [
            (None, false),
            (Some(now), false),
            (Some(now - LIES + instant), false),
            (Some(now - LIES), true),
            (Some(now + LIES), false),
        ] {
            assert_eq!(shows_arrival(stamp, now), tells, "{stamp:?}");
        }
    }

    #[test]
    #[cfg(target_os = "linux")]
    fn once_it_has_begun_every_arrival_is_noted() {
        let _stamping = Stamping::begin();
        let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let state = UdpSocketState::new(UdpSockRef::from(&socket)).unwrap();
        for _ in 0..10 {
            assert!(is_noted(&socket, &state));
        }
    }
}
