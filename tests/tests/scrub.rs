//! Records that a server reads again by itself, and damaged ones that it mends: in one thread, on virtual time.

use std::collections::BTreeSet;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::sync::Arc;
use std::time::{Duration, Instant};

use dkvs_common::cluster::{Cluster, Server, ServerId};
use dkvs_common::kv::Value;
use dkvs_common::model::{ReplicaCommand, ReplicaResponse};
use dkvs_common::record::{Content, Digest, Record};
use dkvs_common::tag::{Tag, TagClock};
use dkvs_common::view::ClusterView;
use dkvs_log::simulated::SimulatedDisk;
use dkvs_storage_node::anti_entropy::{AntiEntropy, Ask, Timing};
use dkvs_storage_node::leaves::Membership;
use dkvs_storage_node::scrub::{Pace, Scrub};
use dkvs_storage_node::service::{Service, ServiceConfig};
use dkvs_storage_node::store::disk::{Declaration, OpenOptions};
use dkvs_storage_node::store::{Lookup, Part, RecordStore as _, Store};
use dkvs_tests::stores::{
    Kept, STORED, key, new_store, open, options, record, reopen, shown, stored, uncached,
};

const RATE: u64 = 1 << 20;

/// The scrub of a store, on a time of its own.
struct Scrubbing {
    scrub: Scrub,
    start: Instant,
    now: Instant,
}

impl Scrubbing {
    fn new(kept: &Kept, bytes_per_second: u64) -> Self {
        let Store::Disk(store) = &kept.store else {
            panic!("it is on a disk");
        };
        let now = Instant::now();
        let pace = Pace::of(bytes_per_second);
        Self {
            scrub: Scrub::new(Arc::clone(store), pace, now, || {}),
            start: now,
            now,
        }
    }

    /// Reads all records once, and stores what comes of that.
    fn go_round(&mut self, kept: &mut Kept) {
        let rounds = kept.disk().status().scrub_rounds;
        while kept.disk().status().scrub_rounds == rounds {
            self.step(kept);
        }
        kept.store_all();
    }

    fn step(&mut self, kept: &Kept) {
        self.now = self.scrub.poll_timeout().unwrap_or(self.now);
        self.scrub.handle_timeout(self.now);
        kept.read_all();
        self.scrub.handle_read(self.now);
    }
}

/// Flips a bit of what lies on a disk, wherever it lies.
fn damage(disk: &SimulatedDisk, bytes: &[u8]) {
    let mut found = 0;
    for name in disk.names() {
        let file = disk.contents(&name).unwrap();
        for at in (0..file.len()).filter(|at| file[*at..].starts_with(bytes)) {
            disk.flip(&name, at + bytes.len() / 2, 0);
            found += 1;
        }
    }
    assert!(found > 0, "it lies nowhere");
}

fn name(number: usize) -> String {
    format!("key {number}")
}

fn value(number: usize) -> String {
    format!("the value {number} of its own")
}

fn damaged(kept: &Kept) -> BTreeSet<String> {
    let store = kept.disk();
    let mut names = BTreeSet::new();
    while store.may_have_damaged() {
        let name = store.take_damaged();
        names.extend(name.map(|it| String::from_utf8(it.as_bytes().to_vec()).unwrap()));
    }
    names
}

#[test]
fn a_round_finds_what_is_damaged_though_nobody_reads_it() {
    let disk = SimulatedDisk::default();
    let mut kept = open(&disk, uncached()).unwrap();
    for number in 0..600 {
        stored(kept.put_at(&name(number), 5, &value(number)));
    }
    let long = format!("{}needle{}", "a".repeat(300_000), "b".repeat(300_000));
    stored(kept.put_at("long", 5, &long));
    stored(kept.put_at("headed", 5, "whole"));
    let mut scrubbing = Scrubbing::new(&kept, RATE);
    scrubbing.go_round(&mut kept);
    let status = kept.disk().status();
    assert_eq!((status.scrubbed_records, status.damaged), (602, 0));
    assert!(status.scrubbed_bytes > 600 * 90 + 600_000);
    assert_eq!(status.cold_reads, 0, "those are of requests");

    damage(&disk, value(7).as_bytes());
    damage(&disk, b"needle");
    // The key as the log has it, with the version of the head behind it.
    damage(&disk, b"headed\x01");
    scrubbing.go_round(&mut kept);
    assert_eq!(kept.disk().status().damaged, 3);
    for number in 0..600 {
        let expected = match number {
            7 => Lookup::Corrupt,
            _ => shown(5, &value(number)),
        };
        assert_eq!(kept.read(&name(number)), expected);
    }
    let expected = [name(7), "long".to_owned(), "headed".to_owned()];
    assert_eq!(damaged(&kept), BTreeSet::from(expected.clone()));
    // Whoever did not take them then is told by the next round.
    scrubbing.go_round(&mut kept);
    assert_eq!(kept.disk().status().damaged, 3);
    assert_eq!(damaged(&kept), BTreeSet::from(expected));
    assert_eq!(kept.disk().status().mended, 0);
    assert_eq!(kept.put_at(&name(7), 5, &value(7)), STORED);
    assert_eq!(kept.disk().status().mended, 1);
}

#[test]
fn what_memory_has_is_written_anew_and_stays_what_it_is() {
    let disk = SimulatedDisk::default();
    let with = OpenOptions {
        cache_bytes_max: 64 << 20,
        ..options(Some(Declaration::New))
    };
    let mut kept = open(&disk, with).unwrap();
    let long = format!("{}needle{}", "a".repeat(100_000), "b".repeat(100_000));
    stored(kept.put_at("short", 5, &value(1)));
    stored(kept.delete_at("deleted", 5));
    stored(kept.put_at("long", 5, &long));
    for offset in (0..200_000).step_by(1_000) {
        let bytes = 1_000;
        kept.read_part("long", Part::Block { offset, bytes });
    }
    damage(&disk, value(1).as_bytes());
    damage(&disk, b"deleted\x01");
    damage(&disk, b"needle");
    let mut scrubbing = Scrubbing::new(&kept, RATE);
    scrubbing.go_round(&mut kept);
    let status = kept.disk().status();
    assert_eq!((status.damaged, status.mended), (3, 3));
    assert_eq!(damaged(&kept), BTreeSet::new());
    scrubbing.go_round(&mut kept);
    assert_eq!(kept.disk().status().damaged, 3, "they are whole");
    kept.close();
    let kept = open(&disk, options(None));
    // The last segment has no hint, so a damaged head costs a range; not what was written behind it.
    let kept = kept.unwrap();
    for (name, expected) in [("short", value(1)), ("long", long)] {
        assert_eq!(kept.read(name), shown(5, &expected));
    }
    assert_eq!(kept.read("deleted"), Lookup::Found((5, None)));
}

#[test]
fn what_is_quarantined_is_written_anew_and_stays_quarantined() {
    let disk = SimulatedDisk::default();
    new_store(&disk).close();
    let mut kept = open(&disk, options(Some(Declaration::Incomplete))).unwrap();
    stored(kept.put_at("a", 5, &value(1)));
    assert_eq!(kept.read("a"), Lookup::Corrupt);
    damage(&disk, value(1).as_bytes());
    Scrubbing::new(&kept, RATE).go_round(&mut kept);
    let check = |kept: &mut Kept| {
        assert_eq!(kept.read("a"), Lookup::Corrupt);
        let held = kept.store.peek(&key("a")).unwrap();
        assert!(held.is_quarantined && !held.is_damaged);
    };
    assert_eq!(kept.disk().status().mended, 1);
    check(&mut kept);
    kept.close();
    let mut kept = reopen(&disk);
    check(&mut kept);
    assert!(kept.attest("a", 5));
    assert_eq!(kept.read("a"), shown(5, &value(1)));
}

#[test]
fn an_error_that_passes_is_no_damage_any_more_after_the_next_round() {
    let disk = SimulatedDisk::default();
    let mut kept = open(&disk, uncached()).unwrap();
    stored(kept.put_at("a", 5, &value(1)));
    let files = disk.names().into_iter().filter_map(|name| {
        let file = disk.contents(&name)?;
        let at = file
            .windows(value(1).len())
            .position(|it| it == value(1).as_bytes())?;
        Some((name, at))
    });
    let places: Vec<_> = files.collect();
    for (name, at) in &places {
        disk.break_block(name, *at as u64);
    }
    let mut scrubbing = Scrubbing::new(&kept, RATE);
    scrubbing.go_round(&mut kept);
    assert_eq!(kept.read("a"), Lookup::Corrupt);
    disk.mend_blocks();
    scrubbing.go_round(&mut kept);
    let status = kept.disk().status();
    assert_eq!((status.damaged, status.mended), (1, 1));
    let held = kept.store.peek(&key("a")).unwrap();
    assert!(!held.is_damaged);
}

#[test]
fn more_damage_than_the_list_holds_is_told_all_the_same() {
    let disk = SimulatedDisk::default();
    let mut kept = open(&disk, uncached()).unwrap();
    for number in 0..2_500 {
        stored(kept.put_at(&name(number), 5, "needle"));
    }
    damage(&disk, b"needle");
    Scrubbing::new(&kept, 1 << 30).go_round(&mut kept);
    let all: BTreeSet<String> = (0..2_500).map(name).collect();
    assert_eq!(damaged(&kept), all);
    assert_eq!(damaged(&kept), BTreeSet::new());
    kept.disk().find_damaged();
    assert_eq!(damaged(&kept), all, "once more if somebody asks for it");
    kept.close();
    // What is damaged at the start is told as well.
    assert_eq!(damaged(&reopen(&disk)), all);
}

#[test]
fn it_takes_no_more_than_its_rate_and_rests_between_rounds() {
    let disk = SimulatedDisk::default();
    let mut kept = open(&disk, uncached()).unwrap();
    for number in 0..100 {
        stored(kept.put_at(&name(number), 5, &"v".repeat(100_000)));
    }
    let mut scrubbing = Scrubbing::new(&kept, RATE);
    scrubbing.go_round(&mut kept);
    let seconds = (scrubbing.now - scrubbing.start).as_secs_f64();
    assert!((9.0..10.5).contains(&seconds), "{seconds}");
    // One that is short takes as long as it has to.
    let mut scrubbing = Scrubbing::new(&kept, 1 << 30);
    for _ in 0..3 {
        scrubbing.go_round(&mut kept);
    }
    let took = scrubbing.now - scrubbing.start;
    assert_eq!(took.as_secs(), 20, "two rests");
    assert_eq!(kept.disk().status().reads_waiting, 0);
}

/// A server of three that each hold every key, its anti-entropy, and a record that is damaged.
struct Member {
    service: Arc<Service>,
    kept: Kept,
    machine: AntiEntropy,
    now: Instant,
}

const INTERVAL: Duration = Duration::from_secs(60);

impl Member {
    fn new(prepare: impl FnOnce(&mut Kept), declaration: Declaration) -> Self {
        let disk = SimulatedDisk::default();
        new_store(&disk).close();
        let with = OpenOptions {
            cache_bytes_max: 0,
            ..options((declaration != Declaration::New).then_some(declaration))
        };
        let mut kept = open(&disk, with).unwrap();
        prepare(&mut kept);
        damage(&disk, b"needle");
        let server = |number: u16| Server {
            addr: SocketAddrV4::new(Ipv4Addr::LOCALHOST, 4_000 + number),
            ring_points: 4,
        };
        let cluster = Cluster::from_servers(&[0, 1, 2].map(server)).unwrap();
        let membership = Membership {
            view: Arc::new(ClusterView::first(cluster)),
            own: ServerId(0),
            replication: 3,
        };
        let Store::Disk(store) = &kept.store else {
            panic!("it is on a disk");
        };
        let store = Store::Disk(Arc::clone(store));
        let service = Service::of_member(store, ServiceConfig::new(1), Some(membership));
        let service = Arc::new(service);
        let now = Instant::now();
        let timing = Timing {
            interval: INTERVAL,
            ..Timing::default()
        };
        let machine = AntiEntropy::new(Arc::clone(&service), timing, 8 << 20, now, || {});
        Self {
            service,
            kept,
            machine: machine.unwrap(),
            now,
        }
    }

    /// What is asked of peers beside sums.
    fn gets(&mut self) -> Vec<Ask> {
        self.machine.handle_wake(self.now);
        let asks = std::iter::from_fn(|| self.machine.poll_ask());
        asks.filter(|ask| matches!(ask.command, ReplicaCommand::Get { .. }))
            .collect()
    }

    /// The one question that there is.
    fn get(&mut self) -> Ask {
        let mut gets = self.gets();
        assert_eq!(gets.len(), 1, "{gets:?}");
        gets.remove(0)
    }

    fn answer(&mut self, ask: &Ask, record: Option<&Record>) {
        let answer = record.map(|record| {
            let Content::Value {
                content_type,
                value,
            } = &record.content
            else {
                return ReplicaResponse::absent(record.tag);
            };
            let digest = Digest {
                tag: record.tag,
                attributes: record.attributes,
                content_type: content_type.clone(),
                value_bytes: value.len() as u32,
                checksum: record.checksum,
            };
            let block = Value::as_bytes(value).to_vec().into();
            ReplicaResponse::Record { digest, block }
        });
        self.machine.handle_answer(ask.id, answer, self.now);
        self.kept.store_all();
    }
}

fn by_v1(record: Record) -> Record {
    let tag = TagClock::for_v1(1)
        .mint(record.tag.time, Tag::ZERO)
        .unwrap();
    Record::new(&key("a"), tag, record.content)
}

#[test]
fn damage_that_a_read_finds_is_asked_of_one_replica_after_the_other_at_once() {
    let mut member = Member::new(
        |kept| stored(kept.put_at("a", 5, "needle")),
        Declaration::New,
    );
    assert!(member.gets().is_empty());
    assert_eq!(member.kept.read("a"), Lookup::Corrupt);
    let first = member.get();
    member.answer(&first, None);
    let second = member.get();
    assert_ne!(first.to, second.to);
    // Nothing older takes its place.
    member.answer(&second, Some(&record("a", 4, "older")));
    assert!(member.gets().is_empty(), "there are no others");
    assert_eq!(member.kept.read("a"), Lookup::Corrupt);
    assert!(member.machine.poll_timeout().unwrap() <= member.now + INTERVAL);
    member.now += INTERVAL;
    let again = member.get();
    member.answer(&again, Some(&record("a", 5, "needle")));
    assert_eq!(member.kept.read("a"), shown(5, "needle"));
    let status = member.kept.disk().status();
    assert_eq!((status.damaged, status.mended), (1, 1));
    member.now += INTERVAL;
    assert!(member.gets().is_empty());
    assert_eq!(member.service.store().len(), 1);
}

#[test]
fn a_newer_one_takes_its_place_and_one_by_dkvs_1_does_not() {
    let mut member = Member::new(
        |kept| stored(kept.put_at("a", 5, "needle")),
        Declaration::New,
    );
    member.kept.read("a");
    let first = member.get();
    member.answer(&first, Some(&by_v1(record("a", 9, "by DKVS/1"))));
    let second = member.get();
    member.answer(&second, Some(&record("a", 7, "newer")));
    assert_eq!(member.kept.read("a"), shown(7, "newer"));
}

#[test]
fn a_damaged_record_by_dkvs_1_is_asked_of_nobody() {
    let given = by_v1(record("a", 5, "needle"));
    let mut member = Member::new(|kept| stored(kept.put("a", &given)), Declaration::New);
    assert_eq!(member.kept.read("a"), Lookup::Corrupt);
    assert!(member.gets().is_empty());
}

#[test]
fn a_key_that_is_quarantined_is_mended_and_stays_quarantined() {
    let prepare = |kept: &mut Kept| stored(kept.put_at("a", 5, "needle"));
    let mut member = Member::new(prepare, Declaration::Incomplete);
    Scrubbing::new(&member.kept, RATE).go_round(&mut member.kept);
    let ask = member.get();
    member.answer(&ask, Some(&record("a", 5, "needle")));
    let held = member.kept.store.peek(&key("a")).unwrap();
    assert!(held.is_quarantined && !held.is_damaged);
    assert_eq!(member.kept.read("a"), Lookup::Corrupt);
    assert_eq!(member.kept.disk().status().mended, 1);
}
