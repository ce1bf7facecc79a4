//! How far the pages of one server have come.

use std::cmp::Ordering;
use std::collections::VecDeque;

use super::listing::Listing;
use super::outcome::ListServerState;
use crate::cluster::ServerId;
use crate::kv::Key;
use crate::model::{Direction, KeyPosition, PageEntry, PageRest, Refusal};
use crate::mutants::{self, Mutant};

/// Most pages that a listing requests from one server.
const PAGES_MAX: usize = 256;

/// Most keys of the first page, and of the first one after a folder, of a listing with folders: one key
/// shows a folder, however many are in it. Each page may have twice as many as the one before.
const KEYS_FOR_FOLDER: usize = 4;

/// One server's part of a listing.
#[derive(Debug)]
pub(super) struct Cursor {
    server: ServerId,
    direction: Direction,
    standing: Option<ListServerState>,
    /// Received and not merged yet, in the order of the listing.
    entries: VecDeque<PageEntry>,
    /// What they take, in bytes.
    entries_bytes: usize,
    /// Where its next page begins.
    next: KeyPosition,
    has_more: bool,
    is_requested: bool,
    /// Where the page begins that was requested last.
    requested: KeyPosition,
    /// How many more pages may be requested.
    pages_left: usize,
    /// Most keys of the next page.
    keys_max: usize,
}

impl Cursor {
    /// A server that has not been asked for what is to be listed.
    pub(super) fn new(server: ServerId, listing: &Listing) -> Self {
        let start = &listing.start;
        Self {
            server,
            direction: listing.direction,
            standing: None,
            entries: VecDeque::new(),
            entries_bytes: 0,
            next: start.clone(),
            has_more: true,
            is_requested: false,
            requested: start.clone(),
            pages_left: PAGES_MAX,
            keys_max: match listing.delimiter.is_empty() {
                true => usize::MAX,
                false => KEYS_FOR_FOLDER,
            },
        }
    }

    pub(super) fn server(&self) -> ServerId {
        self.server
    }

    pub(super) fn standing(&self) -> Option<ListServerState> {
        self.standing
    }

    /// Where the next page begins.
    pub(super) fn next(&self) -> &KeyPosition {
        &self.next
    }

    /// Whether the merge has to wait for its next page.
    pub(super) fn is_awaited(&self) -> bool {
        self.is_active() && self.entries.is_empty() && self.has_more
    }

    /// Whether the page that the merge waits for has been requested.
    pub(super) fn is_silent(&self) -> bool {
        self.is_awaited() && self.is_requested
    }

    /// Whether the server has not failed.
    pub(super) fn is_active(&self) -> bool {
        matches!(
            self.standing,
            None | Some(ListServerState::Answered | ListServerState::Incomplete)
        )
    }

    /// Whether a page was requested that may still arrive.
    pub(super) fn is_page_due(&self) -> bool {
        self.is_requested && self.is_active()
    }

    /// Whether it cannot be relied on for every key that it should hold.
    pub(super) fn is_missing(&self) -> bool {
        !self.is_active() || self.standing == Some(ListServerState::Incomplete)
    }

    /// Whether there are entries that are not merged, received or not.
    pub(super) fn has_rest(&self) -> bool {
        self.is_active() && (self.has_more || !self.entries.is_empty())
    }

    /// Whether the next page should be requested now.
    pub(super) fn wants_page(&self) -> bool {
        self.is_awaited() && !self.is_requested && !self.is_spent()
    }

    /// Whether the next page would be one more than the server may be asked for.
    pub(super) fn is_spent(&self) -> bool {
        !self.is_requested && self.pages_left == 0
    }

    /// The next page has been requested, for up to `keys_wanted` keys. Returns how many it may have.
    pub(super) fn note_request(&mut self, keys_wanted: usize) -> usize {
        self.is_requested = true;
        self.requested = self.next.clone();
        self.pages_left -= 1;
        let keys_max = self.keys_max.min(keys_wanted);
        self.keys_max = keys_max.saturating_mul(2);
        keys_max
    }

    /// A page has arrived. Fails if its keys are not in order, or do not go on from the page before
    /// though more are to come: such pages would be requested without an end. What the merge has gone
    /// past meanwhile is dropped.
    pub(super) fn handle_page(
        &mut self,
        rest: PageRest,
        is_incomplete: bool,
        entries: Vec<PageEntry>,
    ) -> Result<(), Refusal> {
        self.is_requested = false;
        let is_incomplete = is_incomplete || self.standing == Some(ListServerState::Incomplete);
        self.standing = Some(match is_incomplete {
            true => ListServerState::Incomplete,
            false => ListServerState::Answered,
        });
        let direction = self.direction;
        let is_in_order = entries
            .is_sorted_by(|one, next| direction.compare(&one.key, &next.key) == Ordering::Less);
        let last = entries.last().map(|entry| entry.key.clone().into_bytes());
        let last = last.map(|last| KeyPosition::beyond(last, direction));
        self.has_more &= rest != PageRest::None;
        let end = match rest {
            PageRest::From(start) => Some(start),
            PageRest::None | PageRest::AfterLast => last,
        };
        let is_progress = |end: &KeyPosition| self.is_before(&self.requested, end);
        if !is_in_order || (self.has_more && !end.as_ref().is_some_and(is_progress)) {
            return Err(Refusal::Internal);
        }
        for entry in entries {
            if !self.has_passed(&entry.key) {
                self.entries_bytes += held_bytes(entry.key.as_bytes());
                self.entries.push_back(entry);
            }
        }
        if let Some(end) = end.filter(|end| self.is_before(&self.next, end)) {
            self.next = end;
        }
        Ok(())
    }

    /// The server has failed: what it sent counts no more.
    pub(super) fn fail(&mut self, standing: ListServerState) {
        self.standing = Some(standing);
        self.entries.clear();
        self.entries_bytes = 0;
    }

    /// What the entries that are not merged take, in bytes.
    pub(super) fn entries_bytes(&self) -> usize {
        self.entries_bytes
    }

    /// Waits no longer for the page that has been requested.
    pub(super) fn give_up(&mut self) {
        self.standing = Some(ListServerState::TimedOut);
    }

    /// The first key that is not merged.
    pub(super) fn first(&self) -> Option<&Key> {
        self.entries.front().map(|entry| &entry.key)
    }

    /// Drops what is before a place, where the listing goes on: it is in a folder that is returned already.
    pub(super) fn skip_to(&mut self, place: &KeyPosition) {
        let direction = self.direction;
        let is_before = |entry: &mut PageEntry| {
            let at = KeyPosition::at(entry.key.clone().into_bytes(), direction);
            direction.compare(&at, place) == Ordering::Less
        };
        while let Some(entry) = self.entries.pop_front_if(is_before) {
            self.entries_bytes -= held_bytes(entry.key.as_bytes());
        }
        if self.entries.is_empty() && self.is_before(&self.next, place) {
            self.next = place.clone();
            self.keys_max = KEYS_FOR_FOLDER;
        }
    }

    /// Takes off the entry of a key, if it is the first.
    fn take(&mut self, key: &Key) -> Option<PageEntry> {
        let first = self.entries.pop_front_if(|first| first.key == *key);
        let entry = first?;
        self.entries_bytes -= held_bytes(entry.key.as_bytes());
        Some(entry)
    }

    /// Whether its pages have come further than a key.
    pub(super) fn has_passed(&self, key: &Key) -> bool {
        let at = KeyPosition::at(key.clone().into_bytes(), self.direction);
        self.is_before(&at, &self.next)
    }

    /// Whether one place comes before another in the listing.
    fn is_before(&self, one: &KeyPosition, other: &KeyPosition) -> bool {
        self.direction.compare(one, other) == Ordering::Less
    }
}

/// What a key or a folder takes in memory, in bytes: its own, and what there is beside them.
pub(super) fn held_bytes(key: &[u8]) -> usize {
    const BESIDE: usize = 128;
    key.len() + BESIDE
}

/// Takes a key off all cursors; returns the newest entry of it.
pub(super) fn take(cursors: &mut [Cursor], key: &Key) -> Option<PageEntry> {
    let entries = cursors.iter_mut().filter_map(|cursor| cursor.take(key));
    entries.max_by_key(|entry| (!mutants::is_on(Mutant::ListedByAnyEntry)).then_some(entry.tag))
}
