//! What the proxy's handle and its thread share: conditions, counts, and whose a socket is.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard};

use super::conditions::Conditions;

/// Which way a datagram goes.
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

/// What the proxy did with datagrams so far. One that arrived twice counts as duplicated once, and each
/// of its copies as passed or delayed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counts {
    pub passed: u64,
    pub dropped: u64,
    pub delayed: u64,
    pub duplicated: u64,
}

/// What the handle and the thread share.
#[derive(Default)]
pub(super) struct Shared {
    pub(super) table: Mutex<Table>,
    pub(super) ended: AtomicBool,
    pub(super) passed: AtomicU64,
    pub(super) dropped: AtomicU64,
    pub(super) delayed: AtomicU64,
    pub(super) duplicated: AtomicU64,
    /// Of all that was sent on.
    pub(super) bytes: AtomicU64,
}

/// What the handle sets, and what the thread reports of the gateways that sent.
#[derive(Default)]
pub(super) struct Table {
    /// Those ways that are not clear.
    pub(super) conditions: HashMap<Way, Conditions>,
    pub(super) expected: usize,
    /// By gateway, how often it was expected.
    pub(super) lives: HashMap<usize, u64>,
    /// By server, whether the expected gateway has spoken to it.
    pub(super) met: Vec<bool>,
}

/// Whose a socket is: a gateway, before and after it is replaced.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Owner {
    pub(super) gateway: usize,
    pub(super) life: u64,
}

impl Table {
    fn life_of(&self, gateway: usize) -> u64 {
        self.lives.get(&gateway).copied().unwrap_or_default()
    }
}

impl Shared {
    pub(super) fn table(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap()
    }

    /// The gateway to which an unknown address belongs, which has now met this server.
    pub(super) fn meet(&self, server: usize) -> Owner {
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
    pub(super) fn is_alive(&self, owner: Owner) -> bool {
        self.table().life_of(owner.gateway) == owner.life
    }

    pub(super) fn conditions(&self, way: Way) -> Conditions {
        let table = self.table();
        table.conditions.get(&way).copied().unwrap_or_default()
    }

    pub(super) fn counts(&self) -> Counts {
        let of = |count: &AtomicU64| count.load(Ordering::Acquire);
        Counts {
            passed: of(&self.passed),
            dropped: of(&self.dropped),
            delayed: of(&self.delayed),
            duplicated: of(&self.duplicated),
        }
    }
}
