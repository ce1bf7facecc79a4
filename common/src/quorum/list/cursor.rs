//! How far the pages of one server have come.

use std::collections::VecDeque;

use super::listing::ListPosition;
use super::outcome::ListServerState;
use crate::cluster::ServerId;
use crate::kv::Key;
use crate::model::{EntryKind, PageEntry, Refusal};
use crate::tag::Tag;

/// Most pages that a listing requests from one server.
const PAGES_MAX: usize = 64;

/// Most of them that may end because the server has looked at all the records that it looks at for
/// one page: it walks through keys that are not listed.
const WALKS_MAX: usize = 4;

/// One server's part of a listing.
#[derive(Debug)]
pub(super) struct Cursor {
    server: ServerId,
    standing: Option<ListServerState>,
    /// Received and not merged yet, in ring order.
    entries: VecDeque<(ListPosition, PageEntry)>,
    /// What they take, in bytes.
    entries_bytes: usize,
    /// Where its next page begins.
    next: ListPosition,
    has_more: bool,
    is_requested: bool,
    /// How many more pages may be requested.
    pages_left: usize,
    /// How many more of them may end because the server has looked at enough records.
    walks_left: usize,
}

impl Cursor {
    /// A server that has not been asked, whose first page begins at `start`.
    pub(super) fn new(server: ServerId, start: ListPosition) -> Self {
        Self {
            server,
            standing: None,
            entries: VecDeque::new(),
            entries_bytes: 0,
            next: start,
            has_more: true,
            is_requested: false,
            pages_left: PAGES_MAX,
            walks_left: WALKS_MAX,
        }
    }

    pub(super) fn server(&self) -> ServerId {
        self.server
    }

    pub(super) fn standing(&self) -> Option<ListServerState> {
        self.standing
    }

    /// Where the next page begins.
    pub(super) fn next(&self) -> &ListPosition {
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
        !self.is_requested && (self.pages_left == 0 || self.walks_left == 0)
    }

    /// The next page has been requested.
    pub(super) fn note_request(&mut self) {
        self.is_requested = true;
        self.pages_left -= 1;
    }

    /// A page has arrived. Fails if its keys do not go on from the page before, or if there are none
    /// and more are to come: such pages would be requested without an end.
    pub(super) fn handle_page(
        &mut self,
        more: bool,
        is_incomplete: bool,
        entries: Vec<PageEntry>,
    ) -> Result<(), Refusal> {
        self.is_requested = false;
        let is_incomplete = is_incomplete || self.standing == Some(ListServerState::Incomplete);
        self.standing = Some(match is_incomplete {
            true => ListServerState::Incomplete,
            false => ListServerState::Answered,
        });
        let has_progress = !entries.is_empty();
        let last = entries.last().map(|entry| entry.kind);
        if more && last == Some(EntryKind::PassedOver) {
            self.walks_left = self.walks_left.saturating_sub(1);
        }
        for entry in entries {
            let place = ListPosition::after(entry.key.clone());
            if place <= self.next {
                return Err(Refusal::Internal);
            }
            if entry.kind != EntryKind::PassedOver {
                self.entries_bytes += held_bytes(&entry.key);
                self.entries.push_back((place.clone(), entry));
            }
            self.next = place;
        }
        self.has_more = more;
        if more && !has_progress {
            return Err(Refusal::Internal);
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

    /// The place of the first entry that is not merged.
    pub(super) fn first(&self) -> Option<&ListPosition> {
        self.entries.front().map(|(place, _)| place)
    }

    /// Takes off the entry at `place`, if it is the first.
    fn take(&mut self, place: &ListPosition) -> Option<PageEntry> {
        let first = self.entries.pop_front_if(|(at, _)| at == place);
        let (_, entry) = first?;
        self.entries_bytes -= held_bytes(&entry.key);
        Some(entry)
    }
}

/// What a key takes in memory, in bytes: its own, and what there is beside them.
pub(super) fn held_bytes(key: &Key) -> usize {
    const BESIDE: usize = 128;
    key.as_bytes().len() + BESIDE
}

/// Takes a key off all cursors; returns the newest entry of it.
pub(super) fn take(cursors: &mut [Cursor], place: &ListPosition) -> Option<PageEntry> {
    let mut newest: Option<PageEntry> = None;
    for cursor in cursors {
        let entry = cursor.take(place);
        let is_newer = |entry: &PageEntry| {
            let newest: Option<Tag> = newest.as_ref().map(|newest| newest.tag);
            newest.is_none_or(|newest| entry.tag > newest)
        };
        if let Some(entry) = entry.filter(is_newer) {
            newest = Some(entry);
        }
    }
    newest
}
