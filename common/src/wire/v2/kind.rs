//! Which protocol a datagram speaks that came to a server's port.

use super::envelope;
use super::{MAGIC, VERSION};
use crate::mutants::{self, Mutant};

/// What a datagram is, as far as its first bytes show.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DatagramKind {
    /// DKVS/1.
    V1,
    /// DKVS/2. Its envelope shows whether it arrived as it was sent.
    V2,
    /// DKVS/2 that was damaged on its way, as good as certainly: no answer by DKVS/1 is owed to it,
    /// and none by DKVS/2 can be given.
    DamagedV2,
}

/// How many bits of a beginning may be others than those of DKVS/2 for it to be damage.
const DAMAGED_BITS_MAX: u32 = 4;

/// How many bytes of the magic suffice to show that, the NUL included.
const INTACT_BYTES_MIN: usize = 3;

/// Tells the protocol of a datagram that came to a server's port.
///
/// Most of the magic shows DKVS/2, not all of it: what is answered by DKVS/1 would make the server
/// pass for less than it is. A datagram that begins with NUL and most of the rest of the magic is no
/// DKVS/1 that anybody sends: it would be a put with an empty key. One that begins with another byte
/// may be a key of DKVS/1 that looks like the magic by chance; so nearly all that an envelope always
/// has must be there then.
pub fn kind_of(datagram: &[u8]) -> DatagramKind {
    if datagram.starts_with(&MAGIC) {
        return DatagramKind::V2;
    }
    if mutants::is_on(Mutant::DamagedTakenForV1) {
        return DatagramKind::V1;
    }
    let bits = |at: usize, expected: u8, fixed: u8| match datagram.get(at) {
        Some(byte) => ((byte ^ expected) & fixed).count_ones(),
        None => u8::BITS,
    };
    let magic: u32 = (0..)
        .zip(MAGIC)
        .map(|(at, byte)| bits(at, byte, 0xff))
        .sum();
    let is_whole = datagram.len() >= envelope::BYTES_MIN;
    // Version, flags and the reserved byte, whatever the key.
    let rest = || bits(4, VERSION, 0xff) + bits(5, 0, !envelope::FLAGS) + bits(7, 0, 0xff);
    let is_intact = |(byte, expected): &(&u8, u8)| **byte == *expected;
    let intact = datagram.iter().zip(MAGIC).filter(is_intact).count();
    let is_damaged = match datagram.first() {
        Some(0) => magic <= DAMAGED_BITS_MAX || intact >= INTACT_BYTES_MIN,
        Some(_) => is_whole && magic + rest() <= DAMAGED_BITS_MAX,
        None => false,
    };
    match is_damaged {
        true => DatagramKind::DamagedV2,
        false => DatagramKind::V1,
    }
}

#[cfg(test)]
mod tests {
    use super::super::DATAGRAM_BYTES_DEFAULT;
    use super::*;
    use crate::epoch::{Epoch, StatedEpoch};

    #[test]
    fn what_c_clients_send_is_dkvs_1_however_much_it_looks_like_the_magic() {
        for datagram in [
            &b""[..],
            b"\0",
            b"\0value",
            b"\0D",
            b"k",
            b"DK2",
            b"DK2\0value",
            b"1DK2",
            b"1DK2\0value of a key that looks like it",
            b"\x01DK2 is a key as good as any other, with a control byte",
            b"key\0\0DK2",
        ] {
            assert_eq!(
                kind_of(datagram),
                DatagramKind::V1,
                "{}",
                datagram.escape_ascii()
            );
        }
    }

    #[test]
    fn a_datagram_of_dkvs_2_with_a_few_bits_flipped_is_never_dkvs_1() {
        let envelope = |epoch, authentication| envelope::Envelope {
            sender: envelope::Sender::Client,
            epoch,
            authentication,
        };
        let authentication = envelope::Authentication {
            key_id: 0xff,
            session: u64::MAX,
            sequence: 1,
        };
        let epoch = Epoch {
            number: 1,
            hash: u64::MAX,
        };
        for envelope in [
            envelope(StatedEpoch::None, None),
            envelope(StatedEpoch::Numbered(epoch), None),
            envelope(StatedEpoch::Ring(u32::MAX), Some(authentication)),
        ] {
            let client = std::net::SocketAddrV4::new(std::net::Ipv4Addr::LOCALHOST, 1);
            let key = envelope::ClusterKey::new(&[7; 32]);
            let builder = envelope::Builder::new(envelope, DATAGRAM_BYTES_DEFAULT);
            let whole = match envelope.authentication {
                None => builder.finish(),
                Some(_) => builder.finish_with(&key, client),
            };
            assert_eq!(kind_of(&whole), DatagramKind::V2);
            for first in 0..8 * 8 {
                for second in 0..8 * 8 {
                    for burst in 0..2 {
                        let mut bits = vec![first, second];
                        bits.extend((0..2 * burst).map(|number| (second + 1 + number) % 64));
                        let mut flipped = whole.clone();
                        for bit in &bits {
                            flipped[bit / 8] ^= 1 << (bit % 8);
                        }
                        assert_ne!(kind_of(&flipped), DatagramKind::V1, "bits {bits:?}");
                    }
                }
            }
        }
    }

    #[test]
    fn a_beginning_of_the_magic_with_something_else_behind_it_is_not_answered_by_dkvs_1() {
        for datagram in [
            &b"\0DK"[..],
            b"\0DK3",
            b"\0DK\0",
            b"\0DJ2 and more",
            b"\0dk2",
        ] {
            assert_eq!(kind_of(datagram), DatagramKind::DamagedV2);
        }
        for byte in 0..=u8::MAX {
            for place in 1..4 {
                let mut datagram = MAGIC;
                datagram[place] = byte;
                assert_ne!(kind_of(&datagram), DatagramKind::V1);
            }
        }
    }
}
