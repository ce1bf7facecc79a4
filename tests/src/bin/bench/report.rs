//! The result: a table for people, JSON for programs.

use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use anyhow::Context;
use serde_json::{Value, json};

use crate::contest::{Compared, Comparison, Rounds, Spec};
use crate::load::Measured;
use crate::machine;
use crate::options::Options;
use crate::spread::Spread;

/// How a figure turned out.
enum Outcome {
    Compared(Box<Compared>),
    /// What is asked for does not exist yet.
    NotYet(String),
}

/// A curve, or a number beside the figures: what it says, and a value at each point.
pub struct Curve {
    pub name: &'static str,
    pub what: &'static str,
    /// What the points and the values are.
    pub columns: Vec<&'static str>,
    /// The point, then its values.
    pub rows: Vec<(String, Vec<String>)>,
}

/// Everything that the bench reports at the end.
pub struct Report {
    machine: Value,
    command: String,
    rounds: u32,
    seconds: f64,
    figures: Vec<(Spec, Outcome)>,
    curves: Vec<Curve>,
    notes: Vec<String>,
}

impl Report {
    /// Nothing measured yet.
    pub fn new(options: &Options) -> anyhow::Result<Self> {
        let arguments: Vec<String> = std::env::args().skip(1).collect();
        let arguments = match arguments.is_empty() {
            true => String::new(),
            false => format!(" -- {}", arguments.join(" ")),
        };
        Ok(Self {
            machine: machine::describe(),
            command: format!("cargo run --release -p dkvs-tests --bin bench{arguments}"),
            rounds: options.rounds(),
            seconds: options.duration().as_secs_f64(),
            figures: Vec::new(),
            curves: Vec::new(),
            notes: Vec::new(),
        })
    }

    /// Takes up a figure.
    pub fn compare(&mut self, spec: &Spec, ours: &Rounds, other: &Rounds) -> anyhow::Result<()> {
        let compared = Compared::new(spec, ours, other).context("no round of a figure counts")?;
        self.figures
            .push((*spec, Outcome::Compared(Box::new(compared))));
        Ok(())
    }

    /// Takes up a figure that cannot be measured yet.
    pub fn not_yet(&mut self, spec: &Spec, why: impl Into<String>) {
        self.figures.push((*spec, Outcome::NotYet(why.into())));
    }

    /// Takes up a curve.
    pub fn curve(&mut self, curve: Curve) {
        self.curves.push(curve);
    }

    /// Takes up something that is to be said.
    pub fn note(&mut self, note: impl Into<String>) {
        self.notes.push(note.into());
    }

    /// Whether no request of any figure failed.
    pub fn is_valid(&self) -> bool {
        self.figures.iter().all(|(_, outcome)| match outcome {
            Outcome::Compared(compared) => compared.failures().0 == 0,
            Outcome::NotYet(_) => true,
        })
    }

    /// What is measured on, and how.
    pub fn head(&self) -> String {
        let fact = |name: &str| match &self.machine[name] {
            Value::String(text) => text.clone(),
            Value::Null => "unknown".to_owned(),
            other => other.to_string(),
        };
        format!(
            "{} cores, {}, {} {}\ncommit {}\n{} rounds of {} s a side: {}\n\n",
            fact("cores"),
            fact("cpu"),
            fact("system"),
            fact("kernel"),
            fact("commit"),
            self.rounds,
            self.seconds,
            self.command,
        )
    }

    /// The tables.
    pub fn markdown(&self) -> String {
        let mut text = String::new();
        if !self.figures.is_empty() {
            text += "| figure | median | min to max | reach | and then | | ours | other side |\n";
            text += "|---|---|---|---|---|---|---|---|\n";
        }
        for (spec, outcome) in &self.figures {
            text += &figure_line(spec, outcome);
        }
        for curve in &self.curves {
            text += &curve_table(curve);
        }
        if !self.notes.is_empty() {
            text += "\n";
        }
        for note in &self.notes {
            let _ = writeln!(text, "- {note}");
        }
        text
    }

    /// Everything, each round of each side with it.
    pub fn write_json(&self, path: &Path) -> anyhow::Result<()> {
        let figures = self
            .figures
            .iter()
            .map(|(spec, outcome)| figure_json(spec, outcome));
        let curves = self.curves.iter().map(|curve| {
            let rows = curve
                .rows
                .iter()
                .map(|(at, values)| json!({"at": at, "values": values}));
            json!({
                "name": curve.name,
                "what": curve.what,
                "columns": curve.columns,
                "rows": rows.collect::<Vec<_>>(),
            })
        });
        let all = json!({
            "machine": self.machine,
            "command": self.command,
            "rounds": self.rounds,
            "seconds": self.seconds,
            "valid": self.is_valid(),
            "figures": figures.collect::<Vec<_>>(),
            "curves": curves.collect::<Vec<_>>(),
            "notes": self.notes,
        });
        let text = format!("{all:#}\n");
        fs::write(path, text).with_context(|| format!("cannot write {}", path.display()))
    }
}

fn figure_line(spec: &Spec, outcome: &Outcome) -> String {
    let is_difference = spec.comparison == Comparison::Difference;
    let text = |value: f64| match is_difference {
        true => format!("{value:+.1} {}", spec.metric.unit()),
        false => format!("{value:.2}"),
    };
    let (reach, then) = match spec.goal {
        Some(goal) => (text(goal.reach), text(goal.then)),
        None => (String::new(), String::new()),
    };
    let what = spec.what;
    match outcome {
        Outcome::NotYet(why) => format!("| {what} | not yet | | {reach} | {then} | {why} | | |\n"),
        Outcome::Compared(compared) => {
            let Spread { median, min, max } = compared.spread;
            let verdict = match (compared.failures(), spec.goal) {
                ((0, _), Some(goal)) => goal.verdict(median, spec.comparison).to_owned(),
                ((0, _), None) => String::new(),
                ((count, first), _) => {
                    let first = first.unwrap_or("unknown");
                    format!("**invalid**: {count} requests failed, the first with: {first}")
                }
            };
            let side = |rounds: &Rounds, spread: Spread| {
                let name = rounds.name;
                format!("{name}: {}", amount(spread.median, spec.metric.unit()))
            };
            format!(
                "| {what} | {} | {} to {} | {reach} | {then} | {verdict} | {} | {} |\n",
                text(median),
                text(min),
                text(max),
                side(&compared.ours, compared.ours_spread),
                side(&compared.other, compared.other_spread),
            )
        }
    }
}

fn curve_table(curve: &Curve) -> String {
    let columns = curve.columns.join(" | ");
    let rules = "|---".repeat(curve.columns.len());
    let mut text = format!("\n{}:\n\n| {columns} |\n{rules}|\n", curve.what);
    for (at, values) in &curve.rows {
        let _ = writeln!(text, "| {at} | {} |", values.join(" | "));
    }
    text
}

/// A number with its unit: three digits where it is small, groups of three where it is large.
pub fn amount(value: f64, unit: &str) -> String {
    let number = match value.abs() {
        0.0..10.0 => format!("{value:.2}"),
        10.0..100.0 => format!("{value:.1}"),
        _ => {
            let digits = format!("{:.0}", value.abs());
            let mut grouped = String::new();
            for (at, digit) in digits.chars().enumerate() {
                if at > 0 && (digits.len() - at).is_multiple_of(3) {
                    grouped.push(',');
                }
                grouped.push(digit);
            }
            let sign = if value < 0.0 { "-" } else { "" };
            format!("{sign}{grouped}")
        }
    };
    format!("{number} {unit}").trim_end().to_owned()
}

fn figure_json(spec: &Spec, outcome: &Outcome) -> Value {
    let mut figure = json!({
        "name": spec.name,
        "what": spec.what,
        "metric": format!("{:?}", spec.metric),
        "comparison": format!("{:?}", spec.comparison),
        "reach": spec.goal.map(|goal| goal.reach),
        "then": spec.goal.map(|goal| goal.then),
    });
    match outcome {
        Outcome::NotYet(why) => figure["not_yet"] = why.as_str().into(),
        Outcome::Compared(compared) => {
            let Spread { median, min, max } = compared.spread;
            figure["median"] = median.into();
            figure["min"] = min.into();
            figure["max"] = max.into();
            figure["rounds"] = compared.rounds.clone().into();
            figure["failures"] = compared.failures().0.into();
            figure["ours"] = side_json(&compared.ours);
            figure["other"] = side_json(&compared.other);
        }
    }
    figure
}

fn side_json(rounds: &Rounds) -> Value {
    let round = |measured: &Measured| {
        json!({
            "requests": measured.requests,
            "failures": measured.failures,
            "first_failure": measured.first_failure,
            "seconds": measured.seconds,
            "per_second": measured.per_second(),
            "p50_us": measured.latency.percentile_us(0.5),
            "p99_us": measured.latency.percentile_us(0.99),
            "p999_us": measured.latency.percentile_us(0.999),
        })
    };
    let measured: Vec<Value> = rounds.measured.iter().map(round).collect();
    json!({"name": rounds.name, "rounds": measured})
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::contest::{Goal, Metric};
    use clap::Parser as _;

    const SPEC: Spec = Spec {
        name: "get",
        what: "GET",
        metric: Metric::PerSecond,
        comparison: Comparison::RatioUp,
        goal: Some(Goal {
            reach: 0.5,
            then: 0.75,
        }),
    };

    fn rounds(name: &'static str, requests: u64, failures: u64) -> Rounds {
        let measured = Measured {
            requests,
            failures,
            seconds: 1.0,
            ..Measured::default()
        };
        Rounds {
            name,
            measured: vec![measured],
        }
    }

    fn report() -> Report {
        Report::new(&Options::parse_from(["bench"])).unwrap()
    }

    #[test]
    fn a_figure_shows_its_ratio_its_goal_and_both_sides() {
        let mut report = report();
        let (ours, other) = (rounds("gateway", 60_000, 0), rounds("bare", 100_000, 0));
        report.compare(&SPEC, &ours, &other).unwrap();
        report.not_yet(&SPEC, "it is refused");
        let text = report.markdown();
        let line = "| GET | 0.60 | 0.60 to 0.60 | 0.50 | 0.75 | reached | gateway: 60,000 /s | bare: 100,000 /s |";
        assert!(text.contains(line), "{text}");
        assert!(text.contains("| GET | not yet |"), "{text}");
        assert!(report.is_valid());
    }

    #[test]
    fn a_failed_request_makes_a_figure_invalid_and_shows() {
        for (ours, other) in [(1, 0), (0, 1)] {
            let mut report = report();
            let (ours, other) = (rounds("gateway", 9, ours), rounds("bare", 10, other));
            report.compare(&SPEC, &ours, &other).unwrap();
            assert!(!report.is_valid());
            assert!(report.markdown().contains("**invalid**: 1 requests failed"));
        }
    }

    #[test]
    fn amounts_are_readable() {
        for (value, text) in [
            (0.126, "0.13 us"),
            (12.34, "12.3 us"),
            (999.4, "999 us"),
            (1_234_567.0, "1,234,567 us"),
            (-1_000.0, "-1,000 us"),
        ] {
            assert_eq!(amount(value, "us"), text);
        }
    }
}
