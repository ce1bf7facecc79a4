//! What the server holds in leaves that it shares with another: the responses to `GetLeafSums` and
//! `GetLeafEntries`.

use std::ops::ControlFlow;

use dkvs_common::kv::Key;
use dkvs_common::model::{LeafEntry, LeafScope, Refusal, ReplicaResponse};
use dkvs_common::ring::Position;

use super::replica::Replica;
use crate::leaves::is_compared;
use crate::store::{Interval, RecordStore as _};

/// Most leaves that are added up for one request.
pub(crate) const LEAVES_ADDED_MAX: u32 = 1 << 16;

/// Most keys of which something is accepted that are looked at one by one.
const OPEN_LOOKED_AT_MAX: usize = 1_024;

/// Most entries of a response, so that a part of the store is not locked for long.
const ENTRIES_MAX: usize = 256;

impl Replica {
    /// As many sums as were asked for, or as few as keep the work within bounds.
    pub(super) fn leaf_sums(
        &self,
        scope: &LeafScope,
        first: u32,
        leaves_per_sum: u32,
        sums_max: u8,
        room: LeafRoom,
    ) -> ReplicaResponse {
        let Some(leaf_sums) = &self.leaf_sums else {
            return ReplicaResponse::Refused(Refusal::Unsupported);
        };
        let Some(shared) = leaf_sums.shared_in(scope) else {
            return ReplicaResponse::Refused(Refusal::Unsupported);
        };
        let depth = leaf_sums.depth();
        let mut sums = Vec::new();
        if scope.depth <= depth && leaves_per_sum > 0 {
            let added = leaves_per_sum.saturating_mul(shared.fineness());
            let sums_max = u32::from(sums_max).min(LEAVES_ADDED_MAX / added.max(1)) as usize;
            let firsts = (first..shared.count()).step_by(leaves_per_sum as usize);
            let firsts = firsts.take(sums_max.min(room.sums_max));
            sums.extend(firsts.map(|first| leaf_sums.sum(&shared, first, leaves_per_sum)));
            // Read after the sums: what was agreed on before is in them.
            match self.open_positions() {
                Some(open) => {
                    for leaf in open.into_iter().filter_map(|it| shared.leaf_at(it)) {
                        let number = leaf.checked_sub(first).map(|it| it / leaves_per_sum);
                        let sum = number.and_then(|number| sums.get_mut(number as usize));
                        if let Some(sum) = sum {
                            sum.has_unanswered = true;
                        }
                    }
                }
                None => sums.iter_mut().for_each(|sum| sum.has_unanswered = true),
            }
        }
        ReplicaResponse::LeafSums { depth, sums }
    }

    /// The records of a leaf, as far as they fit into so many bytes.
    pub(super) fn leaf_entries(
        &self,
        scope: &LeafScope,
        leaf: u32,
        after: Option<&Key>,
        room: LeafRoom,
    ) -> ReplicaResponse {
        let leaf_sums = self.leaf_sums.as_ref();
        let leaf_sums = leaf_sums.filter(|sums| scope.depth <= sums.depth());
        let shared = leaf_sums.and_then(|sums| sums.shared_in(scope));
        let (Some(leaf_sums), Some(shared)) = (leaf_sums, shared) else {
            return ReplicaResponse::Refused(Refusal::Unsupported);
        };
        let Some(Interval { first, last }) = shared.positions(leaf) else {
            return ReplicaResponse::LeafEntries {
                has_more: false,
                is_answered: false,
                entries: Vec::new(),
            };
        };
        let from = after.map_or(first, |after| Position::of_key(after).max(first));
        let (mut entries, mut bytes, mut has_more) = (Vec::new(), 0, false);
        let mut is_left_out = false;
        self.store.scan(from, after, |held| {
            if Position::of_key_bytes(held.key()) > last {
                return ControlFlow::Break(());
            }
            let entry_bytes = room.entry_bytes + held.key().len();
            // A key that fits into no response fits into no request by which it could be asked for.
            if !is_compared(held.tag()) || entry_bytes > room.bytes {
                is_left_out = true;
                return ControlFlow::Continue(());
            }
            if bytes + entry_bytes > room.bytes || entries.len() == ENTRIES_MAX {
                has_more = true;
                return ControlFlow::Break(());
            }
            bytes += entry_bytes;
            let key = bytes::Bytes::copy_from_slice(held.key());
            if let Ok(key) = Key::new(key) {
                let version = held.version();
                entries.push(LeafEntry { key, version });
            }
            ControlFlow::Continue(())
        });
        ReplicaResponse::LeafEntries {
            has_more,
            // What came by DKVS/1 meanwhile may have replaced something that is not among them.
            is_answered: !is_left_out
                && leaf_sums.sum(&shared, leaf, 1).is_answered()
                && self
                    .open_positions()
                    .is_some_and(|open| !open.iter().any(|it| (first..=last).contains(it))),
            entries,
        }
    }

    /// Where keys lie of which something is accepted and perhaps not agreed on yet. Of those, this server
    /// vouches to no other one that may have accepted as well, and lost, what they need to be agreed on.
    /// None if there are very many.
    fn open_positions(&self) -> Option<Vec<Position>> {
        let open = self.store.open_slots(&[], OPEN_LOOKED_AT_MAX + 1);
        let positions = open.iter().map(|(key, ..)| Position::of_key_bytes(key));
        (open.len() <= OPEN_LOOKED_AT_MAX).then(|| positions.collect())
    }
}

/// How much room sums, or the entries of a leaf, have in a response.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct LeafRoom {
    /// How many sums fit.
    pub(crate) sums_max: usize,
    /// For all entries.
    pub(crate) bytes: usize,
    /// What an entry takes beside its key.
    pub(crate) entry_bytes: usize,
}
