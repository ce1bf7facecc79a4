//! Seeds of the simulator, and that it sees what it is there to see.

use dkvs_tests::sim::campaign::Campaign;
use dkvs_tests::sim::statistics::{Count, Statistics};
use dkvs_tests::sim::{Options, Sabotage, run};

/// The same seeds on every run: what fails here fails everywhere.
const SEEDS: u64 = 200;

fn jobs() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

#[test]
fn every_seed_keeps_every_promise_and_most_operations_succeed() {
    let totals = Campaign::of(0..SEEDS, jobs()).run(|_, violated| {
        if let Some((seed, violation)) = violated {
            println!("seed {seed} violates {violation}");
            println!("to see it again: cargo run --bin sim -- replay {seed} --log");
        }
    });
    assert!(totals.violations.is_empty(), "{:?}", totals.violations);
    let statistics: Statistics = totals.statistics;
    let (known, all) = (statistics.known(), statistics.operations());
    assert!(known * 10 > all * 8, "{known} of {all}");
    // Quorums met each other's work half done, and mended it.
    for what in [
        Count::SplitReads,
        Count::RepairingReads,
        Count::OvertakenWrites,
        Count::Resubmissions,
        Count::WritesUnknown,
        Count::Abandoned,
        // Clients and servers of DKVS/1 met requests by HTTP, and made some promise less.
        Count::COperations,
        Count::AsksByV1,
        Count::FallenBack,
    ] {
        assert!(statistics.of(what) > SEEDS, "{what:?}: {statistics}");
    }
}

#[test]
fn a_seed_is_the_same_world_every_time_and_words_change_nothing() {
    let keeping = Options {
        keeps_log: true,
        ..Options::default()
    };
    for seed in 0..10 {
        let (one, other) = (run(seed, &Options::default()), run(seed, &keeping));
        assert_eq!(one.hash, other.hash, "seed {seed}");
        assert_eq!(one.statistics, other.statistics);
        assert!(one.log.is_empty() && other.log.len() > 1_000);
    }
    let other = run(10, &Options::default());
    assert_ne!(other.hash, run(11, &Options::default()).hash);
}

/// Which invariants notice.
fn noticed(sabotage: Sabotage) -> Vec<&'static str> {
    let options = Options {
        sabotage: Some(sabotage),
        ..Options::default()
    };
    let campaign = Campaign {
        options,
        ..Campaign::of(0..SEEDS / 4, jobs())
    };
    let violations = campaign.run(|_, _| {}).violations;
    let mut noticed: Vec<_> = violations
        .iter()
        .map(|(_, violation)| violation.of)
        .collect();
    noticed.sort_unstable();
    noticed.dedup();
    noticed
}

#[test]
fn a_server_that_forgets_what_it_confirmed_is_noticed_by_the_histories() {
    assert!(noticed(Sabotage::Forgetting).contains(&"registers"));
}

#[test]
fn a_server_that_confirms_what_it_does_not_store_is_noticed() {
    assert!(noticed(Sabotage::Lying).contains(&"confirmations"));
}
