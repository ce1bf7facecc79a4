//! Which handler a command goes to.

use std::sync::atomic::Ordering;

use dkvs_common::model::{Accepted, Refusal, ReplicaCommand, ReplicaResponse};
use dkvs_common::mutants::{self, Mutant};

use super::caller::{Caller, Responder};
use super::list::{ListQueue, PageQuery};
use super::replica::Replica;
use super::stage::StagedRecord;
use super::uploads::{Block, Shape, UploadId};

impl Replica {
    /// Carries out a command, if the sender belongs to the configuration that is served. Returns the
    /// response, or none if it waits for the disk, or in `lists` for its turn: what `responder` makes gets
    /// it then. A server that is starting returns none as well, and is asked again.
    pub(crate) fn handle(
        &self,
        command: ReplicaCommand,
        caller: Caller,
        lists: &mut ListQueue,
        responder: impl FnOnce() -> Responder,
    ) -> Option<ReplicaResponse> {
        let served = self.config.served;
        let refusal = served.and_then(|served| served.refuse(caller.epoch));
        match (&command, refusal) {
            // Asked by whoever finds out what is wrong.
            (ReplicaCommand::Ping | ReplicaCommand::GetStatistics, _) => {}
            (ReplicaCommand::NoteHighWater(_), None) => {}
            // Nobody else is answered before it is known whether the store holds what it did.
            (command, None) if self.is_starting.load(Ordering::Acquire) => {
                let busy = ReplicaResponse::Refused(Refusal::Busy);
                return is_comparison(command).then_some(busy);
            }
            (_, None) => {}
            (command, _)
                if is_comparison(command) && mutants::is_on(Mutant::ComparedWithoutEpoch) => {}
            (_, Some(refusal)) => return Some(ReplicaResponse::Refused(refusal)),
        }
        self.handle_served(command, caller, lists, responder)
    }

    /// The same of one that belongs to the configuration that is served.
    fn handle_served(
        &self,
        command: ReplicaCommand,
        caller: Caller,
        lists: &mut ListQueue,
        responder: impl FnOnce() -> Responder,
    ) -> Option<ReplicaResponse> {
        let Caller {
            peer, now, room, ..
        } = caller;
        Some(match command {
            ReplicaCommand::Ping => ReplicaResponse::Done,
            ReplicaCommand::GetStatistics => ReplicaResponse::Statistics(self.statistics(now)),
            ReplicaCommand::Get { key } => {
                return self.get(&key, room.value_bytes, caller, responder);
            }
            ReplicaCommand::GetTag { key } => self.get_tag(&key),
            ReplicaCommand::GetDigest { key } => {
                return self.get_digest(&key, caller, responder);
            }
            ReplicaCommand::GetBlock {
                key,
                tag,
                offset,
                block_bytes,
            } => {
                let block_bytes = usize::from(block_bytes).min(room.value_bytes);
                let block = (offset, block_bytes);
                return self.get_block(&key, tag, block, caller, responder);
            }
            ReplicaCommand::Put { key, record } => {
                return self.put(&key, &record, responder, || {});
            }
            ReplicaCommand::Stage {
                upload: number,
                value_bytes,
                offset,
                block_bytes,
                block: bytes,
            } => {
                let shape = Shape {
                    value_bytes,
                    block_bytes,
                };
                let block = Block { offset, bytes };
                let id = UploadId { peer, number };
                self.stage((id, caller.account()), shape, &block, now)
            }
            ReplicaCommand::PutStaged {
                key,
                tag,
                attributes,
                content_type,
                upload: number,
                value_bytes,
                checksum,
            } => {
                let record = StagedRecord {
                    tag,
                    attributes,
                    content_type,
                    value_bytes,
                    checksum,
                };
                let id = UploadId { peer, number };
                return self.put_staged(&key, record, id, now, responder);
            }
            ReplicaCommand::Prepare { key, base, ballot } => {
                self.prepare(&key, base, ballot, room.accepted_bytes)
            }
            ReplicaCommand::Accept {
                key,
                base,
                ballot,
                grant,
                record,
            } => {
                let accepted = Accepted { ballot, record };
                return self.accept(&key, base, grant, accepted, responder);
            }
            ReplicaCommand::Commit {
                key,
                tag,
                checksum,
                operation,
            } => return self.commit(&key, (tag, checksum, operation), responder),
            ReplicaCommand::List {
                prefix,
                start,
                direction,
                limit,
            } => {
                let query = PageQuery {
                    prefix,
                    start,
                    direction,
                    keys_max: limit.into(),
                    room,
                };
                return lists.push(query, caller, self, responder);
            }
            ReplicaCommand::GetLeafSums {
                scope,
                first,
                leaves_per_sum,
                sums_max,
            } => self.leaf_sums(&scope, first, leaves_per_sum, sums_max, room.leaf),
            ReplicaCommand::GetLeafEntries { scope, leaf, after } => {
                self.leaf_entries(&scope, leaf, after.as_ref(), room.leaf)
            }
            ReplicaCommand::NoteHighWater(told) => self.note_high_water(told),
            ReplicaCommand::Nudge(nudge) => self.nudge(nudge),
            ReplicaCommand::Attest { boot_id, key, tag } => {
                return self.attest(boot_id, &key, tag, responder);
            }
        })
    }
}

/// Whether a peer asks it that compares itself.
fn is_comparison(command: &ReplicaCommand) -> bool {
    matches!(
        command,
        ReplicaCommand::GetLeafSums { .. } | ReplicaCommand::GetLeafEntries { .. }
    )
}
