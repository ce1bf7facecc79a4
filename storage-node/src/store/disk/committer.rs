//! Takes batches to the disk.

use std::mem;
use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError};
use std::time::Instant;

use dkvs_common::mutants::{self, Mutant};

use super::batch::{Batch, BatchContext};
use super::log::{CommitError, Liveness, Log, LogError, Snapshot};
use super::options::Media;
use super::row::{ROW_HEAD_BYTES, Row};
use super::store::{DiskStore, load};
use crate::store::packed::PackedRecord;
use crate::store::table::RecordTable;

/// The log is not compacted while it takes less than this, in bytes, unless the disk is full.
const COMPACT_BYTES_MIN: u64 = 1 << 20;

/// What the engine's file may take for itself, beyond half as much as its rows.
const ENGINE_BYTES: u64 = 1 << 20;

/// Takes what gathers to the disk, one batch after the other.
pub struct Committer {
    store: Arc<DiskStore>,
    /// None after the engine failed: because the disk is full, until it is opened again, or for
    /// good.
    log: Option<Log>,
    media: Media,
    /// Called with the reason if the disk fails for good.
    on_failure: Option<OnFailure>,
}

type OnFailure = Box<dyn FnOnce(&str) + Send>;

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

    /// Calls `callback` with the reason if the disk fails for good.
    pub fn on_failure(&mut self, callback: impl FnOnce(&str) + Send + 'static) {
        self.on_failure = Some(Box::new(callback));
    }

    /// The store that it works for.
    pub fn store(&self) -> &Arc<DiskStore> {
        &self.store
    }

    /// Takes what has gathered, if anything has, and resolves it. No completion is called yet.
    pub fn begin(&mut self) -> Option<Batch> {
        let items = self.store.queue().take_batch()?;
        let item_bytes = items.iter().map(|item| item.bytes).sum();
        let mut batch = Batch::of(items.len(), item_bytes);
        if self.log.is_none() && !self.store.status.is_read_only.load(Ordering::Relaxed) {
            self.reopen();
        }
        let context = BatchContext {
            store: &self.store,
            room: self.room(),
            is_log_open: self.log.is_some(),
        };
        for item in items {
            batch.add(item.work, context);
        }
        if mutants::is_on(Mutant::AcknowledgedBeforeSynced) {
            for (completion, result) in mem::take(&mut batch.puts) {
                completion(result);
            }
        }
        if mutants::is_on(Mutant::UnsyncedServed) {
            for record in &batch.records {
                self.store.table().insert(record.duplicate());
            }
        }
        Some(batch)
    }

    /// Makes a batch durable, then shows it to reads, then calls the completions.
    ///
    /// If the disk fails, nothing of it is shown and all of it is completed as failed: whether it
    /// is stored is unknown. The store takes nothing more then, unless the disk was merely full.
    pub fn finish(&mut self, mut batch: Batch) {
        let committed = match batch.is_empty() {
            true => Ok(()),
            false => self.commit(&batch),
        };
        if let Err(error) = &committed {
            self.fail(error);
        } else {
            for record in batch.records.drain(..) {
                self.store.table().insert(record);
            }
            for (key, tag) in &batch.removed {
                self.store.table().remove(key, *tag);
            }
        }
        self.store.queue().end_batch(batch.items, batch.item_bytes);
        batch.complete(committed.is_ok());
    }

    fn commit(&mut self, batch: &Batch) -> Result<(), CommitError> {
        let Some(log) = &mut self.log else {
            return Ok(());
        };
        let generation = log.manifest().generation;
        let row = |record: &PackedRecord| Row::encode(generation_of(generation, record), record);
        let rows: Vec<Vec<u8>> = batch.records.iter().map(row).collect();
        let table = self.store.table();
        let begun = Instant::now();
        let limit = log_bytes_max(&self.store, batch.row_bytes);
        if !batch.removed.is_empty() {
            log.remove(&|key| batch.removes(key), &mut |old| {
                liveness(table, generation, &old)
            })?;
        }
        if !rows.is_empty() {
            log.commit(
                &rows,
                limit,
                &mut |old| match batch.replaces(old.packed.key()) {
                    true => Liveness::Dead,
                    false => liveness(table, generation, &old),
                },
            )?;
        }
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
        if let Some(callback) = self.on_failure.take() {
            callback(&error.to_string());
        }
    }

    /// Opens the log again after the disk was full. What it holds beyond what was confirmed is
    /// shown from now on: its writers were answered that nobody knows.
    fn reopen(&mut self) {
        let reopened = || -> Result<Log, LogError> {
            let mut log = Log::open(&self.media.records, &self.media.high_water)?;
            let manifest = log.manifest();
            log.load(&mut |row| load(self.store.table(), manifest, row))?;
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

    /// Compacts a step further, when nothing has gathered for a while. Returns whether there is
    /// more to compact.
    pub fn idle(&mut self) -> bool {
        let limit = log_bytes_max(&self.store, 0);
        let Some(log) = &mut self.log else {
            return false;
        };
        let generation = log.manifest().generation;
        let table = self.store.table();
        let compacted = log.compact(limit, &mut |old| liveness(table, generation, &old));
        match compacted {
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
            // If the disk does not say, it will refuse.
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

    /// Calls the backups that are wanted with the log as it is now.
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
        if log.manifest().unsynced_run != 0 {
            self.media.records.sync_from_now_on();
            log.set_manifest(|manifest| manifest.unsynced_run = 0)?;
        }
        Ok(())
    }
}

/// In which generation a record was attested.
fn generation_of(generation: u32, record: &PackedRecord) -> u32 {
    match record.is_quarantined() {
        true => generation.saturating_sub(1),
        false => generation,
    }
}

/// Whether an old row is what the store holds.
fn liveness(table: &RecordTable, generation: u32, old: &Row) -> Liveness {
    let live = |held: &PackedRecord| {
        let row = || Row::encode(generation_of(generation, held), held);
        (held.tag() == old.packed.tag()).then(row)
    };
    match table.read_bytes(old.packed.key(), live).flatten() {
        Some(row) => Liveness::Live(row),
        None => Liveness::Dead,
    }
}

/// What the log may take before it is compacted: twice what its live rows do, or hardly more where
/// the disk is full.
fn log_bytes_max(store: &DiskStore, appended: u64) -> u64 {
    let table = store.table();
    let rows = table.packed_bytes() + table.len() * ROW_HEAD_BYTES;
    let live_bytes = rows as u64 + appended;
    match store.status.is_disk_full.load(Ordering::Relaxed) {
        true => live_bytes + live_bytes / 8,
        false => COMPACT_BYTES_MIN.max(2 * live_bytes),
    }
}
