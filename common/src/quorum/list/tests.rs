use super::*;
use bytes::Bytes;
use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;

use crate::model::Direction;
use crate::tag::Tag;
use crate::testing::start_of_time;

const DIRECTIONS: [Direction; 2] = [Direction::Ascending, Direction::Descending];

/// A server's records in the order of their keys.
#[derive(Clone, Default)]
struct Server(BTreeMap<Key, PageEntry>);

impl Server {
    fn put(&mut self, name: &str, time: u64, kind: EntryKind) {
        let key = Key::new(name.to_owned()).unwrap();
        let tag = Tag { time, op: 1 };
        self.0.insert(key.clone(), PageEntry { key, tag, kind });
    }

    /// A page of at most `keys_max` keys.
    fn page(&self, request: &PageRequest, prefix: &[u8], keys_max: usize) -> ReplicaResponse {
        let direction = request.direction;
        let is_ahead = |entry: &&PageEntry| {
            let at = KeyPosition::at(entry.key.clone().into_bytes(), direction);
            entry.key.as_bytes().starts_with(prefix)
                && direction.compare(&at, &request.start) != std::cmp::Ordering::Less
        };
        let mut ahead: Vec<PageEntry> = self.0.values().filter(is_ahead).cloned().collect();
        if direction == Direction::Descending {
            ahead.reverse();
        }
        let keys_max = keys_max.min(request.keys_max);
        let more = ahead.len() > keys_max;
        ahead.truncate(keys_max);
        page(more, false, ahead)
    }
}

fn page(more: bool, is_incomplete: bool, entries: Vec<PageEntry>) -> ReplicaResponse {
    ReplicaResponse::Page {
        rest: if more {
            PageRest::AfterLast
        } else {
            PageRest::None
        },
        is_incomplete,
        is_left_out: false,
        entries,
    }
}

/// A page without keys, from which keys were left out.
fn left_out_page() -> ReplicaResponse {
    ReplicaResponse::Page {
        rest: PageRest::None,
        is_incomplete: false,
        is_left_out: true,
        entries: Vec::new(),
    }
}

/// All keys, up.
fn listing(items_max: usize) -> Listing {
    Listing {
        prefix: Bytes::new(),
        start: KeyPosition::START,
        direction: Direction::Ascending,
        delimiter: Bytes::new(),
        items_max,
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
        let page = servers[server.index()].page(&request, &prefix, 1 + pick(5));
        list.handle_response(server, page);
    }
}

fn text(item: &ListItem) -> String {
    String::from_utf8(item.as_bytes().to_vec()).unwrap()
}

/// Every page from the start to the end.
fn all(
    servers: &[Server],
    silent: Option<usize>,
    mut listing: Listing,
    mut pick: impl FnMut(usize) -> usize,
) -> Vec<String> {
    let mut listed = Vec::new();
    loop {
        let mut list = list(servers.len(), listing.clone());
        run(&mut list, servers, silent, &mut pick);
        assert_eq!(list.outcome(), Some(ListOutcome::Listed));
        assert!(list.items().len() <= listing.items_max);
        listed.extend(list.items().iter().map(text));
        match list.next() {
            Some(next) => listing.start = next.clone(),
            None => return listed,
        }
    }
}

/// What a list of these keys is to have.
fn expected(keys: &BTreeSet<String>, listing: &Listing) -> Vec<String> {
    let direction = listing.direction;
    let prefix = std::str::from_utf8(&listing.prefix).unwrap();
    let delimiter = std::str::from_utf8(&listing.delimiter).unwrap();
    let is_listed = |key: &&String| {
        let at = KeyPosition::at(Bytes::from((*key).clone()), direction);
        key.starts_with(prefix)
            && direction.compare(&at, &listing.start) != std::cmp::Ordering::Less
    };
    let item = |key: &String| match key[prefix.len()..].find(delimiter) {
        Some(place) if !delimiter.is_empty() => {
            key[..prefix.len() + place + delimiter.len()].to_owned()
        }
        _ => key.clone(),
    };
    let mut items: Vec<String> = keys.iter().filter(is_listed).map(item).collect();
    items.dedup();
    if direction == Direction::Descending {
        items.reverse();
    }
    items
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    #[test]
    fn what_a_majority_confirmed_is_listed_once_in_order_whichever_server_is_silent(
        keys in prop::collection::vec(
            ("[ab]{0,2}/{0,1}[a0]{0,2}/{0,1}[ab]{1,2}", 0..5usize, 0..4usize, any::<bool>(), any::<bool>()),
            0..30,
        ),
        silent in prop::option::of(0..5usize),
        items_max in 1..8usize,
        prefix in "[ab]{0,1}/{0,1}",
        start in prop::option::of("[ab/]{0,4}"),
        delimiter in "/{0,2}|a",
        direction in prop::sample::select(&DIRECTIONS[..]),
        seed: u64,
    ) {
        let mut servers = vec![Server::default(); 5];
        let (mut live, mut names) = (BTreeSet::new(), BTreeSet::new());
        for (name, first, missed, was_held, is_deleted) in keys {
            if !names.insert(name.clone()) {
                continue;
            }
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
                live.insert(name);
            }
        }
        let mut state = seed;
        let mut pick = |below: usize| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            (state >> 33) as usize % below
        };
        let prefix = Bytes::from(prefix);
        let listing = Listing {
            start: match start {
                Some(start) => KeyPosition::at(start.into(), direction),
                None => KeyPosition::first_of(&prefix, direction),
            },
            prefix,
            direction,
            delimiter: delimiter.into(),
            ..listing(items_max)
        };
        let listed = all(&servers, silent, listing.clone(), &mut pick);
        prop_assert_eq!(listed, expected(&live, &listing));
    }
}

#[test]
fn with_more_silent_than_allowed_nothing_is_listed() {
    let mut list = list(5, listing(10));
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
    let mut list = list(3, listing(10));
    let requests: Vec<_> = std::iter::from_fn(|| list.poll_transmit()).collect();
    assert_eq!(requests.len(), 3);
    let entries = server.0.into_values().collect();
    list.handle_response(ServerId(0), page(false, true, entries));
    list.handle_response(ServerId(1), page(false, false, Vec::new()));
    list.handle_soft_deadline();
    assert_eq!(list.outcome(), None, "the third is required");
    list.handle_response(ServerId(2), page(false, false, Vec::new()));
    assert_eq!(list.outcome(), Some(ListOutcome::Listed));
    assert_eq!((list.items().len(), list.next()), (1, None));
}

#[test]
fn only_servers_that_were_asked_can_report_that_keys_were_left_out() {
    for (from, expected) in [(0, true), (2, true), (9, false)] {
        let mut list = list(3, listing(10));
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
    let mut cut = list(3, listing(10));
    let requests: Vec<_> = std::iter::from_fn(|| cut.poll_transmit()).collect();
    for (server, request) in requests {
        let page = servers[server.index()].page(&request, b"", 1);
        cut.handle_response(server, page);
    }
    cut.handle_timeout();
    assert_eq!(cut.outcome(), Some(ListOutcome::Listed));
    let next = cut.next().expect("there is more").clone();
    let mut rest = list(
        3,
        Listing {
            start: next,
            ..listing(10)
        },
    );
    run(&mut rest, &servers, None, &mut |_| 0);
    let listed: Vec<_> = cut.items().iter().chain(rest.items()).map(text).collect();
    assert_eq!(listed, ["four", "one", "three", "two"]);

    let mut silent = list(3, listing(10));
    while silent.poll_transmit().is_some() {}
    silent.handle_timeout();
    assert_eq!(silent.outcome(), Some(ListOutcome::TimedOut));
}

#[test]
fn a_server_whose_pages_do_not_go_on_is_refused() {
    let mut server = Server::default();
    server.put("b", 1, EntryKind::Value);
    server.put("a", 1, EntryKind::Tombstone);
    let entries: Vec<PageEntry> = server.0.into_values().collect();
    let reversed = entries.iter().rev().cloned().collect();
    let twice = [&entries[..1], &entries[..1]].concat();
    let nowhere = ReplicaResponse::Page {
        rest: PageRest::From(KeyPosition::START),
        is_incomplete: false,
        is_left_out: true,
        entries: Vec::new(),
    };
    let refused = Some(ListServerState::Refused(Refusal::Internal));
    for bad in [
        page(true, false, Vec::new()),
        page(false, false, reversed),
        page(false, false, twice),
        nowhere,
    ] {
        let mut list = list(3, listing(10));
        let (first, _) = list.poll_transmit().unwrap();
        list.handle_response(first, bad);
        assert_eq!(list.standings().next().unwrap().1, refused);
    }

    let mut list = list(3, listing(10));
    let requests: Vec<_> = std::iter::from_fn(|| list.poll_transmit()).collect();
    for (server, _) in requests {
        list.handle_response(server, page(true, false, entries[..1].to_vec()));
    }
    let (first, _) = list.poll_transmit().unwrap();
    list.handle_response(first, page(true, false, entries[..1].to_vec()));
    assert_eq!(list.standings().next().unwrap().1, refused);
    let (second, _) = list.poll_transmit().unwrap();
    list.handle_response(second, page(true, false, Vec::new()));
    assert_eq!(list.outcome(), Some(ListOutcome::Unreachable));
    // A page from an unknown sender, or one that is late, changes nothing.
    list.handle_response(ServerId(9), page(false, false, Vec::new()));
    list.handle_response(ServerId(2), page(false, false, Vec::new()));
    assert_eq!(list.outcome(), Some(ListOutcome::Unreachable));
}

/// Lists page by page to the end: the items, how many listings that took, and the most pages that one
/// of them requested from one server.
fn bounded(servers: &[Server], mut listing: Listing, keys_max: usize) -> (usize, usize, usize) {
    let (mut items, mut listings, mut pages_max) = (0, 0, 0);
    loop {
        let mut list = list(servers.len(), listing.clone());
        let mut pages = vec![0; servers.len()];
        while let Some((server, request)) = list.poll_transmit() {
            pages[server.index()] += 1;
            let held = &servers[server.index()];
            list.handle_response(server, held.page(&request, &listing.prefix, keys_max));
        }
        assert_eq!(list.outcome(), Some(ListOutcome::Listed));
        items += list.items().len();
        listings += 1;
        pages_max = pages.into_iter().fold(pages_max, usize::max);
        match list.next() {
            Some(next) => {
                assert!(*next > listing.start, "a listing gets on");
                listing.start = next.clone();
            }
            None => return (items, listings, pages_max),
        }
    }
}

#[test]
fn a_listing_asks_a_server_for_so_many_pages_and_the_next_one_goes_on() {
    let mut servers = vec![Server::default(); 3];
    for number in 0..400 {
        for server in &mut servers {
            server.put(&format!("a/{number}"), 1, EntryKind::Value);
            server.put(&format!("b/{number}"), 1, EntryKind::Tombstone);
        }
    }
    // One key a page.
    assert_eq!(bounded(&servers, listing(1_000), 1), (400, 4, 256));
    // What is asked for ends it before.
    assert_eq!(bounded(&servers, listing(50), 50).0, 400);
    // Nothing but tombstones.
    let prefix = Bytes::from_static(b"b/");
    let of_tombstones = Listing {
        prefix,
        ..listing(10)
    };
    assert_eq!(bounded(&servers, of_tombstones, 1), (0, 2, 256));
}

#[test]
fn a_folder_costs_a_page_whatever_is_in_it() {
    let mut server = Server::default();
    for folder in 0..50 {
        for number in 0..200 {
            server.put(&format!("{folder:02}/{number}"), 1, EntryKind::Value);
        }
    }
    let servers = vec![server; 3];
    let with_folders = Listing {
        delimiter: Bytes::from_static(b"/"),
        ..listing(100)
    };
    let mut list = list(3, with_folders);
    let mut keys = 0;
    while let Some((server, request)) = list.poll_transmit() {
        let page = servers[server.index()].page(&request, b"", 1_000);
        if let ReplicaResponse::Page { entries, .. } = &page {
            keys += entries.len();
        }
        list.handle_response(server, page);
    }
    assert_eq!((list.items().len(), list.next()), (50, None));
    assert!(keys <= 3 * 50 * 4, "{keys} of 30,000 keys");
}

#[test]
fn a_page_of_keys_too_long_says_where_the_next_begins() {
    let mut list = list(3, listing(10));
    let requests: Vec<_> = std::iter::from_fn(|| list.poll_transmit()).collect();
    let place = KeyPosition::Before(Bytes::from_static(b"k"));
    for (server, _) in &requests {
        list.handle_response(
            *server,
            ReplicaResponse::Page {
                rest: PageRest::From(place.clone()),
                is_incomplete: false,
                is_left_out: true,
                entries: Vec::new(),
            },
        );
        let (again, request) = list.poll_transmit().unwrap();
        assert_eq!((again, request.start), (*server, place.clone()));
    }
    list.handle_timeout();
    assert_eq!(list.outcome(), Some(ListOutcome::Listed));
    assert_eq!((list.next(), list.is_left_out()), (Some(&place), true));
}
