//! Servers with disks, and gateways, are killed under load: nothing is lost that was confirmed, and what
//! a server missed comes to it without being read.
//!
//! `cargo run --release -p dkvs-tests --bin soak -- --kills 200` kills as often as one likes.

use std::path::Path;

use dkvs_tests::chaos::Kills;
use dkvs_tests::history::Reply;
use dkvs_tests::process::Programs;
use dkvs_tests::programs;

const PROGRAMS: Programs = programs!();

#[test]
fn each_key_is_one_register_and_replicas_come_together_after_every_kill() {
    let finished = Kills { seed: 5, kills: 24 }.run(PROGRAMS);
    println!("{finished}");
    if let Err(why) = &finished.verdict {
        let history = finished.write_history(Path::new(env!("CARGO_TARGET_TMPDIR")));
        let path = history.expect("the directory for such files takes one");
        panic!("{finished}: {why}\nthe history is in {}", path.display());
    }
    let done = finished.count(|operation| operation.reply == Reply::Done);
    let found = finished.count(|operation| matches!(operation.reply, Reply::Holds(Some(_))));
    for count in [done, found] {
        assert!(count > 100, "{finished}");
    }
    assert!(finished.faults["servers killed"] >= 15, "{finished}");
    assert!(finished.faults["gateways replaced"] >= 2, "{finished}");
    assert!(finished.pulled > 0, "{finished}");
}
