//! A UDP proxy between gateways and servers, which loses, repeats, delays and cuts as it is told.
//!
//! ```text
//!   gateway socket --> [ front of a server ] ---- conditions ----> [ a socket for each gateway
//!                  <--                       <--- conditions ----    socket, connected ] <--> server
//! ```
//!
//! Gateways find the fronts in their servers file; the servers never learn of them. On loopback
//! all gateways have one IP address, so a gateway is told by when it first spoke: whoever is
//! unknown belongs to the gateway that was expected last. A gateway with one worker has one socket
//! towards each server for life, and once it has spoken to all of them another may be expected. One
//! that is expected again has been replaced: its sockets are forgotten, since the fresh one may get
//! the port of one of them.
//!
//! One thread does it all. What it holds back is bounded in bytes, and the sockets in number; past
//! either limit datagrams are dropped, and counted as such.

mod conditions;
mod relay;

use std::collections::HashMap;
use std::net::{SocketAddr, UdpSocket};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::thread::{self, JoinHandle};

use mio::Waker;

pub use conditions::Conditions;
use relay::Relay;

use crate::process::own_loopback;

/// Stands before servers.
pub struct Proxy {
    addrs: Vec<SocketAddr>,
    shared: Arc<Shared>,
    waker: Waker,
    thread: Option<JoinHandle<()>>,
}

/// Whither a datagram goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Direction {
    ToServer,
    FromServer,
}

/// From a gateway to a server, or back; both by their numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Way {
    pub gateway: usize,
    pub server: usize,
    pub direction: Direction,
}

/// What has become of datagrams so far. One that arrived twice counts as duplicated once, and each
/// of its copies as passed or delayed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counts {
    pub passed: u64,
    pub dropped: u64,
    pub delayed: u64,
    pub duplicated: u64,
}

impl Proxy {
    /// Stands before `servers`, with a front for each. Who speaks first is gateway 0.
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

    /// Whoever is unknown from now on is this gateway, which has spoken to nobody yet. If there was
    /// one of this number, it is gone.
    pub fn expect(&self, gateway: usize) {
        let mut table = self.shared.table();
        *table.lives.entry(gateway).or_default() += 1;
        table.expected = gateway;
        table.met = vec![false; self.addrs.len()];
    }

    /// Whether the gateway that was expected last has spoken to every server.
    pub fn has_met_the_expected(&self) -> bool {
        self.shared.table().met.iter().all(|met| *met)
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

    /// What has become of datagrams so far.
    pub fn counts(&self) -> Counts {
        self.shared.counts()
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

/// What the handle and the thread share.
#[derive(Default)]
struct Shared {
    table: Mutex<Table>,
    ended: AtomicBool,
    passed: AtomicU64,
    dropped: AtomicU64,
    delayed: AtomicU64,
    duplicated: AtomicU64,
}

/// What the thread is told, and what it tells of who spoke.
#[derive(Default)]
struct Table {
    /// Those ways that are not clear.
    conditions: HashMap<Way, Conditions>,
    expected: usize,
    /// By gateway, how often it was expected.
    lives: HashMap<usize, u64>,
    /// By server, whether the expected gateway has spoken to it.
    met: Vec<bool>,
}

/// Whose a socket is: a gateway, before and after it is replaced.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Owner {
    gateway: usize,
    life: u64,
}

impl Table {
    fn life_of(&self, gateway: usize) -> u64 {
        self.lives.get(&gateway).copied().unwrap_or_default()
    }
}

impl Shared {
    fn table(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap()
    }

    /// Whom an unknown address belongs to, who has now met this server.
    fn meet(&self, server: usize) -> Owner {
        let mut table = self.table();
        if let Some(met) = table.met.get_mut(server) {
            *met = true;
        }
        let gateway = table.expected;
        Owner {
            gateway,
            life: table.life_of(gateway),
        }
    }

    /// Whether no other gateway has taken the place of this one.
    fn is_alive(&self, owner: Owner) -> bool {
        self.table().life_of(owner.gateway) == owner.life
    }

    fn conditions(&self, way: Way) -> Conditions {
        let table = self.table();
        table.conditions.get(&way).copied().unwrap_or_default()
    }

    fn counts(&self) -> Counts {
        let of = |count: &AtomicU64| count.load(Ordering::Acquire);
        Counts {
            passed: of(&self.passed),
            dropped: of(&self.dropped),
            delayed: of(&self.delayed),
            duplicated: of(&self.duplicated),
        }
    }
}

#[cfg(test)]
mod tests;
