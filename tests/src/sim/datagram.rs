//! Datagrams in words, and what is asked and answered in them.
//!
//! Nothing is proved here: this looks at what was sent, before any damage, or at what a server
//! took. The code under test does not use it.

use dkvs_common::model::{Nudge, ReplicaCommand, ReplicaResponse};
use std::fmt::Write as _;

use bytes::Bytes;
use dkvs_common::kv::Key;
use dkvs_common::record::{Content, Record};
use dkvs_common::slot::{Accepted, Ballot};
use dkvs_common::tag::Tag;
use dkvs_common::wire::v2::envelope::{Sender, peek};
use dkvs_common::wire::v2::message::{ReplyMessage, RequestMessage, next_reply, next_request};
use dkvs_common::wire::v2::reply::Reply;
use dkvs_common::wire::v2::request::Request;

use super::values::number_at_start;

/// The operations put, put staged, the latter without attributes and with them, attest, and commit.
const STORING: [u8; 5] = [6, 7, 15, 12, 18];

/// The wall clocks' true time at the beginning of a world, in milliseconds since 1970.
pub const TRUE_START_MS: u64 = 1_750_000_000_000;

/// The requests of a datagram of a client.
pub fn requests(datagram: &Bytes) -> Vec<RequestMessage> {
    let mut messages = messages(datagram, Sender::Client);
    let next = || next_request(&mut messages).ok().flatten();
    std::iter::from_fn(next).filter_map(Result::ok).collect()
}

/// The replies of a datagram of a server.
pub fn replies(datagram: &Bytes) -> Vec<ReplyMessage> {
    let mut messages = messages(datagram, Sender::Server);
    std::iter::from_fn(|| next_reply(&mut messages).ok().flatten()).collect()
}

fn messages(datagram: &Bytes, sender: Sender) -> Bytes {
    let Ok(envelope) = peek(datagram) else {
        return Bytes::new();
    };
    let (before, after) = envelope.around();
    if envelope.sender != sender || datagram.len() < before + after {
        return Bytes::new();
    }
    datagram.slice(before..datagram.len() - after)
}

/// Whether a datagram of a client asks for something to be stored or attested, by its messages' heads alone.
pub fn asks_to_store(datagram: &Bytes) -> bool {
    let mut messages = &messages(datagram, Sender::Client)[..];
    while let [high, low, operation, ..] = *messages {
        if STORING.contains(&operation) {
            return true;
        }
        let length = usize::from(u16::from_be_bytes([high, low]));
        messages = messages.get(length.max(1)..).unwrap_or(&[]);
    }
    false
}

/// A datagram in words.
pub fn words(datagram: &Bytes) -> String {
    let requests = requests(datagram).into_iter().map(|message| {
        let words = request_words(&message.request);
        format!("{words} #{:04x}", message.id.0 as u16)
    });
    let replies = replies(datagram).into_iter().map(|message| {
        let words = reply_words(&message.reply);
        format!("{words} #{:04x}", message.id.0 as u16)
    });
    let all: Vec<String> = requests.chain(replies).collect();
    match all.is_empty() {
        true => format!("{} bytes that are no DKVS/2", datagram.len()),
        false => all.join(", "),
    }
}

fn request_words(request: &Request) -> String {
    match request {
        Request::Greet { .. } => "greet".into(),
        Request::Command(ReplicaCommand::Ping) => "ping".into(),
        Request::Command(ReplicaCommand::Get { key }) => format!("get {}", key_words(key)),
        Request::Command(ReplicaCommand::GetTag { key }) => format!("tag of {}", key_words(key)),
        Request::Command(ReplicaCommand::GetDigest { key }) => {
            format!("digest of {}", key_words(key))
        }
        Request::Command(ReplicaCommand::Put { key, record }) => {
            let (key, record) = (key_words(key), record_words(record));
            format!("put {key} = {record}")
        }
        Request::Command(ReplicaCommand::PutStaged {
            key, tag, upload, ..
        }) => {
            let (key, tag, upload) = (key_words(key), tag_words(*tag), *upload as u16);
            format!("put {key} = upload {upload:04x} at {tag}")
        }
        Request::Command(ReplicaCommand::Stage { upload, offset, .. }) => {
            format!("upload {:04x} from {offset}", *upload as u16)
        }
        Request::Command(ReplicaCommand::GetBlock {
            key, tag, offset, ..
        }) => {
            let (key, tag) = (key_words(key), tag_words(*tag));
            format!("get {key} at {tag} from {offset}")
        }
        Request::Command(ReplicaCommand::List { .. }) => "list".into(),
        Request::Command(ReplicaCommand::GetLeafSums { first, .. }) => {
            format!("sums from leaf {first}")
        }
        Request::Command(ReplicaCommand::GetLeafEntries { leaf, .. }) => {
            format!("entries of leaf {leaf}")
        }
        Request::Command(ReplicaCommand::Nudge(Nudge { behind, ahead })) => {
            let (behind, ahead) = (behind.port(), ahead.port());
            format!("nudge {behind} to compare itself with {ahead}")
        }
        Request::Command(ReplicaCommand::NoteHighWater(mark)) => {
            let (server, sequence) = (mark.server.port(), mark.sequence);
            format!("{server} is at record {sequence}")
        }
        Request::Command(ReplicaCommand::Prepare { key, base, ballot }) => {
            let (key, base, ballot) = (key_words(key), tag_words(*base), ballot_words(*ballot));
            format!("prepare {key} after {base}, ballot {ballot}")
        }
        Request::Command(ReplicaCommand::Accept {
            key,
            base,
            ballot,
            record,
            ..
        }) => {
            let (key, base, ballot) = (key_words(key), tag_words(*base), ballot_words(*ballot));
            let record = record_words(record);
            format!("accept {key} = {record} after {base}, ballot {ballot}")
        }
        Request::Command(ReplicaCommand::Commit { key, tag, .. }) => {
            format!("commit {} at {}", key_words(key), tag_words(*tag))
        }
        Request::Describe => "describe".into(),
        Request::Trace { .. } => "trace".into(),
        Request::Command(ReplicaCommand::GetStatistics) => "statistics".into(),
        Request::Command(ReplicaCommand::Attest { boot_id, key, tag }) => {
            let (key, tag) = (key_words(key), tag_words(*tag));
            format!("attest {key} at {tag}, boot {:04x}", *boot_id as u16)
        }
    }
}

fn reply_words(reply: &Reply) -> String {
    match reply {
        Reply::Greeting(greeting) => format!("greeting of boot {:04x}", greeting.boot_id as u16),
        Reply::Description(it) => format!("store {:04x}", it.store_id as u16),
        Reply::Response(ReplicaResponse::Done) => "done".into(),
        Reply::Response(ReplicaResponse::Record { digest, block }) => {
            let (value, tag) = (value_words(block), tag_words(digest.tag));
            format!("holds {value} at {tag}")
        }
        Reply::Response(ReplicaResponse::Block { offset, .. }) => format!("block from {offset}"),
        Reply::Response(ReplicaResponse::Tag { tag }) => format!("has {}", tag_words(*tag)),
        Reply::Response(ReplicaResponse::Absent { tag, .. }) if *tag == Tag::ZERO => {
            "holds nothing".into()
        }
        Reply::Response(ReplicaResponse::Absent { tag, .. }) => {
            format!("holds a tombstone at {}", tag_words(*tag))
        }
        Reply::Response(ReplicaResponse::Superseded { tag }) => {
            format!("superseded by {}", tag_words(*tag))
        }
        Reply::Response(ReplicaResponse::Staged { base, .. }) => {
            format!("has all before block {base}")
        }
        Reply::Response(ReplicaResponse::Promised { accepted: None, .. }) => "promised".into(),
        Reply::Response(ReplicaResponse::Promised {
            accepted: Some(Accepted { ballot, record }),
            ..
        }) => {
            let (ballot, record) = (ballot_words(*ballot), record_words(record));
            format!("promised, and accepted {record}, ballot {ballot}")
        }
        Reply::Response(ReplicaResponse::Preempted { promised }) => {
            format!("promised to ballot {}", ballot_words(*promised))
        }
        other => {
            let mut words = format!("{other:?}").to_lowercase();
            words.truncate(40);
            words
        }
    }
}

fn ballot_words(ballot: Ballot) -> String {
    format!("{}.{:04x}", ballot.number, ballot.proposer as u16)
}

fn key_words(key: &Key) -> String {
    String::from_utf8_lossy(key.as_bytes()).into_owned()
}

fn record_words(record: &Record) -> String {
    let tag = tag_words(record.tag);
    match &record.content {
        Content::Tombstone => format!("a tombstone at {tag}"),
        Content::Value { value, .. } => format!("{} at {tag}", value_words(value.as_bytes())),
    }
}

fn value_words(value: &[u8]) -> String {
    match number_at_start(value) {
        Some(number) => format!("v{number}"),
        None => format!("{} bytes", value.len()),
    }
}

/// A tag, with its time in seconds since the world's true beginning, its counter, and enough of
/// its operation to tell it from others.
pub fn tag_words(tag: Tag) -> String {
    if tag == Tag::ZERO {
        return "no tag".into();
    }
    let ms = (tag.time >> 16) as i64 - TRUE_START_MS as i64;
    let (sign, ms) = (if ms < 0 { '-' } else { '+' }, ms.abs());
    let mut words = format!("{sign}{}.{:03}s", ms / 1_000, ms % 1_000);
    let counter = tag.time as u16;
    if counter > 0 {
        let _ = write!(words, "+{counter}");
    }
    let _ = write!(words, "/{:04x}.{}", (tag.op >> 32) as u16, tag.op as u16);
    words
}

#[cfg(test)]
mod tests {
    use super::*;
    use dkvs_common::wire::v2::envelope::{Builder, Envelope};
    use dkvs_common::wire::v2::message::RequestId;

    #[test]
    fn a_datagram_is_described_with_its_keys_values_and_tags() {
        let key = Key::new("k1").unwrap();
        let time = (TRUE_START_MS + 1_500) << 16 | 2;
        let tag = Tag {
            time,
            op: 0xabcd_0000_0007,
        };
        let record = Record::new(&key, tag, super::super::values::content(17, 20));
        let requests = [
            Request::Command(ReplicaCommand::GetTag { key: key.clone() }),
            Request::Command(ReplicaCommand::Put { key, record }),
        ];
        let envelope = Envelope {
            sender: Sender::Client,
            epoch: dkvs_common::epoch::StatedEpoch::None,
            authentication: None,
        };
        let mut builder = Builder::new(envelope, 1_200);
        for (id, request) in (1..).zip(requests) {
            let id = RequestId(id);
            let message = RequestMessage {
                id,
                wait_ms: 1,
                request,
            };
            assert!(builder.push(|datagram| message.encode(datagram)));
        }
        let datagram = builder.finish().into();
        let expected = "tag of k1 #0001, put k1 = v17 at +1.500s+2/abcd.7 #0002";
        assert_eq!(words(&datagram), expected);
        assert_eq!(replies(&datagram), []);
        assert!(asks_to_store(&datagram));
        assert_eq!(
            words(&Bytes::from_static(b"x")),
            "1 bytes that are no DKVS/2"
        );
    }

    #[test]
    fn a_tag_before_the_beginning_has_a_negative_time() {
        let tag = Tag {
            time: (TRUE_START_MS - 250) << 16,
            op: 1 << 32 | 1,
        };
        assert_eq!(tag_words(tag), "-0.250s/0001.1");
    }
}
