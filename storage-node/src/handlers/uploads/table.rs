//! Values that arrive in blocks, until a put takes them.
//!
//! ```text
//!            first block            last missing block            put
//!   nothing -------------> filling --------------------> whole --------> nothing
//!                             |                            |
//!                             +-------- 10 s idle ---------+-----------> nothing
//! ```
//!
//! The memory of all uploads together is bounded, and so is their number. Of both, each peer gets
//! its share by a dynamic threshold (Choudhury and Hahne 1998): it may take more as long as it then
//! holds no more than is free then. One peer alone gets half; and however many peers take all they
//! can, something is left for the next.
//!
//! No sockets, no clock: peers and times are arguments. An upload that was idle for too long is
//! dropped by [`Uploads::expire`] and by nothing else.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use bytes::Bytes;
use thiserror::Error;

use super::upload::{Block, Progress, Shape, Upload};
use crate::peer::Peer;
use crate::statistics::UploadReport;

/// An upload without a new block for so long is dropped.
pub(in crate::handlers) const UPLOAD_IDLE_MAX: Duration = Duration::from_secs(10);

/// Most uploads at a time.
pub(in crate::handlers) const UPLOADS_MAX: usize = 1_024;

/// Which upload.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(in crate::handlers) struct UploadId {
    /// The peer that sends it: none can touch another's.
    pub(in crate::handlers) peer: Peer,
    /// The number that the peer gave it.
    pub(in crate::handlers) number: u64,
}

/// Why a block is not taken. Nothing has changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub(in crate::handlers) enum BlockError {
    #[error("the value would be longer than the server takes")]
    TooLarge,
    #[error("the block does not lie in its value as it says, or as the upload's first block said")]
    Contradiction,
    #[error("the peer's share of memory or uploads is used up")]
    Busy,
}

/// Why an upload's value is not returned. Nothing has changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub(in crate::handlers) enum TakeError {
    #[error("there is no such upload, or not all of it has arrived")]
    Incomplete,
    #[error("the upload is of a value of another length")]
    Contradiction,
}

/// The uploads under way.
pub(in crate::handlers) struct Uploads {
    open: HashMap<UploadId, Upload>,
    held: HashMap<Peer, Held>,
    all: Held,
    limit: Held,
    value_bytes_max: usize,
    /// No upload expires before.
    next_expiry: Option<Instant>,
    counts: UploadReport,
}

/// What a peer, or all of them, have taken.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Held {
    uploads: usize,
    bytes: usize,
}

impl Uploads {
    /// None yet, of values of at most `value_bytes_max` bytes, in at most `bytes_max` bytes.
    pub(in crate::handlers) fn new(bytes_max: usize, value_bytes_max: usize) -> Self {
        Self {
            open: HashMap::new(),
            held: HashMap::new(),
            all: Held::default(),
            limit: Held {
                uploads: UPLOADS_MAX,
                bytes: bytes_max,
            },
            value_bytes_max,
            next_expiry: None,
            counts: UploadReport::default(),
        }
    }

    /// Takes a block, the first of which begins its upload. A repeat changes nothing.
    pub(in crate::handlers) fn stage(
        &mut self,
        id: UploadId,
        shape: Shape,
        block: &Block,
        now: Instant,
    ) -> Result<Progress, BlockError> {
        if shape.value_bytes as usize > self.value_bytes_max {
            return Err(BlockError::TooLarge);
        }
        let number = shape.number(block).ok_or(BlockError::Contradiction)?;
        if !self.open.contains_key(&id) {
            self.begin(id, shape, now)?;
        }
        match self.open.get_mut(&id) {
            Some(upload) if upload.shape == shape => {
                upload.fill(number, block, now);
                Ok(upload.progress())
            }
            _ => Err(BlockError::Contradiction),
        }
    }

    /// Returns the value of an upload that has arrived as a whole, and frees the upload.
    pub(in crate::handlers) fn take(
        &mut self,
        id: UploadId,
        value_bytes: u32,
    ) -> Result<Bytes, TakeError> {
        let upload = self.open.get(&id).ok_or(TakeError::Incomplete)?;
        if upload.shape.value_bytes != value_bytes {
            return Err(TakeError::Contradiction);
        }
        if upload.missing > 0 {
            return Err(TakeError::Incomplete);
        }
        let upload = self.remove(id).ok_or(TakeError::Incomplete)?;
        self.counts.completed += 1;
        Ok(upload.value.into())
    }

    /// Frees an upload, if there is such a one, whatever has arrived of it.
    pub(in crate::handlers) fn free(&mut self, id: UploadId) {
        self.remove(id);
    }

    /// When [`Self::expire`] is to be called next, if there are uploads.
    pub(in crate::handlers) fn next_expiry(&self) -> Option<Instant> {
        self.next_expiry
    }

    /// Drops what has been idle for too long.
    pub(in crate::handlers) fn expire(&mut self, now: Instant) {
        if self.next_expiry.is_none_or(|next| now < next) {
            return;
        }
        let is_idle =
            |upload: &Upload| now.saturating_duration_since(upload.last_block) >= UPLOAD_IDLE_MAX;
        let idle = self.open.iter().filter(|(_, upload)| is_idle(upload));
        let idle: Vec<UploadId> = idle.map(|(id, _)| *id).collect();
        for id in idle {
            self.free(id);
            self.counts.expired += 1;
        }
        let oldest = self.open.values().map(|upload| upload.last_block).min();
        self.next_expiry = oldest.map(|oldest| oldest + UPLOAD_IDLE_MAX);
    }

    /// The memory that the uploads have reserved; never more than the limit.
    pub(in crate::handlers) fn bytes_reserved(&self) -> usize {
        self.all.bytes
    }

    /// What happened so far, and what is reserved now.
    pub(in crate::handlers) fn report(&self) -> UploadReport {
        UploadReport {
            bytes_reserved: self.bytes_reserved() as u64,
            ..self.counts
        }
    }

    fn remove(&mut self, id: UploadId) -> Option<Upload> {
        let upload = self.open.remove(&id)?;
        let freed = Held::of(upload.shape);
        self.all = self.all.less(freed);
        if let Some(held) = self.held.get_mut(&id.peer) {
            *held = held.less(freed);
            if held.uploads == 0 {
                self.held.remove(&id.peer);
            }
        }
        Some(upload)
    }

    fn begin(&mut self, id: UploadId, shape: Shape, now: Instant) -> Result<(), BlockError> {
        let held = self.held.get(&id.peer).copied().unwrap_or_default();
        let held = held.and(Held::of(shape));
        let all = self.all.and(Held::of(shape));
        let is_fair = self
            .limit
            .free(all)
            .is_some_and(|free| held.uploads <= free.uploads && held.bytes <= free.bytes);
        if !is_fair {
            self.counts.refused_busy += 1;
            return Err(BlockError::Busy);
        }
        self.all = all;
        self.held.insert(id.peer, held);
        self.open.insert(id, Upload::new(shape, now));
        let expiry = now + UPLOAD_IDLE_MAX;
        self.next_expiry = Some(self.next_expiry.map_or(expiry, |next| next.min(expiry)));
        self.counts.begun += 1;
        Ok(())
    }
}

impl Held {
    /// What an upload of this shape takes.
    fn of(shape: Shape) -> Self {
        Self {
            uploads: 1,
            bytes: shape.bytes(),
        }
    }

    fn and(self, more: Self) -> Self {
        Self {
            uploads: self.uploads + more.uploads,
            bytes: self.bytes + more.bytes,
        }
    }

    fn less(self, freed: Self) -> Self {
        Self {
            uploads: self.uploads - freed.uploads,
            bytes: self.bytes - freed.bytes,
        }
    }

    /// What this limit leaves when `taken` is taken; nothing if that is beyond it.
    fn free(self, taken: Self) -> Option<Self> {
        Some(Self {
            uploads: self.uploads.checked_sub(taken.uploads)?,
            bytes: self.bytes.checked_sub(taken.bytes)?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::super::upload::BITMAP_BYTES_MAX;
    use super::*;
    use proptest::prelude::*;

    fn id(peer: u16, number: u64) -> UploadId {
        let peer = Peer::at_port(peer);
        UploadId { peer, number }
    }

    fn shape(value_bytes: u32, block_bytes: u16) -> Shape {
        Shape {
            value_bytes,
            block_bytes,
        }
    }

    fn value(shape: Shape) -> Vec<u8> {
        (0..shape.value_bytes)
            .map(|at| (at * 7 + 1) as u8)
            .collect()
    }

    /// Block `number` of [`value`].
    fn block(shape: Shape, number: usize) -> Block {
        let offset = number * usize::from(shape.block_bytes);
        let end = (offset + usize::from(shape.block_bytes)).min(shape.value_bytes as usize);
        Block {
            offset: offset as u32,
            bytes: value(shape)[offset..end].to_vec().into(),
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
                    let staged = uploads.stage(id(1, 1), shape, &block(shape, number), now);
                    assert_eq!(staged, Ok(expected(blocks as usize, &arrived)));
                }
                let taken = uploads.take(id(1, 1), shape.value_bytes);
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
        let mut stage = |number| uploads.stage(id(1, 1), shape, &block(shape, number), now);
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
            .stage(id(1, 1), shape, &block(shape, 0), now)
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
            let refused = uploads.stage(id(1, 1), shape, &block, now);
            assert_eq!(
                refused,
                Err(BlockError::Contradiction),
                "{shape:?} {block:?}"
            );
        }
        assert_eq!(uploads.take(id(1, 1), 11), Err(TakeError::Contradiction));
        uploads
            .stage(id(1, 1), shape, &block(shape, 1), now)
            .unwrap();
        let staged = uploads.stage(id(1, 1), shape, &block(shape, 2), now);
        assert_eq!(staged, Ok(progress(3, &[])));
        assert_eq!(uploads.take(id(1, 1), 10), Ok(value(shape).into()));
        assert_eq!(uploads.take(id(1, 1), 10), Err(TakeError::Incomplete));
    }

    #[test]
    fn uploads_of_one_number_are_one_per_peer() {
        let (now, shape) = (Instant::now(), shape(2, 1));
        let mut uploads = Uploads::new(1_000, 100);
        for (peer, number) in [(1, 0), (2, 1)] {
            let staged = uploads.stage(id(peer, 7), shape, &block(shape, number), now);
            assert!(staged.is_ok());
        }
        uploads.free(id(3, 7));
        for peer in 1..=3 {
            assert_eq!(uploads.take(id(peer, 7), 2), Err(TakeError::Incomplete));
        }
        assert_eq!(uploads.counts.begun, 2);
    }

    #[test]
    fn a_value_of_the_greatest_length_is_taken_and_a_longer_one_is_not() {
        let now = Instant::now();
        let mut uploads = Uploads::new(400, 100);
        let longer = shape(101, 50);
        let refused = uploads.stage(id(1, 1), longer, &block(longer, 0), now);
        assert_eq!(refused, Err(BlockError::TooLarge));
        let longest = shape(100, 50);
        assert!(
            uploads
                .stage(id(1, 1), longest, &block(longest, 0), now)
                .is_ok()
        );
    }

    #[test]
    fn an_upload_dies_when_no_new_block_came_for_its_time() {
        let (start, shape) = (Instant::now(), shape(3, 1));
        let at = |ms| start + Duration::from_millis(ms);
        let mut uploads = Uploads::new(100, 10);
        let stage = |uploads: &mut Uploads, number, now| {
            uploads.stage(id(1, 1), shape, &block(shape, number), now)
        };
        stage(&mut uploads, 0, at(0)).unwrap();
        stage(&mut uploads, 1, at(9_999)).unwrap();
        // A repeat keeps nothing alive.
        stage(&mut uploads, 0, at(15_000)).unwrap();
        uploads.expire(at(19_998));
        assert_eq!((uploads.bytes_reserved(), uploads.counts.expired), (4, 0));
        uploads.expire(at(19_999));
        assert_eq!((uploads.bytes_reserved(), uploads.counts.expired), (0, 1));
        assert_eq!(stage(&mut uploads, 2, at(20_000)), Ok(progress(0, &[4])));
        assert_eq!(uploads.next_expiry(), Some(at(30_000)));
        uploads.expire(at(30_000));
        assert_eq!(uploads.next_expiry(), None);
        assert_eq!(uploads.take(id(1, 1), 3), Err(TakeError::Incomplete));
        let counts = UploadReport {
            begun: 2,
            expired: 2,
            ..UploadReport::default()
        };
        assert_eq!((uploads.counts, uploads.held.len()), (counts, 0));
    }

    #[test]
    fn dead_uploads_make_room_for_new_ones() {
        let (start, shape) = (Instant::now(), shape(100, 100));
        let mut uploads = Uploads::new(410, 100);
        let begin = |uploads: &mut Uploads, number, now| {
            uploads.expire(now);
            uploads.stage(id(1, number), shape, &block(shape, 0), now)
        };
        assert!(begin(&mut uploads, 1, start).is_ok() && begin(&mut uploads, 2, start).is_ok());
        assert_eq!(begin(&mut uploads, 3, start), Err(BlockError::Busy));
        assert!(begin(&mut uploads, 3, start + UPLOAD_IDLE_MAX).is_ok());
        assert_eq!(uploads.counts.refused_busy, 1);
    }

    #[test]
    fn a_peer_that_hoards_leaves_others_their_share() {
        let now = Instant::now();
        for (shape, limit) in [(shape(1, 1), "uploads"), (shape(1_000, 1_000), "bytes")] {
            let mut uploads = Uploads::new(1_000 * 100, 1_000);
            let mut hoard = |peer| {
                let begun = (0..10_000).take_while(|number| {
                    let begun = uploads.stage(id(peer, *number), shape, &block(shape, 0), now);
                    begun.is_ok()
                });
                begun.count()
            };
            let taken: Vec<usize> = (1..=4).map(&mut hoard).collect();
            let all = match limit {
                "uploads" => UPLOADS_MAX,
                _ => 99,
            };
            // Each takes half of what those before it have left.
            assert_eq!(taken[0], all / 2, "{limit}");
            for peer in 1..4 {
                assert!(taken[peer] >= taken[peer - 1] / 2, "{limit}: {taken:?}");
            }
            assert!(taken[3] > 0, "{limit}: {taken:?}");
        }
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
                prop_assert!(is_whole || uploads.take(id(1, 1), value_bytes).is_err());
                arrived[number] = true;
                let staged = uploads.stage(id(1, 1), shape, &block(shape, number), now);
                prop_assert_eq!(staged, Ok(expected(shape.blocks(), &arrived)));
            }
            let taken = uploads.take(id(1, 1), value_bytes);
            prop_assert_eq!(taken, Ok(value(shape).into()));
            prop_assert_eq!(uploads.bytes_reserved(), 0);
        }

        #[test]
        fn the_limits_hold_and_the_sums_are_right_whatever_happens(
            steps in prop::collection::vec((0..6u8, 0..4u16, 0..6u64, 1..60u32, 0..4_000u64), 1..200)
        ) {
            let mut uploads = Uploads::new(200, 50);
            let mut now = Instant::now();
            for (step, peer, number, value_bytes, wait_ms) in steps {
                let shape = shape(value_bytes, 20);
                match step {
                    0 => {
                        now += Duration::from_millis(wait_ms);
                        uploads.expire(now);
                    }
                    1 => uploads.free(id(peer, number)),
                    2 => drop(uploads.take(id(peer, number), value_bytes)),
                    _ => {
                        let number_of_block = wait_ms as usize % shape.blocks();
                        let block = block(shape, number_of_block);
                        let _ = uploads.stage(id(peer, number), shape, &block, now);
                    }
                }
                prop_assert!(uploads.bytes_reserved() <= 200);
                let mut held = HashMap::<Peer, Held>::new();
                for (id, upload) in &uploads.open {
                    let sum = held.entry(id.peer).or_default();
                    *sum = sum.and(Held::of(upload.shape));
                }
                let all = held.values().fold(Held::default(), |sum, held| sum.and(*held));
                prop_assert_eq!(all, uploads.all);
                prop_assert_eq!(held, uploads.held.clone());
            }
            uploads.expire(now + UPLOAD_IDLE_MAX);
            prop_assert_eq!((uploads.all, uploads.open.len()), (Held::default(), 0));
        }
    }
}
