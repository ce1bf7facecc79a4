//! The proxy's handle: starts the thread, sets its conditions, and ends it.

use std::net::{SocketAddr, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread::{self, JoinHandle};

use mio::Waker;

use super::conditions::Conditions;
use super::relay::Relay;
use super::shared::{Counts, Shared, Way};
use crate::process::own_loopback;

/// Stands before servers.
pub struct Proxy {
    addrs: Vec<SocketAddr>,
    shared: Arc<Shared>,
    waker: Waker,
    thread: Option<JoinHandle<()>>,
}

impl Proxy {
    /// Stands before `servers`, with a front for each. The first sender is gateway 0.
    pub fn before(servers: &[SocketAddr], seed: u64) -> Self {
        let front = |_| UdpSocket::bind((own_loopback(), 0)).unwrap();
        let fronts: Vec<UdpSocket> = servers.iter().map(front).collect();
        let addrs = fronts
            .iter()
            .map(|front| front.local_addr().unwrap())
            .collect();
        let shared = Arc::new(Shared::default());
        let (relay, waker) = Relay::new(fronts, servers.to_vec(), Arc::clone(&shared), seed);
        let proxy = Self {
            addrs,
            shared,
            waker,
            thread: Some(thread::spawn(|| relay.run())),
        };
        proxy.expect(0);
        proxy
    }

    /// Where the gateways are to take the servers to be, in the servers' order.
    pub fn addrs(&self) -> &[SocketAddr] {
        &self.addrs
    }

    /// From now on an unknown address is this gateway, which has sent nothing yet. An earlier one of
    /// this number is gone.
    pub fn expect(&self, gateway: usize) {
        let mut table = self.shared.table();
        *table.lives.entry(gateway).or_default() += 1;
        table.expected = gateway;
        table.met = vec![false; self.addrs.len()];
    }

    /// Whether the gateway that was expected last has spoken to these servers.
    pub fn has_met_the_expected(&self, servers: &[usize]) -> bool {
        let table = self.shared.table();
        servers.iter().all(|server| table.met[*server])
    }

    /// From now on these are the conditions on these ways, and all others are clear. What is held
    /// back already comes when it was to come.
    pub fn set(&self, conditions: impl IntoIterator<Item = (Way, Conditions)>) {
        self.shared.table().conditions = conditions.into_iter().collect();
    }

    /// From now on all ways are clear.
    pub fn clear(&self) {
        self.set([]);
    }

    /// What the proxy did with datagrams so far.
    pub fn counts(&self) -> Counts {
        self.shared.counts()
    }

    /// How many bytes of datagrams it has sent on so far, both ways together.
    pub fn bytes(&self) -> u64 {
        self.shared.bytes.load(Ordering::Acquire)
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.shared.ended.store(true, Ordering::Relaxed);
        self.waker.wake().expect("the thread can be woken");
        let ended = self.thread.take().map(JoinHandle::join);
        if !thread::panicking() {
            assert!(!matches!(ended, Some(Err(_))), "it relays to the end");
        }
    }
}
