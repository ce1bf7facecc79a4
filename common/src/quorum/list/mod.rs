//! Listing keys: the pages of all servers, merged in the order of the keys' bytes, up or down.
//!
//! ```text
//!   server 1   a(5)         d(7)            |
//!   server 2   a(5)   c(3)                  |  merged up to where all pages have arrived:
//!   server 3          c(4)x d(7)   f(2) ... |  a, d   (c was deleted under the greater tag 4)
//! ```
//!
//! A key that was confirmed by a majority of its replicas, and neither deleted nor confirmed anew
//! while it is listed, is returned exactly once, whatever up to `silent_max` servers do. That number
//! is the replication less a majority of it: a majority confirmed the key, so one of those that
//! respond holds it, or the tombstone if that came later. The pages of a server that may have lost
//! keys are merged, but the server counts among the silent ones.
//!
//! With a delimiter, the first key that is merged of a folder is returned as that folder, and the
//! listing goes on behind it: what else is in it is neither merged nor, but for the rest of a page,
//! requested.
//!
//! A server is asked for its next page when the merge has used up the one before. After a soft
//! deadline, the merge no longer waits for servers that are silent.
//!
//! The work that a listing causes at a server is bounded: when the server that the merge waits for
//! has been asked for as many pages as it may be, the listing ends with what is merged by then, be it
//! nothing, and the next one begins there.

mod cursor;
mod listing;
mod outcome;

use std::time::{Duration, Instant};

use crate::cluster::ServerId;
use crate::kv::Key;
use crate::model::{EntryKind, KeyPosition, PageEntry, PageRest, Refusal, ReplicaResponse};
use crate::mutants::{self, Mutant};
use cursor::Cursor;

pub use listing::{ListItem, Listing, PageRequest};
pub use outcome::{ListOutcome, ListServerState};

/// A listing under way.
#[derive(Debug)]
pub struct List {
    cursors: Vec<Cursor>,
    listing: Listing,
    items: Vec<ListItem>,
    /// What they take, in bytes.
    items_bytes: usize,
    /// Behind the last key that was merged, whether it is returned or not.
    merged: KeyPosition,
    /// Whether servers left keys out of their pages.
    is_left_out: bool,
    outcome: Option<ListOutcome>,
    /// Where the next listing begins, once the outcome is known.
    next: Option<KeyPosition>,
    soft_deadline: Instant,
}

impl List {
    /// A listing over `servers`, which waits for silent ones for no longer than `silence_max`: that is
    /// its soft deadline.
    pub fn new(
        servers: impl Iterator<Item = ServerId>,
        listing: Listing,
        now: Instant,
        silence_max: Duration,
    ) -> Self {
        let cursor = |server| Cursor::new(server, &listing);
        Self {
            cursors: servers.map(cursor).collect(),
            items: Vec::new(),
            items_bytes: 0,
            merged: listing.start.clone(),
            is_left_out: false,
            outcome: None,
            next: None,
            soft_deadline: now + silence_max,
            listing,
        }
    }

    /// The next server to request a page from. How many keys fit in the command depends on the
    /// server, so the caller makes it.
    pub fn poll_transmit(&mut self) -> Option<(ServerId, PageRequest)> {
        if self.outcome.is_some() {
            return None;
        }
        let mut cursors = self.cursors.iter_mut();
        let cursor = cursors.find(|cursor| cursor.wants_page())?;
        // One more shows that there are more.
        let keys_wanted = self.listing.items_max - self.items.len() + 1;
        let request = PageRequest {
            start: cursor.next().clone(),
            direction: self.listing.direction,
            keys_max: cursor.note_request(keys_wanted),
        };
        Some((cursor.server(), request))
    }

    /// When to call [`Self::handle_soft_deadline`].
    pub fn soft_deadline(&self) -> Instant {
        self.soft_deadline
    }

    /// `from` responded to a request for a page.
    pub fn handle_response(&mut self, from: ServerId, response: ReplicaResponse) {
        match response {
            ReplicaResponse::Page {
                rest,
                is_incomplete,
                is_left_out,
                entries,
            } => {
                self.is_left_out |= is_left_out && self.due_cursor(from).is_some();
                self.handle_page(from, rest, is_incomplete, entries);
            }
            ReplicaResponse::Refused(refusal) => self.fail(from, ListServerState::Refused(refusal)),
            // It does not fit.
            ReplicaResponse::Done
            | ReplicaResponse::Record { .. }
            | ReplicaResponse::Untagged { .. }
            | ReplicaResponse::Block { .. }
            | ReplicaResponse::Tag { .. }
            | ReplicaResponse::Digest { .. }
            | ReplicaResponse::Staged { .. }
            | ReplicaResponse::Promised { .. }
            | ReplicaResponse::Preempted { .. }
            | ReplicaResponse::Statistics(_)
            | ReplicaResponse::LeafSums { .. }
            | ReplicaResponse::LeafEntries { .. }
            | ReplicaResponse::Absent { .. }
            | ReplicaResponse::Superseded { .. } => {
                self.fail(from, ListServerState::Refused(Refusal::Internal));
            }
        }
    }

    /// `from` cannot be reached.
    pub fn handle_unreachable(&mut self, from: ServerId) {
        self.fail(from, ListServerState::Unreachable);
    }

    fn handle_page(
        &mut self,
        from: ServerId,
        rest: PageRest,
        is_incomplete: bool,
        entries: Vec<PageEntry>,
    ) {
        let Some(cursor) = self.due_cursor(from) else {
            return;
        };
        match cursor.handle_page(rest, is_incomplete, entries) {
            Ok(()) => self.merge(),
            Err(refusal) => self.fail(from, ListServerState::Refused(refusal)),
        }
    }

    /// The soft deadline has passed: the merge no longer waits for silent servers, unless they are too
    /// many.
    pub fn handle_soft_deadline(&mut self) {
        let silent = self.cursors.iter().filter(|cursor| cursor.is_silent());
        let silent = silent.count();
        if self.outcome.is_none() && self.missing() + silent <= self.listing.silent_max {
            self.give_up_silent();
            self.merge();
        }
    }

    /// The deadline has passed. What is merged by then is returned.
    pub fn handle_timeout(&mut self) {
        self.handle_soft_deadline();
        if self.outcome.is_some() {
            return;
        }
        let merged_to = self.merged_to();
        let has_progress = merged_to != self.listing.start;
        self.give_up_silent();
        self.next = Some(merged_to);
        self.outcome = Some(match has_progress {
            true => ListOutcome::Listed,
            false => ListOutcome::TimedOut,
        });
    }

    /// What it came to, once that is known.
    pub fn outcome(&self) -> Option<ListOutcome> {
        self.outcome
    }

    /// The keys and folders, in their order.
    pub fn items(&self) -> &[ListItem] {
        &self.items
    }

    /// What these and the pages that are not merged take, in bytes.
    pub fn held_bytes(&self) -> usize {
        let pages = self.cursors.iter().map(Cursor::entries_bytes);
        self.items_bytes + pages.sum::<usize>()
    }

    /// Whether keys are missing, around those that are returned, that are too long for a page.
    pub fn is_left_out(&self) -> bool {
        self.is_left_out
    }

    /// Where the next listing begins, once keys are returned; none if there are no more.
    pub fn next(&self) -> Option<&KeyPosition> {
        self.next.as_ref()
    }

    /// What is known of each server, in the cluster's order; none if it has not responded and is not
    /// waited for.
    pub fn standings(&self) -> impl Iterator<Item = (ServerId, Option<ListServerState>)> {
        let standing = |cursor: &Cursor| (cursor.server(), cursor.standing());
        self.cursors.iter().map(standing)
    }

    /// The cursor of a server that was asked for a page which may still arrive.
    fn due_cursor(&mut self, server: ServerId) -> Option<&mut Cursor> {
        if self.outcome.is_some() {
            return None;
        }
        let mut cursors = self.cursors.iter_mut();
        cursors.find(|cursor| cursor.server() == server && cursor.is_page_due())
    }

    fn fail(&mut self, from: ServerId, standing: ListServerState) {
        let mut cursors = self.cursors.iter_mut();
        let cursor = cursors.find(|cursor| cursor.server() == from);
        if let Some(cursor) = cursor.filter(|cursor| cursor.is_active()) {
            cursor.fail(standing);
            self.merge();
        }
    }

    /// How many servers cannot be relied on.
    fn missing(&self) -> usize {
        let missing = self.cursors.iter().filter(|cursor| cursor.is_missing());
        missing.count()
    }

    fn give_up_silent(&mut self) {
        for cursor in self.cursors.iter_mut().filter(|cursor| cursor.is_silent()) {
            cursor.give_up();
        }
    }

    /// Merges keys for as long as the next one of every server is known.
    fn merge(&mut self) {
        if self.outcome.is_some() {
            return;
        }
        if self.missing() > self.listing.silent_max {
            self.outcome = Some(ListOutcome::Unreachable);
            return;
        }
        let direction = self.listing.direction;
        while self.items.len() < self.listing.items_max {
            let firsts = self.cursors.iter().filter_map(Cursor::first);
            let first = firsts.min_by(|one, other| direction.compare(*one, *other));
            let first = first.cloned();
            let is_behind = |cursor: &Cursor| {
                let first = first.as_ref();
                cursor.is_awaited() && first.is_none_or(|first| !cursor.has_passed(first))
            };
            let goes_on_anyway = first.is_some() && mutants::is_on(Mutant::MergedPastPage);
            if self.cursors.iter().any(is_behind) && !goes_on_anyway {
                if self.is_spent() {
                    self.next = Some(self.merged_to());
                    self.outcome = Some(ListOutcome::Listed);
                }
                return;
            }
            let Some(first) = first else {
                self.outcome = Some(ListOutcome::Listed);
                return;
            };
            self.merge_key(&first);
        }
        let has_rest = self.cursors.iter().any(Cursor::has_rest);
        self.next = has_rest.then(|| self.merged.clone());
        self.outcome = Some(ListOutcome::Listed);
    }

    /// Merges the entries of a key, the first of all that are not merged.
    fn merge_key(&mut self, first: &Key) {
        let entry = cursor::take(&mut self.cursors, first);
        self.merged = KeyPosition::beyond(first.clone().into_bytes(), self.listing.direction);
        let live = entry.filter(|entry| entry.kind == EntryKind::Value);
        let Some(item) = live.and_then(|entry: PageEntry| self.listing.item(entry.key)) else {
            return;
        };
        if let ListItem::Folder(folder) = &item {
            self.merged = self.listing.behind_folder(folder);
            for cursor in &mut self.cursors {
                cursor.skip_to(&self.merged);
            }
        }
        self.items_bytes += cursor::held_bytes(item.as_bytes());
        self.items.push(item);
    }

    /// Whether the merge waits for a page that may not be requested.
    fn is_spent(&self) -> bool {
        let direction = self.listing.direction;
        let awaited = self.cursors.iter().filter(|cursor| cursor.is_awaited());
        let furthest_behind =
            awaited.min_by(|one, other| direction.compare(one.next(), other.next()));
        furthest_behind.is_some_and(Cursor::is_spent)
    }

    /// The place up to which the pages of every server have arrived, and are merged.
    fn merged_to(&self) -> KeyPosition {
        let compare =
            |one: &&KeyPosition, other: &&KeyPosition| self.listing.direction.compare(*one, *other);
        let awaited = self.cursors.iter().filter(|cursor| cursor.is_awaited());
        let received_to = awaited.map(Cursor::next).min_by(compare);
        let furthest = received_to
            .into_iter()
            .chain([&self.merged])
            .max_by(compare);
        furthest.unwrap_or(&self.merged).clone()
    }
}

#[cfg(test)]
mod tests;
