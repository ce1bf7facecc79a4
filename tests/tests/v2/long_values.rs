//! A long value is fetched from one replica; when that one fails in the middle, from another.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use dkvs_tests::http::{client, get, put};
use dkvs_tests::process::Cluster;
use dkvs_tests::random::Random;
use dkvs_tests::{patiently, until};
use tokio::task::JoinSet;

use crate::PROGRAMS;

const READERS: usize = 12;
const VALUE_BYTES: usize = 1 << 20;

fn value_of(key: usize) -> Vec<u8> {
    Random::new(key as u64).bytes(VALUE_BYTES)
}

/// Reads of long values, many at once, until they are stopped.
struct Reads {
    tasks: JoinSet<()>,
    done: Arc<[AtomicUsize; READERS]>,
    ended: Arc<AtomicBool>,
}

impl Reads {
    async fn start(cluster: &Cluster) -> Self {
        let done: Arc<[AtomicUsize; READERS]> =
            Arc::new(std::array::from_fn(|_| AtomicUsize::new(0)));
        let ended = Arc::new(AtomicBool::new(false));
        let mut tasks = JoinSet::new();
        for key in 0..READERS {
            let url = cluster.gateway.url(&format!("/kv/{key}"));
            let value = value_of(key);
            let put = put(&client(), url.clone() + "?wait=all", value.clone()).await;
            assert_eq!(put.statuses(), ["stored"; 3], "{put:?}");
            let (done, ended) = (Arc::clone(&done), Arc::clone(&ended));
            tasks.spawn(async move {
                let client = client();
                while !ended.load(Ordering::Relaxed) {
                    let read = get(&client, url.clone() + "?r=2&raw=true").await;
                    assert_eq!(read.status, 200, "{read:?}");
                    assert!(read.body == value, "{key}");
                    done[key].fetch_add(1, Ordering::Relaxed);
                }
            });
        }
        Self { tasks, done, ended }
    }

    /// Waits until every reader has had more values, or one has failed.
    async fn progress(&mut self) {
        let count = |done: &AtomicUsize| done.load(Ordering::Relaxed);
        let goal: Vec<usize> = self.done.iter().map(|done| count(done) + 2).collect();
        until("every reader gets values", async || {
            if let Some(failed) = self.tasks.try_join_next() {
                failed.expect("every read succeeds");
            }
            self.done
                .iter()
                .map(count)
                .zip(&goal)
                .all(|(count, goal)| count >= *goal)
        })
        .await;
    }

    async fn finish(self) {
        self.ended.store(true, Ordering::Relaxed);
        patiently(self.tasks.join_all()).await;
    }
}

#[tokio::test]
async fn long_reads_survive_the_death_of_the_replica_they_read_from() {
    // Of each key another replica is first; whichever it reads from, it is among those that die.
    for dying in 0..3 {
        let mut cluster = PROGRAMS.cluster(3, &[]);
        let mut reads = Reads::start(&cluster).await;
        reads.progress().await;
        cluster.nodes[dying].process.kill();
        reads.progress().await;
        reads.finish().await;
    }
}

#[tokio::test]
async fn long_reads_survive_a_replica_that_stands_still() {
    let cluster = PROGRAMS.cluster(3, &[]);
    let mut reads = Reads::start(&cluster).await;
    for node in &cluster.nodes {
        reads.progress().await;
        node.process.stop();
        reads.progress().await;
        node.process.go_on();
    }
    reads.finish().await;
}
