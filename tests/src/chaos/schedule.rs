//! What breaks, when, and for how long: drawn from a seed, before anything runs.
//!
//! Keeps what the promise of the linearizable level assumes: a server that keeps its pairs in
//! memory is ended once at most, late, and never comes back, so that of any key's replicas a
//! minority is gone for good. One that has a disk comes back with what it had. Whatever else breaks
//! is whole again when its phase ends.

use std::time::Duration;

use crate::proxy::{Conditions, Direction, Way};
use crate::random::Random;

/// The shortest phase; the longest is four times that, and one in [`LONG_ONE_IN`] again as long.
const PHASE_MIN: Duration = Duration::from_millis(150);
const LONG_ONE_IN: usize = 8;

/// What passes a strait: a few questions, and no value that is padded.
const STRAIT_BYTES_MAX: usize = 256;

/// Something that breaks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fault {
    /// A server stands still.
    Pause { server: usize },
    /// Nothing passes between a gateway and some servers.
    CutBothWays { gateway: usize, servers: Vec<usize> },
    /// Nothing passes between a gateway and some servers in one direction.
    CutOneWay {
        gateway: usize,
        servers: Vec<usize>,
        direction: Direction,
    },
    /// Long datagrams of a gateway do not reach some servers: it learns their tags, and cannot have
    /// them store a longer value, so that writes end half done.
    Strait { gateway: usize, servers: Vec<usize> },
    /// Some of what a gateway and the servers say to each other is lost.
    Loss { gateway: usize, percent: u8 },
    /// Some of it arrives twice.
    Duplication { gateway: usize, percent: u8 },
    /// Some of it arrives late, and is overtaken.
    Delay { gateway: usize, percent: u8 },
    /// Some of everything, for all gateways, and between servers.
    Storm,
    /// A server that has a disk is killed, and started again after the phase.
    RestartServer { server: usize },
    /// A gateway is killed, and after the phase there is a fresh one.
    ReplaceGateway { gateway: usize },
    /// A server is killed for good.
    KillServer { server: usize },
}

/// What breaks together, and how long it stays so.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Phase {
    pub faults: Vec<Fault>,
    pub lasts: Duration,
    /// How long everything is whole afterwards.
    pub calm: Duration,
}

/// Of how many servers and gateways.
#[derive(Debug, Clone, Copy)]
pub struct Cast {
    pub servers: usize,
    pub gateways: usize,
}

impl Cast {
    /// Whether a server has a disk: every other has.
    pub fn has_disk(server: usize) -> bool {
        server.is_multiple_of(2)
    }

    /// The number by which the proxy knows a server as one that asks others.
    pub fn sender(self, server: usize) -> usize {
        self.gateways + server
    }
}

/// Draws so many phases. Three quarters through, a server is killed. Every other phase has one of
/// a deck of faults, and half of them any other beside it.
pub fn draw(random: &mut Random, cast: Cast, phases: usize) -> Vec<Phase> {
    let mut living: Vec<usize> = (0..cast.servers).collect();
    // What is no register shows best where writes are half done, so straits come more often.
    let whole_deck = [&Kind::ALL[..], &[Kind::Strait, Kind::Strait]].concat();
    let mut deck = Vec::new();
    let mut schedule = Vec::with_capacity(phases);
    for number in 0..phases {
        let mut faults = Vec::new();
        if number == phases * 3 / 4 {
            let server = living.remove(random.below(living.len()));
            faults.push(Fault::KillServer { server });
        } else {
            if deck.is_empty() {
                deck.clone_from(&whole_deck);
            }
            let kind = deck.swap_remove(random.below(deck.len()));
            faults.push(kind.draw(random, cast, &living));
            let another = Kind::ALL[random.below(Kind::ALL.len())];
            // Two of a kind would be two servers at a stand, or no gateway at all.
            let is_of_other_kind = another != kind && !(kind.stops() && another.stops());
            if is_of_other_kind && random.below(2) == 0 {
                faults.push(another.draw(random, cast, &living));
            }
        }
        let lasts = PHASE_MIN + drawn(random, 3 * PHASE_MIN);
        let times = if random.below(LONG_ONE_IN) == 0 { 2 } else { 1 };
        schedule.push(Phase {
            faults,
            lasts: lasts * times,
            calm: drawn(random, PHASE_MIN),
        });
    }
    schedule
}

/// The kinds of faults that come again and again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Pause,
    CutBothWays,
    CutOneWay,
    Strait,
    Loss,
    Duplication,
    Delay,
    Storm,
    RestartServer,
    ReplaceGateway,
}

impl Kind {
    const ALL: [Self; 10] = [
        Self::Pause,
        Self::CutBothWays,
        Self::CutOneWay,
        Self::Strait,
        Self::Loss,
        Self::Duplication,
        Self::Delay,
        Self::Storm,
        Self::RestartServer,
        Self::ReplaceGateway,
    ];

    /// Whether a server does nothing meanwhile.
    fn stops(self) -> bool {
        matches!(self, Self::Pause | Self::RestartServer)
    }

    fn draw(self, random: &mut Random, cast: Cast, living: &[usize]) -> Fault {
        let gateway = random.below(cast.gateways);
        match self {
            Self::Pause => Fault::Pause {
                server: living[random.below(living.len())],
            },
            Self::CutBothWays => Fault::CutBothWays {
                gateway,
                servers: some(1 + random.below(2), random, living),
            },
            Self::CutOneWay => Fault::CutOneWay {
                gateway,
                servers: some(1 + random.below(2), random, living),
                direction: [Direction::ToServer, Direction::FromServer][random.below(2)],
            },
            Self::Strait => Fault::Strait {
                gateway,
                servers: some(2 + random.below(2), random, living),
            },
            Self::Loss => Fault::Loss {
                gateway,
                percent: percent(random, 20, 80),
            },
            Self::Duplication => Fault::Duplication {
                gateway,
                percent: percent(random, 20, 100),
            },
            Self::Delay => Fault::Delay {
                gateway,
                percent: percent(random, 20, 100),
            },
            Self::Storm => Fault::Storm,
            Self::RestartServer => {
                let with_disks = living.iter().filter(|server| Cast::has_disk(**server));
                let with_disks: Vec<usize> = with_disks.copied().collect();
                Fault::RestartServer {
                    server: random.one_of(&with_disks),
                }
            }
            Self::ReplaceGateway => Fault::ReplaceGateway { gateway },
        }
    }
}

impl Fault {
    /// What it is called where faults are counted.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Pause { .. } => "pauses",
            Self::CutBothWays { .. } => "cuts",
            Self::CutOneWay { .. } => "one-way cuts",
            Self::Strait { .. } => "straits",
            Self::Loss { .. } => "losses",
            Self::Duplication { .. } => "duplications",
            Self::Delay { .. } => "delays",
            Self::Storm => "storms",
            Self::RestartServer { .. } => "servers restarted",
            Self::ReplaceGateway { .. } => "gateways replaced",
            Self::KillServer { .. } => "servers killed",
        }
    }

    /// What it makes of the ways between gateways and servers.
    pub fn conditions(&self, cast: Cast) -> Vec<(Way, Conditions)> {
        const BOTH: [Direction; 2] = [Direction::ToServer, Direction::FromServer];
        let every_server: Vec<usize> = (0..cast.servers).collect();
        let of_gateway = |gateway, conditions| ways(gateway, &every_server, &BOTH, conditions);
        match self {
            Self::CutBothWays { gateway, servers } => {
                ways(*gateway, servers, &BOTH, Conditions::CUT)
            }
            Self::CutOneWay {
                gateway,
                servers,
                direction,
            } => ways(*gateway, servers, &[*direction], Conditions::CUT),
            Self::Strait { gateway, servers } => {
                let conditions = Conditions {
                    datagram_bytes_max: Some(STRAIT_BYTES_MAX),
                    ..Conditions::CLEAR
                };
                ways(*gateway, servers, &[Direction::ToServer], conditions)
            }
            Self::Loss { gateway, percent } => {
                let conditions = Conditions {
                    lost_percent: *percent,
                    ..Conditions::CLEAR
                };
                of_gateway(*gateway, conditions)
            }
            Self::Duplication { gateway, percent } => {
                let conditions = Conditions {
                    repeated_percent: *percent,
                    ..Conditions::CLEAR
                };
                of_gateway(*gateway, conditions)
            }
            Self::Delay { gateway, percent } => {
                let conditions = Conditions {
                    delayed_percent: *percent,
                    ..Conditions::CLEAR
                };
                of_gateway(*gateway, conditions)
            }
            Self::Storm => {
                let conditions = Conditions {
                    lost_percent: 15,
                    repeated_percent: 30,
                    delayed_percent: 50,
                    ..Conditions::CLEAR
                };
                let senders = 0..cast.gateways + cast.servers;
                senders
                    .flat_map(|sender| of_gateway(sender, conditions))
                    .collect()
            }
            Self::Pause { .. }
            | Self::RestartServer { .. }
            | Self::ReplaceGateway { .. }
            | Self::KillServer { .. } => Vec::new(),
        }
    }
}

fn ways(
    gateway: usize,
    servers: &[usize],
    directions: &[Direction],
    conditions: Conditions,
) -> Vec<(Way, Conditions)> {
    let of_server = |server: &usize| {
        let server = *server;
        directions.iter().map(move |direction| Way {
            gateway,
            server,
            direction: *direction,
        })
    };
    let ways = servers.iter().flat_map(of_server);
    ways.map(|way| (way, conditions)).collect()
}

fn some(count: usize, random: &mut Random, living: &[usize]) -> Vec<usize> {
    let mut living = living.to_vec();
    let drawn = (0..count).map(|_| living.swap_remove(random.below(living.len())));
    drawn.collect()
}

fn percent(random: &mut Random, from: u8, to: u8) -> u8 {
    from + random.below(usize::from(to - from) + 1) as u8
}

fn drawn(random: &mut Random, below: Duration) -> Duration {
    Duration::from_micros(random.below(below.as_micros() as usize) as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    use std::collections::BTreeSet;

    const CAST: Cast = Cast {
        servers: 5,
        gateways: 2,
    };

    fn schedules() -> impl Iterator<Item = Vec<Phase>> {
        (0..200).map(|seed| draw(&mut Random::new(seed), CAST, 36))
    }

    fn faults(schedule: &[Phase]) -> impl Iterator<Item = &Fault> {
        schedule.iter().flat_map(|phase| &phase.faults)
    }

    #[test]
    fn a_seed_gives_one_schedule_and_another_gives_another() {
        let of = |seed| draw(&mut Random::new(seed), CAST, 36);
        assert_eq!(of(7), of(7));
        assert_ne!(of(7), of(8));
    }

    #[test]
    fn every_kind_of_fault_is_in_every_schedule() {
        for schedule in schedules() {
            let names: BTreeSet<&str> = faults(&schedule).map(Fault::name).collect();
            assert_eq!(names.len(), Kind::ALL.len() + 1, "{names:?}");
        }
    }

    #[test]
    fn one_server_is_killed_and_nothing_is_done_to_it_any_more() {
        for schedule in schedules() {
            let killed = |fault: &Fault| match fault {
                Fault::KillServer { server } => Some(*server),
                _ => None,
            };
            let all: Vec<usize> = faults(&schedule).filter_map(killed).collect();
            let [killed] = all[..] else {
                panic!("{all:?}");
            };
            let after = &schedule[28..];
            let is_of_killed = |fault: &Fault| {
                *fault == Fault::Pause { server: killed }
                    || *fault == Fault::RestartServer { server: killed }
            };
            assert!(!faults(after).any(is_of_killed));
        }
    }

    #[test]
    fn one_server_at_a_time_stands_still_and_one_gateway_is_always_there() {
        for schedule in schedules() {
            for Phase { faults, .. } in &schedule {
                let names: BTreeSet<&str> = faults.iter().map(Fault::name).collect();
                assert_eq!(names.len(), faults.len(), "{faults:?}");
                let stopped = ["pauses", "servers restarted", "servers killed"];
                let stopped = names.iter().filter(|name| stopped.contains(name));
                assert!(stopped.count() <= 1, "{faults:?}");
            }
        }
    }

    #[test]
    fn a_server_comes_back_only_with_what_it_had() {
        for schedule in schedules() {
            for fault in faults(&schedule) {
                if let Fault::RestartServer { server } = fault {
                    assert!(Cast::has_disk(*server), "{fault:?}");
                }
            }
        }
    }

    #[test]
    fn a_cut_is_of_one_gateway_and_of_other_servers_than_a_majority() {
        let cuts = |fault: &Fault| {
            let conditions = fault.conditions(CAST);
            conditions.iter().any(|(_, conditions)| conditions.is_cut)
        };
        for schedule in schedules() {
            for fault in faults(&schedule).filter(|fault| cuts(fault)) {
                let ways = fault.conditions(CAST);
                let gateways: BTreeSet<_> = ways.iter().map(|(way, _)| way.gateway).collect();
                let servers: BTreeSet<_> = ways.iter().map(|(way, _)| way.server).collect();
                assert_eq!(gateways.len(), 1);
                assert!((1..=2).contains(&servers.len()));
                let both = matches!(fault, Fault::CutBothWays { .. });
                let directions = if both { 2 } else { 1 };
                assert_eq!(ways.len(), directions * servers.len());
            }
        }
    }

    #[test]
    fn a_strait_lets_questions_pass_and_all_that_comes_back() {
        let straits = schedules().flat_map(|schedule| {
            let faults: Vec<Fault> = faults(&schedule).cloned().collect();
            faults
        });
        for strait in straits.filter(|fault| matches!(fault, Fault::Strait { .. })) {
            let ways = strait.conditions(CAST);
            assert!((2..=3).contains(&ways.len()), "{ways:?}");
            for (way, conditions) in ways {
                assert_eq!(way.direction, Direction::ToServer);
                let longest = conditions.datagram_bytes_max.unwrap();
                assert!((100..300).contains(&longest) && !conditions.is_cut);
            }
        }
    }

    #[test]
    fn a_storm_is_everywhere_and_a_loss_is_of_one_gateway() {
        assert_eq!(Fault::Storm.conditions(CAST).len(), 2 * (2 + 5) * 5);
        let loss = Fault::Loss {
            gateway: 1,
            percent: 30,
        };
        let ways = loss.conditions(CAST);
        assert_eq!(ways.len(), 2 * 5);
        assert!(ways.iter().all(|(way, conditions)| {
            way.gateway == 1 && conditions.lost_percent == 30 && !conditions.is_cut
        }));
    }
}
