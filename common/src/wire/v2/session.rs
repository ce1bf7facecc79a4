//! Sessions: what ties authenticated datagrams to an address, and lets each in but once.
//!
//! ```text
//!   session   8 bytes:  serial 4 | HMAC-SHA256(secret, client's IPv4 4, port 2, serial 8), 4 bytes of it
//! ```
//!
//! A session is a cookie: a client that shows it received the greeting's answer at its address, and
//! nothing had to be stored until then. Serials are 64 bits wide, of which a session shows the
//! lower half; the upper half follows from the newest serial. So a session is good for 2^32
//! greetings, and never for another's address or another secret.
//!
//! Within a session a [`ReplayWindow`] takes every sequence number at most once.

use std::net::SocketAddrV4;

use hmac::{Hmac, KeyInit as _, Mac as _};
use sha2::Sha256;

/// What a server proves its sessions by. Neither sent nor printed, and another one after every
/// start.
#[derive(Clone)]
pub struct SessionSecret(Hmac<Sha256>);

impl SessionSecret {
    /// Prepares 32 random bytes.
    pub fn new(random: &[u8; 32]) -> Self {
        Self(Hmac::new_from_slice(random).expect("HMAC takes keys of any length"))
    }

    /// The session of a serial for the client at an address.
    pub fn session(&self, serial: u64, client: SocketAddrV4) -> u64 {
        let mut mac = self.0.clone();
        mac.update(&client.ip().octets());
        mac.update(&client.port().to_be_bytes());
        mac.update(&serial.to_be_bytes());
        let mac = mac.finalize().into_bytes();
        let proof = u32::from_be_bytes([mac[0], mac[1], mac[2], mac[3]]);
        (serial << 32) | u64::from(proof)
    }

    /// The serial of a session, if it was given to the client at this address among the last
    /// 2^32, the last of which was `newest`.
    pub fn serial(&self, session: u64, newest: u64, client: SocketAddrV4) -> Option<u64> {
        let upper = newest & !u64::from(u32::MAX);
        let serial = upper | (session >> 32);
        let serial = match serial > newest {
            true => serial.checked_sub(1 << 32)?,
            false => serial,
        };
        // Whoever could learn from the time that this takes has proved a key already.
        (self.session(serial, client) == session).then_some(serial)
    }
}

impl std::fmt::Debug for SessionSecret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("SessionSecret(…)")
    }
}

/// How far behind the greatest sequence number a datagram may come.
pub const REPLAY_WINDOW: u64 = 1_024;

/// One more than the window fills, since its ends share a block only by chance.
const BLOCKS: usize = REPLAY_WINDOW as usize / 64 + 1;

/// The sequence numbers that were taken, of the last [`REPLAY_WINDOW`] up to the greatest: a ring
/// of blocks of bits (RFC 6479), of which moving on clears whole ones.
#[derive(Debug, Clone)]
pub struct ReplayWindow {
    greatest: u64,
    /// Bit i of the block of b: number 64 b + i was taken.
    blocks: [u64; BLOCKS],
}

impl ReplayWindow {
    /// A window that has taken one number.
    pub fn new(first: u64) -> Self {
        let mut window = Self {
            greatest: first,
            blocks: [0; BLOCKS],
        };
        window.mark(first);
        window
    }

    /// Takes a number, unless it was taken before or is too old to know.
    pub fn take(&mut self, sequence: u64) -> bool {
        if sequence > self.greatest {
            self.move_to(sequence);
        } else if self.greatest - sequence >= REPLAY_WINDOW {
            return false;
        }
        self.mark(sequence)
    }

    fn move_to(&mut self, sequence: u64) {
        let (from, to) = (self.greatest / 64, sequence / 64);
        for block in (from..to).take(BLOCKS) {
            self.blocks[(block as usize + 1) % BLOCKS] = 0;
        }
        self.greatest = sequence;
    }

    /// Whether the number was not marked before.
    fn mark(&mut self, sequence: u64) -> bool {
        let block = &mut self.blocks[(sequence / 64 % BLOCKS as u64) as usize];
        let bit = 1 << (sequence % 64);
        let is_new = *block & bit == 0;
        *block |= bit;
        is_new
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeSet;
    use std::net::Ipv4Addr;

    const CLIENT: SocketAddrV4 = SocketAddrV4::new(Ipv4Addr::LOCALHOST, 4_000);

    fn secret(byte: u8) -> SessionSecret {
        SessionSecret::new(&[byte; 32])
    }

    #[test]
    fn a_session_is_good_for_its_address_and_secret_alone() {
        let session = secret(1).session(7, CLIENT);
        assert_eq!(secret(1).serial(session, 9, CLIENT), Some(7));
        let elsewhere = SocketAddrV4::new(*CLIENT.ip(), CLIENT.port() + 1);
        let other_host = SocketAddrV4::new(Ipv4Addr::new(127, 0, 0, 2), CLIENT.port());
        assert_eq!(secret(1).serial(session, 9, elsewhere), None);
        assert_eq!(secret(1).serial(session, 9, other_host), None);
        assert_eq!(secret(2).serial(session, 9, CLIENT), None);
        for bit in 0..64 {
            assert_eq!(secret(1).serial(session ^ (1 << bit), 9, CLIENT), None);
        }
    }

    #[test]
    fn a_session_is_good_for_as_long_as_its_half_of_the_serial_names_one() {
        let secret = secret(1);
        let turn = 1 << 32;
        for serial in [1, turn - 1, turn, turn + 1, 5 * turn] {
            let session = secret.session(serial, CLIENT);
            for newest in [serial, serial + 1, serial + turn - 1] {
                assert_eq!(secret.serial(session, newest, CLIENT), Some(serial));
            }
            assert_eq!(secret.serial(session, serial - 1, CLIENT), None);
            assert_eq!(secret.serial(session, serial + turn, CLIENT), None);
        }
    }

    #[test]
    fn the_secret_is_not_shown() {
        assert_eq!(format!("{:?}", secret(0xab)), "SessionSecret(…)");
    }

    #[test]
    fn the_window_is_exactly_as_wide_as_it_says() {
        for greatest in (2_000..2_200).chain([u64::MAX - 70, u64::MAX]) {
            let mut window = ReplayWindow::new(greatest);
            assert!(!window.take(greatest));
            assert!(window.take(greatest - REPLAY_WINDOW + 1));
            assert!(!window.take(greatest - REPLAY_WINDOW + 1));
            assert!(!window.take(greatest - REPLAY_WINDOW));
        }
    }

    /// Steps of every size that matters, forwards and backwards.
    fn steps() -> impl Strategy<Value = Vec<i64>> {
        let window = REPLAY_WINDOW as i64;
        let step = prop_oneof![
            -70..70i64,
            -window - 5..window + 5,
            prop::sample::select(vec![64, 1_024, 1_087, 1_088, 1_089, -1_023, -1_024]),
            Just(1 << 40),
        ];
        prop::collection::vec(step, 0..400)
    }

    proptest! {
        #[test]
        fn the_window_takes_what_a_set_of_all_numbers_would(first in 0..3_000u64, steps in steps()) {
            let mut window = ReplayWindow::new(first);
            let (mut taken, mut greatest) = (BTreeSet::from([first]), first);
            let mut at = first;
            for step in steps {
                at = at.saturating_add_signed(step);
                let is_in_time = at.saturating_add(REPLAY_WINDOW) > greatest;
                let expected = is_in_time && taken.insert(at);
                prop_assert_eq!(window.take(at), expected, "{} after {}", at, greatest);
                greatest = greatest.max(at);
            }
        }
    }
}
