//! Batches on their way to the disk.

use std::collections::HashMap;
use std::mem;
use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError};
use std::time::Instant;

use dkvs_common::mutants::{self, Mutant};
use dkvs_common::record::Record;
use dkvs_common::tag::Tag;

use super::log::{CommitError, Fate, Log, Snapshot};
use super::row::Row;
use super::{DiskStore, Item, Media, What, load};
use crate::store::packed::Packed;
use crate::store::{Completion, ENTRY_OVERHEAD_BYTES, PutOutcome, PutResult, StoreError, settled};

/// Most bytes of records in a batch, unless it is a single one.
const BATCH_BYTES_MAX: usize = 8 << 20;

/// What a commit may take of the disk beyond twice its records.
const COMMIT_BYTES: u64 = 512 << 10;

/// What values leave free, so that keys can be deleted on a full disk.
const RESERVE_BYTES: u64 = 1 << 20;

/// The log is not cleaned while it takes less than this, in bytes, unless the disk is full.
const CLEAN_BYTES_MIN: u64 = 1 << 20;

/// What the engine's file may take for itself, beyond half as much as its rows.
const ENGINE_BYTES: u64 = 1 << 20;

/// Takes what gathers to the disk, one batch after the other.
pub struct Committer {
    store: Arc<DiskStore>,
    /// None while the disk is full, if the engine failed over that, and after it failed for good.
    log: Option<Log>,
    media: Media,
    /// Who is told if the disk fails for good, and with what.
    on_failure: Option<OnFailure>,
}

type OnFailure = Box<dyn FnOnce(&str) + Send>;

/// What is made durable together.
#[derive(Default)]
pub struct Batch {
    /// The newest record of each key, in the order in which their keys came first.
    records: Vec<Packed>,
    /// Which of them is a key's.
    by_key: HashMap<Box<[u8]>, usize>,
    /// What they take in memory, beyond what they replace.
    growth: usize,
    /// What they take in the log.
    row_bytes: u64,
    items: usize,
    item_bytes: usize,
    told: Vec<(Completion, PutResult)>,
}

impl Committer {
    pub(super) fn new(store: Arc<DiskStore>, log: Log, media: Media) -> Self {
        let mut committer = Self {
            store,
            log: Some(log),
            media,
            on_failure: None,
        };
        committer.note_sizes();
        committer
    }

    /// Calls `told` with the reason if the disk fails for good.
    pub fn on_failure(&mut self, told: impl FnOnce(&str) + Send + 'static) {
        self.on_failure = Some(Box::new(told));
    }

    /// The store that it works for.
    pub fn store(&self) -> &Arc<DiskStore> {
        &self.store
    }

    /// Takes what has gathered, if anything has, and settles what comes of it. Nothing is told
    /// yet, but what was refused.
    pub fn begin(&mut self) -> Option<Batch> {
        let items = self.take_items()?;
        let mut batch = Batch {
            items: items.len(),
            item_bytes: items.iter().map(|item| item.bytes).sum(),
            ..Batch::default()
        };
        if self.log.is_none() && !self.store.status.is_read_only.load(Ordering::Relaxed) {
            self.reopen();
        }
        let room = self.room();
        for item in items {
            let told = self.settle(&mut batch, item.what, room);
            batch.told.push((item.later, told));
        }
        if mutants::is_on(Mutant::AcknowledgedBeforeSynced) {
            for (later, told) in mem::take(&mut batch.told) {
                later(told);
            }
        }
        if mutants::is_on(Mutant::UnsyncedServed) {
            for record in &batch.records {
                self.store.records.insert(record.duplicate());
            }
        }
        Some(batch)
    }

    fn take_items(&self) -> Option<Vec<Item>> {
        let mut queue = self.store.queue();
        let mut bytes = 0;
        let fits = |item: &&Item| {
            bytes += item.bytes;
            bytes <= BATCH_BYTES_MAX
        };
        let count = queue.items.iter().take_while(fits).count();
        let count = count.max(1).min(queue.items.len());
        let items: Vec<Item> = queue.items.drain(..count).collect();
        queue.under_way += items.len();
        (!items.is_empty()).then_some(items)
    }

    fn settle(&self, batch: &mut Batch, what: What, room: u64) -> PutResult {
        let packed = match what {
            What::Apply(packed) => packed,
            What::ApplyNext { key, content, mint } => {
                let held = self.held(batch, key.as_bytes(), Packed::tag);
                match mint(held.unwrap_or(Tag::ZERO)) {
                    Ok(tag) => Packed::new(&key, &Record::new(&key, tag, content)),
                    Err(_) => return Err(StoreError::NoTag),
                }
            }
            What::Attest(key) => {
                let sound = |held: &Packed| held.is_sound().then(|| held.duplicate());
                let Some(mut packed) = self.held(batch, key.as_bytes(), sound).flatten() else {
                    return Err(StoreError::Failed);
                };
                packed.set_quarantined(false);
                return self.take(batch, packed, room);
            }
        };
        let (tag, checksum) = (packed.tag(), packed.checksum());
        let settled = |held: &Packed| (settled(held, tag, checksum), held.is_quarantined());
        let held = self.held(batch, packed.key(), settled);
        let is_quarantined = match held {
            Some((Some(put), _)) => return Ok(put),
            Some((None, is_quarantined)) => is_quarantined,
            None => !self.store.status.is_complete.load(Ordering::Relaxed),
        };
        let mut packed = packed;
        packed.set_quarantined(is_quarantined);
        self.take(batch, packed, room)
    }

    /// What `show` makes of the key's record as it will be after the batch.
    fn held<R>(&self, batch: &Batch, key: &[u8], show: impl FnOnce(&Packed) -> R) -> Option<R> {
        match batch.by_key.get(key) {
            Some(place) => Some(show(&batch.records[*place])),
            None => self.store.records.read_bytes(key, show),
        }
    }

    /// Takes a record into the batch, if there is room for it on the disk and in memory.
    fn take(&self, batch: &mut Batch, packed: Packed, room: u64) -> PutResult {
        let row_bytes = batch.row_bytes + Row::bytes_of(&packed);
        let reserve = match packed.is_tombstone() {
            true => 0,
            false => RESERVE_BYTES,
        };
        let is_full = self.log.is_none() || room < 2 * row_bytes + COMMIT_BYTES + reserve;
        if is_full || reserve > 0 {
            let status = &self.store.status;
            status.is_disk_full.store(is_full, Ordering::Relaxed);
        }
        if is_full {
            return Err(StoreError::DiskFull);
        }
        let held_bytes = self.held(batch, packed.key(), Packed::bytes);
        let entry_bytes = match held_bytes {
            Some(_) => packed.bytes(),
            None => packed.bytes() + ENTRY_OVERHEAD_BYTES,
        };
        let growth = entry_bytes.saturating_sub(held_bytes.unwrap_or(0));
        if growth > 0 {
            self.store.records.check_room(batch.growth + growth)?;
        }
        batch.growth += growth;
        batch.row_bytes = row_bytes;
        match batch.by_key.get(packed.key()) {
            Some(place) => batch.records[*place] = packed,
            None => {
                batch
                    .by_key
                    .insert(packed.key().into(), batch.records.len());
                batch.records.push(packed);
            }
        }
        Ok(PutOutcome::Stored)
    }

    /// Makes a batch durable, then shows it to reads, then tells.
    ///
    /// If the disk fails, nothing of it is shown and all of it is told as failed, which is to say
    /// that nobody knows. The store takes nothing more then, unless the disk was merely full.
    pub fn finish(&mut self, batch: Batch) {
        let committed = match batch.records.is_empty() {
            true => Ok(()),
            false => self.commit(&batch),
        };
        if let Err(error) = &committed {
            self.fail(error);
        } else {
            for record in batch.records {
                self.store.records.insert(record);
            }
        }
        {
            let mut queue = self.store.queue();
            queue.under_way -= batch.items;
            queue.bytes -= batch.item_bytes;
        }
        for (later, told) in batch.told {
            later(match committed {
                Ok(()) => told,
                Err(_) => Err(told.err().unwrap_or(StoreError::Failed)),
            });
        }
    }

    fn commit(&mut self, batch: &Batch) -> Result<(), CommitError> {
        let Some(log) = &mut self.log else {
            return Ok(());
        };
        let generation = log.facts().generation;
        let row = |record: &Packed| Row::encode(generation_of(generation, record), record);
        let rows: Vec<Vec<u8>> = batch.records.iter().map(row).collect();
        let records = &self.store.records;
        let begun = Instant::now();
        let limit = log_bytes_max(&self.store, batch.row_bytes);
        log.commit(
            &rows,
            limit,
            &mut |old| match batch.by_key.get(old.packed.key()) {
                Some(_) => Fate::Dead,
                None => fate(records, generation, &old),
            },
        )?;
        let status = &self.store.status;
        let micros = u64::try_from(begun.elapsed().as_micros()).unwrap_or(u64::MAX);
        status.commits.fetch_add(1, Ordering::Relaxed);
        status.commit_micros.fetch_add(micros, Ordering::Relaxed);
        status
            .written_bytes
            .fetch_add(batch.row_bytes, Ordering::Relaxed);
        let mut last = status
            .last_commit
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        *last = Some(Instant::now());
        drop(last);
        status.log_bytes.store(log.bytes(), Ordering::Relaxed);
        Ok(())
    }

    fn fail(&mut self, error: &CommitError) {
        self.log = None;
        if error.is_full() {
            tracing::warn!(%error, "the disk is full; nothing is stored until there is room");
            self.store
                .status
                .is_disk_full
                .store(true, Ordering::Relaxed);
            return;
        }
        tracing::error!(
            %error,
            "the disk failed: nothing more is stored here, what is stored is still served; replace \
             the disk, and start the server again with --declare incomplete"
        );
        self.store
            .status
            .is_read_only
            .store(true, Ordering::Relaxed);
        if let Some(told) = self.on_failure.take() {
            told(&error.to_string());
        }
    }

    /// Opens the log again after the disk was full. What it holds beyond what was told is shown
    /// from now on: its writers were told that nobody knows.
    fn reopen(&mut self) {
        let reopened = || -> Result<Log, super::OpenError> {
            let mut log = Log::open(&self.media.records, &self.media.witness)?;
            let facts = log.facts();
            log.load(&mut |row| load(&self.store.records, facts, row))?;
            Ok(log)
        };
        match reopened() {
            Ok(log) => {
                tracing::info!("the log is open again");
                self.log = Some(log);
                self.note_sizes();
            }
            Err(error) => tracing::warn!(%error, "the log cannot be opened again yet"),
        }
    }

    /// What is to be done when nothing has gathered for a while. Whether there is more of it.
    pub fn idle(&mut self) -> bool {
        let limit = log_bytes_max(&self.store, 0);
        let Some(log) = &mut self.log else {
            return false;
        };
        let generation = log.facts().generation;
        let records = &self.store.records;
        let cleaned = log.clean(limit, &mut |old| fate(records, generation, &old));
        match cleaned {
            Ok(is_more) => {
                self.note_sizes();
                is_more
            }
            Err(error) => {
                self.fail(&error);
                false
            }
        }
    }

    /// How much the disk has room for: what it has left, and what the engine's file has.
    fn room(&self) -> u64 {
        let media = &self.media.records;
        let (Ok(available), Ok(allocated)) = (media.bytes_available(), media.bytes_allocated())
        else {
            // If the disk does not tell, it will refuse.
            return u64::MAX;
        };
        let status = &self.store.status;
        let rows = status.log_bytes.load(Ordering::Relaxed);
        let inside = allocated.saturating_sub(rows + rows / 2 + ENGINE_BYTES);
        status.disk_bytes.store(allocated, Ordering::Relaxed);
        status
            .disk_available_bytes
            .store(available, Ordering::Relaxed);
        available.saturating_add(inside)
    }

    fn note_sizes(&mut self) {
        if let Some(log) = &self.log {
            let status = &self.store.status;
            status.log_bytes.store(log.bytes(), Ordering::Relaxed);
        }
        self.room();
    }

    /// Gives the log as it is now to those who want to copy it while it goes on.
    pub fn give_backups(&self) {
        let wanted = mem::take(&mut self.store.queue().backups);
        for backup in wanted {
            backup(self.snapshot());
        }
    }

    fn snapshot(&self) -> Result<Snapshot, CommitError> {
        match &self.log {
            Some(log) => log.snapshot(),
            None => Err(CommitError::closed()),
        }
    }

    /// Ends in good order: what gathered is stored, and if it was not synced so far, it is now.
    pub fn close(mut self) -> Result<(), CommitError> {
        self.store.close();
        while let Some(batch) = self.begin() {
            self.finish(batch);
        }
        let Some(mut log) = self.log.take() else {
            return Err(CommitError::closed());
        };
        if log.facts().unsynced_run != 0 {
            self.media.records.sync_from_now_on();
            log.state(|facts| facts.unsynced_run = 0)?;
        }
        Ok(())
    }
}

/// In which generation a record was vouched for.
fn generation_of(generation: u32, record: &Packed) -> u32 {
    match record.is_quarantined() {
        true => generation.saturating_sub(1),
        false => generation,
    }
}

/// Whether an old row is what the store holds.
fn fate(records: &crate::store::MemoryStore, generation: u32, old: &Row) -> Fate {
    let alive = |held: &Packed| {
        let row = || Row::encode(generation_of(generation, held), held);
        (held.tag() == old.packed.tag()).then(row)
    };
    match records.read_bytes(old.packed.key(), alive).flatten() {
        Some(row) => Fate::Alive(row),
        None => Fate::Dead,
    }
}

/// What the log may take before it is cleaned: twice what its live rows do, or hardly more where
/// the disk is full.
fn log_bytes_max(store: &DiskStore, appended: u64) -> u64 {
    let records = &store.records;
    let overhead = records.len() * (ENTRY_OVERHEAD_BYTES - super::row::ROW_HEAD_BYTES);
    let live_bytes = records.bytes().saturating_sub(overhead) as u64 + appended;
    match store.status.is_disk_full.load(Ordering::Relaxed) {
        true => live_bytes + live_bytes / 8,
        false => CLEAN_BYTES_MIN.max(2 * live_bytes),
    }
}
