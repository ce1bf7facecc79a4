//! What a replica does for each command: a [`ReplicaCommand`](dkvs_common::model::ReplicaCommand)
//! in, a [`ReplicaResponse`](dkvs_common::model::ReplicaResponse) out.
//!
//! Handlers know the store and the model. They know no datagram, no wire format, no socket and no
//! clock: the time comes with the command. A change that waits for the disk, and a list that waits
//! for its turn, are answered later, through the [`Responder`] of their command.
//!
//! * `dispatch`: which handler a command goes to
//! * `get`, `tag`, `put`, `stage`, `list`, `leaves`, `nudge`, `high_water`, `attest`, `report`: the handlers, by command
//! * `untagged`: the commands of DKVS/1, which has no tags
//! * `replica`: what they all act on; `uploads`: values that arrive in blocks
//! * `caller`: what comes with a command; `outcome`: what comes of the store, as responses

mod attest;
mod caller;
mod dispatch;
mod get;
mod high_water;
mod leaves;
mod list;
mod nudge;
mod outcome;
mod put;
mod replica;
mod report;
mod slots;
mod stage;
mod tag;
mod untagged;
mod uploads;

pub(crate) use caller::{Caller, Responder, ResponseRoom};
pub(crate) use leaves::LeafRoom;
pub(crate) use list::ListQueue;
pub(crate) use replica::Replica;
pub(crate) use uploads::BITMAP_BYTES_MAX;

#[cfg(test)]
pub(crate) use list::RECORDS_PER_SLICE_MAX;
