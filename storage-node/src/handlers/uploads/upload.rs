//! One value that arrives in blocks.

use std::time::{Duration, Instant};

use bytes::Bytes;
#[cfg(doc)]
use dkvs_common::model::ReplicaResponse;

/// An upload without a new block for so long is dropped; and no upload is slow before.
pub(in crate::handlers) const UPLOAD_IDLE_MAX: Duration = Duration::from_secs(10);

/// An upload is dropped when it has got fewer bytes than so many for every second after the first
/// [`UPLOAD_IDLE_MAX`]. The slowest one of 1 MiB takes 18 s; a request waits for no longer than 30.
pub(in crate::handlers) const UPLOAD_BYTES_PER_SECOND_MIN: usize = 128 << 10;

/// The longest bitmap of a [`Progress`], in bytes.
pub(crate) const BITMAP_BYTES_MAX: usize = 32;

/// How a value is cut into blocks: all of one length, the last as long as the rest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::handlers) struct Shape {
    /// The value's length.
    pub(in crate::handlers) value_bytes: u32,
    /// The length of every block but the last.
    pub(in crate::handlers) block_bytes: u16,
}

/// A block of a value.
#[derive(Debug, Clone)]
pub(in crate::handlers) struct Block {
    /// Where in the value it lies.
    pub(in crate::handlers) offset: u32,
    /// The bytes.
    pub(in crate::handlers) bytes: Bytes,
}

/// What has arrived of an upload, as in [`ReplicaResponse::Staged`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::handlers) struct Progress {
    /// Every block before this one has arrived.
    pub(in crate::handlers) base: u32,
    /// Bit i of byte j, counted from the lowest: block `base` + 8 j + i has.
    pub(in crate::handlers) bitmap: Vec<u8>,
}

/// What has arrived of a value.
pub(super) struct Upload {
    pub(super) shape: Shape,
    pub(super) value: Vec<u8>,
    /// Bit i of byte j is set if block 8 j + i has arrived.
    arrived: Vec<u8>,
    /// The first block that has not.
    base: usize,
    pub(super) missing: usize,
    begun: Instant,
    received_bytes: usize,
    pub(super) last_block: Instant,
}

impl Shape {
    pub(super) fn blocks(self) -> usize {
        (self.value_bytes as usize).div_ceil(self.block_bytes.into())
    }

    /// The memory that an upload of this shape takes: the value, and a bit for each block.
    pub(super) fn bytes(self) -> usize {
        self.value_bytes as usize + self.blocks().div_ceil(8)
    }

    /// Which block this is, if there is one just there and just as long.
    pub(super) fn number(self, block: &Block) -> Option<usize> {
        let (offset, block_bytes) = (block.offset as usize, usize::from(self.block_bytes));
        let left = (self.value_bytes as usize).checked_sub(offset)?;
        let is_one = block_bytes > 0
            && left > 0
            && offset.is_multiple_of(block_bytes)
            && block.bytes.len() == left.min(block_bytes);
        is_one.then(|| offset / block_bytes)
    }
}

impl Upload {
    pub(super) fn new(shape: Shape, now: Instant) -> Self {
        let blocks = shape.blocks();
        Self {
            shape,
            value: vec![0; shape.value_bytes as usize],
            arrived: vec![0; blocks.div_ceil(8)],
            base: 0,
            missing: blocks,
            begun: now,
            received_bytes: 0,
            last_block: now,
        }
    }

    /// When it is over unless another block comes: it is idle then, or has been too slow.
    pub(super) fn expiry(&self) -> Instant {
        let earned_ms = self.received_bytes * 1_000 / UPLOAD_BYTES_PER_SECOND_MIN;
        let slow = self.begun + UPLOAD_IDLE_MAX + Duration::from_millis(earned_ms as u64);
        slow.min(self.last_block + UPLOAD_IDLE_MAX)
    }

    fn has(&self, number: usize) -> bool {
        let byte = self.arrived.get(number / 8);
        byte.is_some_and(|byte| byte & 1 << (number % 8) != 0)
    }

    /// Puts a block of this shape in its place, unless it is there.
    pub(super) fn fill(&mut self, number: usize, block: &Block, now: Instant) {
        if self.has(number) {
            return;
        }
        let start = block.offset as usize;
        self.value[start..start + block.bytes.len()].copy_from_slice(&block.bytes);
        self.arrived[number / 8] |= 1 << (number % 8);
        self.missing -= 1;
        self.received_bytes += block.bytes.len();
        while self.has(self.base) {
            self.base += 1;
        }
        // Workers that share the table may come with times in another order.
        self.last_block = self.last_block.max(now);
    }

    pub(super) fn progress(&self) -> Progress {
        let mut bitmap = vec![0; BITMAP_BYTES_MAX];
        for number in (0..8 * BITMAP_BYTES_MAX).filter(|number| self.has(self.base + number)) {
            bitmap[number / 8] |= 1 << (number % 8);
        }
        let length = bitmap.iter().rposition(|byte| *byte != 0);
        bitmap.truncate(length.map_or(0, |last| last + 1));
        Progress {
            // There are no more blocks than bytes, of which there are fewer than 2^32.
            base: self.base as u32,
            bitmap,
        }
    }
}
