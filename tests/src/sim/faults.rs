//! The faults of a world that have begun and not yet ended.

use std::collections::BTreeMap;

use super::network::{Direction, Route};
use super::plan::FaultPlan;
use crate::random::Random;

/// The faults of a world.
pub struct Faults {
    pub(super) plans: Vec<FaultPlan>,
    pub(super) active: BTreeMap<u64, Fault>,
    next: u64,
    pub(super) random: Random,
}

/// A fault that has begun.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Fault {
    Cut(Vec<Route>),
    ServerDown(usize),
    ServerPaused(usize),
    GatewayDown(usize),
    GatewayPaused(usize),
}

impl Faults {
    /// None has begun yet.
    pub fn new(seed: u64, plans: Vec<FaultPlan>) -> Self {
        Self {
            plans,
            active: BTreeMap::new(),
            next: 0,
            random: Random::of(seed, "faults"),
        }
    }

    /// How many kinds of fault there are.
    pub fn kinds(&self) -> usize {
        self.plans.len()
    }

    pub(super) fn begin(&mut self, fault: Fault) -> u64 {
        let number = self.next;
        self.next += 1;
        self.active.insert(number, fault);
        number
    }
}

impl Fault {
    pub(super) fn words(&self, begins: bool) -> String {
        let (who, begin, end) = match self {
            Self::Cut(routes) => {
                let arrow = |route: &Route| {
                    let (gateway, server) = (route.gateway, route.server);
                    match route.direction {
                        Direction::ToServer => format!("gw{gateway}->s{server}"),
                        Direction::ToGateway => format!("s{server}->gw{gateway}"),
                    }
                };
                let routes: Vec<String> = routes.iter().map(arrow).collect();
                (routes.join(" "), "cut off", "not cut off any more")
            }
            Self::ServerDown(server) => (format!("s{server}"), "goes down", "starts"),
            Self::ServerPaused(server) => (format!("s{server}"), "stands still", "goes on"),
            Self::GatewayDown(gateway) => (format!("gw{gateway}"), "goes down", "starts"),
            Self::GatewayPaused(gateway) => (format!("gw{gateway}"), "stands still", "goes on"),
        };
        format!("{who}: {}", if begins { begin } else { end })
    }
}
