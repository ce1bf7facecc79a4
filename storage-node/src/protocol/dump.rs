//! A dump of DKVS/1, a step at a time: the pairs are counted first, since their count comes first,
//! and then sent. Between two steps anything else may be answered.
//!
//! A dump holds a datagram, a page of pairs, and what [`CountedScan`] notes of changes. It sends exactly
//! as many pairs as it announced, unless there are more changes than can be noted, or a record is
//! damaged, or was replaced on a disk and its room was given back before it was read.

use std::collections::VecDeque;
use std::ops::ControlFlow;
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use dkvs_common::kv::Key;
use dkvs_common::wire::v1::{DumpBuilder, is_in_dumps};

use crate::service::Service;
use crate::store::disk::Place;
use crate::store::{CountedScan, HeldRecord, PageEnd, PageLimits, ScannedValue, Store, StoreError};

/// How much one step looks at, so that what else arrives does not wait for long.
const STEP: PageLimits = PageLimits {
    records: 1_024,
    bytes: 256 << 10,
};

/// Most values that are read from the disk at a time.
const READS_AT_A_TIME: usize = 32;

/// A dump under way. Other requests for one are dropped until it has gone.
pub struct Dump {
    scan: CountedScan,
    limits: PageLimits,
    stage: Stage,
}

enum Stage {
    Counting,
    Sending(Sending),
    Done,
}

/// What is to be sent of a dump.
struct Sending {
    datagram: DumpBuilder,
    /// The next pairs.
    page: VecDeque<Pair>,
    /// What the values of these take, in bytes.
    page_bytes: usize,
    /// Whether no pairs come after these.
    is_last: bool,
}

struct Pair {
    key: Key,
    value: PairValue,
}

/// None if it is damaged; an error if it cannot be read now.
type ReadValue = Result<Option<Vec<u8>>, StoreError>;

enum PairValue {
    /// None if it is damaged.
    Known(Option<Bytes>),
    /// It is to be read.
    OnDisk(Place),
    /// It is being read.
    Awaited(Place, Arc<Mutex<Option<ReadValue>>>),
}

/// What comes next of a dump.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DumpStep {
    /// A datagram to send.
    Datagram(Bytes),
    /// Nothing to send yet.
    Pause,
    /// Nothing to send until the disk has been read.
    Wait,
    /// That was all.
    End,
}

impl Dump {
    /// The memory that it takes, in bytes.
    pub fn bytes(&self) -> usize {
        let sending = match &self.stage {
            Stage::Sending(sending) => sending.datagram.bytes() + sending.page_bytes,
            Stage::Counting | Stage::Done => 0,
        };
        self.scan.noted_bytes() + sending
    }
}

/// Whether a get by DKVS/1 would return the record, as far as a datagram holds it. Whether it is
/// damaged is looked at only when it is sent.
fn is_dumped(held: &HeldRecord<'_>) -> bool {
    let head = held.head;
    !head.is_tombstone
        && !head.is_quarantined
        && is_in_dumps(held.key(), head.value_bytes as usize, head.has_nul)
}

impl PairValue {
    /// The value, once it is known; reads it, if that was not begun. None while it is not there.
    fn poll(&mut self, store: &Store, key: &Key) -> Option<&Option<Bytes>> {
        if let (Self::OnDisk(place), Store::Disk(store)) = (&*self, store) {
            let awaited = Arc::new(Mutex::new(None));
            let given = Arc::clone(&awaited);
            let completion = Box::new(move |value| {
                *given.lock().unwrap_or_else(PoisonError::into_inner) = Some(value);
            });
            // If too many wait already, it is asked for again.
            if store.read_place(key, place, completion) {
                *self = Self::Awaited(*place, awaited);
            }
            return None;
        }
        if let Self::Awaited(place, awaited) = self {
            let value = awaited
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .take();
            match value {
                Some(Ok(value)) => *self = Self::Known(value.map(Bytes::from)),
                Some(Err(_)) => *self = Self::OnDisk(*place),
                None => {}
            }
        }
        match self {
            Self::Known(value) => Some(value),
            Self::OnDisk(_) | Self::Awaited(..) => None,
        }
    }
}

impl Service {
    /// Begins a dump, unless one is under way.
    pub(super) fn begin_dump(&self) -> Option<Dump> {
        let Some(scan) = self.replica.store.begin_counted_scan(is_dumped) else {
            self.counters.dumps_dropped.add(1);
            tracing::warn!("a dump was asked for and dropped: another is under way");
            return None;
        };
        self.counters.dumps.add(1);
        Some(Dump {
            scan,
            limits: STEP,
            stage: Stage::Counting,
        })
    }

    /// Takes the next step of a dump of this service.
    pub fn step(&self, dump: &mut Dump) -> DumpStep {
        match std::mem::replace(&mut dump.stage, Stage::Done) {
            Stage::Counting => {
                dump.stage = self.count_page(dump);
                DumpStep::Pause
            }
            Stage::Sending(sending) => self.send(dump, sending),
            Stage::Done => DumpStep::End,
        }
    }

    fn count_page(&self, dump: &mut Dump) -> Stage {
        let mut left_out = 0;
        let end = self
            .replica
            .store
            .count_page(&mut dump.scan, dump.limits, |held| {
                left_out += u64::from(!held.is_tombstone());
            });
        self.counters.dump_pairs_left_out.add(left_out);
        match end {
            PageEnd::Done => Stage::Sending(Sending {
                datagram: DumpBuilder::first(dump.scan.counted()),
                page: VecDeque::new(),
                page_bytes: 0,
                is_last: false,
            }),
            _ => Stage::Counting,
        }
    }

    /// Puts pairs of the page into a datagram, or takes the next page.
    fn send(&self, dump: &mut Dump, mut sending: Sending) -> DumpStep {
        let store = &self.replica.store;
        // Some are read together, and others' reads find a place beside them.
        for pair in sending.page.iter_mut().take(READS_AT_A_TIME) {
            let _ = pair.value.poll(store, &pair.key);
        }
        while let Some(pair) = sending.page.front_mut() {
            let Some(value) = pair.value.poll(store, &pair.key) else {
                dump.stage = Stage::Sending(sending);
                return DumpStep::Wait;
            };
            let is_taken = match value {
                Some(value) => sending.datagram.push(pair.key.as_bytes(), value),
                None => {
                    self.counters.damaged.add(1);
                    true
                }
            };
            if !is_taken {
                let full = std::mem::replace(&mut sending.datagram, DumpBuilder::further());
                dump.stage = Stage::Sending(sending);
                return full.finish().map_or(DumpStep::Pause, DumpStep::Datagram);
            }
            sending.page.pop_front();
        }
        if sending.is_last {
            let datagram = sending.datagram.finish();
            return datagram.map_or(DumpStep::End, DumpStep::Datagram);
        }
        self.take_page(dump, &mut sending);
        dump.stage = Stage::Sending(sending);
        DumpStep::Pause
    }

    fn take_page(&self, dump: &mut Dump, sending: &mut Sending) {
        let Sending {
            page, page_bytes, ..
        } = sending;
        *page_bytes = 0;
        let bytes_max = dump.limits.bytes;
        let store = &self.replica.store;
        let end = store.show_page(&mut dump.scan, dump.limits, |held, value| {
            if *page_bytes >= bytes_max {
                return ControlFlow::Break(());
            }
            let key = Bytes::copy_from_slice(held.key());
            *page_bytes += key.len() + held.head.value_bytes as usize;
            // What a store holds is keys; no bytes are none.
            if let Ok(key) = Key::new(key) {
                let value = match value {
                    ScannedValue::Value(value) => PairValue::Known(value),
                    ScannedValue::OnDisk(place) => PairValue::OnDisk(place),
                };
                page.push_back(Pair { key, value });
            }
            ControlFlow::Continue(())
        });
        match end {
            PageEnd::Full | PageEnd::NotTaken => {}
            PageEnd::Done => sending.is_last = true,
            PageEnd::Lost => {
                sending.is_last = true;
                self.counters.dumps_cut_short.add(1);
                tracing::warn!(
                    "a dump ends before its end: too much was put or deleted while it was sent"
                );
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::tests::v1::{replies, service};
    use crate::store::{NOTED_BYTES_MAX, RecordStore as _};
    use dkvs_common::kv::{Key, Value};
    use dkvs_common::record::{Content, ContentType, Record};
    use dkvs_common::tag::Tag;
    use dkvs_common::wire::v1::{DATAGRAM_BYTES_MAX, KEY_OR_VALUE_BYTES_MAX};
    use proptest::prelude::*;

    fn put(service: &Service, key: &[u8], time: u64, value: Option<&[u8]>) {
        let key = Key::new(key.to_vec()).unwrap();
        let content = match value {
            None => Content::Tombstone,
            Some(value) => Content::Value {
                content_type: ContentType::default(),
                value: Value::new(value.to_vec()).unwrap(),
            },
        };
        let record = Record::new(&key, Tag { time, op: 0 }, content);
        let put = service.store().apply(&key, &record, || Box::new(drop));
        put.unwrap().unwrap();
    }

    /// What the first line announces, and the lines after it.
    fn parse(datagrams: &[Bytes]) -> (usize, Vec<Vec<u8>>) {
        for datagram in datagrams {
            assert!(datagram.len() <= DATAGRAM_BYTES_MAX && datagram.ends_with(b"\n"));
        }
        let text = datagrams.concat();
        let mut lines = text.split_inclusive(|&byte| byte == b'\n');
        let first = String::from_utf8(lines.next().unwrap().to_vec()).unwrap();
        let count = first.strip_prefix("storing ").unwrap();
        let count = count.strip_suffix(" key-value pairs:\n").unwrap();
        (count.parse().unwrap(), lines.map(<[u8]>::to_vec).collect())
    }

    #[test]
    fn what_dkvs_1_cannot_carry_is_in_neither_the_lines_nor_the_count() {
        let service = service(usize::MAX);
        let longest = vec![b'v'; KEY_OR_VALUE_BYTES_MAX];
        put(&service, b"told", 1, Some(b"v"));
        put(&service, b"longest", 1, Some(&longest));
        put(&service, b"nul", 1, Some(b"v\0w"));
        put(&service, b"nul alone", 1, Some(b"\0"));
        put(&service, b"nul in\0key", 1, Some(b"v"));
        put(
            &service,
            b"too long",
            1,
            Some(&[&longest[..], b"v"].concat()),
        );
        put(&service, &vec![b'k'; longest.len()], 1, Some(&longest));
        put(&service, b"deleted", 1, None);
        let (count, mut lines) = parse(&replies(&service, ""));
        lines.sort();
        let longest = [b"longest --> ", &longest[..], b"\n"].concat();
        assert_eq!((count, lines), (2, vec![longest, b"told --> v\n".to_vec()]));
        assert_eq!(service.counters.dump_pairs_left_out.count(), 5);
    }

    #[test]
    fn one_dump_is_under_way_at_a_time_and_the_next_begins_when_it_has_gone() {
        let service = service(usize::MAX);
        let dump = service.begin_dump();
        assert_eq!(replies(&service, ""), [""; 0]);
        assert_eq!(service.counters.dumps_dropped.count(), 1);
        drop(dump);
        assert_eq!(replies(&service, ""), ["storing 0 key-value pairs:\n"]);
        let counters = &service.counters;
        assert_eq!(
            (counters.dumps.count(), counters.dumps_dropped.count()),
            (2, 1)
        );
    }

    #[test]
    fn a_dump_of_64_mib_takes_a_bounded_memory_and_short_steps() {
        let service = service(usize::MAX);
        let value = vec![b'v'; 1_000];
        let pairs: u32 = 64 << 10;
        for number in 0..pairs {
            put(&service, number.to_string().as_bytes(), 1, Some(&value));
        }
        assert!(service.store().bytes() > 64 << 20);
        let mut dump = service.begin_dump().unwrap();
        let (mut datagrams, mut most, mut steps) = (Vec::new(), 0, 0);
        loop {
            let step = service.step(&mut dump);
            steps += 1;
            // Something is deleted and something is new, all the time, and a get is answered.
            let name = format!("new {steps}");
            put(&service, name.as_bytes(), 1, Some(&value));
            let old = (steps * 7 % pairs).to_string();
            put(&service, old.as_bytes(), 2, None);
            assert_eq!(replies(&service, name), [&value[..]]);
            most = most.max(dump.bytes());
            match step {
                DumpStep::Datagram(datagram) => datagrams.push(datagram),
                DumpStep::Pause => {}
                DumpStep::Wait => panic!("there is no disk"),
                DumpStep::End => break,
            }
        }
        let (count, lines) = parse(&datagrams);
        assert_eq!(lines.len(), count);
        assert!(
            most > 0 && most <= NOTED_BYTES_MAX + DATAGRAM_BYTES_MAX,
            "{most}"
        );
        assert!(most < 4 << 20, "a few changes take little: {most}");
        // By its limits a step looks at 256 KiB: the store is looked at twice.
        assert!(steps > 2 * (64 << 20) / (300 << 10), "{steps}");
    }

    #[test]
    fn too_many_changes_cut_it_short_between_lines() {
        let service = service(usize::MAX);
        put(&service, b"k", 1, Some(b"v"));
        let mut dump = service.begin_dump().unwrap();
        assert_eq!(service.step(&mut dump), DumpStep::Pause);
        let value = vec![b'v'; 30_000];
        for number in 0..=NOTED_BYTES_MAX / 30_000 {
            let key = number.to_string();
            put(&service, key.as_bytes(), 1, Some(&value));
        }
        // Keys alone are noted of what is new, so that took little.
        assert!(dump.bytes() < 1 << 20);
        drop(dump);

        let mut dump = service.begin_dump().unwrap();
        while matches!(dump.stage, Stage::Counting) {
            assert_eq!(service.step(&mut dump), DumpStep::Pause);
        }
        for number in 0..=NOTED_BYTES_MAX / 30_000 {
            put(&service, number.to_string().as_bytes(), 2, None);
        }
        assert_eq!(service.step(&mut dump), DumpStep::Pause);
        let DumpStep::Datagram(first) = service.step(&mut dump) else {
            panic!("a datagram");
        };
        let (count, lines) = parse(&[first]);
        assert!(lines.is_empty() && count > 500);
        assert_eq!(service.step(&mut dump), DumpStep::End);
        assert_eq!(service.counters.dumps_cut_short.count(), 1);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(100))]

        /// As many lines as announced, each key once, whatever is put and deleted between the
        /// steps.
        #[test]
        fn as_many_lines_follow_as_are_announced(
            script in prop::collection::vec((0..50u8, 0..6usize, 0..4u8), 1..400),
            before in 0..300usize,
        ) {
            let service = service(usize::MAX);
            let long = vec![b'v'; 20_000];
            let too_long = vec![b'v'; KEY_OR_VALUE_BYTES_MAX + 1];
            let values = [
                Some(&b""[..]),
                Some(b"v"),
                Some(&long),
                Some(&too_long),
                Some(b"a\0b"),
                None,
            ];
            let change = |time: usize, (key, value, _): (u8, usize, u8)| {
                let key = format!("key {key}");
                put(&service, key.as_bytes(), time as u64, values[value]);
            };
            let mut script = script.into_iter().enumerate();
            for (time, each) in script.by_ref().take(before) {
                change(time, each);
            }
            let mut dump = service.begin_dump().unwrap();
            dump.limits = PageLimits { records: 3, bytes: 1 << 20 };
            let mut datagrams = Vec::new();
            loop {
                for (time, each) in script.by_ref() {
                    change(time, each);
                    if each.2 == 0 {
                        break;
                    }
                }
                match service.step(&mut dump) {
                    DumpStep::Datagram(datagram) => datagrams.push(datagram),
                    DumpStep::Pause => {}
                    DumpStep::Wait => panic!("there is no disk"),
                    DumpStep::End => break,
                }
            }
            let (count, lines) = parse(&datagrams);
            prop_assert_eq!(lines.len(), count);
            let key = |line: &Vec<u8>| {
                let end = line.windows(5).position(|five| five == b" --> ").unwrap();
                line[..end].to_vec()
            };
            let keys: std::collections::HashSet<_> = lines.iter().map(key).collect();
            prop_assert_eq!(keys.len(), count);
            prop_assert!(!datagrams.concat().contains(&0));
        }
    }
}
