//! A run that has ended: its scenario in a line, and its result.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::{self, Write as _};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use crate::history::{Action, Operation, Reply};
use crate::proxy::Counts;

/// See the module. Shown, it is one line.
#[derive(Debug, Clone)]
pub struct Finished {
    pub seed: u64,
    pub history: Vec<Operation>,
    /// How often a write was sent again under its own tag.
    pub repeated: u64,
    /// How often something broke, by its name.
    pub faults: BTreeMap<&'static str, u64>,
    /// How many records servers pulled from each other.
    pub pulled: u64,
    /// What the proxy did with the datagrams to servers and from them, where there is one.
    pub datagrams: Counts,
    /// What was wrong, if anything was.
    pub verdict: Result<(), String>,
}

impl Finished {
    /// How many operations were of a kind.
    pub fn count(&self, is_of_kind: impl Fn(&Operation) -> bool) -> usize {
        let history = self.history.iter();
        history.filter(|operation| is_of_kind(operation)).count()
    }

    /// Writes the history to a file in a directory, an operation a line in the order of the
    /// requests; where that is.
    pub fn write_history(&self, directory: &Path) -> io::Result<PathBuf> {
        let mut history: Vec<&Operation> = self.history.iter().collect();
        history.sort_by_key(|operation| operation.invoked);
        let mut text = format!("# {self}\n# client key action from to: reply\n");
        for Operation {
            client,
            key,
            action,
            invoked,
            returned,
            reply,
        } in history
        {
            let returned = returned.map_or("never".to_owned(), |at| at.to_string());
            let line = format!("{client} {key} {action:?} {invoked} {returned}: {reply:?}\n");
            text.push_str(&line);
        }
        let name = format!("chaos-{}-{}.txt", self.seed, std::process::id());
        let path = directory.join(name);
        fs::write(&path, text)?;
        Ok(path)
    }
}

impl fmt::Display for Finished {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let with = |reply| self.count(|operation| operation.reply == reply);
        let mut faults = String::new();
        for (name, count) in &self.faults {
            write!(faults, ", {count} {name}")?;
        }
        let keys: BTreeSet<u32> = self.history.iter().map(|operation| operation.key).collect();
        let Counts {
            passed,
            dropped,
            delayed,
            duplicated,
        } = self.datagrams;
        write!(
            f,
            "seed {}: {} operations on {} keys ({} reads answered, {} unknown, {} not done, {} \
             repetitions){faults}; {} records pulled; datagrams: {passed} passed, {dropped} dropped, {delayed} \
             delayed, {duplicated} duplicated: {}",
            self.seed,
            self.history.len(),
            keys.len(),
            self.count(|operation| {
                operation.action == Action::Read && operation.reply != Reply::Unknown
            }),
            with(Reply::Unknown),
            with(Reply::NotDone),
            self.repeated,
            self.pulled,
            match self.verdict {
                Ok(()) => "linearizable",
                Err(_) => "FAILED",
            },
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn operation(action: Action, invoked: u64, returned: Option<u64>, reply: Reply) -> Operation {
        Operation {
            client: 4,
            key: 7,
            action,
            invoked,
            returned,
            reply,
        }
    }

    #[test]
    fn a_history_is_written_in_the_order_of_the_requests() {
        let finished = Finished {
            seed: 3,
            history: vec![
                operation(Action::Read, 30, Some(40), Reply::Holds(Some(17))),
                operation(Action::Write(17), 10, None, Reply::Unknown),
            ],
            repeated: 0,
            faults: BTreeMap::from([("cuts", 2)]),
            pulled: 5,
            datagrams: Counts::default(),
            verdict: Ok(()),
        };
        let line = finished.to_string();
        assert!(line.starts_with("seed 3: 2 operations on 1 keys (1 reads answered, 1 unknown"));
        assert!(line.contains(", 2 cuts; 5 records pulled;") && line.ends_with(": linearizable"));
        let path = finished.write_history(&std::env::temp_dir()).unwrap();
        let text = fs::read_to_string(&path).unwrap();
        fs::remove_file(path).unwrap();
        let operations: Vec<&str> = text.lines().skip(2).collect();
        let expected = [
            "4 7 Write(17) 10 never: Unknown",
            "4 7 Read 30 40: Holds(Some(17))",
        ];
        assert_eq!(operations, expected, "{text}");
    }
}
