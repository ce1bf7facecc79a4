//! A datagram of every kind, in hexadecimal: what this layout is, whatever the code says.

use bytes::Bytes;
use proptest::prelude::*;

use super::envelope::{self, Authentication, Builder, ClusterKey, Envelope, Proof, Sender};
use super::golden_messages::{EPOCH, ID, hex, replies, requests};
use super::message::{
    MessageError, ReplyMessage, RequestId, RequestMessage, next_reply, next_request,
};
use super::reply::Reply;
use super::request::Request;
use crate::epoch::StatedEpoch;
use crate::model::{Description, ReplicaCommand};
use crate::record::Content;

fn plain(sender: Sender, message: impl FnOnce(&mut Vec<u8>)) -> Bytes {
    let envelope = Envelope {
        sender,
        epoch: StatedEpoch::Ring(0x0a0b_0c0d),
        authentication: None,
    };
    let mut builder = Builder::new(envelope, 1_200);
    assert!(builder.push(message));
    builder.finish().into()
}

/// The messages of a datagram without what is around them.
fn messages(datagram: &Bytes) -> Bytes {
    envelope::open(datagram, Proof::Checksum).unwrap().1
}

fn request_datagram(request: Request) -> Bytes {
    let message = RequestMessage {
        id: ID,
        wait_ms: 1_000,
        request,
    };
    plain(Sender::Client, |datagram| message.encode(datagram))
}

fn reply_datagram(operation: u8, reply: Reply) -> Bytes {
    let message = ReplyMessage {
        id: ID,
        operation,
        reply,
    };
    plain(Sender::Server, |datagram| message.encode(datagram))
}

#[test]
fn every_request_has_its_golden_datagram() {
    let golden: Vec<&str> = include_str!("../../../tests/vectors/wire-v2-requests.txt")
        .lines()
        .collect();
    let requests = requests();
    assert_eq!(golden.len(), requests.len());
    for (request, golden) in requests.into_iter().zip(golden) {
        let datagram = request_datagram(request.clone());
        assert_eq!(hex(&datagram), golden, "{request:?}");
        let mut messages = messages(&datagram);
        let read = next_request(&mut messages).unwrap().unwrap().unwrap();
        assert_eq!(
            read,
            RequestMessage {
                id: ID,
                wait_ms: 1_000,
                request
            }
        );
        assert_eq!(next_request(&mut messages), Ok(None));
    }
}

#[test]
fn every_reply_has_its_golden_datagram() {
    let golden: Vec<&str> = include_str!("../../../tests/vectors/wire-v2-replies.txt")
        .lines()
        .collect();
    let replies = replies();
    assert_eq!(golden.len(), replies.len());
    for ((operation, reply), golden) in replies.into_iter().zip(golden) {
        let datagram = reply_datagram(operation, reply.clone());
        assert_eq!(hex(&datagram), golden, "{reply:?}");
        let mut messages = messages(&datagram);
        let read = next_reply(&mut messages).unwrap().unwrap();
        assert_eq!(
            read,
            ReplyMessage {
                id: ID,
                operation,
                reply
            }
        );
        assert_eq!(next_reply(&mut messages), Ok(None));
    }
}

#[test]
fn an_authenticated_datagram_is_golden_too() {
    let authentication = Authentication {
        key_id: 3,
        session: 0x5e55,
        sequence: 42,
    };
    let golden = include_str!("../../../tests/vectors/wire-v2-authenticated.txt");
    let epochs = [StatedEpoch::Ring(0x0a0b_0c0d), StatedEpoch::Numbered(EPOCH)];
    assert_eq!(golden.lines().count(), epochs.len());
    for (epoch, golden) in epochs.into_iter().zip(golden.lines()) {
        let envelope = Envelope {
            sender: Sender::Client,
            epoch,
            authentication: Some(authentication),
        };
        let mut builder = Builder::new(envelope, 1_200);
        let message = RequestMessage {
            id: ID,
            wait_ms: 1_000,
            request: Request::Command(ReplicaCommand::Ping),
        };
        assert!(builder.push(|datagram| message.encode(datagram)));
        let key: [u8; 32] = std::array::from_fn(|place| place as u8);
        let client = "10.0.0.7:4100".parse().unwrap();
        let datagram = builder.finish_with(&ClusterKey::new(&key), client);
        assert_eq!(hex(&datagram), golden);
    }
}

#[test]
fn a_greeting_is_as_long_as_its_answer() {
    let (operation, answer) = replies().swap_remove(0);
    let greeting = request_datagram(Request::Greet {
        datagram_bytes_max: 1_200,
    });
    assert_eq!(greeting.len(), reply_datagram(operation, answer).len());
    let described = Reply::Description(Description {
        store_id: 1,
        epoch: Some(EPOCH),
    });
    let describe = request_datagram(Request::Describe);
    assert_eq!(describe.len(), reply_datagram(64, described).len());
}

#[test]
fn a_datagram_holds_many_messages_and_gives_them_in_order() {
    let all = requests();
    let datagram = plain(Sender::Client, |datagram| {
        for (number, request) in (0..).zip(&all) {
            let (id, request) = (RequestId(number), request.clone());
            RequestMessage {
                id,
                wait_ms: 9,
                request,
            }
            .encode(datagram);
        }
    });
    let mut messages = messages(&datagram);
    for (number, request) in (0..).zip(all) {
        let read = next_request(&mut messages).unwrap().unwrap().unwrap();
        let id = RequestId(number);
        assert_eq!(
            read,
            RequestMessage {
                id,
                wait_ms: 9,
                request
            }
        );
    }
    assert_eq!(next_request(&mut messages), Ok(None));
}

#[test]
fn one_bad_request_is_told_and_the_next_one_is_read() {
    let mut messages = Vec::new();
    let ping = RequestMessage {
        id: ID,
        wait_ms: 1,
        request: Request::Command(ReplicaCommand::Ping),
    };
    ping.encode(&mut messages);
    messages[2] = 60;
    ping.encode(&mut messages);
    let mut messages = Bytes::from(messages);
    let bad = next_request(&mut messages).unwrap().unwrap().unwrap_err();
    assert_eq!((bad.id, bad.operation), (ID, 60));
    assert_eq!(bad.error, MessageError::Operation { operation: 60 });
    assert_eq!(next_request(&mut messages), Ok(Some(Ok(ping))));
}

#[test]
fn every_shortened_and_every_lengthened_message_is_refused() {
    for request in requests() {
        let mut message = Vec::new();
        RequestMessage {
            id: ID,
            wait_ms: 1,
            request: request.clone(),
        }
        .encode(&mut message);
        let takes_the_rest = matches!(request, Request::Command(ReplicaCommand::Stage { .. }))
            || matches!(&request, Request::Command(ReplicaCommand::Put { record, .. } | ReplicaCommand::Accept { record, .. }) if record.content != Content::Tombstone);
        for length in 12..=message.len() + 1 {
            let mut changed = message.clone();
            changed.resize(length, 0);
            changed[..2].copy_from_slice(&(length as u16).to_be_bytes());
            let read = next_request(&mut changed.into()).unwrap().unwrap();
            // A value or a block goes to the message's end, wherever that is; a shorter one
            // than that has lost some other field.
            let may_be_read = length == message.len() || takes_the_rest;
            assert!(
                may_be_read || read.is_err(),
                "{request:?} with {length} bytes"
            );
        }
        for short in 0..message.len() {
            let cut = Bytes::copy_from_slice(&message[..short]);
            let read = next_request(&mut cut.clone());
            assert!(
                read.is_err() || read == Ok(None) && cut.is_empty(),
                "{request:?} cut at {short}"
            );
        }
    }
}

/// Bytes that are a message often enough: a head with a length that fits, then anything.
fn likely_message() -> impl Strategy<Value = Bytes> {
    let body = prop::collection::vec(
        prop_oneof![Just(0u8), Just(1u8), Just(3u8), any::<u8>()],
        0..80,
    );
    (0u8..15, 0u8..12, body).prop_map(|(operation, status, body)| {
        let mut message = (12 + body.len() as u16).to_be_bytes().to_vec();
        message.extend([operation, status]);
        message.extend([7; 8]);
        message.extend(body);
        message.into()
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(4_000))]

    #[test]
    fn decoding_is_total_and_what_it_takes_is_encoded_the_same(bytes in likely_message(), status: bool) {
        let mut request = bytes.to_vec();
        if status {
            request[3] = 0;
        }
        let request = Bytes::from(request);
        if let Ok(Some(Ok(message))) = next_request(&mut request.clone()) {
            let mut again = Vec::new();
            message.encode(&mut again);
            prop_assert_eq!(Bytes::from(again), request);
        }
        if let Ok(Some(message)) = next_reply(&mut bytes.clone()) {
            let mut again = Vec::new();
            message.encode(&mut again);
            prop_assert_eq!(Bytes::from(again), bytes);
        }
    }

    #[test]
    fn decoding_any_bytes_is_total(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        let bytes = Bytes::from(bytes);
        let _ = next_request(&mut bytes.clone());
        let mut bytes = bytes;
        let _ = next_reply(&mut bytes);
    }
}
