//! The state of a core, and what it reports of it.

use std::sync::Arc;
use std::time::{Duration, Instant};

use dkvs_common::cluster::ServerId;
use dkvs_common::epoch::Epoch;
use dkvs_common::histogram::Histogram;
use dkvs_common::kv::Key;
use dkvs_common::model::Description;
use dkvs_common::mutants::{self, Mutant};
use dkvs_common::quorum::params::Quorum;
use dkvs_common::ring::PreferenceList;
use dkvs_common::server_map::ServerMap;
use dkvs_common::tag::TagClock;
use dkvs_common::view::ClusterView;
use dkvs_common::wire::v2::keys::Keys;

use super::attestations::Attestations;
use super::budget::MemoryBudget;
use super::config::{CoreConfig, Endpoint, Now, Protocol};
use super::counts::{Counts, Limit, RoundTrips, ServerCounts, Totals};
use super::deadlines::Deadlines;
use super::nudges::Nudges;
use super::places::Places;
use super::random::Random;
use super::request::{RequestId, Requests, Token};
use super::servers::{LinkStatus, Servers};
use super::v1_only::V1Only;
use crate::transport::peer::{PeerConfig as LinkConfig, PeerVersion};
use crate::transport::v1::Exchanges;

/// One worker's requests and links.
pub struct Core {
    pub(super) config: CoreConfig,
    pub(super) view: Arc<ClusterView>,
    /// Of the view and the replication.
    epoch: Epoch,
    pub(super) keys: Option<Arc<Keys>>,
    pub(super) requests: Requests,
    pub(super) places: Places,
    pub(super) deadlines: Deadlines<RequestId>,
    /// Of reads that have ended.
    pub(super) attestations: Attestations,
    /// Of writes that have ended.
    pub(super) nudges: Nudges,
    pub(super) servers: Servers,
    pub(super) by_v1: Exchanges<Token>,
    /// The servers that had no room a moment ago.
    pub(super) full: ServerMap<FullServer>,
    /// Mints tags greater than those that a server was found to hold.
    pub(super) clock: TagClock,
    /// Names operations and attempts.
    pub(super) random: Random,
    pub(super) memory: MemoryBudget,
    pub(super) counts: Counts,
    /// Of the first link, which [`Mutant::StrangersCounted`] gives to all.
    first_random: Option<u64>,
}

/// A server that had no room.
#[derive(Debug, Clone, Copy)]
pub(super) struct FullServer {
    /// When it said so.
    pub(super) at: Instant,
    /// For a key and a value of so many bytes, or more.
    pub(super) bytes: usize,
}

impl Core {
    /// A core that has opened no link. `random` has to differ from that of any other core, ever.
    pub fn new(
        config: CoreConfig,
        view: Arc<ClusterView>,
        keys: Option<Keys>,
        memory: MemoryBudget,
        round_trips: RoundTrips,
        random: u64,
    ) -> Self {
        Self {
            epoch: Epoch::of_file(view.cluster(), config.replication),
            places: Places::new(config.requests_max, config.decided_max),
            config,
            view,
            keys: keys.map(Arc::new),
            requests: Requests::default(),
            deadlines: Deadlines::default(),
            attestations: Attestations::default(),
            nudges: Nudges::default(),
            servers: Servers::default(),
            by_v1: Exchanges::default(),
            full: ServerMap::default(),
            clock: TagClock::new(random as u32),
            random: Random::new(random),
            memory,
            counts: Counts::new(round_trips),
            first_random: None,
        }
    }

    /// The cluster as requests that begin now see it.
    pub fn view(&self) -> &Arc<ClusterView> {
        &self.view
    }

    /// The configuration that requests belong to which begin now.
    pub fn epoch(&self) -> Epoch {
        self.epoch
    }

    /// What `server` has said of itself, if it is one that does.
    pub fn description(&self, server: ServerId) -> Option<Description> {
        self.servers.description(server)
    }

    /// Whether `server` is known to serve another configuration, and refuses what this client asks.
    pub fn is_other_configuration(&self, server: ServerId) -> bool {
        let description = self.description(server);
        let served = description.and_then(|description| description.epoch);
        served.is_some_and(|served| served != self.epoch)
    }

    /// Takes a newer view into use; an older one, or the same, changes nothing. Requests in flight
    /// go on with the view with which they began.
    pub fn set_view(&mut self, view: Arc<ClusterView>) {
        if view.number() > self.view.number() {
            self.epoch = Epoch::of_file(view.cluster(), self.config.replication);
            self.view = view;
        }
    }

    /// The replicas of a key.
    pub fn preference_list(&self, key: &Key, quorum: Quorum) -> PreferenceList {
        self.view.preference_list(key, usize::from(quorum.n()))
    }

    /// Whether `server` can be asked by DKVS/2.
    pub fn is_open(&self, server: ServerId) -> bool {
        self.servers.is_open(server)
    }

    /// Opens a link to `server`. Servers without one count as overloaded. `random` has to differ from
    /// that of any other link, ever.
    pub fn open(&mut self, server: ServerId, endpoint: Endpoint, random: u64, now: Now) {
        let keys = self.keys.as_ref();
        let config = LinkConfig {
            datagram_bytes_max: self.config.datagram_bytes_max,
            window_bytes_max: endpoint.window_bytes_max,
            ring: self.view.ring().epoch(),
            epoch: self.epoch,
            falls_back_to_v1: self.config.protocol == Protocol::Auto,
            keys: keys.map(|keys| (Arc::clone(keys), endpoint.local)),
        };
        let first = *self.first_random.get_or_insert(random);
        let random = match mutants::is_on(Mutant::StrangersCounted) {
            false => random,
            true => first,
        };
        self.servers.open(server, config, random, now.at);
    }

    /// Takes other keys into use.
    pub fn set_keys(&mut self, keys: Keys) {
        let keys = Arc::new(keys);
        self.servers.set_keys(&keys);
        self.keys = Some(keys);
    }

    /// What `server` speaks, as far as is known.
    pub fn speaks(&self, server: ServerId) -> PeerVersion {
        match self.config.protocol {
            Protocol::V1 => PeerVersion::V1,
            Protocol::V2 | Protocol::Auto => self.servers.speaks(server),
        }
    }

    /// Whether `server` answers by DKVS/1 alone, and since when; none if it does not, as far as is
    /// known, or nothing else is to be spoken.
    pub fn v1_only(&self, server: ServerId) -> Option<V1Only> {
        match self.servers.speaks(server) {
            _ if self.config.protocol == Protocol::V1 => None,
            PeerVersion::V1 => Some(V1Only::SinceMet),
            PeerVersion::V2(_) if self.servers.is_downgraded(server) => Some(V1Only::Downgraded),
            PeerVersion::V2(_) | PeerVersion::Unknown => None,
        }
    }

    /// What is known of the link to `server`, if it is open.
    pub fn link_status(&self, server: ServerId) -> Option<LinkStatus> {
        self.servers.status(server)
    }

    /// How reads and writes ended, and which limits were hit.
    pub fn totals(&self) -> Totals {
        let mut totals = self.counts.totals;
        totals.add_memory(self.memory.refusals());
        totals
    }

    /// What was counted about `server`.
    pub fn server_counts(&self, server: ServerId) -> ServerCounts {
        self.counts.of(server)
    }

    /// How long `server` took to answer.
    pub fn round_trips(&self, server: ServerId) -> Option<Arc<Histogram>> {
        self.counts.round_trips(server)
    }

    /// Requests in flight that are not decided.
    pub fn undecided(&self) -> usize {
        self.places.undecided()
    }

    /// Requests that are decided and wait for the other replicas.
    pub fn decided(&self) -> usize {
        self.places.decided()
    }

    /// Something was refused for a limit that is kept elsewhere.
    pub fn note_limit(&mut self, limit: Limit) {
        self.counts.limit_hit(limit);
    }

    /// A server has answered by DKVS/1.
    pub fn note_round_trip(&mut self, server: ServerId, round_trip: Duration) {
        self.counts.round_trip(server, round_trip);
    }
}
