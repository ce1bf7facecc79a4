//! What each server holds of a key, asked of that server alone by DKVS/2. No gateway takes part, so
//! nothing is repaired by being looked at.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use dkvs_common::cluster::Cluster;
use dkvs_common::epoch::Epoch;
use dkvs_common::model::{ReplicaCommand, ReplicaResponse, Statistic};
use dkvs_common::ring::{Position, Ring};
use dkvs_common::wire::v2::reply::Reply;
use dkvs_common::wire::v2::request::Request;

use crate::process::ServersFile;
use crate::v2::{Client, key};
use crate::waiting::PATIENCE;

/// How long replicas may take until they hold the same. They compare themselves once a minute where
/// nothing calls for it, and pull only what differed twice.
const PATIENCE_FOR_REPAIR: Duration = PATIENCE.saturating_mul(5);

/// How many replicas each key has.
const REPLICATION: u8 = 3;

/// How often they are asked.
const GLANCE: Duration = Duration::from_millis(20);

/// How many keys a failure names.
const SHOWN_MAX: usize = 10;

/// The servers of a cluster, by their numbers in its servers file.
pub struct Replicas {
    /// Where they take datagrams.
    addrs: Vec<SocketAddr>,
    ring: Ring,
    epoch: Epoch,
}

impl Replicas {
    /// The servers of a file, which take datagrams there; of each key three are replicas.
    pub fn new(servers: &ServersFile, addrs: Vec<SocketAddr>) -> Self {
        let text = fs::read(servers).expect("the servers file is there");
        let cluster = Cluster::parse("servers", &text).expect("a servers file");
        Self {
            addrs,
            ring: Ring::new(&cluster),
            epoch: Epoch::of_file(&cluster, REPLICATION),
        }
    }

    /// Their configuration.
    pub fn epoch(&self) -> Epoch {
        self.epoch
    }

    /// The numbers of a key's replicas.
    pub fn of_key(&self, name: &str) -> Vec<usize> {
        let position = Position::of_key(&key(name));
        let list = self.ring.preference_list(position, REPLICATION.into());
        list.iter()
            .map(|point| usize::from(point.server.0))
            .collect()
    }

    /// A client of one of them alone.
    pub fn client(&self, server: usize) -> Client {
        Client::new(self.addrs[server]).of_epoch(self.epoch)
    }

    /// What a server reports of itself.
    pub fn statistic(&self, server: usize, wanted: Statistic) -> u64 {
        let request = Request::Command(ReplicaCommand::GetStatistics);
        let reply = self.client(server).ask(&request);
        let Reply::Response(ReplicaResponse::Statistics(numbers)) = reply else {
            panic!("statistics were answered {reply:?}");
        };
        let found = numbers.iter().find(|(name, _)| *name == wanted as u8);
        found.map_or(0, |(_, number)| *number)
    }

    /// Waits until all replicas of each key hold the same, of which only these servers are alive.
    ///
    /// # Errors
    ///
    /// The keys of which they never do, with what each of them holds.
    pub async fn until_equal<'a>(
        &self,
        names: impl IntoIterator<Item = &'a str>,
        living: &BTreeSet<usize>,
    ) -> Result<(), String> {
        let names: Vec<&str> = names.into_iter().collect();
        let (begun, mut asked) = (Instant::now(), names.clone());
        loop {
            let differing = self.differing(&asked, living);
            if differing.is_empty() && asked.len() == names.len() {
                return Ok(());
            }
            if begun.elapsed() > PATIENCE_FOR_REPAIR {
                let shown = differing.iter().take(SHOWN_MAX);
                let shown: Vec<String> = shown
                    .map(|(name, held)| format!("{name}: {held}"))
                    .collect();
                let count = differing.len();
                return Err(format!(
                    "replicas differ in {count} keys:\n{}",
                    shown.join("\n")
                ));
            }
            asked = match differing.is_empty() {
                // What was on its way may have come to some that were looked at before.
                true => names.clone(),
                false => differing.into_iter().map(|(name, _)| name).collect(),
            };
            tokio::time::sleep(GLANCE).await;
        }
    }

    /// Waits until a server has compared itself with so many peers and nothing differed. What differed is
    /// looked at again at once if something was pulled, else with the next comparison.
    ///
    /// # Panics
    ///
    /// If that takes too long.
    pub async fn until_in_step(&self, server: usize, peers: u64) {
        let begun = Instant::now();
        while self.statistic(server, Statistic::PeersInStep) != peers {
            let waited = begun.elapsed();
            assert!(waited < PATIENCE_FOR_REPAIR, "{server} is not in step");
            tokio::time::sleep(GLANCE).await;
        }
    }

    /// Waits until a server that lost its records answers for all keys of which it is a replica.
    ///
    /// # Panics
    ///
    /// If that takes too long.
    pub async fn until_complete(&self, server: usize) {
        let begun = Instant::now();
        while self.statistic(server, Statistic::IsIncomplete) != 0 {
            let waited = begun.elapsed();
            assert!(waited < PATIENCE_FOR_REPAIR, "{server} is not complete");
            tokio::time::sleep(GLANCE).await;
        }
    }

    /// The keys of which these servers do not hold the same, with what they hold.
    fn differing<'a>(&self, names: &[&'a str], living: &BTreeSet<usize>) -> Vec<(&'a str, String)> {
        let clients = living.iter().map(|server| (*server, self.client(*server)));
        let mut clients: BTreeMap<usize, Client> = clients.collect();
        let mut differing = Vec::new();
        for name in names {
            let request = Request::Command(ReplicaCommand::GetDigest { key: key(name) });
            let mut held = Vec::new();
            for server in self.of_key(name) {
                if let Some(client) = clients.get_mut(&server) {
                    held.push((server, client.ask(&request)));
                }
            }
            if !held.windows(2).all(|two| is_same(&two[0].1, &two[1].1)) {
                differing.push((*name, format!("{held:?}")));
            }
        }
        differing
    }
}

/// Whether two replicas hold the same record, or both none.
fn is_same(one: &Reply, other: &Reply) -> bool {
    let is_of_record = matches!(
        one,
        Reply::Response(ReplicaResponse::Digest { .. } | ReplicaResponse::Absent { .. })
    );
    is_of_record && one == other
}
