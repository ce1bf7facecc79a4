//! DKVS/1 datagrams, and what they are answered.

use bytes::Bytes;
use dkvs_common::kv::{Key, Value};
use dkvs_common::record::{Content, ContentType};
use dkvs_common::tag::TagClock;
use dkvs_common::wire::v1::KEY_OR_VALUE_BYTES_MAX;
use serde::Deserialize;

use crate::config::ServiceConfig;
use crate::protocol::{DeferredReplies, DumpStep, V1Response};
use crate::service::Service;
use crate::store::{MemoryStore, RecordStore as _, Store};

pub(in crate::protocol) fn service(bytes_max: usize) -> Service {
    Service::new(
        Store::Memory(MemoryStore::new(bytes_max)),
        ServiceConfig::new(1),
    )
}

pub(in crate::protocol) fn replies(service: &Service, datagram: impl Into<Bytes>) -> Vec<Bytes> {
    let deferred = DeferredReplies::new(|| {});
    let peer = ([127, 0, 0, 1], 4_000).into();
    match service.handle_v1(datagram.into(), peer, 1_000, &deferred) {
        V1Response::Datagram(reply) => vec![reply],
        V1Response::Dump(mut dump) => {
            let mut datagrams = Vec::new();
            loop {
                match service.step(&mut dump) {
                    DumpStep::Datagram(datagram) => datagrams.push(datagram),
                    DumpStep::Pause => {}
                    DumpStep::Wait => panic!("there is no disk"),
                    DumpStep::End => return datagrams,
                }
            }
        }
        V1Response::Silence => Vec::new(),
    }
}

#[derive(Deserialize)]
struct Vectors {
    exchanges: Vec<Exchange>,
}

#[derive(Deserialize)]
struct Exchange {
    name: String,
    request: String,
    reply: Option<Vec<String>>,
    reply_pattern: Option<String>,
}

fn bytes_of_hex(hex: &str) -> Bytes {
    (0..hex.len() / 2)
        .map(|at| u8::from_str_radix(&hex[2 * at..2 * at + 2], 16).unwrap())
        .collect()
}

fn sorted_lines(text: &str) -> Vec<&str> {
    let mut lines: Vec<_> = text.lines().collect();
    lines[1..].sort_unstable();
    lines
}

#[test]
fn wire_v1_vectors_hold() {
    let text = include_str!("../../../../common/tests/vectors/wire-v1.json");
    let vectors: Vectors = serde_json::from_str(text).unwrap();
    assert_eq!(vectors.exchanges.len(), 13);
    let service = service(usize::MAX);
    for exchange in vectors.exchanges {
        let got = replies(&service, bytes_of_hex(&exchange.request));
        if let Some(expected) = exchange.reply {
            let expected: Vec<_> = expected.iter().map(|hex| bytes_of_hex(hex)).collect();
            assert_eq!(got, expected, "{}", exchange.name);
        }
        if let Some(pattern) = exchange.reply_pattern {
            let text = String::from_utf8(got.concat()).unwrap();
            assert_eq!(
                sorted_lines(&text),
                sorted_lines(&pattern),
                "{}",
                exchange.name
            );
        }
    }
}

#[test]
fn with_dkvs_1_off_nothing_is_answered_or_stored() {
    let config = ServiceConfig {
        is_v1_on: false,
        ..ServiceConfig::new(1)
    };
    let service = Service::new(Store::Memory(MemoryStore::new(usize::MAX)), config);
    for datagram in [&b""[..], b"k", b"k\0v", b"\0", b"\0v", b"\0DK3"] {
        assert_eq!(replies(&service, datagram), [""; 0]);
    }
    assert_eq!(service.counters.v1_refused.count(), 6);
    assert_eq!(service.store().len(), 0);
}

#[test]
fn a_full_store_refuses_puts_and_serves_gets() {
    let service = service(crate::store::overhead_bytes(1) + 24 + 2);
    assert_eq!(replies(&service, &b"a\x001"[..]), ["\0"]);
    assert_eq!(replies(&service, &b"b\x002"[..]), [""]);
    assert_eq!(replies(&service, &b"a"[..]), ["1"]);
    assert_eq!(service.counters.puts_refused_full.count(), 1);
}

#[test]
fn a_value_that_the_protocol_cannot_carry_is_answered_as_unknown_and_counted() {
    let service = service(usize::MAX);
    let key = Key::new("k").unwrap();
    for value in [vec![0, 1], vec![b'v'; KEY_OR_VALUE_BYTES_MAX + 1]] {
        let content = Content::Value {
            content_type: ContentType::default(),
            value: Value::new(value).unwrap(),
        };
        let mut clock = TagClock::new(2);
        let mint = Box::new(move |held| clock.mint(2_000, held));
        let put = service
            .store()
            .apply_next(&key, &content, mint, || Box::new(drop));
        put.unwrap().unwrap();
        assert_eq!(replies(&service, "k"), ["\0"]);
    }
    assert_eq!(service.counters.values_unrepresentable.count(), 2);
}
