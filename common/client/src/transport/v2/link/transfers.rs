//! Uploads and fetches under way towards one server, and whose turn it is.

use std::collections::{BTreeMap, VecDeque};
use std::time::{Duration, Instant};

use super::block_range::BlockRange;
use super::event::LinkEvent;
use super::fetch::Fetch;
use super::upload::{TooLong, Upload, UploadProgress};
use dkvs_common::model::ReplicaResponse;
use dkvs_common::quorum::FetchFailure;
use dkvs_common::wire::v2::message::RequestId;
use dkvs_common::wire::v2::request::Request;

/// Most uploads and fetches under way towards one server.
pub const TRANSFERS_MAX: usize = 1_024;

/// How many of them take turns. The others wait until one of those has ended: so each is done
/// sooner, and a server keeps fewer incomplete uploads.
pub const TRANSFERS_AT_ONCE: usize = 8;

/// How many take turns if parties that had none among those are waiting: one of each is let in.
pub(super) const TRANSFERS_AT_ONCE_MAX: usize = 2 * TRANSFERS_AT_ONCE;

/// For whom a transfer is made. Parties take turns, however many transfers each of them has waiting.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Party(pub u8, pub u64);

/// All transfers of a link.
#[derive(Debug)]
pub(super) struct Transfers<T> {
    under_way: BTreeMap<u64, Transfer<T>>,
    /// Those that take turns, the next first.
    turns: VecDeque<u64>,
    /// Those that do not yet, of each party the oldest first; the party first whose turn is next. None
    /// of them is empty.
    waiting: VecDeque<(Party, VecDeque<u64>)>,
    next_number: u64,
}

/// An upload or a fetch.
#[derive(Debug)]
pub(super) struct Transfer<T> {
    token: T,
    party: Party,
    pub(super) deadline: Instant,
    kind: TransferKind,
}

#[derive(Debug)]
pub(super) enum TransferKind {
    Upload(Upload),
    Fetch(Fetch),
}

/// What a reply changed.
#[derive(Debug)]
pub(super) enum TransferProgress {
    /// These requests need no reply any more.
    Abandon(Vec<RequestId>),
    /// The upload has ended with this reply.
    Uploaded(ReplicaResponse),
    /// The fetch has ended.
    Fetched,
}

impl<T: Copy> Transfers<T> {
    /// No transfers; the first has the number `number`.
    pub(super) fn numbered_from(number: u64) -> Self {
        Self {
            under_way: BTreeMap::new(),
            turns: VecDeque::new(),
            waiting: VecDeque::new(),
            next_number: number,
        }
    }

    pub(super) fn is_full(&self) -> bool {
        self.under_way.len() >= TRANSFERS_MAX
    }

    /// The numbers of all transfers, the oldest first.
    pub(super) fn numbers(&self) -> Vec<u64> {
        self.under_way.keys().copied().collect()
    }

    /// Begins a transfer, which `kind` makes for its number; returns the number.
    pub(super) fn begin(
        &mut self,
        (token, party): (T, Party),
        deadline: Instant,
        kind: impl FnOnce(u64) -> TransferKind,
    ) -> u64 {
        let number = self.next_number;
        self.next_number = self.next_number.wrapping_add(1);
        let transfer = Transfer {
            token,
            party,
            deadline,
            kind: kind(number),
        };
        self.under_way.insert(number, transfer);
        match self.waiting.iter_mut().find(|(it, _)| *it == party) {
            Some((_, waiting)) => waiting.push_back(number),
            None => self.waiting.push_back((party, VecDeque::from([number]))),
        }
        number
    }

    pub(super) fn get_mut(&mut self, number: u64) -> Option<&mut Transfer<T>> {
        self.under_way.get_mut(&number)
    }

    pub(super) fn remove(&mut self, number: u64) -> Option<Transfer<T>> {
        self.under_way.remove(&number)
    }

    /// Lets waiting transfers take turns, as far as there is room; returns how many do.
    pub(super) fn admit(&mut self, now: Instant) -> usize {
        let under_way = &self.under_way;
        self.turns.retain(|number| under_way.contains_key(number));
        while let Some(number) = self.next_waiting() {
            if let Some(transfer) = self.under_way.get_mut(&number) {
                if let TransferKind::Fetch(fetch) = &mut transfer.kind {
                    fetch.start(now);
                }
                self.turns.push_back(number);
            }
        }
        self.turns.len()
    }

    /// Takes out the next that waits, if it may take turns now; it may have been removed.
    fn next_waiting(&mut self) -> Option<u64> {
        let at = if self.turns.len() < TRANSFERS_AT_ONCE {
            0
        } else if self.turns.len() < TRANSFERS_AT_ONCE_MAX {
            let mut waiting = self.waiting.iter();
            waiting.position(|(party, _)| !self.has_turn(*party))?
        } else {
            return None;
        };
        let (party, mut numbers) = self.waiting.remove(at)?;
        let number = numbers.pop_front();
        if !numbers.is_empty() {
            self.waiting.push_back((party, numbers));
        }
        number
    }

    fn has_turn(&self, party: Party) -> bool {
        let mut taking = self.turns.iter().filter_map(|it| self.under_way.get(it));
        taking.any(|transfer| transfer.party == party)
    }

    /// The transfer whose turn it is. It goes to the end of the queue.
    pub(super) fn next_turn(&mut self) -> Option<(u64, &mut Transfer<T>)> {
        let number = self.turns.pop_front()?;
        let transfer = self.under_way.get_mut(&number)?;
        self.turns.push_back(number);
        Some((number, transfer))
    }

    /// Whether none is under way.
    pub(super) fn is_empty(&self) -> bool {
        self.under_way.is_empty()
    }

    /// When the first transfer ends by itself. `stall` is how long a fetch may go without a block.
    pub(super) fn poll_timeout(&self, stall: Duration) -> Option<Instant> {
        let transfers = self.under_way.values();
        transfers.map(|transfer| transfer.ends_at(stall)).min()
    }

    /// The transfers that end by themselves, now at the latest.
    pub(super) fn due(&self, now: Instant, stall: Duration) -> Vec<u64> {
        let transfers = self.under_way.iter();
        let due = transfers.filter(|(_, transfer)| transfer.ends_at(stall) <= now);
        due.map(|(number, _)| *number).collect()
    }
}

impl<T> Transfer<T> {
    /// What the next request takes of the window, in bytes. Fails if an upload's record fits no
    /// message of at most `message_bytes_max`.
    pub(super) fn prepare(&mut self, message_bytes_max: usize) -> Result<usize, TooLong> {
        match &mut self.kind {
            TransferKind::Upload(upload) => {
                upload.cut(message_bytes_max)?;
                Ok(upload.window_bytes())
            }
            TransferKind::Fetch(_) => Ok(Fetch::block_bytes_max(message_bytes_max)),
        }
    }

    /// The next request, and the block that it sends or asks for: none for the put that ends an
    /// upload. No request while all of them are outstanding.
    pub(super) fn poll_request(
        &mut self,
        message_bytes_max: usize,
        now: Instant,
    ) -> Option<(Request, Option<BlockRange>)> {
        match &mut self.kind {
            TransferKind::Upload(upload) => upload.poll_request(),
            TransferKind::Fetch(fetch) => {
                let (request, block) = fetch.poll_request(message_bytes_max, now)?;
                Some((request, Some(block)))
            }
        }
    }

    /// The request that [`Self::poll_request`] returned was opened as `id`.
    pub(super) fn handle_sent(&mut self, block: Option<BlockRange>, id: RequestId) {
        match &mut self.kind {
            TransferKind::Upload(upload) => upload.handle_sent(id),
            TransferKind::Fetch(fetch) => {
                if let Some(block) = block {
                    fetch.handle_sent(block, id);
                }
            }
        }
    }

    /// Handles the reply to the request for `block`, or, if that is none, to the put.
    pub(super) fn handle_response(
        &mut self,
        block: Option<BlockRange>,
        response: ReplicaResponse,
        now: Instant,
    ) -> TransferProgress {
        match &mut self.kind {
            TransferKind::Upload(upload) => match upload.handle_response(block, response) {
                UploadProgress::Abandon(ids) => TransferProgress::Abandon(ids),
                UploadProgress::Ended(reply) => TransferProgress::Uploaded(reply),
            },
            TransferKind::Fetch(fetch) => {
                if block.is_some_and(|block| fetch.handle_response(block, &response, now)) {
                    TransferProgress::Fetched
                } else {
                    TransferProgress::Abandon(Vec::new())
                }
            }
        }
    }

    /// The requests that were opened and not answered.
    pub(super) fn outstanding(&self) -> Vec<RequestId> {
        match &self.kind {
            TransferKind::Upload(upload) => upload.outstanding(),
            TransferKind::Fetch(fetch) => fetch.outstanding(),
        }
    }

    /// Ends with `event`, or, if it is a fetch, with `failure` and the blocks that have arrived.
    pub(super) fn end_with(
        self,
        failure: FetchFailure,
        event: impl FnOnce(T) -> LinkEvent<T>,
    ) -> LinkEvent<T> {
        match self.kind {
            TransferKind::Upload(_) => event(self.token),
            TransferKind::Fetch(fetch) => fetch.give_up(self.token, failure),
        }
    }

    /// The value of a fetch that has ended; nothing for an upload.
    pub(super) fn into_fetched(self) -> Option<LinkEvent<T>> {
        match self.kind {
            TransferKind::Upload(_) => None,
            TransferKind::Fetch(fetch) => Some(fetch.finish(self.token)),
        }
    }

    fn ends_at(&self, stall: Duration) -> Instant {
        let stalls_at = match &self.kind {
            TransferKind::Upload(_) => None,
            TransferKind::Fetch(fetch) => fetch.stalls_at(stall),
        };
        stalls_at.map_or(self.deadline, |at| at.min(self.deadline))
    }
}
