//! What waits to be written.

use std::collections::VecDeque;

use bytes::Bytes;
use dkvs_common::kv::Key;
use dkvs_common::record::{Content, Record};
use dkvs_common::slot::{Accepted, Slot};
use dkvs_common::tag::Tag;
use dkvs_log::{Entry, Location};

use super::format::{self, HEAD_BYTES, StoredHead};
use crate::store::contract::{Completion, GivenBy, MintTag, PutResult, RemoveResult, StoreError};
use crate::store::slots::AcceptResult;

/// Most bytes of records that wait for the disk. Four of the longest values fit.
const QUEUE_BYTES_MAX: usize = 64 << 20;

/// Most records that wait for the disk.
const QUEUE_ITEMS_MAX: usize = 16_384;

/// Most bytes of records in a batch, unless it is a single one.
const BATCH_BYTES_MAX: usize = 8 << 20;

/// Changes in the order in which they are to be made.
#[derive(Default)]
pub(super) struct Queue {
    items: VecDeque<Item>,
    bytes: usize,
    /// How many items are with the committer.
    under_way: usize,
    pub(super) is_closed: bool,
}

/// A change that waits.
pub(super) struct Item {
    pub(super) bytes: usize,
    pub(super) work: Work,
}

/// What is to be done on the disk.
pub(super) enum Work {
    /// To store something.
    Put(QueuedPut, Completion<PutResult>),
    /// To forget the record of a key if it has this tag.
    Remove {
        key: Key,
        tag: Tag,
        completion: Completion<RemoveResult>,
    },
    /// To accept what is to follow a version.
    Accept(NewRecord, Completion<AcceptResult>),
    /// To note which parts of the ring are attested.
    RememberAttested,
    /// To note that confirmed records are missing.
    SetBack {
        /// The lineage of the store from then on.
        lineage: u64,
    },
}

/// What is to be stored.
pub(super) enum QueuedPut {
    /// A record.
    Record(NewRecord, GivenBy),
    /// A value under the next tag.
    Next {
        key: Key,
        content: Content,
        mint: MintTag,
    },
    /// The record that lies at a place, as it is held, if it still lies there: with its value of the log.
    Anew {
        key: Bytes,
        location: Location,
        log_value: Bytes,
    },
    /// The record that is held, attested, with its value of the log if that is known, and where it lay.
    Attested(Key, Option<(Location, Bytes)>),
}

/// A record that is to be written to the log.
#[derive(Debug, Clone)]
pub(super) struct NewRecord {
    pub(super) key: Bytes,
    pub(super) head: StoredHead,
    pub(super) log_value: Bytes,
}

impl NewRecord {
    pub(super) fn of(key: &[u8], record: &Record) -> Self {
        let (head, log_value) = format::encode(record);
        Self {
            key: Bytes::copy_from_slice(key),
            head,
            log_value: log_value.into(),
        }
    }

    /// One that says that the record of a key is removed.
    pub(super) fn of_removal(key: &[u8], tag: Tag) -> Self {
        Self {
            key: Bytes::copy_from_slice(key),
            head: StoredHead::of_removal(tag),
            log_value: Bytes::new(),
        }
    }

    /// One that says what is accepted as what follows `base`.
    pub(super) fn of_slot(key: &[u8], base: Tag, accepted: Accepted) -> Self {
        let mut log_value = Vec::new();
        Slot::promised_to(accepted.ballot)
            .accepting(accepted)
            .encode(&mut log_value);
        Self {
            key: Bytes::copy_from_slice(key),
            // Slots are far shorter than 4 GiB.
            head: StoredHead::of_slot(base, log_value.len() as u32),
            log_value: log_value.into(),
        }
    }

    /// What it takes while it waits, in bytes.
    pub(super) fn bytes(&self) -> usize {
        self.key.len() + HEAD_BYTES + self.log_value.len()
    }

    /// What it takes in the log, in bytes.
    pub(super) fn record_bytes(&self) -> u32 {
        self.entry(&[0; HEAD_BYTES]).record_bytes() as u32
    }

    /// As the log takes it.
    pub(super) fn entry<'a>(&'a self, head: &'a [u8]) -> Entry<'a> {
        Entry {
            key: &self.key,
            head,
            value: &self.log_value,
        }
    }
}

impl Queue {
    /// Whether an item of so many bytes would be taken.
    pub(super) fn check_room_for(&self, bytes: usize) -> Result<(), StoreError> {
        let is_full =
            self.waiting() >= QUEUE_ITEMS_MAX || self.bytes.saturating_add(bytes) > QUEUE_BYTES_MAX;
        match self.is_closed || is_full {
            true => Err(StoreError::Busy),
            false => Ok(()),
        }
    }

    pub(super) fn push(&mut self, item: Item) {
        self.bytes += item.bytes;
        self.items.push_back(item);
    }

    pub(super) fn is_empty(&self) -> bool {
        self.items.is_empty()
    }

    /// How many items are not on the disk yet.
    pub(super) fn waiting(&self) -> usize {
        self.items.len() + self.under_way
    }

    /// Takes the items of the next batch.
    pub(super) fn take_batch(&mut self) -> Option<Vec<Item>> {
        if self.items.is_empty() {
            return None;
        }
        let mut bytes = 0;
        let fits = |item: &&Item| {
            bytes += item.bytes;
            bytes <= BATCH_BYTES_MAX
        };
        let count = self.items.iter().take_while(fits).count().max(1);
        let items: Vec<Item> = self.items.drain(..count).collect();
        self.under_way += items.len();
        Some(items)
    }

    /// So many items of so many bytes are on the disk, or were refused.
    pub(super) fn end_batch(&mut self, items: usize, bytes: usize) {
        self.under_way -= items;
        self.bytes -= bytes;
    }
}
