//! What must hold of the decoders for any bytes at all: they end, they do not panic, and what
//! they take they write again as it was. And of a log for any files at all.
//!
//! The slot of a version is read from disks, and by nothing else so far.
//!
//! Each check panics when something does not hold; `targets/` hands them to the fuzzer, and the
//! test below replays the corpus that is kept.

pub mod log;

use std::net::{Ipv4Addr, SocketAddrV4};

use bytes::Bytes;
use dkvs_common::slot::Slot;
use dkvs_common::wire::v1::{GetReply, PutReply, Request, encode_dump, encode_get, encode_put};
use dkvs_common::wire::v2::envelope::{self, Builder, ClusterKey, Proof};
use dkvs_common::wire::v2::message::{next_reply, next_request};

/// DKVS/1, in both directions.
pub fn v1(data: &[u8]) {
    let datagram = Bytes::copy_from_slice(data);
    match Request::decode(datagram.clone()) {
        Ok(Request::Get(key)) => assert_eq!(encode_get(&key), Ok(datagram.clone())),
        Ok(Request::Put(key, value)) => assert_eq!(encode_put(&key, &value), Ok(datagram.clone())),
        Ok(Request::Dump) => assert_eq!(encode_dump(), datagram),
        Err(malformed) => assert!(malformed.reply().len() <= datagram.len()),
    }
    if let Ok(reply) = GetReply::decode(datagram.clone()) {
        assert_eq!(reply.encode(), datagram);
    }
    if let Ok(reply) = PutReply::decode(&datagram) {
        assert_eq!(reply.encode(), datagram);
    }
}

/// DKVS/2: the bytes as a datagram, and, since no fuzzer guesses a checksum, as the messages of
/// one.
pub fn v2(data: &[u8]) {
    let datagram = Bytes::copy_from_slice(data);
    let key = ClusterKey::new(&[7; 32]);
    let client = SocketAddrV4::new(Ipv4Addr::LOCALHOST, 4_000);
    if let Ok((envelope, messages)) = envelope::open(&datagram, Proof::Checksum) {
        let mut builder = Builder::new(envelope, datagram.len());
        assert!(builder.push(|datagram| datagram.extend_from_slice(&messages)));
        assert_eq!(builder.finish(), datagram);
    }
    // Nobody has told the fuzzer the key.
    assert!(envelope::open(&datagram, Proof::Key { key: &key, client }).is_err());
    requests(datagram.clone());
    replies(datagram);
}

/// The slot of a version.
pub fn slot(data: &[u8]) {
    let bytes = Bytes::copy_from_slice(data);
    if let Ok(slot) = Slot::decode(&bytes) {
        let mut again = Vec::new();
        slot.encode(&mut again);
        assert_eq!(again, bytes);
        assert_eq!(again.len(), slot.encoded_bytes());
        let accepted = slot.accepted();
        assert!(accepted.is_none_or(|accepted| accepted.ballot <= slot.promised()));
    }
}

fn requests(mut messages: Bytes) {
    loop {
        let before = messages.clone();
        match next_request(&mut messages) {
            Ok(Some(Ok(message))) => {
                let mut again = Vec::new();
                message.encode(&mut again);
                assert_eq!(again, before[..before.len() - messages.len()]);
            }
            Ok(Some(Err(_))) => assert!(messages.len() < before.len()),
            Ok(None) | Err(_) => return,
        }
    }
}

fn replies(mut messages: Bytes) {
    loop {
        let before = messages.clone();
        match next_reply(&mut messages) {
            Ok(Some(message)) => {
                let mut again = Vec::new();
                message.encode(&mut again);
                assert_eq!(again, before[..before.len() - messages.len()]);
            }
            Ok(None) | Err(_) => return,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::Path;

    fn replay(corpus: &str, check: fn(&[u8])) {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR"))
            .join("corpus")
            .join(corpus);
        let mut replayed = 0;
        for entry in fs::read_dir(folder).expect("the corpus") {
            let path = entry.expect("a file of the corpus").path();
            let data = fs::read(&path).expect("a file that can be read");
            println!("{}", path.display());
            check(&data);
            replayed += 1;
        }
        assert!(replayed >= 10, "only {replayed} files in the corpus");
    }

    #[test]
    fn the_kept_corpus_of_v1_holds() {
        replay("v1", super::v1);
    }

    #[test]
    fn the_kept_corpus_of_v2_holds() {
        replay("v2", super::v2);
    }

    #[test]
    fn the_kept_corpus_of_slots_holds() {
        replay("slot", super::slot);
    }

    #[test]
    fn the_kept_corpus_of_the_log_holds() {
        replay("log", super::log::log);
    }

    /// As the fuzzer does it, for as long as a test may take: with numbers that look random.
    #[test]
    fn a_log_of_patches_at_random_is_opened_or_refused() {
        let mut state = 1_u64;
        let mut number = || {
            state = state
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1);
            (state >> 33) as u32
        };
        for _ in 0..1_500 {
            let mut data = Vec::new();
            for _ in 0..1 + number() % 4 {
                let at = match number() % 4 {
                    0 => number() % 80,
                    1 => 512 + number() % 64,
                    2 => 512 + 2_037 * (number() % 30),
                    _ => number(),
                };
                let length = 1 + number() % 40;
                data.extend([number() as u8, number() as u8]);
                data.extend(at.to_le_bytes());
                data.extend((length as u16).to_le_bytes());
                // Small numbers, and now and then any.
                let is_small = number() % 2 == 0;
                data.extend((0..length).map(|_| match is_small {
                    true => (number() % 3) as u8,
                    false => number() as u8,
                }));
            }
            super::log::log(&data);
        }
    }
}
