//! Sides that take turns, and how one compares to another.
//!
//! Absolute numbers of a shared machine say little. The report is made of both sides' values in
//! the same round, a moment apart.

use crate::cluster::LARGE_BYTES;
use crate::load::Measured;
use crate::spread::{Spread, differences, ratios};

/// One that is measured.
pub struct Side<'a> {
    name: &'static str,
    measure: Box<dyn FnMut() -> anyhow::Result<Measured> + 'a>,
}

impl<'a> Side<'a> {
    /// Measured by calls of `measure`.
    pub fn new(name: &'static str, measure: impl FnMut() -> anyhow::Result<Measured> + 'a) -> Self {
        let measure = Box::new(measure);
        Self { name, measure }
    }
}

/// What a side did, round by round.
#[derive(Debug, Clone)]
pub struct Rounds {
    /// The side's.
    pub name: &'static str,
    /// One for each round.
    pub measured: Vec<Measured>,
}

/// Lets the sides take turns in every round, every other round in reverse: the side that comes second
/// must not always be the same.
pub fn take_turns(rounds: u32, mut sides: Vec<Side<'_>>) -> anyhow::Result<Vec<Rounds>> {
    let mut all: Vec<Rounds> = sides
        .iter()
        .map(|side| Rounds {
            name: side.name,
            measured: Vec::new(),
        })
        .collect();
    for round in 0..rounds {
        for turn in 0..sides.len() {
            let number = match round % 2 {
                0 => turn,
                _ => sides.len() - 1 - turn,
            };
            let side = &mut sides[number];
            let measured = (side.measure)()?;
            let rate = measured.per_second();
            eprintln!(
                "round {} of {rounds}: {}: {rate:.0} /s",
                round + 1,
                side.name
            );
            all[number].measured.push(measured);
        }
    }
    Ok(all)
}

/// What of a side is looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Metric {
    /// Requests, or messages, in a second.
    PerSecond,
    /// What half of the requests take at most.
    MedianUs,
    /// What 99 of 100 requests take at most.
    P99Us,
    /// Megabytes of long values in a second.
    MegabytesPerSecond,
}

impl Metric {
    fn of(self, measured: &Measured) -> f64 {
        match self {
            Self::PerSecond => measured.per_second(),
            Self::MedianUs => measured.latency.percentile_us(0.5),
            Self::P99Us => measured.latency.percentile_us(0.99),
            Self::MegabytesPerSecond => measured.per_second() * LARGE_BYTES as f64 / 1e6,
        }
    }

    /// The unit in which it is reported.
    pub fn unit(self) -> &'static str {
        match self {
            Self::PerSecond => "/s",
            Self::MedianUs | Self::P99Us => "us",
            Self::MegabytesPerSecond => "MB/s",
        }
    }
}

/// How two sides are compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Comparison {
    /// Ours over the other: more is better.
    RatioUp,
    /// Ours over the other: less is better.
    RatioDown,
    /// Ours less the other: less is better.
    Difference,
}

/// What is to be reached.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Goal {
    /// First,
    pub reach: f64,
    /// and then.
    pub then: f64,
}

/// A figure before it is measured.
#[derive(Debug, Clone, Copy)]
pub struct Spec {
    /// By which it is chosen.
    pub name: &'static str,
    /// What it says, to a reader.
    pub what: &'static str,
    pub metric: Metric,
    pub comparison: Comparison,
    pub goal: Option<Goal>,
}

/// Two sides compared.
#[derive(Debug, Clone)]
pub struct Compared {
    /// The comparison in each round.
    pub rounds: Vec<f64>,
    pub spread: Spread,
    pub ours: Rounds,
    pub other: Rounds,
    pub ours_spread: Spread,
    pub other_spread: Spread,
}

impl Compared {
    /// None without a round that both sides went through.
    pub fn new(spec: &Spec, ours: &Rounds, other: &Rounds) -> Option<Self> {
        let values = |rounds: &Rounds| -> Vec<f64> {
            rounds
                .measured
                .iter()
                .map(|round| spec.metric.of(round))
                .collect()
        };
        let (our_values, other_values) = (values(ours), values(other));
        let rounds = match spec.comparison {
            Comparison::RatioUp | Comparison::RatioDown => ratios(&our_values, &other_values),
            Comparison::Difference => differences(&our_values, &other_values),
        };
        Some(Self {
            spread: Spread::of(&rounds)?,
            ours_spread: Spread::of(&our_values)?,
            other_spread: Spread::of(&other_values)?,
            rounds,
            ours: ours.clone(),
            other: other.clone(),
        })
    }

    /// The failures of both sides, and what was wrong with the first.
    pub fn failures(&self) -> (u64, Option<&str>) {
        let all = || self.ours.measured.iter().chain(&self.other.measured);
        let first = all().find_map(|round| round.first_failure.as_deref());
        (all().map(|round| round.failures).sum(), first)
    }
}

impl Goal {
    /// How far a median came.
    pub fn verdict(&self, median: f64, comparison: Comparison) -> &'static str {
        let reached = |goal: f64| match comparison {
            Comparison::RatioUp => median >= goal,
            Comparison::RatioDown | Comparison::Difference => median <= goal,
        };
        match (reached(self.reach), reached(self.then)) {
            (_, true) => "beyond",
            (true, false) => "reached",
            (false, false) => "not reached",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::cell::RefCell;

    #[test]
    fn sides_take_turns_and_the_order_alternates() {
        let order = RefCell::new(String::new());
        let side = |name: &'static str| {
            let order = &order;
            Side::new(name, move || {
                order.borrow_mut().push_str(name);
                Ok(Measured::default())
            })
        };
        let rounds = take_turns(3, vec![side("a"), side("b"), side("c")]).unwrap();
        assert_eq!(*order.borrow(), "abccbaabc");
        assert!(rounds.iter().all(|side| side.measured.len() == 3));
        assert_eq!(rounds[1].name, "b");
    }

    #[test]
    fn failures_of_either_side_show() {
        let measured = |requests, failures| Measured {
            requests,
            failures,
            seconds: 1.0,
            first_failure: (failures > 0).then(|| "why".to_owned()),
            ..Measured::default()
        };
        let rounds = |measured| Rounds {
            name: "side",
            measured,
        };
        let spec = Spec {
            name: "x",
            what: "x",
            metric: Metric::PerSecond,
            comparison: Comparison::RatioUp,
            goal: None,
        };
        let (ours, other) = (
            rounds(vec![measured(30, 0), measured(10, 0)]),
            rounds(vec![measured(60, 0), measured(40, 2)]),
        );
        let compared = Compared::new(&spec, &ours, &other).unwrap();
        assert_eq!(compared.rounds, [0.5, 0.25]);
        assert_eq!(compared.spread.median, 0.375);
        assert_eq!(compared.failures(), (2, Some("why")));
        assert!(Compared::new(&spec, &rounds(vec![]), &other).is_none());
    }

    #[test]
    fn a_goal_is_reached_from_its_better_side() {
        let up = Goal {
            reach: 0.5,
            then: 0.75,
        };
        for (median, verdict) in [(0.49, "not reached"), (0.5, "reached"), (0.8, "beyond")] {
            assert_eq!(up.verdict(median, Comparison::RatioUp), verdict);
        }
        let down = Goal {
            reach: 40.0,
            then: 25.0,
        };
        for (median, verdict) in [(41.0, "not reached"), (30.0, "reached"), (-3.0, "beyond")] {
            assert_eq!(down.verdict(median, Comparison::Difference), verdict);
        }
    }
}
