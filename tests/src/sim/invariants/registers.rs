//! Each key behaves as its level promises, as far as its clients can tell; and every request had
//! the level that it asked for.

use dkvs_common::quorum::level::Level;
use dkvs_common::quorum::read::{Read, Standing};
use dkvs_common::quorum::tally::Word;
use dkvs_common::quorum::write::{Write, WriteReply};

use super::Violation;
use crate::history::agreement::{self, AgreementOperation, Replica, Said};
use crate::history::{Action, Operation, linearizable};
use crate::sim::gateway::Told;
use crate::sim::ledger::{Entry, Ledger};
use crate::sim::plan::KeyPlan;

const NAME: &str = "registers";

/// A request was told this.
pub fn check_level(entry: &Entry, told: &Told) -> Result<(), Violation> {
    let level = match told {
        Told::Read(read) => read.level(),
        Told::Write(write, _) => write.level(),
        Told::Nothing => return Ok(()),
    };
    if level == entry.level {
        return Ok(());
    }
    let what = format!("{} was asked for, and {level} was given", entry.level);
    Err(Violation::new(NAME, what))
}

/// What a reply says that the replicas said.
pub fn said(told: &Told) -> Vec<Replica> {
    match told {
        Told::Read(read) => said_to_read(read),
        Told::Write(write, _) => said_to_write(write),
        Told::Nothing => Vec::new(),
    }
}

fn said_to_read(read: &Read) -> Vec<Replica> {
    let replica = |replica| {
        let said = match read.standing(replica) {
            Standing::Match | Standing::Repaired => Said::Match,
            Standing::Differs | Standing::Stale => Said::Differs,
            Standing::Absent | Standing::Tombstone => Said::Absent,
            _ => Said::Other,
        };
        let server = replica.server.0.into();
        Replica { server, said }
    };
    read.replicas().iter().map(replica).collect()
}

fn said_to_write(write: &Write) -> Vec<Replica> {
    let replica = |replica: &dkvs_common::quorum::tally::Replica<WriteReply>| {
        let said = match replica.word {
            Word::Answer(WriteReply::Stored) => Said::Stored,
            Word::Answer(WriteReply::Superseded(_)) => Said::Superseded,
            _ => Said::Other,
        };
        let server = replica.server.0.into();
        Replica { server, said }
    };
    write.replicas().iter().map(replica).collect()
}

/// Looks at the whole history, each key at its own level; how many reads that told something it
/// has.
pub fn check(ledger: &Ledger, keys: &[KeyPlan]) -> Result<u64, Violation> {
    let (linearizable, others): (Vec<&Entry>, Vec<&Entry>) = ledger
        .entries()
        .iter()
        .partition(|entry| entry.level == Level::Linearizable);
    let history = linearizable
        .into_iter()
        .map(|entry| entry.operation.clone());
    let history: Vec<Operation> = history.collect();
    let violated = |violation: String| Violation::new(NAME, violation);
    let reads =
        linearizable::check(&history).map_err(|violation| violated(violation.to_string()))?;

    let operation = |entry: &Entry| {
        let key = &keys[entry.operation.key as usize];
        let quorum = match entry.operation.action {
            Action::Read => key.read,
            Action::Write(_) | Action::Delete => key.write,
        };
        AgreementOperation {
            operation: entry.operation.clone(),
            n: quorum.n(),
            needed: quorum.needed(),
            replicas: entry.said.clone(),
        }
    };
    let history: Vec<AgreementOperation> = others.into_iter().map(operation).collect();
    let checked =
        agreement::check(&history).map_err(|violation| violated(violation.to_string()))?;
    Ok((reads.reads + checked.found + checked.absent) as u64)
}
