//! Each key behaves as its level promises, as far as its clients can see; and every request had
//! the level that it asked for.

use dkvs_common::quorum::level::Level;
use dkvs_common::quorum::read::{Read, ReplicaStanding};
use dkvs_common::quorum::tally::ReplicaState;
use dkvs_common::quorum::write::{Write, WriteResponse};

use super::Violation;
use crate::history::agreement::{self, AgreementOperation, Replica, ReplicaAnswer};
use crate::history::{Action, Operation, linearizable};
use crate::sim::ledger::{Entry, Ledger};
use crate::sim::plan::KeyPlan;
use crate::sim::request::Response;

const NAME: &str = "registers";

/// The level that a response states.
pub fn level(response: &Response) -> Option<Level> {
    match response {
        Response::Read(read) => Some(read.level()),
        Response::Write(write, _) => Some(write.level()),
        Response::WriteIf(_) => Some(Level::Linearizable),
        Response::NotBegun => None,
    }
}

/// Checks that a response has the level of its request; or agreement, where it may fall back.
pub fn check_level(
    entry: &Entry,
    response: &Response,
    may_fall_back: bool,
) -> Result<(), Violation> {
    let Some(level) = level(response) else {
        return Ok(());
    };
    if level == entry.level || (may_fall_back && level == Level::Agreement) {
        return Ok(());
    }
    let what = format!("{} was asked for, and {level} was given", entry.level);
    Err(Violation::new(NAME, what))
}

/// What a response says that the replicas answered.
pub fn replica_answers(response: &Response) -> Vec<Replica> {
    match response {
        Response::Read(read) => answers_to_read(read),
        Response::Write(write, _) => answers_to_write(write),
        Response::WriteIf(_) | Response::NotBegun => Vec::new(),
    }
}

fn answers_to_read(read: &Read) -> Vec<Replica> {
    let replica = |replica| {
        let answer = match read.standing(replica) {
            ReplicaStanding::Match | ReplicaStanding::Repaired => ReplicaAnswer::Match,
            ReplicaStanding::Differs | ReplicaStanding::Stale => ReplicaAnswer::Differs,
            ReplicaStanding::Absent | ReplicaStanding::Tombstone => ReplicaAnswer::Absent,
            _ => ReplicaAnswer::Other,
        };
        let server = replica.server.0.into();
        Replica { server, answer }
    };
    read.replicas().iter().map(replica).collect()
}

fn answers_to_write(write: &Write) -> Vec<Replica> {
    let replica = |replica: &dkvs_common::quorum::tally::Replica<WriteResponse>| {
        let answer = match replica.state {
            ReplicaState::Responded(WriteResponse::Stored) => ReplicaAnswer::Stored,
            ReplicaState::Responded(WriteResponse::Superseded(_)) => ReplicaAnswer::Superseded,
            _ => ReplicaAnswer::Other,
        };
        let server = replica.server.0.into();
        Replica { server, answer }
    };
    write.replicas().iter().map(replica).collect()
}

/// Checks the whole history, each operation at the level that it had; returns the number of reads
/// that had a result. Of keys with servers that speak DKVS/1 only (`has_v1_servers`), writes at both
/// levels are read at both, so that those at the level linearizable make no register of their own.
pub fn check(
    ledger: &Ledger,
    keys: &[KeyPlan],
    has_v1_servers: impl Fn(usize) -> bool,
) -> Result<u64, Violation> {
    let (linearizable, others): (Vec<&Entry>, Vec<&Entry>) = ledger
        .entries()
        .iter()
        .partition(|entry| entry.level == Level::Linearizable);
    let all = linearizable.iter().map(|entry| &entry.operation);
    let beside: Vec<Operation> = all.cloned().collect();
    let is_register = |operation: &&Operation| !has_v1_servers(operation.key as usize);
    let history: Vec<Operation> = beside.iter().filter(is_register).cloned().collect();
    let violated = |violation: String| Violation::new(NAME, violation);
    let reads =
        linearizable::check(&history).map_err(|violation| violated(violation.to_string()))?;

    let operation = |entry: &Entry| {
        let key = &keys[entry.operation.key as usize];
        let quorum = match (entry.c_quorum, entry.operation.action) {
            (Some(quorum), _) => quorum,
            (None, Action::Read) => key.read,
            (None, Action::Write(_) | Action::Delete | Action::Conditional { .. }) => key.write,
        };
        AgreementOperation {
            operation: entry.operation.clone(),
            n: quorum.n(),
            needed: quorum.required(),
            replicas: entry.replicas.clone(),
        }
    };
    let history: Vec<AgreementOperation> = others.into_iter().map(operation).collect();
    let checked = agreement::check_beside(&history, &beside)
        .map_err(|violation| violated(violation.to_string()))?;
    Ok((reads.reads + checked.found + checked.absent) as u64)
}
