//! Keys, records and settings that the tests share.

use std::net::{Ipv4Addr, SocketAddrV4};
use std::time::Duration;

use super::super::link::Party;
use super::super::peer::PeerConfig;
use dkvs_common::epoch::Epoch;
use dkvs_common::kv::{Key, Value};
use dkvs_common::record::{Content, ContentType, Record};
use dkvs_common::tag::Tag;

pub(super) const SECOND: Duration = Duration::from_secs(1);

pub(super) const CLIENT: SocketAddrV4 = SocketAddrV4::new(Ipv4Addr::LOCALHOST, 4_000);

pub(super) fn config() -> PeerConfig {
    PeerConfig {
        datagram_bytes_max: 1_200,
        window_bytes_max: 4 << 20,
        ring: 7,
        epoch: Epoch { number: 1, hash: 7 },
        falls_back_to_v1: false,
        keys: None,
    }
}

pub(super) fn record(number: u64, value: Vec<u8>) -> Record {
    let content = Content::Value {
        content_type: ContentType::default(),
        value: Value::new(value).unwrap(),
    };
    let tag = Tag {
        time: number,
        op: 0,
    };
    Record::new(&key(number), tag, content)
}

pub(super) fn key(number: u64) -> Key {
    Key::new(format!("key {number}")).unwrap()
}

/// A request of the party that is alone in most tests.
pub(super) fn by(token: u64) -> (u64, Party) {
    (token, Party::default())
}
