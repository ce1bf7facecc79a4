//! What the handlers act on: the store, and what they share beside it.

use std::collections::HashSet;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use dkvs_common::model::{Refusal, ReplicaResponse};
use dkvs_common::tag::TagClock;
#[cfg(feature = "mutants")]
use dkvs_common::{kv::Key, record::Record};

use super::uploads::{UploadId, Uploads};
use crate::config::ServiceConfig;
use crate::high_water::PeerMarks;
use crate::leaves::LeafSums;
use crate::nudges::Nudges;
use crate::statistics::Counters;
use crate::store::{RecordStore as _, Store};

/// One replica: its store, its settings, and what is under way.
pub(crate) struct Replica {
    pub(crate) store: Store,
    pub(crate) config: ServiceConfig,
    pub(crate) counters: Arc<Counters>,
    /// What the store holds of each part of the ring; none if the server does not know its cluster.
    pub(crate) leaf_sums: Option<Arc<LeafSums>>,
    /// How far its peers have come.
    pub(crate) peer_marks: PeerMarks,
    /// Whether it answers nothing yet, but its peers.
    pub(crate) is_starting: AtomicBool,
    /// What it was told of servers that may lack something.
    pub(crate) nudges: Nudges,
    /// Mints the tags of what comes without one.
    pub(super) clock: Arc<Mutex<TagClock>>,
    /// One table for all workers, so that its limits hold for all of them together. Blocks are
    /// rare beside gets and puts, and none waits here for longer than it takes to copy a block or
    /// to make room for a value.
    uploads: Mutex<Uploads>,
    /// Uploads whose values wait for the disk: their responses are on their way already.
    pub(super) pending_uploads: Arc<Mutex<HashSet<UploadId>>>,
    /// For the mutant that acknowledges before it stores: what it has not stored.
    #[cfg(feature = "mutants")]
    unstored: Mutex<Vec<(Key, Record)>>,
}

impl Replica {
    pub(crate) fn new(store: Store, config: ServiceConfig) -> Self {
        let value_bytes_max = config.value_bytes_max;
        let upload_bytes_max = config
            .upload_bytes_max
            .max(value_bytes_max.saturating_mul(4));
        Self {
            store,
            config,
            counters: Arc::default(),
            leaf_sums: None,
            peer_marks: PeerMarks::default(),
            is_starting: AtomicBool::new(config.asks_peers_first),
            nudges: Nudges::default(),
            // The boot id is as random as the clock's operations have to be.
            clock: Arc::new(Mutex::new(TagClock::for_v1(config.boot_id as u32))),
            uploads: Mutex::new(Uploads::new(upload_bytes_max, value_bytes_max)),
            pending_uploads: Arc::default(),
            #[cfg(feature = "mutants")]
            unstored: Mutex::default(),
        }
    }

    /// Whether it answers for every key of which it is a replica.
    pub(super) fn is_complete(&self) -> bool {
        let leaf_sums = self.leaf_sums.as_deref();
        self.store.is_complete() || leaf_sums.is_some_and(LeafSums::is_whole)
    }

    /// When [`Self::expire_uploads`] is to be called next, if there are uploads.
    pub(crate) fn next_upload_expiry(&self) -> Option<Instant> {
        self.uploads().next_expiry()
    }

    /// Drops the uploads that were idle for too long.
    pub(crate) fn expire_uploads(&self, now: Instant) {
        self.uploads().expire(now);
    }

    /// A panic while the table was locked leaves no upload with a block that did not arrive; the
    /// checksum finds anything else.
    pub(super) fn uploads(&self) -> MutexGuard<'_, Uploads> {
        self.uploads.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn too_large(&self) -> ReplicaResponse {
        let value_bytes_max = u32::try_from(self.config.value_bytes_max).unwrap_or(u32::MAX);
        ReplicaResponse::Refused(Refusal::TooLarge { value_bytes_max })
    }

    /// For [`Mutant::AcknowledgedBeforeStored`](dkvs_common::mutants::Mutant): keeps a record that
    /// was confirmed until the next datagram comes.
    #[cfg(feature = "mutants")]
    pub(super) fn keep_unstored(&self, key: &Key, record: &Record) {
        self.unstored().push((key.clone(), record.clone()));
    }

    /// Stores what was kept.
    #[cfg(feature = "mutants")]
    pub(crate) fn store_unstored(&self) {
        use crate::store::RecordStore as _;

        for (key, record) in self.unstored().drain(..) {
            let _ = self.store.apply(&key, &record, || Box::new(drop));
        }
    }

    #[cfg(feature = "mutants")]
    fn unstored(&self) -> MutexGuard<'_, Vec<(Key, Record)>> {
        self.unstored.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
