//! One run: clients and the nemesis at a time, then the healed cluster, then the verdict.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use super::finished::Finished;
use super::level::Level;
use super::nemesis::Nemesis;
use super::schedule::{self, Cast};
use super::stage::Stage;
use super::verdict::{Running, Trial};
use crate::process::Programs;
use crate::random::Random;

const CAST: Cast = Cast {
    servers: 5,
    gateways: 2,
};

/// Phases of a usual run, which take some twenty seconds.
pub const PHASES: usize = 32;

/// One run.
#[derive(Debug, Clone, Copy)]
pub struct Scenario {
    pub seed: u64,
    /// What is asked for. The history is held to the linearizable level in any case.
    pub level: Level,
    /// How many times things break and are healed; each takes about half a second.
    pub phases: usize,
}

impl Scenario {
    /// Runs it to its end, or to that of the phase in which `is_stopped` becomes true.
    pub fn run(self, programs: Programs, is_stopped: &AtomicBool) -> Finished {
        let _running = Running(self.seed);
        let mut random = Random::new(self.seed);
        let schedule = schedule::draw(&mut random, CAST, self.phases);
        let mut nemesis = Nemesis::start(programs, CAST, random.number());
        let stage = Arc::new(Stage::new(self.level, nemesis.gateways()));
        let trial = Trial::run(&stage, &mut random, |_, _| {
            nemesis.play(&schedule, &stage, is_stopped);
            Ok(())
        });
        let (history, verdict) = trial.judge(nemesis.replicas(), &nemesis.living());
        Finished {
            seed: self.seed,
            history,
            repeated: stage.repeated(),
            faults: nemesis.faults().clone(),
            pulled: nemesis.pulled(),
            datagrams: nemesis.proxy().counts(),
            verdict,
        }
    }
}
