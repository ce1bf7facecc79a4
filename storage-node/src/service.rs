//! The service of a server: one datagram in, its replies out. No sockets, no clock.
//!
//! The [`protocol`](crate::protocol) reads datagrams and writes replies; the handlers carry out the
//! commands; [`maintenance`](crate::maintenance) does what no datagram asks for.

use std::sync::Arc;
use std::time::Instant;

use crate::handlers::Replica;
use crate::statistics::Counters;
use crate::store::Store;

pub use crate::config::{ServiceConfig, UPLOAD_BYTES_DEFAULT};

/// One replica, and how datagrams read and change it. All workers of a server share it.
pub struct Service {
    pub(crate) replica: Replica,
    /// What happened so far.
    pub counters: Arc<Counters>,
}

impl Service {
    /// Serves `store`.
    pub fn new(store: Store, config: ServiceConfig) -> Self {
        let replica = Replica::new(store, config);
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

    pub(crate) fn config(&self) -> &ServiceConfig {
        &self.replica.config
    }
}
