//! What the workers of a process share.

use std::sync::Arc;
use std::time::Duration;

use dkvs_common::cluster::{Cluster, OutOfServerIds, ServerId};
use dkvs_common::view::ClusterView;
use tokio::sync::watch;

use super::ports::BurnedPorts;
use crate::core::RoundTrips;

/// The cluster, and what is known of its servers whichever worker found it out.
pub struct Shared {
    view: watch::Sender<Arc<ClusterView>>,
    pub(super) burned_ports: BurnedPorts,
    pub(super) round_trips: RoundTrips,
}

impl Shared {
    /// Nothing is known but the cluster.
    pub fn new(cluster: Cluster) -> Self {
        Self {
            view: watch::Sender::new(Arc::new(ClusterView::first(cluster))),
            burned_ports: BurnedPorts::default(),
            round_trips: RoundTrips::default(),
        }
    }

    /// The cluster as requests that begin now see it.
    pub fn view(&self) -> Arc<ClusterView> {
        Arc::clone(&self.view.borrow())
    }

    /// Has the requests of every worker that begin from now on see another cluster. Those in flight
    /// go on as they began. Links that are open keep the ring's epoch, so this is for clusters whose
    /// servers accept both. Fails, and changes nothing, once all ids of servers were given away.
    pub fn replace(&self, cluster: Cluster) -> Result<(), OutOfServerIds> {
        let mut replaced = Ok(());
        self.view.send_if_modified(|view| {
            replaced = view.succeed(cluster).map(|next| *view = Arc::new(next));
            replaced.is_ok()
        });
        replaced
    }

    /// The views as they change.
    pub(super) fn views(&self) -> watch::Receiver<Arc<ClusterView>> {
        self.view.subscribe()
    }

    /// How long the last answer of a server took.
    pub fn last_round_trip(&self, server: ServerId) -> Option<Duration> {
        self.round_trips.last(server)
    }
}
