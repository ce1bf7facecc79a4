//! The cluster as somebody sees it at a time: its servers, and the ring that they form.

use crate::cluster::{Cluster, OutOfServerIds, ServerId};
use crate::kv::Key;
use crate::ring::{Position, PreferenceList, Ring};
use crate::server_map::ServerMap;

/// Which view is newer: of two with different numbers, the one with the greater.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ViewNumber(pub u64);

impl ViewNumber {
    /// The first.
    pub const FIRST: Self = Self(1);

    /// The one after this.
    #[must_use]
    pub fn next(self) -> Self {
        Self(self.0.saturating_add(1))
    }
}

/// A cluster and its ring. Never changed: what changes is which view is in use, and a request goes on
/// with the one with which it began.
#[derive(Debug)]
pub struct ClusterView {
    number: ViewNumber,
    cluster: Cluster,
    ring: Ring,
    names: ServerMap<String>,
}

impl ClusterView {
    /// The first view of a cluster.
    pub fn first(cluster: Cluster) -> Self {
        Self::new(ViewNumber::FIRST, cluster)
    }

    /// The view after this one. A server that is in both has the same id in both; no id is given to
    /// another server. Fails once all ids were given away.
    pub fn succeed(&self, cluster: Cluster) -> Result<Self, OutOfServerIds> {
        let cluster = cluster.with_ids_of(&self.cluster)?;
        Ok(Self::new(self.number.next(), cluster))
    }

    fn new(number: ViewNumber, cluster: Cluster) -> Self {
        let name = |(id, server): (ServerId, crate::cluster::Server)| (id, server.addr.to_string());
        Self {
            number,
            ring: Ring::new(&cluster),
            names: cluster.iter().map(name).collect(),
            cluster,
        }
    }

    /// Its number.
    pub fn number(&self) -> ViewNumber {
        self.number
    }

    /// Its servers.
    pub fn cluster(&self) -> &Cluster {
        &self.cluster
    }

    /// Their ids, in the order in which they are listed.
    pub fn servers(&self) -> impl ExactSizeIterator<Item = ServerId> + Clone {
        self.cluster.ids().iter().copied()
    }

    /// Their ring.
    pub fn ring(&self) -> &Ring {
        &self.ring
    }

    /// A server's address as text; empty for one that is not in this view.
    pub fn name(&self, server: ServerId) -> &str {
        self.names.get(server).map_or("", String::as_str)
    }

    /// The replicas of a key: the first `n` distinct servers from its position on.
    pub fn preference_list(&self, key: &Key, n: usize) -> PreferenceList {
        self.ring.preference_list(Position::of_key(key), n)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cluster(text: &str) -> Cluster {
        Cluster::parse("test", text.as_bytes()).unwrap()
    }

    #[test]
    fn a_server_keeps_its_id_and_no_other_server_gets_it() {
        let (a, b, c) = ("10.0.0.1 1 1\n", "10.0.0.2 1 1\n", "10.0.0.3 1 1\n");
        let first = ClusterView::first(cluster(&[a, b].concat()));
        let second = first.succeed(cluster(&[c, b].concat())).unwrap();
        let third = second.succeed(cluster(&[a, c].concat())).unwrap();
        let ids = |view: &ClusterView| view.servers().collect::<Vec<_>>();
        assert_eq!(ids(&first), [ServerId(0), ServerId(1)]);
        assert_eq!(ids(&second), [ServerId(2), ServerId(1)]);
        // It was gone, so nobody knows that it is the one from before.
        assert_eq!(ids(&third), [ServerId(3), ServerId(2)]);
        assert!(first.number() < second.number() && second.number() < third.number());
        assert_eq!(second.name(ServerId(2)), "10.0.0.3:1");
        assert_eq!(second.name(ServerId(0)), "");
        // The ring follows from the addresses, whatever the ids.
        let key = Key::new("k").unwrap();
        let names = |view: &ClusterView| {
            let list = view.preference_list(&key, 2);
            let names = list.iter().map(|point| view.name(point.server).to_owned());
            names.collect::<Vec<_>>()
        };
        let same = ClusterView::first(cluster(&[c, b].concat()));
        assert_eq!(names(&second), names(&same));
    }
}
