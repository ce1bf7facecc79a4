//! Clients and whatever breaks things at a time; then, when all is whole again, the verdict.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::thread;
use std::time::Instant;

use tokio::runtime::Runtime;
use tokio::task::JoinSet;

use super::client::Client;
use super::reply::Surprise;
use super::runtime::runtime;
use super::stage::Stage;
use crate::history::{Operation, Reply, linearizable};
use crate::random::Random;
use crate::replicas::Replicas;
use crate::waiting::PATIENCE;

const CLIENTS: u32 = 10;

/// What was asked so far, and by whom the rest is.
pub(super) struct Trial {
    stage: Arc<Stage>,
    history: Vec<Operation>,
    surprise: Option<Surprise>,
    last: Client,
    /// Of the last client, whose connections live in it.
    runtime: Runtime,
}

impl Trial {
    /// Runs clients until `breaks` has done its work, which has one more of them for itself, and a runtime
    /// for that.
    pub(super) fn run(
        stage: &Arc<Stage>,
        random: &mut Random,
        breaks: impl FnOnce(&mut Client, &Runtime) -> Result<(), Surprise>,
    ) -> Self {
        let mut client = |number| Client::new(number, Arc::clone(stage), random.number());
        let clients: Vec<Client> = (0..CLIENTS).map(&mut client).collect();
        let mut last = client(CLIENTS);
        let runtime = runtime();
        let (history, surprise) = thread::scope(|scope| {
            let clients = scope.spawn(|| {
                let _ending = Ending(stage);
                run_all(clients)
            });
            let ending = Ending(stage);
            let broken = breaks(&mut last, &runtime);
            drop(ending);
            let (history, surprise) = clients.join().expect("the clients have panicked");
            (history, surprise.or(broken.err()))
        });
        Self {
            stage: Arc::clone(stage),
            history,
            surprise,
            last,
            runtime,
        }
    }

    /// The whole history, and what was wrong, if anything was. Before anybody reads, all replicas have
    /// to come to hold the same, of which these are alive.
    pub(super) fn judge(
        self,
        replicas: &Replicas,
        living: &BTreeSet<usize>,
    ) -> (Vec<Operation>, Result<(), String>) {
        let Self {
            stage,
            mut history,
            surprise,
            mut last,
            runtime,
        } = self;
        history.append(&mut last.take_history());
        if let Some(Surprise(what)) = surprise {
            // What was being asked then is missing from the history.
            return (history, Err(what));
        }
        let keys: BTreeSet<u32> = history.iter().map(|operation| operation.key).collect();
        let names: Vec<String> = keys.iter().map(|key| Stage::name_of(*key)).collect();
        let (equal, agree) = runtime.block_on(async {
            let names = names.iter().map(String::as_str);
            let equal = replicas.until_equal(names, living).await;
            (equal, read_back(&mut last, &stage, &keys).await)
        });
        history.append(&mut last.take_history());
        let checked = linearizable::check(&history);
        let checked = checked.map_err(|violation| violation.to_string());
        (history, checked.and(agree).and(equal))
    }
}

/// Prints the seed if a panic ends the run.
pub(super) struct Running(pub(super) u64);

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
async fn read_back(client: &mut Client, stage: &Stage, keys: &BTreeSet<u32>) -> Result<(), String> {
    for key in keys {
        let begun = Instant::now();
        loop {
            let mut replies = Vec::new();
            for gateway in 0..stage.gateways() {
                let reply = client.read_from(gateway, *key).await;
                replies.push(reply.map_err(|Surprise(what)| what)?);
            }
            let agree = replies.windows(2).all(|two| two[0] == two[1]);
            if agree && matches!(replies[0], Reply::Holds(_)) {
                break;
            }
            if begun.elapsed() > PATIENCE {
                return Err(format!(
                    "all is whole, and the gateways say {replies:?} of key {key}"
                ));
            }
        }
    }
    Ok(())
}
