//! The service of a server: one datagram in, its replies out. No sockets, no clock.
//!
//! The [`protocol`](crate::protocol) reads datagrams and writes replies; the handlers carry out the
//! commands; [`maintenance`](crate::maintenance) does what no datagram asks for.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Instant;

use crate::handlers::Replica;
use crate::high_water::PeerMarks;
use crate::leaves::{LeafSums, Membership};
use crate::nudges::Nudges;
use crate::statistics::Counters;
use crate::store::Store;

pub use crate::config::{Served, ServiceConfig, UPLOAD_BYTES_DEFAULT};

/// One replica, and how datagrams read and change it. All workers of a server share it.
pub struct Service {
    pub(crate) replica: Replica,
    /// What happened so far.
    pub counters: Arc<Counters>,
}

impl Service {
    /// Serves `store`, as a server that knows no other.
    pub fn new(store: Store, config: ServiceConfig) -> Self {
        Self::of_member(store, config, None)
    }

    /// Serves `store`, as part of a cluster: it tells its peers what it holds, so that they find where
    /// they differ. Nothing may use the store before this returns.
    pub fn of_member(store: Store, config: ServiceConfig, membership: Option<Membership>) -> Self {
        let depth_min = config.leaf_depth_min;
        let of_member = |membership| LeafSums::of(&store, membership, depth_min);
        let leaf_sums = membership.and_then(of_member);
        let mut replica = Replica::new(store, config);
        replica.leaf_sums = leaf_sums;
        let counters = Arc::clone(&replica.counters);
        Self { replica, counters }
    }

    /// The store, for statistics and for pairs that are there from the start.
    pub fn store(&self) -> &Store {
        &self.replica.store
    }

    /// The store, when this service has ended. Uploads that are under way are gone.
    pub fn into_store(self) -> Store {
        self.replica.store
    }

    /// Has what waits for the disk taken there: to be called once what came together is handled.
    pub fn wake_disk(&self) {
        if let Store::Disk(store) = self.store() {
            store.wake();
        }
    }

    /// The numbers that the server reports of itself, by the byte of their
    /// [`Statistic`](dkvs_common::model::Statistic).
    pub fn statistics(&self, now: Instant) -> Vec<(u8, u64)> {
        self.replica.statistics(now)
    }

    /// What the store holds of each part of the ring, if the server knows its cluster.
    pub fn leaf_sums(&self) -> Option<&Arc<LeafSums>> {
        self.replica.leaf_sums.as_ref()
    }

    /// How far its peers have come, as they have told.
    pub fn peer_marks(&self) -> &PeerMarks {
        &self.replica.peer_marks
    }

    /// Whether it answers nothing yet, but its peers: it asks them whether it is set back.
    pub fn is_starting(&self) -> bool {
        self.replica.is_starting.load(Ordering::Acquire)
    }

    /// Answers from now on.
    pub(crate) fn end_start(&self) {
        self.replica.is_starting.store(false, Ordering::Release);
    }

    pub(crate) fn nudges(&self) -> &Nudges {
        &self.replica.nudges
    }

    pub(crate) fn config(&self) -> &ServiceConfig {
        &self.replica.config
    }
}
