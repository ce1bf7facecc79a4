//! A cluster's client without sockets, tasks or clocks: requests in, datagrams out; datagrams in,
//! outcomes out.
//!
//! ```text
//!   read, write, ... --> [ operations ] --commands--> [ routing ] --> DKVS/2: poll_transmit
//!                             ^    |                      |     '--> DKVS/1: poll_exchange
//!   on_end(outcome) <---------+----+                      |
//!                             +------- responses ---------+<-- handle_datagram, handle_exchange
//! ```
//!
//! * [`operation`]: what can be asked of a cluster, one operation a file
//! * `admission`: whether a write can succeed, before it is begun
//! * `routing`: by which protocol a command goes, and what follows where a server speaks DKVS/1 only
//! * `driving`: a request from its begin to its end, and what follows after that
//! * `servers`: the links; `deadlines`: when requests end at the latest; `counts`: what is counted
//!
//! Production runs it over sockets, the simulator over a network of its own. Invariants: a request
//! ends exactly once, at its deadline at the latest, unless it is cancelled; a response to what was
//! sent in an earlier round or attempt changes nothing, nor does one that comes at the deadline or
//! later; a request keeps the view of the cluster with which it began.

mod admission;
mod attestations;
mod budget;
mod config;
mod counts;
mod deadlines;
mod driving;
pub mod operation;
mod request;
mod routing;
mod servers;
#[cfg(test)]
mod tests;
mod v1_only;

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use dkvs_common::cluster::ServerId;
use dkvs_common::histogram::Histogram;
use dkvs_common::kv::Key;
use dkvs_common::mutants::{self, Mutant};
use dkvs_common::quorum::params::Quorum;
use dkvs_common::ring::PreferenceList;
use dkvs_common::server_map::ServerMap;
use dkvs_common::tag::TagClock;
use dkvs_common::view::ClusterView;
use dkvs_common::wire::v2::keys::Keys;
use foldhash::fast::FixedState;

use crate::transport::peer::{PeerConfig as LinkConfig, PeerVersion};
use crate::transport::v1::{Exchange, Exchanges};
use admission::Full;
use attestations::Attestations;
use counts::Counts;
use deadlines::Deadlines;
use request::InFlight;
use servers::Servers;

pub use budget::{MemoryBudget, MemoryPermit};
pub use config::{
    AdmissionError, CoreConfig, Endpoint, Limits, Now, Protocol, RequestOptions, Wait,
};
pub use counts::{Kind, Limit, Outcome, RoundTrips, ServerCounts, Totals};
pub use driving::{ReadRequest, WriteRequest};
pub use operation::{ListResult, ReadResult, Statistics, WriteResult};
pub use request::{RequestId, Token};
pub use servers::LinkStatus;
pub use v1_only::V1Only;

/// A map by what this core has numbered itself: nobody else chooses the keys, so a fast hash without
/// a seed is good enough.
#[expect(clippy::disallowed_types, reason = "its hasher is named")]
type IdMap<K, V> = std::collections::HashMap<K, V, FixedState>;

/// One worker's requests and links.
pub struct Core {
    config: CoreConfig,
    view: Arc<ClusterView>,
    keys: Option<Arc<Keys>>,
    requests: IdMap<RequestId, InFlight>,
    next_request: u64,
    deadlines: Deadlines<RequestId>,
    /// Of reads that have ended.
    attestations: Attestations,
    servers: Servers,
    by_v1: Exchanges<Token>,
    /// The servers that had no room a moment ago.
    full: ServerMap<Full>,
    /// Mints tags greater than those that a server was found to hold.
    clock: TagClock,
    memory: MemoryBudget,
    counts: Counts,
    /// Of the first link, which [`Mutant::StrangersCounted`] gives to all.
    first_random: Option<u64>,
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
            config,
            view,
            keys: keys.map(Arc::new),
            requests: IdMap::default(),
            next_request: 0,
            deadlines: Deadlines::default(),
            attestations: Attestations::default(),
            servers: Servers::default(),
            by_v1: Exchanges::default(),
            full: ServerMap::default(),
            clock: TagClock::new(random as u32),
            memory,
            counts: Counts::new(round_trips),
            first_random: None,
        }
    }

    /// The cluster as requests that begin now see it.
    pub fn view(&self) -> &Arc<ClusterView> {
        &self.view
    }

    /// Takes a newer view into use; an older one, or the same, changes nothing. Requests in flight
    /// go on with the view with which they began.
    pub fn set_view(&mut self, view: Arc<ClusterView>) {
        if view.number() > self.view.number() {
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
            epoch: self.view.ring().epoch(),
            is_v1_asked: self.config.protocol == Protocol::Auto,
            keys: keys.map(|keys| (Arc::clone(keys), endpoint.local)),
        };
        let first = *self.first_random.get_or_insert(random);
        let random = match mutants::is_on(Mutant::StrangersCounted) {
            false => random,
            true => first,
        };
        self.servers.open(server, config, random, now.at);
    }

    /// A datagram arrived from `server`.
    pub fn handle_datagram(&mut self, server: ServerId, datagram: &Bytes, now: Now) {
        let before = self.v1_only(server);
        self.servers.handle_datagram(server, datagram, now.at);
        let after = self.v1_only(server);
        if before != after
            && let Some(v1_only) = after
        {
            let addr = self.view.name(server);
            tracing::warn!(%addr, "{}", v1_only.advice(self.config.protocol));
        }
        self.handle_events(server, now);
    }

    /// The system reports that nothing listens at the port of `server`.
    pub fn handle_unreachable(&mut self, server: ServerId, now: Now) {
        if let Some(link) = self.servers.to(server) {
            link.handle_unreachable(now.at);
        }
        self.handle_events(server, now);
    }

    /// Time has passed.
    pub fn handle_timeout(&mut self, now: Now) {
        // Requests first: that a fetch ends at its request's deadline is no failure of the server.
        while let Some(id) = self.deadlines.pop_due(now.at) {
            self.handle_due(id, now);
        }
        for server in self.servers.handle_timeout(now.at) {
            self.handle_events(server, now);
        }
    }

    /// When to call [`Self::handle_timeout`] next, once there is nothing more to send.
    pub fn poll_timeout(&self) -> Option<Instant> {
        let deadline = self.deadlines.next();
        deadline.into_iter().chain(self.servers.next_due()).min()
    }

    /// A server towards which there may be something to send, each once.
    pub fn poll_server(&mut self) -> Option<ServerId> {
        self.servers.poll_server()
    }

    /// Something can be sent to `server` again.
    pub fn resume(&mut self, server: ServerId) {
        self.servers.to(server);
    }

    /// Whether [`Self::poll_server`] would return one.
    pub fn wants_to_send(&self) -> bool {
        self.servers.is_any_dirty()
    }

    /// The next datagram to send to `to`, until there is none.
    pub fn poll_transmit(&mut self, to: ServerId, now: Now) -> Option<Vec<u8>> {
        let datagram = self.servers.poll_transmit(to, now.at);
        if datagram.is_none() {
            // A request that turned out to fit no datagram, for one, has ended by that.
            self.handle_events(to, now);
        }
        datagram
    }

    /// The next command to send by DKVS/1, from a socket of its own. Its end is reported to
    /// [`Self::handle_exchange`] or [`Self::handle_exchange_unreachable`].
    pub fn poll_exchange(&mut self) -> Option<Exchange<Token>> {
        self.by_v1.poll()
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
        self.counts.totals
    }

    /// What was counted about `server`.
    pub fn server_counts(&self, server: ServerId) -> ServerCounts {
        self.counts.of(server)
    }

    /// How long `server` took to answer.
    pub fn round_trips(&self, server: ServerId) -> Option<Arc<Histogram>> {
        self.counts.round_trips(server)
    }

    /// Requests in flight.
    pub fn in_flight(&self) -> usize {
        self.requests.len()
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
