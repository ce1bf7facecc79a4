//! The agreement machines against their specification, on every history up to a stated length.
//!
//! The specification does not count as the machines do: it looks at what the replicas responded and
//! tries out everything that the pending ones may still respond. A verdict is due when it is the same
//! whatever they respond, and machine and specification must agree after every single event.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use super::params::Quorum;
use super::read::{Read, ReadOutcome};
use super::tally::Recorded;
use super::write::{Applied, Write, WriteOutcome, WriteResponse};
use super::{CommandId, Level, Purpose, Refusal, Transmit};
use crate::cluster::ServerId;
use crate::kv::{Key, Value};
use crate::model::{ReplicaCommand, ReplicaResponse};
use crate::record::{Content, Record};
use crate::ring::{Position, PreferenceList, RingPoint};
use crate::tag::Tag;
use crate::testing::start_of_time;

const UNKNOWN: u16 = 77;
const TIMEOUT: Duration = Duration::from_secs(1);

fn list(n: u8) -> PreferenceList {
    (0..n)
        .map(|server| RingPoint {
            position: Position([server; 20]),
            server: ServerId(u16::from(server) * 2),
        })
        .collect()
}

fn value(text: char) -> Value {
    Value::new(text.to_string()).unwrap()
}

fn whole(text: char) -> ReplicaResponse {
    let value = value(text);
    ReplicaResponse::Untagged { value }
}

const ABSENT: ReplicaResponse = ReplicaResponse::absent(Tag::ZERO);

const GET: CommandId = CommandId {
    round: 0,
    purpose: Purpose::Get,
};

const PUT: CommandId = CommandId {
    round: 1,
    purpose: Purpose::Put,
};

fn key() -> Key {
    Key::new("key").unwrap()
}

/// Every sequence of exactly `length` items drawn from `alphabet`. Its beginnings are the
/// shorter sequences, so that checking after every event covers those as well.
fn for_every_sequence<T: Copy>(alphabet: &[T], length: u32, mut check: impl FnMut(&[T])) {
    let mut sequence = Vec::new();
    for code in 0..alphabet.len().pow(length) {
        sequence.clear();
        let mut rest = code;
        for _ in 0..length {
            sequence.push(alphabet[rest % alphabet.len()]);
            rest /= alphabet.len();
        }
        check(&sequence);
    }
}

/// Sends everything at once, to each replica once.
fn send_all(
    mut poll_transmit: impl FnMut() -> Option<Transmit>,
    n: u8,
    id: CommandId,
    command: &ReplicaCommand,
) {
    let sent: Vec<_> = std::iter::from_fn(&mut poll_transmit).collect();
    let to_all: Vec<_> = list(n)
        .iter()
        .map(|point| Transmit {
            to: point.server,
            id,
            command: command.clone(),
        })
        .collect();
    assert_eq!(sent, to_all);
    assert_eq!(poll_transmit(), None);
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Reported {
    Value(char),
    Absent,
    Unreachable,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Event<R> {
    /// A server, by its place in the list, responds; or an unknown sender, beyond the list.
    Response(u16, R),
    /// The deadline.
    Deadline,
}

/// The outcome that a read must have, given the responses so far and the number of pending
/// replicas: by trying out everything that those may respond.
fn read_specification(responses: &[Reported], pending: usize, r: usize) -> Option<&'static str> {
    let holders = |responses: &[Reported], value| {
        responses
            .iter()
            .filter(|reported| **reported == value)
            .count()
    };
    let values = ['x', 'y', 'z'].map(Reported::Value);
    if values.iter().any(|value| holders(responses, *value) >= r) {
        return Some("found");
    }
    let possible = [
        values[0],
        values[1],
        values[2],
        Reported::Absent,
        Reported::Unreachable,
    ];
    let (mut value_may_win, mut absent_may_win, mut enough_may_answer) = (false, false, false);
    for_every_sequence(&possible, pending as u32, |rest| {
        let end = [responses, rest].concat();
        value_may_win |= values.iter().any(|value| holders(&end, *value) >= r);
        absent_may_win |= holders(&end, Reported::Absent) >= r;
        enough_may_answer |= end.len() - holders(&end, Reported::Unreachable) >= r;
    });
    if value_may_win {
        None
    } else if holders(responses, Reported::Absent) >= r {
        Some("absent")
    } else if absent_may_win {
        None
    } else if enough_may_answer {
        Some("disagree")
    } else {
        Some("unreachable")
    }
}

fn name(outcome: &ReadOutcome) -> &'static str {
    match outcome {
        ReadOutcome::Found(..) => "found",
        ReadOutcome::Absent => "absent",
        ReadOutcome::Disagree => "disagree",
        ReadOutcome::Unreachable => "unreachable",
        ReadOutcome::TimedOut => "timed out",
        ReadOutcome::CameByV1 => "came by DKVS/1",
    }
}

fn check_read(n: u8, r: u8, start: Instant, events: &[Event<Reported>]) {
    let quorum = Quorum::new(n, r).unwrap();
    let (level, deadline) = (Level::Agreement, start + TIMEOUT);
    let mut read = Read::new(key(), list(n), quorum, level, start, deadline);
    let get = ReplicaCommand::Get { key: key() };
    send_all(|| read.poll_transmit(), n, GET, &get);

    let mut responses: BTreeMap<u16, Reported> = BTreeMap::new();
    let mut expected: Option<&str> = None;
    let mut winner = None;
    let mut expired = false;
    for event in events {
        match *event {
            Event::Response(place, reported) => {
                let from = ServerId(if place < u16::from(n) {
                    place * 2
                } else {
                    UNKNOWN
                });
                let recorded = match reported {
                    Reported::Value(text) => read.handle_response(from, GET, whole(text), start),
                    Reported::Absent => read.handle_response(from, GET, ABSENT, start),
                    Reported::Unreachable => read.handle_unreachable(from, GET, false, start),
                };
                let due = if place >= u16::from(n) {
                    Recorded::UnknownSender
                } else if expired || responses.contains_key(&place) {
                    Recorded::Repeated
                } else {
                    responses.insert(place, reported);
                    Recorded::Counted
                };
                assert_eq!(recorded, due, "{events:?}");
            }
            Event::Deadline => {
                read.handle_timeout(start + TIMEOUT - Duration::from_nanos(1));
                read.handle_timeout(start + TIMEOUT);
                expired = true;
            }
        }
        let reported: Vec<Reported> = responses.values().copied().collect();
        let pending = if expired {
            0
        } else {
            usize::from(n) - reported.len()
        };
        if expected.is_none() {
            expected = read_specification(&reported, pending, usize::from(r));
            if expired && expected == Some("unreachable") {
                expected = Some("timed out");
            }
        }
        assert_eq!(read.outcome().map(name), expected, "n={n} r={r} {events:?}");
        if let Some(ReadOutcome::Found(value, _)) = read.outcome() {
            let winner = winner.get_or_insert_with(|| value.clone());
            assert_eq!(winner, value, "a verdict changed: {events:?}");
            let holders = reported
                .iter()
                .filter(|reported| matches!(reported, Reported::Value(text) if *winner == self::value(*text)));
            assert_eq!(read.agreeing(), holders.count());
        }
        assert_eq!(read.is_complete(), pending == 0);
        assert_eq!(read.poll_timeout().is_none(), pending == 0);
    }
}

fn check_every_read(n: u8, length: u32) {
    let start = start_of_time();
    let mut alphabet = vec![Event::Deadline];
    for place in 0..=u16::from(n) {
        for reported in [
            Reported::Value('x'),
            Reported::Value('y'),
            Reported::Absent,
            Reported::Unreachable,
        ] {
            alphabet.push(Event::Response(place, reported));
        }
    }
    for r in 1..=n {
        for_every_sequence(&alphabet, length, |events| check_read(n, r, start, events));
    }
}

/// Orders, silences, repeats and unknown senders: all histories of up to 4 events for n = 1 to 3, so
/// for n = 3 every one with a repeat, an unknown sender or the deadline among its responses.
#[test]
fn reads_of_up_to_three_replicas_keep_to_the_specification() {
    check_every_read(1, 4);
    check_every_read(2, 4);
    check_every_read(3, 4);
}

/// Every combination of responses of four and of five replicas, in every order, for every r.
#[test]
fn reads_of_four_and_five_replicas_keep_to_the_specification_in_every_order() {
    let start = start_of_time();
    let reported = [
        Reported::Value('x'),
        Reported::Value('y'),
        Reported::Absent,
        Reported::Unreachable,
    ];
    for n in [4u8, 5] {
        for order in orders(n) {
            // Responses are given to the places of one order; all combinations of responses make every
            // order of the others the same history under another numbering of the replicas.
            for_every_sequence(&reported, u32::from(n), |responses| {
                let mut events: Vec<_> = order
                    .iter()
                    .zip(responses)
                    .map(|(place, reported)| Event::Response(*place, *reported))
                    .collect();
                for r in 1..=n {
                    check_read(n, r, start, &events);
                }
                events[usize::from(n) - 1] = Event::Deadline;
                check_read(n, n / 2 + 1, start, &events);
            });
        }
    }
}

/// All orders of 4 places; a handful that differ in every place for 5.
fn orders(n: u8) -> Vec<Vec<u16>> {
    if n == 5 {
        let rotate = |by: u16| (0..5).map(|place| (place * 2 + by) % 5).collect();
        return vec![(0..5).collect(), (0..5).rev().collect(), rotate(1)];
    }
    let mut orders = Vec::new();
    for_every_sequence(&[0, 1, 2, 3], 4, |order| {
        if (0..4).all(|place| order.contains(&place)) {
            orders.push(order.to_vec());
        }
    });
    assert_eq!(orders.len(), 24);
    orders
}

const STORED: WriteResponse = WriteResponse::Stored;
const REFUSED: WriteResponse = WriteResponse::Refused(Refusal::Full);

/// `None` stands for unreachable.
type Confirmation = Option<WriteResponse>;

/// As [`read_specification`], for a write.
fn write_specification(
    responses: &[Confirmation],
    pending: usize,
    w: usize,
    expired: bool,
) -> Option<WriteOutcome> {
    let count = |responses: &[Confirmation], response| {
        responses
            .iter()
            .filter(|reported| **reported == response)
            .count()
    };
    if count(responses, Some(STORED)) >= w {
        return Some(WriteOutcome::Committed);
    }
    let (mut may_commit, mut were_it_not_for_refusals) = (false, false);
    for_every_sequence(
        &[Some(STORED), Some(REFUSED), None],
        pending as u32,
        |rest| {
            let end = [responses, rest].concat();
            may_commit |= count(&end, Some(STORED)) >= w;
        },
    );
    were_it_not_for_refusals |= responses.len() + pending - count(responses, Some(REFUSED)) >= w;
    if may_commit {
        None
    } else if !were_it_not_for_refusals && !expired {
        Some(WriteOutcome::Refused)
    } else {
        Some(WriteOutcome::Unreachable)
    }
}

fn check_write(n: u8, w: u8, start: Instant, events: &[Event<Confirmation>]) {
    let quorum = Quorum::new(n, w).unwrap();
    let (level, deadline) = (Level::Agreement, start + TIMEOUT);
    let (tag, content) = (Tag { time: 1, op: 1 }, Content::Tombstone);
    let mut write = Write::new(
        key(),
        content.clone(),
        list(n),
        quorum,
        level,
        start,
        deadline,
    );
    write.begin_round(tag);
    let record = Record::new(&key(), tag, content);
    let put = ReplicaCommand::Put { key: key(), record };
    send_all(|| write.poll_transmit(), n, PUT, &put);

    let mut responses: BTreeMap<u16, Confirmation> = BTreeMap::new();
    let mut expected = None;
    let mut expired = false;
    for event in events {
        match *event {
            Event::Response(place, response) => {
                let from = ServerId(if place < u16::from(n) {
                    place * 2
                } else {
                    UNKNOWN
                });
                let recorded = match response {
                    Some(response) => {
                        let response = match response {
                            WriteResponse::Stored => ReplicaResponse::Done,
                            WriteResponse::Refused(refusal) => ReplicaResponse::Refused(refusal),
                            other => panic!("{other:?}"),
                        };
                        write.handle_response(from, PUT, response, start)
                    }
                    None => write.handle_unreachable(from, PUT, false, start),
                };
                if recorded == Recorded::Counted {
                    assert!(
                        !expired && responses.insert(place, response).is_none(),
                        "{events:?}"
                    );
                } else {
                    let known = expired || responses.contains_key(&place);
                    assert_eq!(recorded == Recorded::UnknownSender, place >= u16::from(n));
                    assert!(known || place >= u16::from(n), "{events:?}");
                }
            }
            Event::Deadline => {
                write.handle_timeout(start + TIMEOUT - Duration::from_nanos(1));
                write.handle_timeout(start + TIMEOUT);
                expired = true;
            }
        }
        let reported: Vec<Confirmation> = responses.values().copied().collect();
        let pending = if expired {
            0
        } else {
            usize::from(n) - reported.len()
        };
        if expected.is_none() {
            expected = write_specification(&reported, pending, usize::from(w), expired);
            if expired && expected != Some(WriteOutcome::Committed) {
                expected = Some(WriteOutcome::TimedOut);
            }
        }
        assert_eq!(write.outcome(), expected, "n={n} w={w} {events:?}");

        let may_hold_it = reported.len() < usize::from(n) || reported.contains(&Some(STORED));
        let applied = match (expected, may_hold_it) {
            (Some(WriteOutcome::Committed), _) => Applied::Committed,
            (_, true) => Applied::Unknown,
            (_, false) => Applied::NotApplied,
        };
        assert_eq!(write.applied(), applied, "n={n} w={w} {events:?}");
        let confirmed = reported
            .iter()
            .filter(|response| **response == Some(STORED))
            .count();
        assert_eq!(write.confirmed(), confirmed);
        assert_eq!(write.is_complete(), pending == 0);
    }
}

/// All histories of up to 5 events (responses, repeats, unknown senders, deadlines) for n = 1 and 2, of up
/// to 4 for n = 3, and of 4 responses in all orders for n = 4.
#[test]
fn writes_keep_to_the_specification() {
    let start = start_of_time();
    let responses = [Some(STORED), Some(REFUSED), None];
    for n in 1..=3u8 {
        let mut alphabet = vec![Event::Deadline];
        for place in 0..=u16::from(n) {
            alphabet.extend(responses.map(|response| Event::Response(place, response)));
        }
        for w in 1..=n {
            let length = if n == 3 { 4 } else { 5 };
            for_every_sequence(&alphabet, length, |events| check_write(n, w, start, events));
        }
    }
    for order in orders(4) {
        for_every_sequence(&responses, 4, |responses| {
            let events: Vec<_> = order
                .iter()
                .zip(responses)
                .map(|(place, response)| Event::Response(*place, *response))
                .collect();
            (1..=4).for_each(|w| check_write(4, w, start, &events));
        });
    }
}
