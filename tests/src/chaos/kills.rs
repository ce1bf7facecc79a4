//! Servers with disks and gateways, killed at random moments under load, again and again.
//!
//! While a server is away, one key is written that nobody touches any more: of those the server
//! learns by itself alone.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use dkvs_common::model::Statistic;

use super::finished::Finished;
use super::level::Level;
use super::reply::Surprise;
use super::stage::Stage;
use super::verdict::{Running, Trial};
use crate::history::Action;
use crate::members::Members;
use crate::process::{Gateway, Programs, own_loopback};
use crate::proxy::Counts;
use crate::random::Random;
use crate::waiting::PATIENCE;

const SERVERS: usize = 5;
const GATEWAYS: usize = 2;

/// The first of the keys that are written once.
const COLD_KEYS: u32 = 1 << 30;

/// After so many kills one waits until the servers that were killed last have compared themselves with
/// their peers.
const KILLS_PER_REST: usize = 8;

/// How often it is looked whether they have.
const GLANCE: Duration = Duration::from_millis(5);

/// One run.
#[derive(Debug, Clone, Copy)]
pub struct Kills {
    pub seed: u64,
    /// How many times something is killed and started again.
    pub kills: usize,
}

impl Kills {
    /// Runs it to its end.
    pub fn run(self, programs: Programs) -> Finished {
        let _running = Running(self.seed);
        let mut random = Random::of(self.seed, "kills");
        let members = Members::start(programs, SERVERS, &["--workers", "1"]);
        let gateways = (0..GATEWAYS).map(|_| started_gateway(programs, &members));
        let gateways: Vec<Gateway> = gateways.collect();
        let addrs = gateways.iter().map(|gateway| gateway.addr);
        let stage = Arc::new(Stage::new(Level::Linearizable, addrs));
        let mut killer = Killer {
            programs,
            stage: Arc::clone(&stage),
            gateways,
            members,
            faults: BTreeMap::new(),
            pulled: 0,
        };
        let mut draws = Random::new(random.number());
        let trial = Trial::run(&stage, &mut random, |client, runtime| {
            for number in 0..self.kills {
                if stage.is_over() {
                    break;
                }
                let write = |key, value| runtime.block_on(client.write(key, Action::Write(value)));
                killer.kill(write, number, &mut draws)?;
            }
            Ok(())
        });
        let members = &killer.members;
        let (history, verdict) = trial.judge(members.replicas(), &members.living());
        let at_last = (0..SERVERS).map(|server| killer.pulled_by(server));
        Finished {
            seed: self.seed,
            history,
            repeated: stage.repeated(),
            pulled: killer.pulled + at_last.sum::<u64>(),
            faults: killer.faults,
            datagrams: Counts::default(),
            verdict,
        }
    }
}

/// Whoever kills, and what there is to be killed.
struct Killer {
    programs: Programs,
    stage: Arc<Stage>,
    gateways: Vec<Gateway>,
    members: Members,
    /// How often something was killed, by its name.
    faults: BTreeMap<&'static str, u64>,
    /// How many records servers had pulled when they were killed.
    pulled: u64,
}

impl Killer {
    /// Kills something and starts it again. Writes a key by `write` while a server is away.
    fn kill(
        &mut self,
        write: impl FnOnce(u32, u64) -> Result<(), Surprise>,
        number: usize,
        random: &mut Random,
    ) -> Result<(), Surprise> {
        thread::sleep(Duration::from_micros(random.number() % 60_000));
        if random.below(5) == 0 {
            self.replace_gateway(random.below(GATEWAYS));
            return Ok(());
        }
        // Two at a time now and then: then some writes cannot be confirmed for a while.
        let first = random.below(SERVERS);
        let also = (random.below(8) == 0).then(|| random.below(SERVERS));
        let servers = [Some(first), also.filter(|also| *also != first)];
        for server in servers.into_iter().flatten() {
            self.pulled += self.pulled_by(server);
            assert!(self.members.kill(server), "it was started again");
            *self.faults.entry("servers killed").or_default() += 1;
        }
        let value = self.stage.next_value();
        write(COLD_KEYS + number as u32, value)?;
        for server in servers.into_iter().flatten() {
            self.members.start_again(server);
        }
        if number % KILLS_PER_REST == KILLS_PER_REST - 1 {
            for server in servers.into_iter().flatten() {
                self.await_comparison(server);
            }
        }
        Ok(())
    }

    fn replace_gateway(&mut self, number: usize) {
        self.gateways[number].process.kill();
        self.gateways[number] = started_gateway(self.programs, &self.members);
        self.stage.move_gateway(number, self.gateways[number].addr);
        *self.faults.entry("gateways replaced").or_default() += 1;
    }

    /// Waits until a server has compared itself with a peer, and pulled what was newer there.
    fn await_comparison(&self, server: usize) {
        let begun = Instant::now();
        while self.statistic(server, Statistic::Comparisons) == 0 {
            assert!(begun.elapsed() < PATIENCE, "{server} compares with nobody");
            thread::sleep(GLANCE);
        }
    }

    /// How many records a server has pulled since it was started last.
    fn pulled_by(&self, server: usize) -> u64 {
        self.statistic(server, Statistic::RecordsPulled)
    }

    fn statistic(&self, server: usize, wanted: Statistic) -> u64 {
        self.members.replicas().statistic(server, wanted)
    }
}

/// A gateway at an address of its own, so that no other is ever taken for it.
fn started_gateway(programs: Programs, members: &Members) -> Gateway {
    let mut command = programs.gateway_command();
    command.args(["--servers", members.servers().path(), "--workers", "1"]);
    command.args(["--listen", &format!("{}:0", own_loopback())]);
    Gateway::of(command)
}
