//! What a seed decides before anything happens.
//!
//! Every kind of fault is on in some seeds and off in others, and its rate is another in each: so
//! what one kind hides another seed shows (Groce et al., "Swarm Testing", 2012).

use std::time::Duration;

use dkvs_common::kv::Key;
use dkvs_common::quorum::level::Level;
use dkvs_common::quorum::params::{Quorum, majority};
use dkvs_storage_node::anti_entropy::Timing;

use super::chance::{Chance, Delay, Span};
use super::disk_plan::{self, DiskPlan};
pub use super::fault_plan::{FaultKind, FaultPlan};
use super::v1_plan::{Dialect, V1Plan};
use crate::random::Random;

/// A world before it begins.
#[derive(Debug, Clone)]
pub struct Plan {
    pub severity: Severity,
    pub servers: Vec<ServerPlan>,
    pub gateways: Vec<GatewayPlan>,
    /// How many copies the cluster keeps.
    pub replication: u8,
    /// Whether datagrams are proved by a key, or by a checksum alone.
    pub is_keyed: bool,
    /// Whether a server that crashes has forgotten what it had confirmed. The promise does not
    /// cover it, and less is checked.
    pub is_forgetful: bool,
    /// Whether servers keep what they hold on disks, and how.
    pub disks: Option<DiskPlan>,
    pub datagram_bytes_max: usize,
    pub keys: Vec<KeyPlan>,
    pub workload: WorkloadPlan,
    /// The worst that any link may be.
    pub link_conditions: LinkConditions,
    /// Whether a datagram to a port where nobody listens is answered by the system, mostly.
    pub notices: Chance,
    pub faults: Vec<FaultPlan>,
    /// Most servers out of service at a time.
    pub down_max: usize,
    /// What speaks DKVS/1, if anything does.
    pub v1: Option<V1Plan>,
    pub places: PlacesPlan,
    /// How servers that know their ring pull from each other, if they do.
    pub pulls: Option<Timing>,
}

/// How many requests a gateway takes on, and on whose behalf the clients ask.
#[derive(Debug, Clone, Copy)]
pub struct PlacesPlan {
    /// Most that are not decided.
    pub undecided_max: usize,
    /// Most that are decided and wait for the other replicas.
    pub decided_max: usize,
    /// How many callers there are: clients share them.
    pub callers: usize,
}

/// How bad it is altogether.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Severity {
    /// Nothing goes wrong.
    Calm,
    /// What an ordinary network does.
    Mild,
    /// What it does on its worst day.
    Rough,
    /// What it never does.
    Brutal,
}

#[derive(Debug, Clone, Copy)]
pub struct ServerPlan {
    pub ring_points: u32,
    /// Whether it knows its ring, and refuses requests for another.
    pub knows_ring: bool,
    /// How long it takes over a datagram.
    pub service: Span,
    /// Datagrams that its socket holds.
    pub buffer_datagrams: usize,
    /// How deep the leaves are by which it compares itself with others.
    pub leaf_depth: u8,
    /// Whether it compares itself with others, if it knows them.
    pub compares: bool,
}

#[derive(Debug, Clone, Copy)]
pub struct GatewayPlan {
    /// By how much its wall clock is ahead of the true time at the start, in milliseconds.
    pub ahead_ms: i64,
    /// By how much it gains on the true time, in microseconds a second.
    pub gains_us: i64,
    /// How long it gathers what it has to send.
    pub turn: Span,
    /// Whether it has the same ports after a restart, at which late replies arrive.
    pub keeps_ports: bool,
}

/// A key, and how it is used: always with the same quorums, and at one level.
#[derive(Debug, Clone)]
pub struct KeyPlan {
    pub key: Key,
    pub level: Level,
    pub write: Quorum,
    pub read: Quorum,
    /// Whether it may be written on conditions.
    pub may_be_conditional: bool,
}

#[derive(Debug, Clone, Copy)]
pub struct WorkloadPlan {
    pub clients: usize,
    pub operations: usize,
    pub reads: Chance,
    /// Of those that are no reads.
    pub deletes: Chance,
    /// How likely a client asks again under the same tag when the outcome is unknown, each time.
    pub resubmits: Chance,
    /// How likely a write is made on a condition.
    pub conditional: Chance,
    /// How likely a value does not fit a datagram.
    pub long_values: Chance,
    /// How likely a request waits for every replica.
    pub waits_for_all: Chance,
    /// How likely a client goes away before its answer comes.
    pub leaves: Chance,
    /// How likely a client stays at the gateway that it asked before.
    pub stays: Chance,
    /// How long a request may take, one or the other.
    pub timeouts: [Duration; 2],
    pub thinks: Span,
}

/// The conditions of a link, one way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LinkConditions {
    pub loss: Chance,
    pub repetition: Chance,
    pub damage: Chance,
    /// Of replies: a copy arrives as if another server had sent it.
    pub misdelivery: Chance,
    pub delay: Delay,
}

impl LinkConditions {
    /// Nothing goes wrong.
    pub const CLEAR: Self = Self {
        loss: Chance::NEVER,
        repetition: Chance::NEVER,
        damage: Chance::NEVER,
        misdelivery: Chance::NEVER,
        delay: Delay {
            usual: Span::us(50, 150),
            late: Chance::NEVER,
            longest: Duration::from_millis(1),
        },
    };
}

impl Plan {
    /// What this seed decides.
    pub fn of(seed: u64) -> Self {
        let mut plan = Self::without_v1(seed);
        // Keys prove nothing of DKVS/1.
        if !plan.is_keyed {
            let random = &mut Random::of(seed, "DKVS/1");
            plan.v1 = V1Plan::draw(random, plan.servers.len(), plan.keys.len());
        }
        allow_conditions(&mut plan, &mut Random::of(seed, "conditions"));
        plan
    }

    /// What a server speaks.
    pub fn dialect(&self, server: usize) -> Dialect {
        self.v1
            .as_ref()
            .map_or(Dialect::Both, |v1| v1.servers[server])
    }

    /// Whether clients of DKVS/1 use a key.
    pub fn is_shared(&self, key: usize) -> bool {
        self.v1.as_ref().is_some_and(|v1| v1.is_shared[key])
    }

    fn without_v1(seed: u64) -> Self {
        let random = &mut Random::of(seed, "plan");
        let severity = match random.below(100) {
            0..4 => Severity::Calm,
            4..35 => Severity::Mild,
            35..75 => Severity::Rough,
            _ => Severity::Brutal,
        };
        let servers = 3 + random.below(5);
        let replication = if servers >= 5 && Chance::percent(40).happens(random) {
            5
        } else {
            3
        };
        let knows_ring = Chance::percent(80).happens(random);
        let (calm, worst) = (Severity::Calm, severity);
        let leaves = &mut Random::of(seed, "leaves");
        let disks = DiskPlan::draw(&mut Random::of(seed, "disks"), servers, replication);
        let mut plan = Self {
            disks,
            severity,
            replication,
            servers: (0..servers)
                .map(|_| draw_server(knows_ring, random, leaves))
                .collect(),
            gateways: draw_gateways(random),
            is_keyed: Chance::percent(20).happens(random),
            is_forgetful: Chance::percent(6).happens(random),
            datagram_bytes_max: random.one_of(&[1_200, 1_200, 1_200, 1_200, 512, 1_472, 8_192]),
            keys: draw_keys(servers, replication, random),
            workload: draw_workload(random),
            link_conditions: draw_link_conditions(worst, random),
            notices: random.one_of(&[Chance::NEVER, Chance::percent(50), Chance::percent(95)]),
            faults: if worst == calm {
                Vec::new()
            } else {
                draw_faults(worst, random)
            },
            down_max: match severity {
                Severity::Brutal => 1 + random.below(servers),
                _ => 1 + random.below(usize::from(replication / 2)),
            },
            v1: None,
            places: draw_places(&mut Random::of(seed, "places")),
            pulls: None,
        };
        plan.pulls = draw_pulls(&mut Random::of(seed, "pulls"));
        if plan.disks.is_some() && severity != calm {
            harm_disks(&mut plan, &mut Random::of(seed, "lost disks"));
            replace_servers(&mut plan, &mut Random::of(seed, "replaced servers"));
        }
        for server in &mut plan.servers {
            server.compares = plan.pulls.is_some();
        }
        set_disks_back(&mut plan, &mut Random::of(seed, "set back"));
        if let Some(pulls) = &mut plan.pulls {
            // By then no request is under way any more that counts what a server said before its start.
            let [shorter, longer] = plan.workload.timeouts;
            pulls.settling = shorter.max(longer) * 5 / 4;
        }
        if let Some(disks) = plan.disks.as_mut().filter(|_| plan.pulls.is_some()) {
            disks.scrub = disk_plan::draw_scrub(&mut Random::of(seed, "scrub"));
        }
        plan
    }
}

/// In some worlds keys are written on conditions, if nobody uses them by DKVS/1 and no server forgets.
fn allow_conditions(plan: &mut Plan, random: &mut Random) {
    if plan.v1.is_some() || plan.is_forgetful || !Chance::percent(50).happens(random) {
        return;
    }
    plan.workload.conditional = random.one_of(&[20, 60, 90].map(Chance::percent));
    // The fewer keys, the more often writes meet.
    if Chance::percent(50).happens(random) {
        plan.keys.truncate(1);
    }
    for key in &mut plan.keys {
        let is_of_replicas = key.write.n() == plan.replication;
        key.may_be_conditional = key.level == Level::Linearizable && is_of_replicas;
    }
}

/// In some worlds disks are damaged again and again. In some they are lost, while requests are so short that
/// servers find out soon what they have to hold, and seldom compare themselves but at their start: with disks
/// that are slower than the lost one, or while servers are cut off.
fn harm_disks(plan: &mut Plan, random: &mut Random) {
    if !Chance::percent(30).happens(random) {
        if Chance::percent(20).happens(random) {
            plan.faults.push(FaultPlan {
                kind: FaultKind::DiskDamage,
                every: Span::ms(50, 400),
                lasts: Span::ms(1, 60),
            });
        }
        return;
    }
    plan.faults
        .retain(|fault| fault.kind != FaultKind::DiskLoss);
    plan.faults.push(FaultPlan {
        kind: FaultKind::DiskLoss,
        every: Span::ms(50, 400),
        lasts: Span::ms(1, 40),
    });
    let mut shorter = Duration::from_millis(random.one_of(&[40, 100, 200, 400]));
    if let Some(pulls) = &mut plan.pulls {
        pulls.interval = Span::ms(500, 4_000).draw(random);
    }
    // What a disk confirmed before it was lost is then still on its way to the other disks.
    if Chance::percent(50).happens(random)
        && let (Some(disks), Some(pulls)) = (&mut plan.disks, &mut plan.pulls)
    {
        disks.commit = Span::ms(40, 120);
        disks.victims_commit = Some(Span::us(50, 300));
        pulls.pause = Span::ms(0, 20).draw(random);
        shorter = Duration::from_millis(400);
    } else {
        // Or one server lacks what the disk confirmed together with another.
        plan.faults.push(FaultPlan {
            kind: FaultKind::ServerCut,
            every: Span::ms(80, 400),
            lasts: Span::ms(50, 400),
        });
    }
    plan.workload.timeouts = [shorter, shorter * 2];
}

/// In some worlds where disks are lost, servers of other clusters take the places of those that are down, for as
/// long as it takes to be asked what they hold.
fn replace_servers(plan: &mut Plan, random: &mut Random) {
    let are_lost = |fault: &FaultPlan| fault.kind == FaultKind::DiskLoss;
    if plan.faults.iter().any(are_lost) && Chance::percent(30).happens(random) {
        plan.faults.push(FaultPlan {
            kind: FaultKind::ForeignServer,
            every: Span::ms(80, 400),
            lasts: Span::ms(100, 1_000),
        });
    }
}

/// In some worlds disks are set back again and again. What no peer has noted is not found, nor what none of
/// those who noted it can be asked about: so servers wait for their peers, and these lose nothing.
fn set_disks_back(plan: &mut Plan, random: &mut Random) {
    let Some(pulls) = plan.pulls.as_mut().filter(|_| plan.disks.is_some()) else {
        return;
    };
    if plan.is_forgetful || plan.severity == Severity::Calm || !Chance::percent(25).happens(random)
    {
        return;
    }
    pulls.interval = Span::ms(20, 100).draw(random);
    pulls.start = Duration::from_secs(3_600);
    plan.faults.push(FaultPlan {
        kind: FaultKind::SetBack,
        every: Span::ms(50, 300),
        lasts: Span::ms(1, 40),
    });
}

fn draw_server(knows_ring: bool, random: &mut Random, leaves: &mut Random) -> ServerPlan {
    let slowest = random.one_of(&[5, 20, 20, 100, 500]);
    ServerPlan {
        ring_points: 1 + random.below(4) as u32,
        knows_ring,
        service: Span::us(2, slowest),
        buffer_datagrams: random.one_of(&[8, 64, 256]),
        leaf_depth: 1 + leaves.below(10) as u8,
        compares: false,
    }
}

fn draw_places(random: &mut Random) -> PlacesPlan {
    let callers = 1 + random.below(4);
    let is_scarce = Chance::percent(40).happens(random);
    let (undecided_max, decided_max) = match is_scarce {
        true => (2 + random.below(5), 1 + random.below(4)),
        false => (1_024, 2_048),
    };
    PlacesPlan {
        undecided_max,
        decided_max,
        callers,
    }
}

/// Far more often than servers do, since a world lasts for seconds.
fn draw_pulls(random: &mut Random) -> Option<Timing> {
    let ms = |random: &mut Random, from, to| Span::ms(from, to).draw(random);
    let timing = Timing {
        interval: ms(random, 20, 1_000),
        pause: ms(random, 0, 200),
        nudge: Duration::from_millis(100),
        start: Duration::from_millis(200),
        retry: ms(random, 10, 500),
        finish: Duration::from_millis(200),
        answer: ms(random, 50, 1_000),
        settling: Duration::MAX,
    };
    Chance::percent(60).happens(random).then_some(timing)
}

fn draw_gateways(random: &mut Random) -> Vec<GatewayPlan> {
    // By a few hours; or by many days, which no clock follows that is right.
    let hours = random.one_of(&[0, 0, 3, 3, 3, 3, 3, 1_000]);
    let turn = random.one_of(&[Span::us(0, 0), Span::us(1, 20), Span::us(10, 200)]);
    let count = random.one_of(&[1, 2, 2, 2, 3, 3, 4]);
    let gateway = |random: &mut Random| {
        let most_ms = hours * 3_600_000;
        let (mut ahead_ms, mut gains_us) = (0, 0);
        if most_ms > 0 {
            ahead_ms = random.below(2 * most_ms) as i64 - most_ms as i64;
            gains_us = random.one_of(&[0, 0, 50, -50, 200_000, -200_000]);
        }
        GatewayPlan {
            ahead_ms,
            gains_us,
            turn,
            keeps_ports: Chance::percent(50).happens(random),
        }
    };
    (0..count).map(|_| gateway(random)).collect()
}

fn draw_keys(servers: usize, replication: u8, random: &mut Random) -> Vec<KeyPlan> {
    (1..=random.one_of(&[1, 1, 2, 2, 3, 4, 6]))
        .map(|number| draw_key(number, servers, replication, random))
        .collect()
}

/// What keys begin with: folders for lists, and one that is next to a folder and none itself.
pub const FOLDERS: [&str; 5] = ["d/", "d0", "", "d/e/", "f/"];

fn draw_key(number: usize, servers: usize, replication: u8, random: &mut Random) -> KeyPlan {
    let drawn = random.below(1 << 16);
    let name = format!("{}k{number}.{drawn:x}", FOLDERS[drawn % FOLDERS.len()]);
    let half = majority(replication);
    let mut one_of = |from: u8, to: u8| from + random.below(usize::from(to - from) + 1) as u8;
    let (n, w, r) = match one_of(0, 19) {
        0..14 => (replication, half, half),
        14 | 15 => (
            replication,
            one_of(half, replication),
            one_of(half, replication),
        ),
        16 | 17 => (replication, one_of(1, replication), one_of(1, replication)),
        _ => {
            let n = one_of(1, servers as u8);
            (n, one_of(1, n), one_of(1, n))
        }
    };
    let quorum = |needed| Quorum::new(n, needed).expect("1 to n of n");
    let (write, read) = (quorum(w), quorum(r));
    let strongest = [write, read].map(|quorum| Level::strongest(quorum, replication));
    let is_wanted = one_of(0, 9) > 0;
    KeyPlan {
        key: Key::new(name).expect("a name is not empty"),
        level: match strongest {
            [Level::Linearizable, Level::Linearizable] if is_wanted => Level::Linearizable,
            _ => Level::Agreement,
        },
        write,
        read,
        may_be_conditional: false,
    }
}

fn draw_workload(random: &mut Random) -> WorkloadPlan {
    // In whole milliseconds, as clients of the gateway give it.
    let shorter = Duration::from_millis(random.one_of(&[100, 200, 400]));
    let longer = shorter * (1 + random.below(5) as u32);
    let percent = |from: usize, to: usize, random: &mut Random| {
        Chance::percent((from + random.below(to - from + 1)) as u32)
    };
    WorkloadPlan {
        clients: 2 + random.below(7),
        operations: 100 + random.below(301),
        reads: percent(25, 70, random),
        deletes: random.one_of(&[Chance::NEVER, Chance::percent(5), Chance::percent(25)]),
        resubmits: random.one_of(&[Chance::NEVER, Chance::percent(40), Chance::percent(90)]),
        conditional: Chance::NEVER,
        long_values: random.one_of(&[Chance::NEVER, Chance::percent(3), Chance::percent(15)]),
        waits_for_all: random.one_of(&[Chance::NEVER, Chance::percent(10)]),
        leaves: random.one_of(&[Chance::NEVER, Chance::NEVER, Chance::percent(2)]),
        stays: random.one_of(&[Chance::NEVER, Chance::percent(80), Chance::percent(100)]),
        timeouts: [shorter, longer],
        thinks: random.one_of(&[
            Span::us(1, 1_000),
            Span::us(1, 5_000),
            Span::ms(1, 20),
            Span::ms(5, 60),
        ]),
    }
}

fn draw_link_conditions(severity: Severity, random: &mut Random) -> LinkConditions {
    if severity == Severity::Calm {
        return LinkConditions::CLEAR;
    }
    let mut worst = |mild, rough, brutal| {
        let is_on = Chance::percent(60).happens(random);
        let most = Chance::in_a_million(match severity {
            _ if !is_on => 0,
            Severity::Calm | Severity::Mild => mild,
            Severity::Rough => rough,
            Severity::Brutal => brutal,
        });
        Chance::NEVER.up_to(most, random)
    };
    let (loss, repetition) = (
        worst(40_000, 120_000, 300_000),
        worst(60_000, 250_000, 500_000),
    );
    let (damage, misdelivery) = (worst(3_000, 20_000, 60_000), worst(2_000, 10_000, 50_000));
    let late = worst(10_000, 40_000, 150_000);
    let fastest = random.one_of(&[20, 50, 200, 1_000]);
    LinkConditions {
        loss,
        repetition,
        damage,
        misdelivery,
        delay: Delay {
            usual: Span::us(fastest, fastest * random.one_of(&[1, 2, 4, 20])),
            late,
            longest: Duration::from_millis(random.one_of(&[20, 200, 1_000, 8_000])),
        },
    }
}

fn draw_faults(severity: Severity, random: &mut Random) -> Vec<FaultPlan> {
    let (every, lasts) = match severity {
        Severity::Calm | Severity::Mild => (Span::ms(300, 1_500), Span::ms(5, 150)),
        Severity::Rough => (Span::ms(100, 800), Span::ms(10, 400)),
        Severity::Brutal => (Span::ms(50, 400), Span::ms(20, 1_000)),
    };
    let mut faults = Vec::new();
    for kind in FaultKind::ALL {
        let likely = match kind {
            FaultKind::ForeignServer => Chance::percent(10),
            FaultKind::DiskLoss | FaultKind::DiskDamage => Chance::percent(15),
            // In worlds of their own.
            FaultKind::SetBack => continue,
            _ => Chance::percent(40),
        };
        let lasts = match kind {
            // The supervisor of a gateway starts it again at once.
            FaultKind::GatewayCrash => Span::ms(1, 50),
            _ => lasts,
        };
        if likely.happens(random) {
            faults.push(FaultPlan { kind, every, lasts });
        }
    }
    faults
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_of_fault_is_on_in_some_seeds_and_off_in_others() {
        let plans: Vec<Plan> = (0..200).map(Plan::of).collect();
        for kind in FaultKind::ALL {
            let has = |plan: &&Plan| plan.faults.iter().any(|fault| fault.kind == kind);
            let count = plans.iter().filter(has).count();
            assert!((5..150).contains(&count), "{kind:?}: {count}");
        }
        for chance in [
            |plan: &Plan| plan.link_conditions.loss,
            |plan: &Plan| plan.link_conditions.repetition,
            |plan: &Plan| plan.link_conditions.damage,
            |plan: &Plan| plan.link_conditions.misdelivery,
        ] {
            let on = plans.iter().filter(|plan| chance(plan) > Chance::NEVER);
            assert!((50..150).contains(&on.count()));
        }
    }

    #[test]
    fn a_key_is_linearizable_only_if_the_rule_says_that_its_quorums_can_be() {
        let (mut linearizable, mut other) = (0, 0);
        for plan in (0..300).map(Plan::of) {
            assert!(usize::from(plan.replication) <= plan.servers.len());
            for key in &plan.keys {
                let quorums = [key.write, key.read];
                let can_be = quorums.map(|quorum| Level::strongest(quorum, plan.replication));
                if key.level == Level::Linearizable {
                    assert_eq!(can_be, [Level::Linearizable; 2]);
                    linearizable += 1;
                } else {
                    other += 1;
                }
            }
        }
        assert!(linearizable > 2 * other && other > 50);
    }
}
