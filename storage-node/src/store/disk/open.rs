//! Opening a durable store: whether what lies on the disk may be served, and as what.

use std::sync::Arc;

use bytes::Bytes;
use dkvs_common::model::Durability;
use dkvs_common::slot::Accepted;
use dkvs_common::tag::Tag;
use dkvs_log::{AppendError, History, Location, Log, Medium, ReadError, Reader, Recovery};
use thiserror::Error;

use super::accepting::accepted_of;
use super::committer::{CommitError, Committer};
use super::format::{self, Manifest};
use super::index::SlotLocations;
use super::load::{Loading, floor_of};
use super::options::{Declaration, OpenOptions};
use super::store::DiskStore;
use super::writing;
use crate::store::ranges::IntervalSet;

/// Why a store is not opened. No record that was confirmed has changed.
#[derive(Debug, Error)]
pub enum OpenError {
    /// The log is not opened.
    #[error("{0}")]
    Log(dkvs_log::OpenError),
    /// It cannot be written.
    #[error("{0}")]
    Commit(#[from] CommitError),
    /// A record is none that this version knows.
    #[error("record {number} is not understood: {reason}")]
    Unknown {
        /// The record's number in the log.
        number: u64,
        /// What is not understood.
        reason: String,
    },
    /// There is nothing in it, and nobody declared that this is right.
    #[error("there are no records, and nothing says whether there should be")]
    Empty,
    /// The machine went down under it.
    #[error(
        "the machine went down while the server confirmed records without syncing them, and the \
         last of them may be missing"
    )]
    Unsynced,
    /// Something is declared that is so already, or cannot be.
    #[error("{0}")]
    NothingToDeclare(&'static str),
}

/// A store that was opened.
pub struct Opened {
    /// The store.
    pub store: Arc<DiskStore>,
    /// What takes its changes to the disk.
    pub committer: Committer,
    /// How its log was found.
    pub recovery: Recovery,
}

impl DiskStore {
    /// Opens what lies in `medium`, or begins it where that is declared.
    ///
    /// Damage does not keep it from being opened: what may have been lost is quarantined, and the rest
    /// is served.
    ///
    /// # Errors
    ///
    /// If it cannot be read, if it is not certain that it holds what its server confirmed for another
    /// reason than damage, or if something is declared that does not fit it.
    pub fn open(
        medium: Arc<dyn Medium>,
        history: History,
        options: OpenOptions,
    ) -> Result<Opened, OpenError> {
        let mut loading = Loading::new(options.bytes_max);
        let log_options = options.of_log(history);
        let visit = &mut |record: dkvs_log::Visited<'_>| loading.visit(&record);
        let (mut log, recovery) = match Log::open(Arc::clone(&medium), log_options, visit) {
            Ok(opened) => opened,
            Err(dkvs_log::OpenError::Empty) => {
                check_nothing(options)?;
                let log = Log::create(medium, log_options);
                (log.map_err(OpenError::Log)?, Recovery::default())
            }
            Err(error) => return Err(OpenError::Log(error)),
        };
        if let Some((number, unknown)) = loading.unknown {
            let reason = unknown.to_string();
            return Err(OpenError::Unknown { number, reason });
        }
        let (slots, dead) = loading.take_slots();
        for location in dead {
            log.release(location);
        }
        let (accepted, is_slot_lost) = read_accepted(&log.reader(), &slots)?;
        let found = Found {
            manifest: loading.manifest.map(|(manifest, _)| manifest),
            is_attested: loading.is_attested,
            is_empty: loading.last == 0 && recovery.lost.is_empty(),
            last: log.next_sequence() - 1,
            // Whoever does not know what it accepted may not vote on it again.
            lost_up_to: match is_slot_lost {
                true => log.next_sequence() - 1,
                false => floor_of(&recovery.lost),
            },
        };
        let manifest = found.manifest(options)?;
        match manifest.is_complete {
            true => loading.end_quarantine(),
            false => loading.quarantine_up_to(manifest.floor),
        }
        let mut location = loading.manifest.map(|(_, location)| location);
        let keeps_attested = found.is_attested && found.is_kept(options);
        let attested = match location.filter(|_| keeps_attested) {
            Some(location) => read_attested(&log.reader(), location)?,
            None => IntervalSet::default(),
        };
        let is_due = found.manifest != Some(manifest) || found.is_attested != keeps_attested;
        if is_due {
            match writing::write_manifest(&mut log, &mut location, manifest, &attested) {
                Ok(()) => {}
                // What is lost is told again at the next start.
                Err(AppendError::Full) if found.is_due_to_loss(manifest, options) => {}
                Err(error) => return Err(CommitError::from(error).into()),
            }
        }
        let is_written = location != loading.manifest.map(|(_, location)| location);
        if !recovery.lost.is_empty() && (is_written || !is_due) {
            log.acknowledge_lost().map_err(CommitError::from)?;
        }
        loading.attest(&attested);
        let (quarantined, damaged) = loading.count();
        let removal_bytes = loading.removal_bytes;
        let table = loading.table.build();
        let is_complete = manifest.is_complete;
        let store = Self::new(table, log.reader(), options, is_complete, attested.clone());
        store
            .position
            .begin(manifest.lineage, log.next_sequence() - 1);
        store
            .status
            .opened(quarantined, damaged, recovery.lost.len());
        if damaged > 0 {
            store.find_damaged();
        }
        for (key, base, accepted) in accepted {
            store.slots.set_accepted(&key, base, Arc::new(accepted));
        }
        let store = Arc::new(store);
        let (known, removal_bytes) = ((manifest, attested), removal_bytes);
        let committer = Committer::new(
            Arc::clone(&store),
            log,
            known,
            location,
            slots,
            removal_bytes,
        );
        Ok(Opened {
            store,
            committer,
            recovery,
        })
    }
}

/// What was accepted: of which key, to follow which version, and what.
type AcceptedOf = (Bytes, Tag, Accepted);

/// What lies at these places, and whether any of it cannot be read.
fn read_accepted(
    reader: &Reader,
    slots: &SlotLocations,
) -> Result<(Vec<AcceptedOf>, bool), OpenError> {
    let (mut accepted, mut is_lost) = (Vec::new(), false);
    for (key, (base, location)) in slots {
        let read = match reader.read(*location) {
            Ok(record) => accepted_of(&Bytes::copy_from_slice(record.value())),
            Err(ReadError::OutOfFiles(error)) => return Err(CommitError::from(error).into()),
            Err(_) => None,
        };
        match read {
            Some(read) => accepted.push((key.clone(), *base, read)),
            None => is_lost = true,
        }
    }
    Ok((accepted, is_lost))
}

/// The parts of the ring that the manifest at a place says are attested. One that is damaged says nothing: the
/// server finds out again.
fn read_attested(reader: &Reader, location: Location) -> Result<IntervalSet, OpenError> {
    match reader.read(location) {
        Ok(record) => Ok(format::decode_attested(record.value()).unwrap_or_default()),
        Err(ReadError::OutOfFiles(error)) => Err(CommitError::from(error).into()),
        Err(_) => Ok(IntervalSet::default()),
    }
}

/// Refuses a store in which nothing was ever stored, unless it is declared that this is right.
pub(super) fn check_nothing(options: OpenOptions) -> Result<(), OpenError> {
    Found::NOTHING.manifest(options).map(drop)
}

/// Refuses what would be refused of a store with this manifest, if nothing of it is lost.
pub(super) fn check_manifest(manifest: Manifest, options: OpenOptions) -> Result<(), OpenError> {
    let found = Found {
        manifest: Some(manifest),
        is_empty: false,
        ..Found::NOTHING
    };
    found.manifest(options).map(drop)
}

/// What a log says of its store.
struct Found {
    manifest: Option<Manifest>,
    /// Whether that says that parts of the ring are attested.
    is_attested: bool,
    /// Whether nothing was ever written to it.
    is_empty: bool,
    /// The last number.
    last: u64,
    /// The last number that was lost and not made up for; 0 if none was.
    lost_up_to: u64,
}

impl Found {
    const NOTHING: Self = Self {
        manifest: None,
        is_attested: false,
        is_empty: true,
        last: 0,
        lost_up_to: 0,
    };

    /// The store's manifest from now on, if it may be opened.
    fn manifest(&self, options: OpenOptions) -> Result<Manifest, OpenError> {
        let declared = self.declared(options)?;
        let is_declared = options.declaration.is_some();
        let is_lossy = self.lost_up_to > 0;
        Ok(Manifest {
            is_complete: declared.is_complete && !is_lossy,
            floor: declared.floor.max(self.lost_up_to),
            unsynced_run: match options.durability {
                Durability::Buffered => options.machine_run,
                Durability::Memory | Durability::Fsync => 0,
            },
            lineage: match declared.lineage {
                lineage if lineage != 0 && !is_declared && !is_lossy => lineage,
                _ => options.lineage.max(1),
            },
        })
    }

    /// Whether the store holds what it did: nothing more is lost, and nothing is declared.
    fn is_kept(&self, options: OpenOptions) -> bool {
        self.lost_up_to == 0 && options.declaration.is_none()
    }

    /// Whether nothing but loss makes it necessary to write this manifest.
    fn is_due_to_loss(&self, manifest: Manifest, options: OpenOptions) -> bool {
        let unsynced_run = self.manifest.unwrap_or_default().unsynced_run;
        options.declaration.is_none() && manifest.unsynced_run == unsynced_run
    }

    fn declared(&self, options: OpenOptions) -> Result<Manifest, OpenError> {
        let is_new = self.is_empty && self.manifest.is_none();
        // Without a manifest, there has been damage.
        let known = self.manifest.unwrap_or_default();
        let is_unsynced = ![0, options.machine_run].contains(&known.unsynced_run);
        let incomplete = Manifest {
            is_complete: false,
            floor: self.last,
            ..known
        };
        let complete = Manifest {
            is_complete: true,
            floor: 0,
            ..known
        };
        Ok(match options.declaration {
            None if is_new => return Err(OpenError::Empty),
            None if is_unsynced => return Err(OpenError::Unsynced),
            None => known,
            Some(Declaration::New) if is_new => complete,
            Some(Declaration::New) => {
                return Err(OpenError::NothingToDeclare(
                    "the store is not new: it holds records",
                ));
            }
            Some(Declaration::Incomplete)
                if is_new
                    || known.is_complete
                    || self.is_attested
                    || is_unsynced
                    || options.is_uncertain =>
            {
                incomplete
            }
            Some(Declaration::Incomplete) => {
                return Err(OpenError::NothingToDeclare(
                    "the store is known to be incomplete",
                ));
            }
            Some(Declaration::Complete) if is_new => {
                return Err(OpenError::NothingToDeclare(
                    "the store holds nothing at all",
                ));
            }
            Some(Declaration::Complete)
                if known.is_complete && !is_unsynced && !options.is_uncertain =>
            {
                return Err(OpenError::NothingToDeclare(
                    "the store is known to be complete",
                ));
            }
            Some(Declaration::Complete) => complete,
        })
    }
}
