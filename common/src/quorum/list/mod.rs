//! Listing keys: the pages of all servers, merged in ring order.
//!
//! ```text
//!   server 1   a(5)         d(7)            |
//!   server 2   a(5)   c(3)                  |  merged up to where every server has been heard:
//!   server 3          c(4)x d(7)   f(2) ... |  a, d   (c was deleted under the greater tag 4)
//! ```
//!
//! A key that was confirmed by a majority of its replicas, and neither deleted nor confirmed anew
//! while it is listed, is told exactly once, whatever up to `silent_max` servers do. That number is
//! the replication less a majority of it: a majority confirmed the key, so one of those that answer
//! holds it, or the tombstone if that came later. A server that may have lost keys is heard, but
//! counts among the silent ones.
//!
//! A server is asked for its next page when the merge has used up the one before. Whoever is still
//! silent when the patience ends is not waited for any more.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use bytes::Bytes;

use super::Refusal;
use crate::cluster::ServerId;
use crate::kv::Key;
use crate::model::{EntryKind, PageEntry};
use crate::ring::Position;

/// A place in the ring between two keys: before the first key at `from` or later, but for the key
/// `after` and those before it at the very same position.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place {
    /// The position.
    pub from: Position,
    /// The last key that has been met there.
    pub after: Option<Key>,
}

impl Place {
    /// Before every key.
    pub const START: Self = Self {
        from: Position([0; 20]),
        after: None,
    };

    /// Right after a key.
    pub fn after(key: Key) -> Self {
        Self {
            from: Position::of_key(&key),
            after: Some(key),
        }
    }
}

/// What is to be listed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listing {
    /// Where to begin.
    pub start: Place,
    /// Only keys that begin with these bytes.
    pub prefix: Bytes,
    /// Most keys to tell, at least 1.
    pub keys_max: usize,
    /// How many servers may be silent.
    pub silent_max: usize,
}

/// What a server's page is to be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PageWish {
    /// Where it is to begin.
    pub start: Place,
    /// Most keys in it.
    pub keys_max: usize,
}

/// What a listing came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ListOutcome {
    /// The keys are told.
    Listed,
    /// More servers than may be are silent, and can be heard no more.
    Unreachable,
    /// The deadline passed before anything could be told.
    TimedOut,
}

/// What is known of a server of a listing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ListStanding {
    /// Every page that it was asked for has come.
    Answered,
    /// The same, but it may have lost keys.
    Incomplete,
    /// It refused.
    Refused(Refusal),
    /// It cannot be reached.
    Unreachable,
    /// It was silent for too long.
    TimedOut,
}

/// One server's part.
#[derive(Debug)]
struct Lane {
    server: ServerId,
    standing: Option<ListStanding>,
    /// Told and not merged yet, in ring order.
    entries: VecDeque<(Place, PageEntry)>,
    /// Where its next page begins.
    next: Place,
    has_more: bool,
    is_asked: bool,
}

impl Lane {
    /// Whether the merge has to wait for it.
    fn is_needed(&self) -> bool {
        self.is_heard() && self.entries.is_empty() && self.has_more
    }

    /// Whether it is asked and heard.
    fn is_heard(&self) -> bool {
        matches!(
            self.standing,
            None | Some(ListStanding::Answered | ListStanding::Incomplete)
        )
    }
}

/// A listing under way.
#[derive(Debug)]
pub struct List {
    lanes: Vec<Lane>,
    listing: Listing,
    keys: Vec<Key>,
    /// The last key that was merged, whether it was told or not.
    merged: Place,
    /// Whether servers left keys out of their pages.
    is_left_out: bool,
    outcome: Option<ListOutcome>,
    /// Where the next listing begins, once the outcome is known.
    next: Option<Place>,
    patience_ends: Instant,
}

impl List {
    /// A listing over `servers`, which waits for silent ones for no longer than `patience`.
    pub fn new(
        servers: impl Iterator<Item = ServerId>,
        listing: Listing,
        now: Instant,
        patience: Duration,
    ) -> Self {
        let lane = |server| Lane {
            server,
            standing: None,
            entries: VecDeque::new(),
            next: listing.start.clone(),
            has_more: true,
            is_asked: false,
        };
        Self {
            lanes: servers.map(lane).collect(),
            keys: Vec::new(),
            merged: listing.start.clone(),
            is_left_out: false,
            outcome: None,
            next: None,
            patience_ends: now + patience,
            listing,
        }
    }

    /// The next server to ask for a page.
    pub fn poll_transmit(&mut self) -> Option<(ServerId, PageWish)> {
        if self.outcome.is_some() {
            return None;
        }
        let mut lanes = self.lanes.iter_mut();
        let lane = lanes.find(|lane| lane.is_needed() && !lane.is_asked)?;
        lane.is_asked = true;
        let wish = PageWish {
            start: lane.next.clone(),
            // One more tells that there are more.
            keys_max: self.listing.keys_max - self.keys.len() + 1,
        };
        Some((lane.server, wish))
    }

    /// When to call [`Self::handle_patience`].
    pub fn patience_ends(&self) -> Instant {
        self.patience_ends
    }

    /// A page has come.
    pub fn handle_page(
        &mut self,
        from: ServerId,
        more: bool,
        is_incomplete: bool,
        entries: Vec<PageEntry>,
    ) {
        let Some(lane) = self.lane(from) else { return };
        lane.is_asked = false;
        let is_incomplete = is_incomplete || lane.standing == Some(ListStanding::Incomplete);
        let answered = match is_incomplete {
            true => ListStanding::Incomplete,
            false => ListStanding::Answered,
        };
        lane.standing = Some(answered);
        // A page that does not go on would be asked for without an end.
        let has_progress = !entries.is_empty();
        for entry in entries {
            let place = Place::after(entry.key.clone());
            if place <= lane.next {
                return self.fail(from, ListStanding::Refused(Refusal::Internal));
            }
            if entry.kind != EntryKind::PassedOver {
                lane.entries.push_back((place.clone(), entry));
            }
            lane.next = place;
        }
        lane.has_more = more;
        if more && !has_progress {
            return self.fail(from, ListStanding::Refused(Refusal::Internal));
        }
        self.merge();
    }

    /// The page that has come from a server, and is yet to be handled, lacks keys that are too long
    /// for it.
    pub fn handle_left_out(&mut self, from: ServerId) {
        self.is_left_out |= self.lane(from).is_some();
    }

    /// A server refuses.
    pub fn handle_refusal(&mut self, from: ServerId, refusal: Refusal) {
        self.fail(from, ListStanding::Refused(refusal));
    }

    /// A server cannot be reached.
    pub fn handle_unreachable(&mut self, from: ServerId) {
        self.fail(from, ListStanding::Unreachable);
    }

    /// The patience has ended: whoever is silent is not waited for any more, as far as that may be.
    pub fn handle_patience(&mut self) {
        let is_silent = |lane: &Lane| lane.is_needed() && lane.is_asked;
        let silent = self.lanes.iter().filter(|lane| is_silent(lane)).count();
        if self.outcome.is_none() && self.missing() + silent <= self.listing.silent_max {
            self.give_up_silent();
            self.merge();
        }
    }

    /// The deadline has passed. What is merged by then is told.
    pub fn handle_timeout(&mut self) {
        self.handle_patience();
        if self.outcome.is_some() {
            return;
        }
        let merged_to = self.merged_to();
        let has_progress = merged_to > self.listing.start;
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

    /// The keys, in ring order.
    pub fn keys(&self) -> &[Key] {
        &self.keys
    }

    /// Whether there are keys, around those that are told, which are too long for a server to tell.
    pub fn is_left_out(&self) -> bool {
        self.is_left_out
    }

    /// Where the next listing begins, once keys are told; none at the end of the ring.
    pub fn next(&self) -> Option<&Place> {
        self.next.as_ref()
    }

    /// What each server did, in the cluster's order; none if it was not heard, nor waited for.
    pub fn standings(&self) -> impl Iterator<Item = (ServerId, Option<ListStanding>)> {
        let standing = |lane: &Lane| (lane.server, lane.standing);
        self.lanes.iter().map(standing)
    }

    fn lane(&mut self, server: ServerId) -> Option<&mut Lane> {
        if self.outcome.is_some() {
            return None;
        }
        let mut lanes = self.lanes.iter_mut();
        lanes.find(|lane| lane.server == server && lane.is_asked && lane.is_heard())
    }

    fn fail(&mut self, from: ServerId, standing: ListStanding) {
        let Some(lane) = self.lanes.iter_mut().find(|lane| lane.server == from) else {
            return;
        };
        if !lane.is_heard() {
            return;
        }
        lane.standing = Some(standing);
        lane.entries.clear();
        self.merge();
    }

    /// How many servers do not count.
    fn missing(&self) -> usize {
        let is_missing =
            |lane: &&Lane| !lane.is_heard() || lane.standing == Some(ListStanding::Incomplete);
        self.lanes.iter().filter(is_missing).count()
    }

    fn give_up_silent(&mut self) {
        for lane in &mut self.lanes {
            if lane.is_needed() && lane.is_asked {
                lane.standing = Some(ListStanding::TimedOut);
            }
        }
    }

    /// Tells keys for as long as it is known from every server what comes next.
    fn merge(&mut self) {
        if self.outcome.is_some() {
            return;
        }
        if self.missing() > self.listing.silent_max {
            self.outcome = Some(ListOutcome::Unreachable);
            return;
        }
        while self.keys.len() < self.listing.keys_max {
            let firsts = self.lanes.iter().filter_map(|lane| lane.entries.front());
            let first = firsts.map(|(place, _)| place).min().cloned();
            let is_behind = |lane: &Lane| {
                lane.is_needed() && first.as_ref().is_none_or(|first| lane.next < *first)
            };
            if self.lanes.iter().any(is_behind) {
                return;
            }
            let Some(first) = first else {
                self.outcome = Some(ListOutcome::Listed);
                return;
            };
            if let Some(PageEntry { key, kind, .. }) = self.take(&first)
                && kind == EntryKind::Value
                && key.as_bytes().starts_with(&self.listing.prefix)
            {
                self.keys.push(key);
            }
            self.merged = first;
        }
        let has_rest = |lane: &Lane| lane.is_heard() && (lane.has_more || !lane.entries.is_empty());
        self.next = self.lanes.iter().any(has_rest).then(|| self.merged.clone());
        self.outcome = Some(ListOutcome::Listed);
    }

    /// Takes a key off all lanes; gives what is newest of it.
    fn take(&mut self, place: &Place) -> Option<PageEntry> {
        let mut newest: Option<PageEntry> = None;
        for lane in &mut self.lanes {
            if let Some((_, entry)) = lane.entries.pop_front_if(|(at, _)| at == place)
                && newest.as_ref().is_none_or(|newest| entry.tag > newest.tag)
            {
                newest = Some(entry);
            }
        }
        newest
    }

    /// Up to where every server has been heard, and so all is told.
    fn merged_to(&self) -> Place {
        let needed = self.lanes.iter().filter(|lane| lane.is_needed());
        let heard_to = needed.map(|lane| &lane.next).min();
        let furthest = heard_to.max(Some(&self.merged)).unwrap_or(&self.merged);
        let has_prefix = |key: &Key| key.as_bytes().starts_with(&self.listing.prefix);
        Place {
            from: furthest.from,
            // A key that was passed over is none of the caller's business.
            after: furthest.after.clone().filter(has_prefix),
        }
    }
}

#[cfg(test)]
mod tests;
