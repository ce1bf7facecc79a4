//! The simulator, in the profile of the other tests: some seeds hold, the same seed is the same
//! to the last bit, and what is wrong is seen. The gate runs thousands of seeds more.

use dkvs_tests::sim::campaign::Campaign;
use dkvs_tests::sim::{Options, Sabotage, run};

/// As many as take some seconds without optimisation.
const SEEDS: u64 = 120;

#[test]
fn everything_holds_in_some_seeds() {
    let totals = Campaign::of(0..SEEDS, 2).run(|_, _| {});
    for (seed, violation) in &totals.violations {
        println!("seed {seed} violates {violation}\nsim replay {seed} --log shows how");
    }
    assert!(totals.violations.is_empty());
    assert_eq!(totals.statistics.worlds, SEEDS);
}

#[test]
fn the_same_seed_is_the_same_whether_its_log_is_kept_or_not() {
    for seed in 0..10 {
        let without = run(seed, &Options::default());
        let options = Options {
            keeps_log: true,
            ..Options::default()
        };
        let with = run(seed, &options);
        assert_eq!(with.hash, without.hash, "seed {seed}");
        assert_eq!(with.statistics, without.statistics, "seed {seed}");
        assert!(without.log.is_empty() && with.log.len() > 100);
        assert_eq!(run(seed, &options).log, with.log, "seed {seed}");
        assert_ne!(run(seed + 1, &options).hash, with.hash, "seed {seed}");
    }
}

#[test]
fn servers_that_lie_or_forget_are_caught() {
    for sabotage in [Sabotage::Lying, Sabotage::Forgetting] {
        let campaign = Campaign {
            options: Options {
                sabotage: Some(sabotage),
                ..Options::default()
            },
            violations_max: 1,
            ..Campaign::of(0..500, 2)
        };
        let totals = campaign.run(|_, _| {});
        assert!(!totals.violations.is_empty(), "{sabotage:?}");
    }
}
