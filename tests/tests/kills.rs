//! Servers with disks are killed under load, and nothing is lost that was confirmed.
//!
//! `cargo run --release -p dkvs-tests --bin soak -- --kills 200` kills as often as one likes.

use dkvs_tests::kills::Scenario;
use dkvs_tests::process::Programs;
use dkvs_tests::programs;

const PROGRAMS: Programs = programs!();

#[test]
fn what_was_confirmed_is_there_after_every_kill() {
    let finished = Scenario { seed: 5, kills: 20 }.run(PROGRAMS);
    println!("{finished}");
    assert!(
        finished.wrong.is_empty(),
        "{finished}: {:#?}",
        finished.wrong
    );
    assert!(finished.kills >= 20, "{finished}");
    assert!(finished.confirmed > 100, "{finished}");
}
