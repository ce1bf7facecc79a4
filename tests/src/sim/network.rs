//! The links between gateways and servers, and how each datagram fares on them.
//!
//! Every link has its own conditions, each way, and its own numbers: so what happens on one is the
//! same no matter what goes over another. Invariant: a datagram arrives at most as often as it was sent
//! or copied here, and what arrives undamaged is what was sent.

use std::time::Duration;

use bytes::Bytes;

use super::chance::Chance;
use super::plan::LinkConditions;
use crate::random::Random;

/// A link, one way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Route {
    pub gateway: usize,
    pub server: usize,
    pub direction: Direction,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Direction {
    ToServer,
    ToGateway,
}

/// The links of a world.
pub struct Network {
    servers: usize,
    links: Vec<Link>,
}

struct Link {
    conditions: LinkConditions,
    /// How many faults keep everything from arriving.
    cuts: u32,
    random: Random,
}

/// The fate of a datagram.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fate {
    /// The link is cut.
    Cut,
    /// It is lost.
    Lost,
    /// It arrives: once, or again.
    Arrives(Arrival, Option<Arrival>),
}

/// When a copy of a datagram arrives, and as what.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Arrival {
    pub after: Duration,
    pub datagram: Bytes,
    pub is_damaged: bool,
}

impl Network {
    /// Links of which none is worse than `worst`.
    pub fn new(seed: u64, gateways: usize, servers: usize, worst: LinkConditions) -> Self {
        let link = |number: usize| {
            let mut random = Random::of(seed, &format!("link {number}"));
            let mut some = |most| Chance::NEVER.up_to(most, &mut random);
            let conditions = LinkConditions {
                loss: some(worst.loss),
                repetition: some(worst.repetition),
                damage: some(worst.damage),
                misdelivery: some(worst.misdelivery),
                delay: worst.delay,
            };
            Link {
                conditions,
                cuts: 0,
                random,
            }
        };
        Self {
            servers,
            links: (0..gateways * servers * 2).map(link).collect(),
        }
    }

    /// Decides the fate of a datagram that is sent now.
    pub fn send(&mut self, route: Route, datagram: &Bytes) -> Fate {
        let link = self.link(route);
        if link.cuts > 0 {
            return Fate::Cut;
        }
        let Link {
            conditions, random, ..
        } = link;
        if conditions.loss.happens(random) {
            return Fate::Lost;
        }
        let is_repeated = conditions.repetition.happens(random);
        let first = link.arrival(datagram);
        Fate::Arrives(first, is_repeated.then(|| link.arrival(datagram)))
    }

    /// From which other server a copy of a reply seems to come, if there is one.
    pub fn misdeliver(&mut self, route: Route) -> Option<(usize, Duration)> {
        let servers = self.servers;
        let Link {
            conditions, random, ..
        } = self.link(route);
        if route.direction == Direction::ToServer || !conditions.misdelivery.happens(random) {
            return None;
        }
        let other = random.below(servers);
        let after = conditions.delay.draw(random);
        (other != route.server).then_some((other, after))
    }

    /// Whether a notice that nobody listens arrives, and after how long.
    pub fn notice(&mut self, route: Route, likely: Chance) -> Option<Duration> {
        let Link {
            conditions,
            cuts,
            random,
        } = self.link(route);
        let arrives = likely.happens(random) && !conditions.loss.happens(random) && *cuts == 0;
        arrives.then(|| conditions.delay.usual.draw(random))
    }

    /// One more fault keeps everything from arriving.
    pub fn cut(&mut self, route: Route) {
        self.link(route).cuts += 1;
    }

    /// One fault less does.
    pub fn mend(&mut self, route: Route) {
        let link = self.link(route);
        assert!(link.cuts > 0, "{route:?} is not cut");
        link.cuts -= 1;
    }

    /// From now on nothing goes wrong. What is late already stays late.
    pub fn heal(&mut self) {
        for link in &mut self.links {
            assert_eq!(link.cuts, 0, "cuts are mended by those who made them");
            link.conditions = LinkConditions::CLEAR;
        }
    }

    fn link(&mut self, route: Route) -> &mut Link {
        let pair = route.gateway * self.servers + route.server;
        &mut self.links[2 * pair + usize::from(route.direction == Direction::ToGateway)]
    }
}

impl Link {
    fn arrival(&mut self, datagram: &Bytes) -> Arrival {
        let after = self.conditions.delay.draw(&mut self.random);
        let is_damaged = self.conditions.damage.happens(&mut self.random) && !datagram.is_empty();
        let datagram = match is_damaged {
            true => damaged(datagram, &mut self.random),
            false => datagram.clone(),
        };
        Arrival {
            after,
            datagram,
            is_damaged,
        }
    }
}

/// The datagram with one to three bits the other way, at its beginning more often than elsewhere:
/// there it may come to be taken for something else.
fn damaged(datagram: &Bytes, random: &mut Random) -> Bytes {
    let mut bytes = datagram.to_vec();
    for _ in 0..=random.below(3) {
        let end = match random.below(4) {
            0 => bytes.len().min(12),
            _ => bytes.len(),
        };
        let bit = random.below(end * 8);
        bytes[bit / 8] ^= 1 << (bit % 8);
    }
    bytes.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    const ROUTE: Route = Route {
        gateway: 1,
        server: 2,
        direction: Direction::ToGateway,
    };

    fn network(conditions: LinkConditions) -> Network {
        Network::new(1, 2, 3, conditions)
    }

    #[test]
    fn over_a_clear_link_everything_arrives_once_as_it_was_sent() {
        let mut network = network(LinkConditions::CLEAR);
        let sent = Bytes::from_static(b"datagram");
        for _ in 0..1_000 {
            let Fate::Arrives(arrival, None) = network.send(ROUTE, &sent) else {
                panic!("it arrives once");
            };
            assert!(arrival.datagram == sent && !arrival.is_damaged);
            assert_eq!(network.misdeliver(ROUTE), None);
        }
    }

    #[test]
    fn every_kind_of_link_fault_shows() {
        let half = Chance::percent(50);
        let bad = LinkConditions {
            loss: half,
            repetition: half,
            damage: half,
            misdelivery: half,
            ..LinkConditions::CLEAR
        };
        let (mut lost, mut repeated, mut damaged, mut misdelivered) = (0, 0, 0, 0);
        let sent = Bytes::from_static(b"datagram");
        let mut network = network(bad);
        for _ in 0..1_000 {
            misdelivered += u32::from(network.misdeliver(ROUTE).is_some());
            match network.send(ROUTE, &sent) {
                Fate::Arrives(first, again) => {
                    repeated += u32::from(again.is_some());
                    damaged += u32::from(first.is_damaged);
                    assert!(first.is_damaged || first.datagram == sent);
                }
                _ => lost += 1,
            }
        }
        for count in [lost, repeated, damaged, misdelivered] {
            assert!(count > 10);
        }
        network.heal();
        assert!(matches!(network.send(ROUTE, &sent), Fate::Arrives(..)));
    }

    #[test]
    fn a_link_is_cut_one_way_until_the_last_fault_is_over() {
        let mut network = network(LinkConditions::CLEAR);
        let sent = Bytes::from_static(b"datagram");
        let back = Route {
            direction: Direction::ToServer,
            ..ROUTE
        };
        network.cut(ROUTE);
        network.cut(ROUTE);
        network.mend(ROUTE);
        assert_eq!(network.send(ROUTE, &sent), Fate::Cut);
        assert!(matches!(network.send(back, &sent), Fate::Arrives(..)));
        network.mend(ROUTE);
        assert!(matches!(network.send(ROUTE, &sent), Fate::Arrives(..)));
    }
}
