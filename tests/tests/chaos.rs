//! Real gateways and servers keep the promise of the linearizable level while processes are
//! stopped, killed and replaced and datagrams are lost, repeated, delayed and cut off; and the servers
//! come together again without being read.
//!
//! Takes some twenty seconds, and up to a minute more until servers have compared themselves. `cargo run --release -p dkvs-tests --bin soak` does it for as long
//! as one likes, each time from another seed.

use std::path::Path;
use std::sync::atomic::AtomicBool;

use dkvs_tests::chaos::{Level, PHASES, Scenario};
use dkvs_tests::history::{Action, Reply};
use dkvs_tests::process::Programs;
use dkvs_tests::programs;

const PROGRAMS: Programs = programs!();

#[test]
fn each_key_is_one_register_whatever_breaks() {
    let scenario = Scenario {
        seed: 20,
        level: Level::Linearizable,
        phases: PHASES,
    };
    let finished = scenario.run(PROGRAMS, &AtomicBool::new(false));
    println!("{finished}");
    if let Err(why) = &finished.verdict {
        let history = finished.write_history(Path::new(env!("CARGO_TARGET_TMPDIR")));
        let path = history.expect("the directory for such files takes one");
        let seed = scenario.seed;
        panic!("seed {seed}: {why}\nthe history is in {}", path.display());
    }
    // A history without writes, or one that nothing went wrong in, would show nothing.
    let done = finished.count(|operation| operation.reply == Reply::Done);
    let found = finished.count(|operation| matches!(operation.reply, Reply::Holds(Some(_))));
    let absent = finished.count(|operation| operation.reply == Reply::Holds(None));
    let deleted = |action, reply| action == Action::Delete && reply == Reply::Done;
    let deleted = finished.count(|operation| deleted(operation.action, operation.reply));
    for count in [done, found, absent, deleted] {
        assert!(count >= 10, "{finished}");
    }
    let datagrams = finished.datagrams;
    for count in [datagrams.dropped, datagrams.delayed, datagrams.duplicated] {
        assert!(count >= 10, "{finished}");
    }
    assert_eq!(finished.faults.len(), 11, "{finished}");
}
