//! The gateway's side towards the servers: requests in flight, sockets, timers.
//!
//! ```text
//!   handler --read/write--> [ table: request id -> machine ] <--reply-- exchange <-- socket
//!                                     |                                    ^
//!                                     +------ poll_transmit: ask ----------+
//! ```
//!
//! One coordinator per worker; workers share nothing here but the ledger of burned ports and
//! the last round trips. The decisions are those of [`dkvs_common::quorum`]; this module only
//! carries words to the machines and wakes the handler when a machine has decided.

mod ports;
mod table;
mod v1;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use dkvs_common::cluster::{Cluster, ServerId};
use dkvs_common::kv::{Key, Value};
use dkvs_common::quorum::Transmit;
use dkvs_common::quorum::params::Quorum;
use dkvs_common::quorum::read::Read;
use dkvs_common::quorum::tally::Word;
use dkvs_common::quorum::write::Write;
use dkvs_common::ring::{Position, PreferenceList, Ring, RingPoint};
use dkvs_common::wire::v1::{Unrepresentable, encode_get, encode_put};
use thiserror::Error;
use tokio::sync::oneshot;

pub use ports::BurnedPorts;
use table::{Finished, Heard, InFlight, RequestId, Table};
pub use v1::SOCKET_BUFFER_BYTES;

/// When a request is answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Wait {
    /// As soon as the quorum is decided.
    #[default]
    Quorum,
    /// When every replica was heard out or has timed out.
    All,
}

/// Why a request was not even begun. Nothing was sent to any server.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum NotBegun {
    /// As many requests are in flight as this worker takes, or no socket is to be had.
    #[error("the gateway is overloaded: {what}")]
    Overloaded {
        /// Which limit was reached.
        what: &'static str,
    },
    /// The servers' protocol cannot carry the key or the value.
    #[error(transparent)]
    Unrepresentable(#[from] Unrepresentable),
}

/// How much a coordinator takes on.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Requests in flight.
    pub requests_max: usize,
    /// Sockets towards the servers, in use, pooled or still owed a reply.
    pub sockets_max: usize,
}

/// What the workers of a gateway know together.
pub struct Shared {
    /// The servers.
    pub cluster: Cluster,
    /// Their ring.
    pub ring: Ring,
    /// Ports at which a late reply may still arrive.
    burned_ports: BurnedPorts,
    /// Per server, the last round trip in microseconds; 0 when none was ever completed.
    round_trips_us: Vec<AtomicU64>,
}

impl Shared {
    /// Nothing known but the cluster.
    pub fn new(cluster: Cluster) -> Self {
        let servers = cluster.servers().len();
        Self {
            ring: Ring::new(&cluster),
            burned_ports: BurnedPorts::new(servers),
            round_trips_us: (0..servers).map(|_| AtomicU64::new(0)).collect(),
            cluster,
        }
    }

    /// How long the last reply of a server took.
    pub fn last_round_trip(&self, server: ServerId) -> Option<Duration> {
        let us = self.round_trips_us[server.index()].load(Ordering::Relaxed);
        (us > 0).then(|| Duration::from_micros(us))
    }

    fn record_round_trip(&self, server: ServerId, round_trip: Duration) {
        let us = u64::try_from(round_trip.as_micros())
            .unwrap_or(u64::MAX)
            .max(1);
        self.round_trips_us[server.index()].store(us, Ordering::Relaxed);
    }
}

/// One worker's requests and sockets. Clones are handles to the same.
#[derive(Clone)]
pub struct Coordinator {
    shared: Arc<Shared>,
    table: Table,
    links: v1::Links,
}

/// The key that is asked for to see whether a server answers; what it holds does not matter.
const PROBE_KEY: &str = "dkvs probe";

impl Coordinator {
    /// A coordinator for one worker. Its futures run on that worker's runtime.
    pub fn new(shared: Arc<Shared>, limits: Limits) -> Self {
        let table = Table::new(limits.requests_max);
        Self {
            links: v1::Links::new(Arc::clone(&shared), table.clone(), limits.sockets_max),
            table,
            shared,
        }
    }

    /// The cluster and what is known of it.
    pub fn shared(&self) -> &Shared {
        &self.shared
    }

    /// Reads `key` from the `quorum.n()` replicas of its preference list. Returns once decided
    /// (or, with [`Wait::All`], once complete), at the latest after `timeout`.
    pub async fn read(
        &self,
        key: &Key,
        quorum: Quorum,
        timeout: Duration,
        wait: Wait,
    ) -> Result<Read, NotBegun> {
        let list = self.preference_list(key, quorum);
        self.read_from(list, key, quorum, timeout, wait).await
    }

    /// Writes `value` to the `quorum.n()` replicas of the key's preference list; otherwise as
    /// [`Self::read`]. Dropping the future does not take back what was sent.
    pub async fn write(
        &self,
        key: &Key,
        value: &Value,
        quorum: Quorum,
        timeout: Duration,
        wait: Wait,
    ) -> Result<Write, NotBegun> {
        let datagram = encode_put(key, value)?;
        let list = self.preference_list(key, quorum);
        let now = Instant::now();
        let deadline = now + timeout;
        let mut write = Write::new(list, quorum, now, deadline);
        let transmits: Vec<Transmit> = std::iter::from_fn(|| write.poll_transmit()).collect();
        let (done, result) = oneshot::channel();
        let in_flight = InFlight::Write {
            machine: write,
            done,
            wait,
        };
        let id = self.begin(in_flight, &transmits, &datagram, deadline)?;
        Ok(self.finish(id, result, deadline).await)
    }

    /// Asks every server whether it answers, and hears all out for up to `timeout`. One entry
    /// per server, in the cluster's order.
    pub async fn probe(&self, timeout: Duration) -> Result<Vec<bool>, NotBegun> {
        let key = Key::new(PROBE_KEY).expect("the probe key is a key");
        let points: Vec<RingPoint> = self
            .shared
            .cluster
            .iter()
            .map(|(server, _)| RingPoint {
                position: Position([0; 20]),
                server,
            })
            .collect();
        let reads = points.chunks(usize::from(u8::MAX)).map(|chunk| {
            let n = u8::try_from(chunk.len()).expect("a chunk has at most 255 servers");
            let quorum = Quorum::new(n, 1).expect("a chunk has at least one server");
            self.read_from(chunk.to_vec(), &key, quorum, timeout, Wait::All)
        });
        let reads = futures_util::future::try_join_all(reads).await?;
        let answered = |read: &Read| {
            let answered = read.replicas().iter();
            let answered = answered.map(|replica| matches!(replica.word, Word::Answer(_)));
            answered.collect::<Vec<bool>>()
        };
        Ok(reads.iter().flat_map(answered).collect())
    }

    fn preference_list(&self, key: &Key, quorum: Quorum) -> PreferenceList {
        let n = usize::from(quorum.n());
        self.shared.ring.preference_list(Position::of_key(key), n)
    }

    async fn read_from(
        &self,
        list: PreferenceList,
        key: &Key,
        quorum: Quorum,
        timeout: Duration,
        wait: Wait,
    ) -> Result<Read, NotBegun> {
        let datagram = encode_get(key)?;
        let now = Instant::now();
        let deadline = now + timeout;
        let mut read = Read::new(list, quorum, now, deadline);
        let transmits: Vec<Transmit> = std::iter::from_fn(|| read.poll_transmit()).collect();
        let (done, result) = oneshot::channel();
        let in_flight = InFlight::Read {
            machine: read,
            done,
            wait,
        };
        let id = self.begin(in_flight, &transmits, &datagram, deadline)?;
        Ok(self.finish(id, result, deadline).await)
    }

    /// Enters a request and asks all its replicas, or fails and asks none.
    fn begin(
        &self,
        in_flight: InFlight,
        transmits: &[Transmit],
        datagram: &[u8],
        deadline: Instant,
    ) -> Result<RequestId, NotBegun> {
        let id = self.table.insert(in_flight)?;
        let sockets = self
            .links
            .take(transmits)
            .inspect_err(|_| self.table.remove(id))?;
        for (transmit, socket) in transmits.iter().zip(sockets) {
            match socket {
                Some(socket) => self.links.ask(id, transmit.ask, socket, datagram, deadline),
                None => {
                    let now = Instant::now();
                    self.table.handle(id, transmit.to, Heard::Unreachable, now);
                }
            }
        }
        Ok(id)
    }

    /// Waits for the decision or the deadline. Whoever drops this drops the request.
    async fn finish<M: Finished>(
        &self,
        id: RequestId,
        result: oneshot::Receiver<M>,
        deadline: Instant,
    ) -> M {
        let _removed_at_the_end = table::Guard::new(&self.table, id);
        let mut result = result;
        match tokio::time::timeout_at(deadline.into(), &mut result).await {
            Ok(decided) => decided.expect("a request leaves the table only with its result"),
            Err(_) => {
                self.table.expire(id, Instant::now().max(deadline));
                result.await.expect("an expired request has its result")
            }
        }
    }
}
