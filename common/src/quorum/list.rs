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
mod tests {
    use super::*;
    use std::collections::{BTreeMap, BTreeSet};

    use proptest::prelude::*;

    use crate::tag::Tag;
    use crate::testing::start_of_time;

    /// A server's records in ring order.
    #[derive(Clone, Default)]
    struct Server(BTreeMap<Place, PageEntry>);

    impl Server {
        fn put(&mut self, name: &str, time: u64, kind: EntryKind) {
            let key = Key::new(name.to_owned()).unwrap();
            let tag = Tag { time, op: 1 };
            self.0
                .insert(Place::after(key.clone()), PageEntry { key, tag, kind });
        }

        /// A page that looks at `looked_at_max` records.
        fn page(&self, wish: &PageWish, prefix: &[u8], looked_at_max: usize) -> Page {
            let mut entries = Vec::new();
            let mut rest = self.0.range(&wish.start..).peekable();
            rest.next_if(|(place, _)| **place == wish.start);
            let mut last = None;
            for (_, entry) in rest.by_ref().take(looked_at_max) {
                last = Some(entry);
                if entry.key.as_bytes().starts_with(prefix) {
                    entries.push(entry.clone());
                    last = None;
                }
                if entries.len() == wish.keys_max {
                    break;
                }
            }
            let more = rest.peek().is_some();
            if let Some(last) = last.filter(|_| more) {
                let kind = EntryKind::PassedOver;
                entries.push(PageEntry {
                    kind,
                    ..last.clone()
                });
            }
            (more, entries)
        }
    }

    type Page = (bool, Vec<PageEntry>);

    fn listing(start: Place, prefix: &'static str, keys_max: usize) -> Listing {
        Listing {
            start,
            prefix: Bytes::from_static(prefix.as_bytes()),
            keys_max,
            silent_max: 1,
        }
    }

    fn list(servers: usize, listing: Listing) -> List {
        let servers = (0..servers as u16).map(ServerId);
        List::new(
            servers,
            listing,
            start_of_time(),
            Duration::from_millis(250),
        )
    }

    /// Asks those that are not silent until it is decided, in an order that `pick` gives.
    fn run(
        list: &mut List,
        servers: &[Server],
        silent: Option<usize>,
        pick: &mut impl FnMut(usize) -> usize,
    ) {
        let mut asked: Vec<(ServerId, PageWish)> = Vec::new();
        while list.outcome().is_none() {
            asked.extend(std::iter::from_fn(|| list.poll_transmit()));
            asked.retain(|(server, _)| Some(server.index()) != silent);
            if asked.is_empty() {
                list.handle_patience();
                continue;
            }
            let (server, wish) = asked.swap_remove(pick(asked.len()));
            let prefix = list.listing.prefix.clone();
            let page = servers[server.index()].page(&wish, &prefix, 1 + pick(5));
            list.handle_page(server, page.0, false, page.1);
        }
    }

    /// Every page from the start to the end.
    fn all(
        servers: &[Server],
        silent: Option<usize>,
        keys_max: usize,
        prefix: &'static str,
        mut pick: impl FnMut(usize) -> usize,
    ) -> Vec<String> {
        let (mut start, mut told) = (Place::START, Vec::new());
        loop {
            let mut list = list(servers.len(), listing(start, prefix, keys_max));
            run(&mut list, servers, silent, &mut pick);
            assert_eq!(list.outcome(), Some(ListOutcome::Listed));
            assert!(list.keys().len() <= keys_max);
            let text = |key: &Key| String::from_utf8(key.as_bytes().to_vec()).unwrap();
            told.extend(list.keys().iter().map(text));
            match list.next() {
                Some(next) => start = next.clone(),
                None => return told,
            }
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2_000))]

        #[test]
        fn what_a_majority_confirmed_is_told_once_whoever_is_silent(
            keys in prop::collection::vec((0..5usize, 0..4usize, any::<bool>(), any::<bool>()), 0..30),
            silent in prop::option::of(0..5usize),
            keys_max in 1..8usize,
            seed: u64,
        ) {
            let mut servers = vec![Server::default(); 5];
            let mut expected = BTreeSet::new();
            for (number, (first, missed, was_held, is_deleted)) in keys.into_iter().enumerate() {
                let name = format!("{}/{number}", if number % 3 == 0 { "b" } else { "a" });
                // Three replicas, of which one may have missed the newest.
                for replica in 0..3 {
                    let server = &mut servers[(first + replica) % 5];
                    if replica != missed {
                        let kind = if is_deleted { EntryKind::Tombstone } else { EntryKind::Value };
                        server.put(&name, 2, kind);
                    } else if was_held {
                        server.put(&name, 1, EntryKind::Value);
                    }
                }
                if !is_deleted {
                    expected.insert(name);
                }
            }
            let mut state = seed;
            let mut pick = |below: usize| {
                state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                (state >> 33) as usize % below
            };
            let told = all(&servers, silent, keys_max, "", &mut pick);
            let position = |name: &String| Position::of_key_bytes(name.as_bytes());
            prop_assert!(told.is_sorted_by_key(position));
            prop_assert_eq!(&told.iter().cloned().collect::<BTreeSet<_>>(), &expected);
            prop_assert_eq!(told.len(), expected.len());
            let told: BTreeSet<_> = all(&servers, silent, keys_max, "b/", &mut pick).into_iter().collect();
            expected.retain(|name| name.starts_with("b/"));
            prop_assert_eq!(told, expected);
        }
    }

    #[test]
    fn with_more_silent_than_may_be_nothing_is_told() {
        let mut list = list(5, listing(Place::START, "", 10));
        while list.poll_transmit().is_some() {}
        list.handle_unreachable(ServerId(3));
        assert_eq!(list.outcome(), None);
        list.handle_refusal(ServerId(1), Refusal::NotV2);
        assert_eq!(list.outcome(), Some(ListOutcome::Unreachable));
        let standings: Vec<_> = list.standings().map(|(_, standing)| standing).collect();
        assert_eq!(standings[1], Some(ListStanding::Refused(Refusal::NotV2)));
        assert_eq!(standings[3], Some(ListStanding::Unreachable));
        assert_eq!(standings[0], None);
    }

    #[test]
    fn who_may_have_lost_keys_counts_as_silent_and_is_heard_all_the_same() {
        let mut server = Server::default();
        server.put("k", 1, EntryKind::Value);
        let mut list = list(3, listing(Place::START, "", 10));
        let wishes: Vec<_> = std::iter::from_fn(|| list.poll_transmit()).collect();
        let (_, entries) = server.page(&wishes[0].1, b"", 10);
        list.handle_page(ServerId(0), false, true, entries);
        list.handle_page(ServerId(1), false, false, Vec::new());
        list.handle_patience();
        assert_eq!(list.outcome(), None, "the third is needed");
        list.handle_page(ServerId(2), false, false, Vec::new());
        assert_eq!(list.outcome(), Some(ListOutcome::Listed));
        assert_eq!((list.keys().len(), list.next()), (1, None));
    }

    #[test]
    fn that_a_server_left_keys_out_is_told_of_those_that_were_asked_and_of_no_other() {
        for (from, expected) in [(0, true), (2, true), (9, false)] {
            let mut list = list(3, listing(Place::START, "", 10));
            assert_eq!(std::iter::from_fn(|| list.poll_transmit()).count(), 3);
            assert!(!list.is_left_out());
            list.handle_left_out(ServerId(from));
            for server in 0..3 {
                list.handle_page(ServerId(server), false, false, Vec::new());
            }
            assert_eq!(list.outcome(), Some(ListOutcome::Listed));
            assert_eq!(list.is_left_out(), expected);
            list.handle_left_out(ServerId(0));
            assert_eq!(list.is_left_out(), expected, "it is over");
        }
    }

    #[test]
    fn at_the_deadline_what_is_known_is_told_and_goes_on_later() {
        let mut servers = vec![Server::default(); 3];
        for (number, name) in ["one", "two", "three", "four"].into_iter().enumerate() {
            servers[number % 2].put(name, 1, EntryKind::Value);
            servers[2].put(name, 1, EntryKind::Value);
        }
        let mut cut = list(3, listing(Place::START, "", 10));
        let wishes: Vec<_> = std::iter::from_fn(|| cut.poll_transmit()).collect();
        for (server, wish) in wishes {
            let (more, entries) = servers[server.index()].page(&wish, b"", 1);
            cut.handle_page(server, more, false, entries);
        }
        cut.handle_timeout();
        assert_eq!(cut.outcome(), Some(ListOutcome::Listed));
        let next = cut.next().expect("there is more").clone();
        let mut rest = list(3, listing(next, "", 10));
        run(&mut rest, &servers, None, &mut |_| 0);
        let told: Vec<_> = cut.keys().iter().chain(rest.keys()).collect();
        assert_eq!(told.len(), 4);
        assert!(told.is_sorted_by_key(|key| Position::of_key(key)));

        let mut silent = list(3, listing(Place::START, "", 10));
        while silent.poll_transmit().is_some() {}
        silent.handle_timeout();
        assert_eq!(silent.outcome(), Some(ListOutcome::TimedOut));
    }

    #[test]
    fn a_server_whose_pages_do_not_go_on_is_refused() {
        let mut server = Server::default();
        server.put("k", 1, EntryKind::PassedOver);
        let mut list = list(3, listing(Place::START, "", 10));
        let (first, _) = list.poll_transmit().unwrap();
        let entries: Vec<PageEntry> = server.0.into_values().collect();
        list.handle_page(first, true, false, entries.clone());
        assert_eq!(list.poll_transmit().map(|(server, _)| server), Some(first));
        list.handle_page(first, true, false, entries);
        let refused = Some(ListStanding::Refused(Refusal::Internal));
        assert_eq!(list.standings().next().unwrap().1, refused);
        let (second, _) = list.poll_transmit().unwrap();
        list.handle_page(second, true, false, Vec::new());
        assert_eq!(list.outcome(), Some(ListOutcome::Unreachable));
        // What comes from a stranger or too late changes nothing.
        list.handle_page(ServerId(9), false, false, Vec::new());
        list.handle_page(ServerId(2), false, false, Vec::new());
        assert_eq!(list.outcome(), Some(ListOutcome::Unreachable));
    }
}
