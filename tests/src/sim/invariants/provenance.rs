//! A read shows what an operation wrote under that key, whole and of its type; and two values
//! under one tag are never seen.

use dkvs_common::quorum::level::Level;
use dkvs_common::quorum::read::{Read, ReadOutcome};

use super::Violation;
use crate::history::Reply;
use crate::sim::ledger::Ledger;
use crate::sim::values;

const NAME: &str = "provenance";

/// What a read says, if it can be. Where clients or servers of DKVS/1 have to do with the key, a read
/// at the level agreement may show a value that a bit made of another on its way: that protocol has
/// no checksum, and this read says no more than what replicas hold.
pub fn reply(read: &Read, key: u32, ledger: &Ledger, is_by_v1: bool) -> Result<Reply, Violation> {
    let (value, content_type) = match read.outcome() {
        Some(ReadOutcome::Found(value, version)) => (value, &version.content_type),
        Some(ReadOutcome::Absent) => return Ok(Reply::Holds(None)),
        Some(ReadOutcome::Disagree) if read.level() == Level::Linearizable => {
            let what = "a linearizable read saw two values under one tag";
            return Err(Violation::new(NAME, what));
        }
        _ => return Ok(Reply::Unknown),
    };
    let number = values::number_of(value, content_type, is_by_v1);
    let writer = number.and_then(|number| ledger.entries().get(number as usize));
    let is_written = writer.is_some_and(|writer| {
        let operation = &writer.operation;
        let as_long = values::bytes(operation.action, writer.value_bytes) == Some(value.len());
        operation.key == key && as_long
    });
    match number {
        Some(number) if is_written => Ok(Reply::Holds(Some(number))),
        _ if is_by_v1 && read.level() == Level::Agreement => Ok(Reply::Unknown),
        _ => {
            let what = format!("a read of key {key} shows {value:?}, which nobody wrote there");
            Err(Violation::new(NAME, what))
        }
    }
}
