use super::*;
use crate::ring::Position;
use bytes::Bytes;
use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;

use crate::tag::Tag;
use crate::testing::start_of_time;

/// A server's records in ring order.
#[derive(Clone, Default)]
struct Server(BTreeMap<ListPosition, PageEntry>);

impl Server {
    fn put(&mut self, name: &str, time: u64, kind: EntryKind) {
        let key = Key::new(name.to_owned()).unwrap();
        let tag = Tag { time, op: 1 };
        self.0.insert(
            ListPosition::after(key.clone()),
            PageEntry { key, tag, kind },
        );
    }

    /// A page that looks at `looked_at_max` records.
    fn page(&self, request: &PageRequest, prefix: &[u8], looked_at_max: usize) -> Page {
        let mut entries = Vec::new();
        let mut rest = self.0.range(&request.start..).peekable();
        rest.next_if(|(place, _)| **place == request.start);
        let mut last = None;
        for (_, entry) in rest.by_ref().take(looked_at_max) {
            last = Some(entry);
            if entry.key.as_bytes().starts_with(prefix) {
                entries.push(entry.clone());
                last = None;
            }
            if entries.len() == request.keys_max {
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

fn page(more: bool, is_incomplete: bool, entries: Vec<PageEntry>) -> ReplicaResponse {
    ReplicaResponse::Page {
        more,
        is_incomplete,
        is_left_out: false,
        entries,
    }
}

/// A page without keys, from which keys were left out.
fn left_out_page() -> ReplicaResponse {
    ReplicaResponse::Page {
        more: false,
        is_incomplete: false,
        is_left_out: true,
        entries: Vec::new(),
    }
}

fn listing(start: ListPosition, prefix: &'static str, keys_max: usize) -> Listing {
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
    let mut asked: Vec<(ServerId, PageRequest)> = Vec::new();
    while list.outcome().is_none() {
        asked.extend(std::iter::from_fn(|| list.poll_transmit()));
        asked.retain(|(server, _)| Some(server.index()) != silent);
        if asked.is_empty() {
            list.handle_soft_deadline();
            continue;
        }
        let (server, request) = asked.swap_remove(pick(asked.len()));
        let prefix = list.listing.prefix.clone();
        let (more, entries) = servers[server.index()].page(&request, &prefix, 1 + pick(5));
        list.handle_response(server, page(more, false, entries));
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
    let (mut start, mut listed) = (ListPosition::START, Vec::new());
    loop {
        let mut list = list(servers.len(), listing(start, prefix, keys_max));
        run(&mut list, servers, silent, &mut pick);
        assert_eq!(list.outcome(), Some(ListOutcome::Listed));
        assert!(list.keys().len() <= keys_max);
        let text = |key: &Key| String::from_utf8(key.as_bytes().to_vec()).unwrap();
        listed.extend(list.keys().iter().map(text));
        match list.next() {
            Some(next) => start = next.clone(),
            None => return listed,
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    #[test]
    fn what_a_majority_confirmed_is_listed_once_whichever_server_is_silent(
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
        let listed = all(&servers, silent, keys_max, "", &mut pick);
        let position = |name: &String| Position::of_key_bytes(name.as_bytes());
        prop_assert!(listed.is_sorted_by_key(position));
        prop_assert_eq!(&listed.iter().cloned().collect::<BTreeSet<_>>(), &expected);
        prop_assert_eq!(listed.len(), expected.len());
        let listed: BTreeSet<_> = all(&servers, silent, keys_max, "b/", &mut pick).into_iter().collect();
        expected.retain(|name| name.starts_with("b/"));
        prop_assert_eq!(listed, expected);
    }
}

#[test]
fn with_more_silent_than_allowed_nothing_is_listed() {
    let mut list = list(5, listing(ListPosition::START, "", 10));
    while list.poll_transmit().is_some() {}
    list.handle_unreachable(ServerId(3));
    assert_eq!(list.outcome(), None);
    list.handle_response(ServerId(1), ReplicaResponse::Refused(Refusal::NotV2));
    assert_eq!(list.outcome(), Some(ListOutcome::Unreachable));
    let standings: Vec<_> = list.standings().map(|(_, standing)| standing).collect();
    assert_eq!(standings[1], Some(ListServerState::Refused(Refusal::NotV2)));
    assert_eq!(standings[3], Some(ListServerState::Unreachable));
    assert_eq!(standings[0], None);
}

#[test]
fn a_server_that_may_have_lost_keys_counts_as_silent_and_its_keys_are_listed() {
    let mut server = Server::default();
    server.put("k", 1, EntryKind::Value);
    let mut list = list(3, listing(ListPosition::START, "", 10));
    let requests: Vec<_> = std::iter::from_fn(|| list.poll_transmit()).collect();
    let (_, entries) = server.page(&requests[0].1, b"", 10);
    list.handle_response(ServerId(0), page(false, true, entries));
    list.handle_response(ServerId(1), page(false, false, Vec::new()));
    list.handle_soft_deadline();
    assert_eq!(list.outcome(), None, "the third is required");
    list.handle_response(ServerId(2), page(false, false, Vec::new()));
    assert_eq!(list.outcome(), Some(ListOutcome::Listed));
    assert_eq!((list.keys().len(), list.next()), (1, None));
}

#[test]
fn only_servers_that_were_asked_can_report_that_keys_were_left_out() {
    for (from, expected) in [(0, true), (2, true), (9, false)] {
        let mut list = list(3, listing(ListPosition::START, "", 10));
        assert_eq!(std::iter::from_fn(|| list.poll_transmit()).count(), 3);
        assert!(!list.is_left_out());
        if from == 9 {
            list.handle_response(ServerId(from), left_out_page());
        }
        for server in 0..3 {
            let is_from = server == from;
            let whole_page = || page(false, false, Vec::new());
            let response = if is_from {
                left_out_page()
            } else {
                whole_page()
            };
            list.handle_response(ServerId(server), response);
        }
        assert_eq!(list.outcome(), Some(ListOutcome::Listed));
        assert_eq!(list.is_left_out(), expected);
        list.handle_response(ServerId(0), left_out_page());
        assert_eq!(list.is_left_out(), expected, "it is over");
    }
}

#[test]
fn at_the_deadline_what_is_known_is_listed_and_the_next_listing_goes_on() {
    let mut servers = vec![Server::default(); 3];
    for (number, name) in ["one", "two", "three", "four"].into_iter().enumerate() {
        servers[number % 2].put(name, 1, EntryKind::Value);
        servers[2].put(name, 1, EntryKind::Value);
    }
    let mut cut = list(3, listing(ListPosition::START, "", 10));
    let requests: Vec<_> = std::iter::from_fn(|| cut.poll_transmit()).collect();
    for (server, request) in requests {
        let (more, entries) = servers[server.index()].page(&request, b"", 1);
        cut.handle_response(server, page(more, false, entries));
    }
    cut.handle_timeout();
    assert_eq!(cut.outcome(), Some(ListOutcome::Listed));
    let next = cut.next().expect("there is more").clone();
    let mut rest = list(3, listing(next, "", 10));
    run(&mut rest, &servers, None, &mut |_| 0);
    let listed: Vec<_> = cut.keys().iter().chain(rest.keys()).collect();
    assert_eq!(listed.len(), 4);
    assert!(listed.is_sorted_by_key(|key| Position::of_key(key)));

    let mut silent = list(3, listing(ListPosition::START, "", 10));
    while silent.poll_transmit().is_some() {}
    silent.handle_timeout();
    assert_eq!(silent.outcome(), Some(ListOutcome::TimedOut));
}

#[test]
fn a_server_whose_pages_do_not_go_on_is_refused() {
    let mut server = Server::default();
    server.put("k", 1, EntryKind::PassedOver);
    let mut list = list(3, listing(ListPosition::START, "", 10));
    let (first, _) = list.poll_transmit().unwrap();
    let entries: Vec<PageEntry> = server.0.into_values().collect();
    list.handle_response(first, page(true, false, entries.clone()));
    assert_eq!(list.poll_transmit().map(|(server, _)| server), Some(first));
    list.handle_response(first, page(true, false, entries));
    let refused = Some(ListServerState::Refused(Refusal::Internal));
    assert_eq!(list.standings().next().unwrap().1, refused);
    let (second, _) = list.poll_transmit().unwrap();
    list.handle_response(second, page(true, false, Vec::new()));
    assert_eq!(list.outcome(), Some(ListOutcome::Unreachable));
    // A page from an unknown sender, or one that is late, changes nothing.
    list.handle_response(ServerId(9), page(false, false, Vec::new()));
    list.handle_response(ServerId(2), page(false, false, Vec::new()));
    assert_eq!(list.outcome(), Some(ListOutcome::Unreachable));
}

/// Lists page by page to the end: the keys, how many listings that took, and the most pages that one
/// of them requested from one server.
fn bounded(
    servers: &[Server],
    prefix: &'static str,
    keys_max: usize,
    page_max: (usize, usize),
) -> (usize, usize, usize) {
    let (keys_per_page_max, looked_at_max) = page_max;
    let (mut start, mut keys, mut listings, mut pages_max) = (ListPosition::START, 0, 0, 0);
    loop {
        let mut list = list(servers.len(), listing(start.clone(), prefix, keys_max));
        let mut pages = vec![0; servers.len()];
        while let Some((server, mut request)) = list.poll_transmit() {
            pages[server.index()] += 1;
            request.keys_max = request.keys_max.min(keys_per_page_max);
            let held = &servers[server.index()];
            let (more, entries) = held.page(&request, prefix.as_bytes(), looked_at_max);
            list.handle_response(server, page(more, false, entries));
        }
        assert_eq!(list.outcome(), Some(ListOutcome::Listed));
        keys += list.keys().len();
        listings += 1;
        pages_max = pages.into_iter().fold(pages_max, usize::max);
        match list.next() {
            Some(next) => {
                assert!(*next > start, "a listing gets on");
                start = next.clone();
            }
            None => return (keys, listings, pages_max),
        }
    }
}

#[test]
fn a_listing_asks_a_server_for_so_many_pages_and_the_next_one_goes_on() {
    let mut servers = vec![Server::default(); 3];
    for number in 0..400 {
        for server in &mut servers {
            server.put(&format!("a/{number}"), 1, EntryKind::Value);
        }
    }
    // Ten records a page, none of them listed: forty at a time, of which the next begins with the last.
    assert_eq!(bounded(&servers, "b/", 10, (10, 10)), (0, 11, 4));
    // One key a page: sixty-four at a time.
    assert_eq!(bounded(&servers, "a/", 1_000, (1, 1_000)), (400, 7, 64));
    // What is asked for ends it before.
    assert_eq!(bounded(&servers, "a/", 50, (50, 1_000)).0, 400);
    // One server has walked as far as it may, where the others have nothing.
    servers[0] = Server::default();
    for number in 0..3_000 {
        servers[0].put(&format!("c/{number}"), 1, EntryKind::Value);
    }
    let (keys, listings, pages_max) = bounded(&servers, "a/", 1_000, (100, 100));
    assert_eq!((keys, pages_max), (400, 4));
    assert!((7..=9).contains(&listings), "{listings}");
}
