//! One run: clients and the nemesis at a time, then the healed cluster, then the verdict.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::thread;
use std::time::Instant;

use tokio::task::JoinSet;

use super::client::Client;
use super::finished::Finished;
use super::level::Level;
use super::nemesis::Nemesis;
use super::reply::Surprise;
use super::runtime::runtime;
use super::schedule::{self, Cast};
use super::stage::Stage;
use crate::history::{Operation, Reply, linearizable};
use crate::process::Programs;
use crate::random::Random;
use crate::waiting::PATIENCE;

const CAST: Cast = Cast {
    servers: 5,
    gateways: 2,
};

const CLIENTS: u32 = 10;

/// Phases of a usual run, which takes some twenty seconds.
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
        let mut client = |number| Client::new(number, Arc::clone(&stage), random.number());
        let clients: Vec<Client> = (0..CLIENTS).map(&mut client).collect();
        let last = client(CLIENTS);

        let (mut history, surprise) = thread::scope(|scope| {
            let clients = scope.spawn(|| {
                let _ending = Ending(&stage);
                run_all(clients)
            });
            let ending = Ending(&stage);
            nemesis.play(&schedule, &stage, is_stopped);
            drop(ending);
            clients.join().expect("the clients have panicked")
        });
        let verdict = match surprise {
            // What was being asked then is missing from the history.
            Some(Surprise(what)) => Err(what),
            None => {
                let keys = keys_of(&history);
                let (reads, agree) = nemesis.runtime().block_on(read_back(last, &keys));
                history.extend(reads);
                let checked = linearizable::check(&history);
                checked
                    .map_err(|violation| violation.to_string())
                    .and(agree)
            }
        };
        Finished {
            seed: self.seed,
            history,
            repeated: stage.repeated(),
            faults: nemesis.faults().clone(),
            datagrams: nemesis.proxy().counts(),
            verdict,
        }
    }
}

/// Prints the seed if a panic ends the run.
struct Running(u64);

impl Drop for Running {
    fn drop(&mut self) {
        if thread::panicking() {
            eprintln!("the panic was in the run with seed {}", self.0);
        }
    }
}

/// Ends the stage when it is dropped, also by a panic: the other threads would wait for ever.
struct Ending<'a>(&'a Stage);

impl Drop for Ending<'_> {
    fn drop(&mut self) {
        self.0.end();
    }
}

/// Runs the clients to their end, on this thread.
fn run_all(clients: Vec<Client>) -> (Vec<Operation>, Option<Surprise>) {
    runtime().block_on(async {
        let running: JoinSet<_> = clients.into_iter().map(Client::run).collect();
        let mut history = Vec::new();
        let mut surprise = None;
        for (operations, other) in running.join_all().await {
            history.extend(operations);
            surprise = surprise.or(other);
        }
        (history, surprise)
    })
}

/// Reads every key from every gateway until all say the same: what was still on its way may come
/// between two reads.
async fn read_back(mut client: Client, keys: &[u32]) -> (Vec<Operation>, Result<(), String>) {
    for key in keys {
        let begun = Instant::now();
        loop {
            let mut replies = Vec::new();
            for gateway in 0..CAST.gateways {
                match client.read_from(gateway, *key).await {
                    Ok(reply) => replies.push(reply),
                    Err(Surprise(what)) => return (client.into_history(), Err(what)),
                }
            }
            let agree = replies.windows(2).all(|two| two[0] == two[1]);
            if agree && matches!(replies[0], Reply::Holds(_)) {
                break;
            }
            if begun.elapsed() > PATIENCE {
                let why = format!("all is whole, and the gateways say {replies:?} of key {key}");
                return (client.into_history(), Err(why));
            }
        }
    }
    (client.into_history(), Ok(()))
}

fn keys_of(history: &[Operation]) -> Vec<u32> {
    let mut keys: Vec<u32> = history.iter().map(|operation| operation.key).collect();
    keys.sort_unstable();
    keys.dedup();
    keys
}
