//! The table of uploads.

use super::super::upload::{BITMAP_BYTES_MAX, UPLOAD_BYTES_PER_SECOND_MIN, UPLOAD_IDLE_MAX};
use super::*;
use proptest::prelude::*;
use std::ops::Range;
use std::time::Duration;

fn id(peer: u16, number: u64) -> UploadId {
    let peer = Peer::at_port(peer);
    UploadId { peer, number }
}

/// That of all of these peers.
fn ours() -> Account {
    Account::of(Peer::at_port(1), 0)
}

fn shape(value_bytes: u32, block_bytes: u16) -> Shape {
    Shape {
        value_bytes,
        block_bytes,
    }
}

fn value(shape: Shape) -> Vec<u8> {
    bytes(0..shape.value_bytes)
}

fn bytes(at: Range<u32>) -> Vec<u8> {
    at.map(|at| (at.wrapping_mul(7) + 1) as u8).collect()
}

/// Block `number` of [`value`].
fn block(shape: Shape, number: usize) -> Block {
    let offset = number as u32 * u32::from(shape.block_bytes);
    let end = (offset + u32::from(shape.block_bytes)).min(shape.value_bytes);
    Block {
        offset,
        bytes: bytes(offset..end).into(),
    }
}

fn progress(base: u32, bitmap: &[u8]) -> Progress {
    let bitmap = bitmap.to_vec();
    Progress { base, bitmap }
}

/// What [`Progress`] must be when `arrived` have, computed the plain way.
fn expected(blocks: usize, arrived: &[bool]) -> Progress {
    let base = arrived.iter().position(|has| !has).unwrap_or(blocks);
    let mut bitmap = vec![0; BITMAP_BYTES_MAX];
    for (number, has) in arrived.iter().skip(base).take(256).enumerate() {
        bitmap[number / 8] |= u8::from(*has) << (number % 8);
    }
    while bitmap.last() == Some(&0) {
        bitmap.pop();
    }
    progress(base as u32, &bitmap)
}

#[test]
fn the_bitmap_has_exactly_the_blocks_that_arrived() {
    let now = Instant::now();
    for blocks in 1..=10 {
        let shape = shape(blocks * 3 - 1, 3);
        for chosen in 1..1_u32 << blocks {
            let mut uploads = Uploads::new(1_000, 100);
            let mut arrived = vec![false; blocks as usize];
            for number in (0..blocks as usize).filter(|number| chosen & 1 << number != 0) {
                arrived[number] = true;
                let staged = uploads.stage(id(1, 1), ours(), shape, &block(shape, number), now);
                assert_eq!(staged, Ok(expected(blocks as usize, &arrived)));
            }
            let taken = uploads.take(id(1, 1), shape.value_bytes, now);
            let is_whole = chosen + 1 == 1 << blocks;
            let whole = is_whole.then(|| value(shape).into());
            assert_eq!(taken, whole.ok_or(TakeError::Incomplete));
        }
    }
}

#[test]
fn the_bitmap_ends_after_256_blocks() {
    let (now, shape) = (Instant::now(), shape(600, 1));
    let mut uploads = Uploads::new(10_000, 600);
    let mut stage = |number| uploads.stage(id(1, 1), ours(), shape, &block(shape, number), now);
    assert_eq!(stage(256), Ok(progress(0, &[])));
    let last_bit = [[0; 31].as_slice(), &[0x80]].concat();
    assert_eq!(stage(255), Ok(progress(0, &last_bit)));
    let (mut shifted, last) = (last_bit, 31);
    shifted[last] = 0xc0;
    assert_eq!(stage(0), Ok(progress(1, &shifted)));
}

#[test]
fn a_block_that_contradicts_its_upload_changes_nothing() {
    let (now, shape_of) = (Instant::now(), shape);
    let shape = shape(10, 4);
    let mut uploads = Uploads::new(1_000, 100);
    uploads
        .stage(id(1, 1), ours(), shape, &block(shape, 0), now)
        .unwrap();
    let at = |offset, length| Block {
        offset,
        bytes: vec![0; length].into(),
    };
    for (shape, block) in [
        (shape, at(4, 3)),
        (shape, at(4, 5)),
        (shape, at(8, 4)),
        (shape, at(8, 1)),
        (shape, at(8, 0)),
        (shape, at(5, 4)),
        (shape, at(12, 0)),
        (shape, at(u32::MAX, 4)),
        (shape_of(10, 0), at(0, 0)),
        (shape_of(0, 4), at(0, 0)),
        (shape_of(11, 4), at(4, 4)),
        (shape_of(10, 5), at(5, 5)),
    ] {
        let refused = uploads.stage(id(1, 1), ours(), shape, &block, now);
        assert_eq!(
            refused,
            Err(BlockError::Contradiction),
            "{shape:?} {block:?}"
        );
    }
    assert_eq!(
        uploads.take(id(1, 1), 11, now),
        Err(TakeError::Contradiction)
    );
    uploads
        .stage(id(1, 1), ours(), shape, &block(shape, 1), now)
        .unwrap();
    let staged = uploads.stage(id(1, 1), ours(), shape, &block(shape, 2), now);
    assert_eq!(staged, Ok(progress(3, &[])));
    assert_eq!(uploads.take(id(1, 1), 10, now), Ok(value(shape).into()));
    assert_eq!(uploads.take(id(1, 1), 10, now), Err(TakeError::Incomplete));
}

#[test]
fn uploads_of_one_number_are_one_per_peer() {
    let (now, shape) = (Instant::now(), shape(2, 1));
    let mut uploads = Uploads::new(1_000, 100);
    for (peer, number) in [(1, 0), (2, 1)] {
        let staged = uploads.stage(id(peer, 7), ours(), shape, &block(shape, number), now);
        assert!(staged.is_ok());
    }
    uploads.free(id(3, 7));
    for peer in 1..=3 {
        assert_eq!(
            uploads.take(id(peer, 7), 2, now),
            Err(TakeError::Incomplete)
        );
    }
    assert_eq!(uploads.counts.begun, 2);
}

#[test]
fn a_value_of_the_greatest_length_is_taken_and_a_longer_one_is_not() {
    let now = Instant::now();
    let mut uploads = Uploads::new(400, 100);
    let longer = shape(101, 50);
    let refused = uploads.stage(id(1, 1), ours(), longer, &block(longer, 0), now);
    assert_eq!(refused, Err(BlockError::TooLarge));
    let longest = shape(100, 50);
    assert!(
        uploads
            .stage(id(1, 1), ours(), longest, &block(longest, 0), now)
            .is_ok()
    );
}

#[test]
fn an_upload_dies_when_no_new_block_came_for_its_time() {
    let start = Instant::now();
    let at = |ms| start + Duration::from_millis(ms);
    // With each block it earns more time than it may be idle.
    let block_bytes = u16::MAX;
    let shape = shape(40 * u32::from(block_bytes), block_bytes);
    let mut uploads = Uploads::new(100 << 20, 100 << 20);
    let stage = |uploads: &mut Uploads, number, now| {
        uploads.stage(id(1, 1), ours(), shape, &block(shape, number), now)
    };
    for number in 0..25 {
        stage(&mut uploads, number, at(0)).unwrap();
    }
    stage(&mut uploads, 25, at(9_999)).unwrap();
    // A repeat keeps nothing alive.
    stage(&mut uploads, 0, at(15_000)).unwrap();
    uploads.expire(at(19_998));
    assert_eq!((uploads.counts.expired, uploads.open.len()), (0, 1));
    uploads.expire(at(19_999));
    assert_eq!((uploads.counts.expired, uploads.bytes_reserved()), (1, 0));
    assert_eq!(stage(&mut uploads, 1, at(20_000)), Ok(progress(0, &[2])));
    assert_eq!(uploads.next_expiry(), Some(at(30_000)));
    uploads.expire(at(30_000));
    assert_eq!(uploads.next_expiry(), None);
    let now = at(30_000);
    assert_eq!(
        uploads.take(id(1, 1), shape.value_bytes, now),
        Err(TakeError::Incomplete)
    );
    let counts = UploadReport {
        begun: 2,
        expired: 2,
        ..UploadReport::default()
    };
    assert_eq!(uploads.counts, counts);
}

#[test]
fn an_upload_that_drips_is_over_however_regularly_it_does() {
    let start = Instant::now();
    let shape = shape(1 << 20, 1 << 10);
    for (blocks_per_second, survives) in [(1, false), (32, false), (56, false), (58, true)] {
        let mut uploads = Uploads::new(4 << 20, 1 << 20);
        let mut staged = 0;
        for second in 0.. {
            let now = start + Duration::from_secs(second);
            for number in staged..(staged + blocks_per_second).min(shape.blocks()) {
                let staged = uploads.stage(id(1, 1), ours(), shape, &block(shape, number), now);
                staged.unwrap();
            }
            staged += blocks_per_second;
            if uploads.counts.expired > 0 || staged >= shape.blocks() {
                break;
            }
        }
        assert_eq!(uploads.counts.expired == 0, survives, "{blocks_per_second}");
    }
    assert_eq!(UPLOAD_BYTES_PER_SECOND_MIN, 128 << 10);
}

#[test]
fn an_upload_whose_time_has_passed_is_gone_before_any_timer_fires() {
    let (start, shape) = (Instant::now(), shape(2, 1));
    let mut uploads = Uploads::new(100, 10);
    for number in 0..2 {
        uploads
            .stage(id(1, 1), ours(), shape, &block(shape, number), start)
            .unwrap();
    }
    let over = start + UPLOAD_IDLE_MAX;
    assert_eq!(uploads.take(id(1, 1), 2, over), Err(TakeError::Incomplete));
    let staged = uploads.stage(id(1, 1), ours(), shape, &block(shape, 0), start);
    assert_eq!(staged, Ok(progress(1, &[])), "it has begun anew");
    let staged = uploads.stage(id(1, 1), ours(), shape, &block(shape, 1), over);
    assert_eq!(staged, Ok(progress(0, &[2])), "and anew");
    assert_eq!((uploads.counts.begun, uploads.counts.expired), (3, 2));
}

#[test]
fn dead_uploads_make_room_for_new_ones() {
    let (start, shape) = (Instant::now(), shape(100, 100));
    let mut uploads = Uploads::new(210, 100);
    let begin = |uploads: &mut Uploads, number, now| {
        uploads.stage(id(1, number), ours(), shape, &block(shape, 0), now)
    };
    assert!(begin(&mut uploads, 1, start).is_ok() && begin(&mut uploads, 2, start).is_ok());
    assert_eq!(begin(&mut uploads, 3, start), Err(BlockError::Busy));
    assert!(begin(&mut uploads, 3, start + UPLOAD_IDLE_MAX).is_ok());
    assert_eq!(uploads.counts.refused_busy, 1);
}

/// Has a host take all that it gets, from `ports` ports in turn; returns how many uploads it has
/// begun.
fn hoard(uploads: &mut Uploads, (key_id, host): (u8, u8), ports: u16, shape: Shape) -> usize {
    let now = Instant::now();
    let begun = (0..1_100).filter(|number| {
        let peer = Peer::at(host, *number as u16 % ports);
        let (account, number) = (Account::of(peer, key_id), *number);
        let begun = uploads.stage(
            UploadId { peer, number },
            account,
            shape,
            &block(shape, 0),
            now,
        );
        begun.is_ok()
    });
    begun.count()
}

/// How many uploads a host has.
fn held(uploads: &Uploads, (key_id, host): (u8, u8)) -> usize {
    let account = Account::of(Peer::at(host, 0), key_id);
    let open = uploads.open.values();
    open.filter(|open| open.account == account).count()
}

#[test]
fn whoever_is_alone_may_have_all_and_every_newcomer_gets_an_equal_part() {
    let lone = shape(1_000, 1_000);
    for (shape, all) in [(shape(1, 1), UPLOADS_MAX), (lone, 96)] {
        for ports in [1, 300] {
            let mut uploads = Uploads::new(lone.bytes() * 96, 1_000);
            assert_eq!(hoard(&mut uploads, (1, 1), ports, shape), all);
            for hosts in 2..=4 {
                // One that hoards as well, from fewer ports.
                hoard(&mut uploads, (1, hosts), 1, shape);
                let held: Vec<usize> = (1..=hosts).map(|host| held(&uploads, (1, host))).collect();
                assert_eq!(held.iter().sum::<usize>(), all, "{held:?}");
                let equal = all / usize::from(hosts);
                assert!(held[usize::from(hosts) - 1] >= equal, "{ports}: {held:?}");
                assert!(
                    held.iter()
                        .all(|held| held.abs_diff(equal) <= equal / 2 + 1),
                    "{held:?}"
                );
            }
            // By another key, one host has as much as all of those together.
            hoard(&mut uploads, (2, 1), 1, shape);
            assert_eq!(held(&uploads, (2, 1)), all / 2);
            assert!(uploads.all.is_within(uploads.limit));
            let displaced = uploads.counts.begun as usize - all;
            assert_eq!(uploads.counts.displaced as usize, displaced);
        }
    }
}

#[test]
fn the_upload_that_has_waited_longest_gives_way() {
    let (start, shape) = (Instant::now(), shape(100, 50));
    let mut uploads = Uploads::new(3 * shape.bytes(), 100);
    for (second, number, block_number) in [(0, 1, 0), (1, 2, 0), (2, 3, 0), (3, 1, 1)] {
        let now = start + Duration::from_secs(second);
        uploads
            .stage(
                id(1, number),
                ours(),
                shape,
                &block(shape, block_number),
                now,
            )
            .unwrap();
    }
    let newcomer = Peer::at(9, 1);
    let account = Account::of(newcomer, 0);
    let other = UploadId {
        peer: newcomer,
        number: 1,
    };
    let now = start + Duration::from_secs(4);
    uploads
        .stage(other, account, shape, &block(shape, 0), now)
        .unwrap();
    let mut left: Vec<u64> = uploads
        .open
        .keys()
        .filter(|id| id.peer != newcomer)
        .map(|id| id.number)
        .collect();
    left.sort_unstable();
    assert_eq!(left, [1, 3]);
    // No room is made that would not be enough.
    let larger = self::shape(100, 1);
    let third = UploadId { number: 2, ..other };
    let refused = uploads.stage(third, account, larger, &block(larger, 0), now);
    assert_eq!(refused, Err(BlockError::Busy));
    assert_eq!((uploads.open.len(), uploads.counts.displaced), (3, 1));
}

fn orders() -> impl Strategy<Value = (u32, u16, Vec<usize>)> {
    (1..2_000u32, 1..300u16).prop_flat_map(|(value_bytes, block_bytes)| {
        let blocks = value_bytes.div_ceil(block_bytes.into()) as usize;
        let every = Just((0..blocks).collect::<Vec<_>>());
        let repeats = prop::collection::vec(0..blocks, 0..20);
        let order = (every, repeats).prop_map(|(every, repeats)| [every, repeats].concat());
        (Just(value_bytes), Just(block_bytes), order.prop_shuffle())
    })
}

proptest! {
    #[test]
    fn blocks_in_any_order_and_repeated_become_the_value(
        (value_bytes, block_bytes, order) in orders()
    ) {
        let (now, shape) = (Instant::now(), shape(value_bytes, block_bytes));
        let mut uploads = Uploads::new(100_000, 2_000);
        let mut arrived = vec![false; shape.blocks()];
        for number in order {
            let is_whole = !arrived.contains(&false);
            prop_assert!(is_whole || uploads.take(id(1, 1), value_bytes, now).is_err());
            arrived[number] = true;
            let staged = uploads.stage(id(1, 1), ours(), shape, &block(shape, number), now);
            prop_assert_eq!(staged, Ok(expected(shape.blocks(), &arrived)));
        }
        let taken = uploads.take(id(1, 1), value_bytes, now);
        prop_assert_eq!(taken, Ok(value(shape).into()));
        prop_assert_eq!(uploads.bytes_reserved(), 0);
    }

    #[test]
    fn the_limits_hold_and_the_sums_are_right_whatever_happens(
        steps in prop::collection::vec(
            (0..6u8, (0..3u8, 0..3u8, 0..3u16), 0..6u64, 1..60u32, 0..4_000u64),
            1..200,
        )
    ) {
        let mut uploads = Uploads::new(200, 50);
        let mut now = Instant::now();
        let mut freed = 0;
        for (step, (key_id, host, port), number, value_bytes, wait_ms) in steps {
            let shape = shape(value_bytes, 20);
            let peer = Peer::at(host, port);
            let (id, account) = (UploadId { peer, number }, Account::of(peer, key_id));
            let before = uploads.counts;
            match step {
                0 => {
                    now += Duration::from_millis(wait_ms);
                    uploads.expire(now);
                }
                1 => {
                    freed += u64::from(uploads.open.contains_key(&id));
                    uploads.free(id);
                }
                2 => drop(uploads.take(id, value_bytes, now)),
                _ => {
                    let number_of_block = wait_ms as usize % shape.blocks();
                    let block = block(shape, number_of_block);
                    let staged = uploads.stage(id, account, shape, &block, now);
                    // Whoever gets nothing is refused, and nobody loses anything by it.
                    if staged == Err(BlockError::Busy) {
                        prop_assert_eq!(uploads.counts.displaced, before.displaced);
                        prop_assert_eq!(uploads.counts.refused_busy, before.refused_busy + 1);
                    }
                }
            }
            prop_assert!(uploads.bytes_reserved() <= 200);
            let open = uploads.open.values();
            let sum = open.fold(Held::default(), |sum, open| sum.and(Held::of(open.upload.shape)));
            prop_assert_eq!(sum, uploads.all);
            let mut expiries = uploads.open.values().map(|open| open.upload.expiry());
            prop_assert!(expiries.all(|at| uploads.next_expiry().is_some_and(|next| next <= at)));
            let counts = uploads.counts;
            let gone = counts.completed + counts.expired + counts.displaced + freed;
            prop_assert_eq!(counts.begun, gone + uploads.open.len() as u64);
        }
        uploads.expire(now + UPLOAD_IDLE_MAX);
        prop_assert_eq!((uploads.all, uploads.open.len()), (Held::default(), 0));
    }
}
