//! How much happened, in one world or in many together.

use std::fmt;
use std::time::Duration;

use super::plan::FaultKind;

/// Counts of what happened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Statistics {
    pub worlds: u64,
    pub time: Duration,
    counts: [u64; Count::NAMES.len()],
    faults: [u64; FaultKind::ALL.len()],
}

/// What is counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Count {
    Reads,
    Writes,
    Deletes,
    Resubmissions,
    ReadsAnswered,
    WritesDone,
    WritesNotDone,
    WritesUnknown,
    Abandoned,
    SplitReads,
    RepairingReads,
    OvertakenWrites,
    Datagrams,
    Bytes,
    Cut,
    Lost,
    Repeated,
    Damaged,
    Misdelivered,
    Overflowed,
    Undelivered,
    Notices,
    Events,
    ReadsChecked,
    Commits,
    ColdReads,
    COperations,
    AsksByV1,
    FallenBack,
    RefusedAsFull,
    RefusedByShare,
    EndedEarly,
    ListedKeysChecked,
    KeysPulled,
    Completions,
    Scrubbed,
    Mended,
    ConditionalWrites,
    ConditionsFailed,
}

impl Count {
    const NAMES: [&'static str; 39] = [
        "reads",
        "writes",
        "deletes",
        "sent again under their tag",
        "reads answered",
        "writes done",
        "writes certainly not done",
        "writes of unknown outcome",
        "operations left without an answer",
        "reads of replicas that differed",
        "reads that repaired a replica",
        "writes done with one overtaken",
        "datagrams",
        "bytes in them",
        "datagrams cut off",
        "datagrams lost",
        "datagrams repeated",
        "datagrams damaged",
        "datagrams misdelivered",
        "datagrams that met a full buffer",
        "datagrams that met nobody",
        "notices of unreachable ports",
        "events",
        "reads that the checker looked at",
        "commits to disks",
        "values read from disks",
        "operations of clients that speak DKVS/1",
        "questions of gateways by DKVS/1",
        "requests that fell back to agreement",
        "requests refused since all places were taken",
        "requests refused since the caller had its share",
        "requests that did not wait for every replica as asked",
        "keys of which lists had to show that they are there, or not",
        "keys that all replicas had to hold alike though nobody read them",
        "times that a server found out what it has to hold of a part of the ring",
        "records read again though nobody asked for them",
        "damaged records that are so no more",
        "writes on conditions",
        "writes whose condition did not hold",
    ];
}

impl Default for Statistics {
    fn default() -> Self {
        Self {
            worlds: 0,
            time: Duration::ZERO,
            counts: [0; Count::NAMES.len()],
            faults: [0; FaultKind::ALL.len()],
        }
    }
}

impl Statistics {
    /// Counts one more.
    pub fn count(&mut self, what: Count) {
        self.add(what, 1);
    }

    /// Counts so many more.
    pub fn add(&mut self, what: Count, more: u64) {
        self.counts[what as usize] += more;
    }

    /// Counts one more fault.
    pub fn count_fault(&mut self, kind: FaultKind) {
        self.faults[kind as usize] += 1;
    }

    /// How often something happened.
    pub fn of(&self, what: Count) -> u64 {
        self.counts[what as usize]
    }

    /// How often a fault began.
    pub fn of_fault(&self, kind: FaultKind) -> u64 {
        self.faults[kind as usize]
    }

    /// Operations, each counted once.
    pub fn operations(&self) -> u64 {
        self.of(Count::Reads) + self.of(Count::Writes) + self.of(Count::Deletes)
    }

    /// Operations of which the client knows the outcome.
    pub fn known(&self) -> u64 {
        let known = [
            Count::ReadsAnswered,
            Count::WritesDone,
            Count::WritesNotDone,
        ];
        known.into_iter().map(|what| self.of(what)).sum()
    }

    /// Counts what happened in other worlds, too.
    pub fn merge(&mut self, other: &Self) {
        self.worlds += other.worlds;
        self.time += other.time;
        let counts = self.counts.iter_mut().zip(other.counts);
        let faults = self.faults.iter_mut().zip(other.faults);
        counts.chain(faults).for_each(|(mine, its)| *mine += its);
    }
}

impl fmt::Display for Statistics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let hours = self.time.as_secs_f64() / 3_600.0;
        writeln!(f, "{:>14} seeds", self.worlds)?;
        writeln!(f, "{hours:>14.2} hours simulated")?;
        writeln!(f, "{:>14} operations", self.operations())?;
        let share = |count: u64, of: u64| count as f64 * 100.0 / of.max(1) as f64;
        let known = share(self.known(), self.operations());
        writeln!(f, "{known:>13.1}% of known outcome")?;
        for (name, count) in Count::NAMES.iter().zip(self.counts) {
            writeln!(f, "{count:>14} {name}")?;
        }
        for kind in FaultKind::ALL {
            writeln!(f, "{:>14} {}", self.of_fault(kind), kind.name())?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_count_has_its_name_and_worlds_add_up() {
        assert_eq!(Count::ConditionsFailed as usize + 1, Count::NAMES.len());
        let mut one = Statistics::default();
        one.count(Count::Lost);
        one.count_fault(FaultKind::ClockJump);
        let mut both = one;
        both.merge(&one);
        assert_eq!(both.of(Count::Lost), 2);
        assert_eq!(both.of_fault(FaultKind::ClockJump), 2);
        assert!(both.to_string().contains("2 datagrams lost"));
        assert!(both.to_string().contains("2 clock jumps"));
    }
}
