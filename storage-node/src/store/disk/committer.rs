//! Takes batches to the log, and does what the log has to have done.

use std::io;
use std::ops::ControlFlow;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Instant;

use dkvs_common::mutants::{self, Mutant};
use dkvs_common::ring::Position;
use dkvs_common::tag::Tag;
use dkvs_log::{AppendError, HintDone, HintJob, Location, Log, Room};
use thiserror::Error;

use super::accepting::accepted_of;
use super::batch::{Batch, Change};
use super::entry::IndexEntry;
use super::format::{Kind, Manifest};
use super::index::{LogIndex, SlotLocations};
use super::queue::NewRecord;
use super::store::DiskStore;
use super::writing;
use crate::store::contract::StoreError;
use crate::store::head::TableEntry as _;
use crate::store::ranges::IntervalSet;

/// How many bytes compaction copies before it is looked whether anything has gathered.
const COMPACT_STEP_BYTES: u64 = 512 << 10;

/// So much compaction may be due while batches come first.
const COMPACTION_DUE_MAX: u64 = 16 << 20;

/// On a full disk a record that makes room may wait for so many steps.
const STEPS_FOR_ROOM_MAX: usize = 128;

/// After so many bytes appended, the next segment and the reserve are looked after.
const UPKEEP_BYTES: u64 = 4 << 20;

/// Removals may take one part in so many of the log.
const REMOVALS_PART: u64 = 16;

/// How many records are looked at at a time for whether they are still quarantined.
const QUARANTINE_STEP_RECORDS: usize = 1_024;

/// Most parts of the ring that are noted as attested.
const ATTESTED_PARTS_MAX: usize = 4_096;

/// Takes what gathers to the log, one batch after the other.
pub struct Committer {
    store: Arc<DiskStore>,
    log: Log,
    manifest: Manifest,
    /// The parts of the ring for which the store answers after a restart, though it is not complete.
    attested: IntervalSet,
    /// How far it was seen to that their records have no flag of quarantine any more; none if they have not.
    unquarantined_to: Option<Position>,
    /// Where the manifest lies.
    manifest_location: Option<Location>,
    /// Where what is accepted lies, and which version it is to follow.
    slots: SlotLocations,
    /// What removals take in the log, in bytes.
    removal_bytes: u64,
    /// How many bytes compaction owes.
    compaction_due: u64,
    /// Bytes appended since the last upkeep.
    appended: u64,
    /// Whether a file could not be opened, the last time.
    is_out_of_files: bool,
    /// Of the log when it was noted last what it takes of the disk.
    noted_segments: (u32, usize),
    /// Called with the reason if the disk fails for good.
    on_failure: Option<OnFailure>,
}

type OnFailure = Box<dyn FnOnce(&str) + Send>;

/// The log is written no more.
#[derive(Debug, Error)]
#[error("{0}")]
pub struct CommitError(String);

impl CommitError {
    /// The thread that was to write is gone.
    pub(super) fn panicked() -> Self {
        Self("the storage thread panicked".into())
    }
}

impl From<AppendError> for CommitError {
    fn from(error: AppendError) -> Self {
        Self(error.to_string())
    }
}

impl From<io::Error> for CommitError {
    fn from(error: io::Error) -> Self {
        Self(error.to_string())
    }
}

/// Which changes of a batch the disk has.
enum Stored {
    All,
    None(StoreError),
    Each(Vec<Result<(), StoreError>>),
}

impl Committer {
    pub(super) fn new(
        store: Arc<DiskStore>,
        log: Log,
        (manifest, attested): (Manifest, IntervalSet),
        manifest_location: Option<Location>,
        slots: SlotLocations,
        removal_bytes: u64,
    ) -> Self {
        let mut committer = Self {
            store,
            log,
            manifest,
            attested,
            unquarantined_to: None,
            manifest_location,
            slots,
            removal_bytes,
            compaction_due: 0,
            appended: 0,
            is_out_of_files: false,
            noted_segments: (0, 0),
            on_failure: None,
        };
        committer.note_space();
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
        for item in items {
            batch.add(item.work, &self.store);
        }
        if mutants::is_on(Mutant::AcknowledgedBeforeSynced) {
            batch.confirm_puts();
        }
        if mutants::is_on(Mutant::UnsyncedServed) {
            self.show_early(&batch);
        }
        Some(batch)
    }

    /// Makes a batch durable, then shows it to reads, then calls the completions.
    ///
    /// If the disk fails, nothing of it is shown and all of it is completed as failed: whether it
    /// is stored is unknown. The store takes nothing more then. If the disk is merely full, what makes
    /// room is stored, and the rest is refused.
    pub fn finish(&mut self, batch: Batch) {
        let begun = Instant::now();
        let stored = match batch.is_empty() {
            true => Stored::All,
            false => self.commit(&batch),
        };
        if !batch.is_empty() {
            self.store.status.committed(begun.elapsed());
            self.note_records();
        }
        if let Some(lineage) = batch.sets_back {
            self.set_back(lineage);
        }
        if batch.remembers_attested {
            self.remember_attested();
        }
        self.store.queue().end_batch(batch.items, batch.item_bytes);
        batch.complete(|change| match &stored {
            Stored::All => Ok(()),
            Stored::None(error) => Err(*error),
            Stored::Each(each) => each.get(change).copied().unwrap_or(Ok(())),
        });
        if self.appended >= UPKEEP_BYTES {
            self.maintain();
        }
    }

    fn commit(&mut self, batch: &Batch) -> Stored {
        if self.log.is_failed() {
            return Stored::None(StoreError::Failed);
        }
        let newest: Vec<&Change> = batch.newest().collect();
        let room = match newest.iter().all(|change| change.makes_room) {
            true => Room::Reserve,
            false => Room::Ordinary,
        };
        match self.append(&newest, room) {
            Ok(()) => Stored::All,
            Err(AppendError::Full) => Stored::Each(self.commit_each(batch)),
            Err(error) => Stored::None(self.refuse(&error)),
        }
    }

    /// One change after the other, since there is no room for all of them.
    fn commit_each(&mut self, batch: &Batch) -> Vec<Result<(), StoreError>> {
        let mut each: Vec<Result<(), StoreError>> = Vec::with_capacity(batch.changes.len());
        for change in &batch.changes {
            let key = &change.record.key;
            let held = self.store.table().read_bytes(key, IndexEntry::tag);
            let relied_on = change.relies_on.map_or(Ok(()), |number| each[number]);
            let stored = match change.still_applies(held) {
                true => relied_on.and_then(|()| self.commit_one(change)),
                false => Err(StoreError::DiskFull),
            };
            each.push(stored);
        }
        each
    }

    fn commit_one(&mut self, change: &Change) -> Result<(), StoreError> {
        let room = match change.makes_room {
            true => Room::Reserve,
            false => Room::Ordinary,
        };
        for _ in 0..STEPS_FOR_ROOM_MAX {
            match self.append(&[change], room) {
                Ok(()) => return Ok(()),
                Err(AppendError::Full) => {}
                Err(error) => return Err(self.refuse(&error)),
            }
            if !change.makes_room || !self.compact_step(COMPACT_STEP_BYTES) {
                break;
            }
        }
        if !change.makes_room && !self.store.status.is_disk_full.swap(true, Ordering::Relaxed) {
            let available = self.log.space().available;
            tracing::warn!(
                available_bytes = available,
                "the disk is full: values are refused until there is room; keys can be deleted"
            );
        }
        Err(StoreError::DiskFull)
    }

    fn append(&mut self, changes: &[&Change], room: Room) -> Result<(), AppendError> {
        let mut appended = Vec::with_capacity(changes.len());
        let records = changes.iter().map(|change| &change.record);
        let bytes = writing::append(&mut self.log, records, room, &mut appended)?;
        for (change, at) in changes.iter().zip(&appended) {
            self.show(&change.record, at.location);
        }
        self.appended += bytes;
        self.store
            .position
            .note_synced(self.log.next_sequence() - 1);
        self.compaction_due += self.log.compaction_due(bytes);
        let status = &self.store.status;
        status.written_bytes.fetch_add(bytes, Ordering::Relaxed);
        if room == Room::Ordinary && status.is_disk_full.swap(false, Ordering::Relaxed) {
            tracing::info!("the disk has room again");
        }
        if std::mem::take(&mut self.is_out_of_files) {
            tracing::info!("files can be opened again, and puts are taken");
        }
        Ok(())
    }

    /// Shows a record to reads, which is synced.
    fn show(&mut self, record: &NewRecord, location: Location) {
        let store = &self.store;
        let old = match record.head.kind {
            Kind::Slot => return self.show_slot(record, location),
            Kind::Removal => {
                self.removal_bytes += u64::from(location.bytes);
                let is_it = |held: &IndexEntry| held.tag() == record.head.tag;
                store.table().remove_if(&record.key, is_it)
            }
            _ => {
                let entry = IndexEntry::new(&record.key, &record.head, location);
                store.status.quarantine(i64::from(entry.is_quarantined()));
                if record.head.kind == Kind::Value {
                    store.values.keep(location, &record.log_value);
                }
                store.table().insert(entry)
            }
        };
        if let Some(old) = old {
            store.status.quarantine(-i64::from(old.is_quarantined()));
            store.status.mend(old.is_damaged());
            store.values.cache.forget(old.location());
            self.log.release(old.location());
        }
        let held = || store.table().read_bytes(&record.key, IndexEntry::tag);
        store.slots.note_change(&record.key, held);
        if let Some((base, _)) = self.slots.get(&record.key)
            && *base != held().unwrap_or(Tag::ZERO)
            && let Some((_, location)) = self.slots.remove(&record.key)
        {
            self.log.release(location);
        }
    }

    /// Shows what is accepted, which is synced.
    fn show_slot(&mut self, slot: &NewRecord, location: Location) {
        let (key, base) = (&slot.key, slot.head.tag);
        if let Some(accepted) = accepted_of(&slot.log_value) {
            let accepted = Arc::new(accepted);
            self.store.slots.set_accepted(key, base, accepted);
        }
        if let Some((_, old)) = self.slots.insert(key.clone(), (base, location)) {
            self.log.release(old);
        }
    }

    /// For a mutant: shows records where they are going to lie, before they do.
    fn show_early(&self, batch: &Batch) {
        for change in batch.newest() {
            let location = Location {
                segment: u32::MAX,
                offset: change.record.head.checksum,
                bytes: change.record.record_bytes(),
            };
            let record = &change.record;
            if !matches!(record.head.kind, Kind::Removal | Kind::Slot) {
                self.store.values.keep(location, &record.log_value);
                let entry = IndexEntry::new(&record.key, &record.head, location);
                self.store.table().insert(entry);
            }
        }
    }

    /// Notes which parts of the ring are attested. What lies there is stored already.
    fn remember_attested(&mut self) {
        let attested = self.store.attested().clone();
        // While it is in very many pieces, there are more to come that join them.
        if attested == self.attested || attested.len() > ATTESTED_PARTS_MAX || self.log.is_failed()
        {
            return;
        }
        self.unquarantined_to = Some(Position([0; 20]));
        let before = std::mem::replace(&mut self.attested, attested);
        match self.write_manifest() {
            Ok(()) => {}
            Err(AppendError::Full) => {
                // It is found out once more after a restart.
                tracing::debug!("the disk has no room to note which keys are answered for");
                self.attested = before;
            }
            Err(error) => {
                self.attested = before;
                self.refuse(&error);
            }
        }
    }

    /// Notes that confirmed records are missing. What this batch has shown is not answered for, either.
    fn set_back(&mut self, lineage: u64) {
        self.store.lose_all();
        self.unquarantined_to = None;
        self.attested = IntervalSet::default();
        self.manifest.is_complete = false;
        self.manifest.floor = self.log.next_sequence() - 1;
        self.manifest.lineage = lineage;
        match self.write_manifest() {
            Ok(()) => self.store.position.note_lineage(lineage),
            // Its peers tell it again after a restart.
            Err(AppendError::Full) => {
                tracing::warn!("the disk has no room to note that records are missing");
            }
            Err(error) => drop(self.refuse(&error)),
        }
    }

    fn write_manifest(&mut self) -> Result<(), AppendError> {
        let (log, location) = (&mut self.log, &mut self.manifest_location);
        writing::write_manifest(log, location, self.manifest, &self.attested)
    }

    /// Why nothing was appended, for who asked for it.
    fn refuse(&mut self, error: &AppendError) -> StoreError {
        if !matches!(error, AppendError::OutOfFiles(_)) {
            return self.fail(error);
        }
        if !std::mem::replace(&mut self.is_out_of_files, true) {
            tracing::warn!(
                %error,
                "puts are refused until a file can be opened; raise the limit on open files"
            );
        }
        StoreError::OutOfFiles
    }

    fn fail(&mut self, error: &AppendError) -> StoreError {
        let status = &self.store.status;
        if status.is_read_only.swap(true, Ordering::Relaxed) {
            return StoreError::Failed;
        }
        tracing::error!(
            %error,
            "the disk failed: nothing more is stored here, what is stored is still served; replace \
             the disk, and start the server again with --declare incomplete"
        );
        if let Some(callback) = self.on_failure.take() {
            callback(&error.to_string());
        }
        StoreError::Failed
    }

    /// Does the compaction that is due, until something has gathered. To be called after each batch.
    pub fn compact(&mut self) {
        while self.compaction_due > 0 {
            if self.store.has_gathered() && self.compaction_due < COMPACTION_DUE_MAX {
                return;
            }
            let step = self.compaction_due.min(COMPACT_STEP_BYTES);
            self.compaction_due -= step;
            if !self.compact_step(step) {
                self.compaction_due = 0;
            }
        }
    }

    /// Does a step of what waits until nothing has gathered for a while. Returns whether there may be
    /// more to do.
    pub fn idle(&mut self) -> bool {
        if self.log.is_failed() {
            return false;
        }
        if self.compact_step(COMPACT_STEP_BYTES) || self.maintain() || self.end_quarantines() {
            return true;
        }
        let space = self.log.space();
        if self.removal_bytes > 0 && self.removal_bytes >= (space.live + space.dead) / REMOVALS_PART
        {
            self.compact_oldest();
        }
        self.note_space();
        false
    }

    /// Takes the flag of quarantine from some records that are answered for. Returns whether there may be more.
    fn end_quarantines(&mut self) -> bool {
        let Some(from) = self.unquarantined_to.take() else {
            return false;
        };
        let (store, mut looked_at, mut flagged) = (&self.store, 0, Vec::new());
        let next = &mut self.unquarantined_to;
        store.table().scan(from, None, |held: &IndexEntry| {
            if looked_at == QUARANTINE_STEP_RECORDS {
                *next = Some(Position::of_key_bytes(held.key()));
                return ControlFlow::Break(());
            }
            looked_at += 1;
            if held.is_quarantined() && !store.is_quarantined(held.key(), true) {
                flagged.push(held.key().to_vec());
            }
            ControlFlow::Continue(())
        });
        for key in flagged {
            store.flag_quarantined(&key, false);
        }
        self.unquarantined_to.is_some()
    }

    /// Has the oldest segment compacted next, if there is another one: removals can go only from there.
    pub fn compact_oldest(&mut self) {
        self.log.compact_oldest();
    }

    fn compact_step(&mut self, budget: u64) -> bool {
        let mut index = LogIndex {
            store: &self.store,
            manifest: &mut self.manifest_location,
            slots: &mut self.slots,
            removal_bytes: &mut self.removal_bytes,
        };
        match self.log.compact_step(budget, &mut index) {
            Ok(is_more) => {
                self.note_records();
                is_more
            }
            Err(error) => {
                self.fail(&error);
                false
            }
        }
    }

    fn maintain(&mut self) -> bool {
        self.appended = 0;
        self.note_space();
        match self.log.maintain() {
            Ok(is_done) => is_done,
            Err(error) => {
                self.fail(&error);
                false
            }
        }
    }

    /// The work of writing a hint, if there is any: for any thread, and then for
    /// [`Self::finish_hint`].
    pub fn hint_job(&mut self) -> Option<HintJob> {
        match self.log.is_failed() {
            true => None,
            false => self.log.hint_job(),
        }
    }

    /// Takes note of a hint that was written, or was not.
    pub fn finish_hint(&mut self, done: io::Result<HintDone>) {
        let finished = match done {
            Ok(done) => self.log.finish_hint(&done),
            // Hints save time, and nothing else.
            Err(error) => return tracing::debug!(%error, "a hint is not written"),
        };
        if let Err(error) = finished {
            self.fail(&error);
        }
    }

    /// Notes what the log takes, so that the state shows it.
    fn note_space(&mut self) {
        self.noted_segments = self.log.records().segments;
        self.store.status.note_space(&self.log.space());
    }

    /// The same after each change, and so without asking the disk, unless a segment came or went.
    fn note_records(&mut self) {
        let records = self.log.records();
        match records.segments == self.noted_segments {
            true => self.store.status.note_records(&records),
            false => self.note_space(),
        }
    }

    /// Ends in good order: what gathered is stored, and if it was not synced so far, it is now.
    pub fn close(mut self) -> Result<(), CommitError> {
        self.store.close();
        self.store.reads.close();
        while let Some(batch) = self.begin() {
            self.finish(batch);
        }
        self.log.check_open()?;
        if self.manifest.unsynced_run != 0 {
            self.log.sync_from_now_on()?;
            self.manifest.unsynced_run = 0;
            self.write_manifest()?;
        }
        // The mark may as well be there if power is lost now.
        self.log.maintain()?;
        Ok(())
    }
}
