//! Lists in order: from any key on, up and down, with folders and with values, while keys come and go.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use dkvs_common::model::{ReplicaCommand, ReplicaResponse, Statistic};
use dkvs_common::wire::v2::reply::Reply as WireReply;
use dkvs_common::wire::v2::request::Request;
use dkvs_tests::http::{Reply, client, get, send};
use dkvs_tests::random::Random;
use dkvs_tests::v2;
use reqwest::Client;
use serde_json::{Value as Json, json};
use tokio::task::JoinSet;

use crate::PROGRAMS;
use crate::listing::batch;

/// All pages of a list, as JSON.
async fn pages(client: &Client, url: &str, query: &str) -> Vec<Reply> {
    let (mut pages, mut cursor) = (Vec::new(), String::new());
    loop {
        let page = get(client, format!("{url}/kv?{query}{cursor}")).await;
        assert_eq!(page.status, 200, "{query}: {page:?}");
        let next = page.json["cursor"].as_str();
        let next = next.map(|next| format!("&cursor={next}"));
        pages.push(page);
        match next {
            Some(next) => cursor = next,
            None => return pages,
        }
    }
}

/// A member of all pages, one after the other.
fn members(pages: &[Reply], name: &str) -> Vec<Json> {
    let of_page = |page: &Reply| page.json[name].as_array().cloned().unwrap_or_default();
    pages.iter().flat_map(of_page).collect()
}

/// What is asked for.
struct Wanted<'a> {
    prefix: &'a str,
    start: Option<&'a str>,
    delimiter: &'a str,
    is_reverse: bool,
}

impl Wanted<'_> {
    /// Which keys and folders a list is to have.
    fn expected(&self, keys: &BTreeMap<String, String>) -> (Vec<String>, Vec<String>) {
        let is_listed = |key: &&String| {
            let is_ahead = self.start.is_none_or(|start| match self.is_reverse {
                true => key.as_str() <= start,
                false => key.as_str() >= start,
            });
            key.starts_with(self.prefix) && is_ahead
        };
        let (mut listed, mut folders) = (Vec::new(), Vec::new());
        for key in keys.keys().filter(is_listed) {
            let below = &key[self.prefix.len()..];
            match below
                .find(self.delimiter)
                .filter(|_| !self.delimiter.is_empty())
            {
                Some(at) => {
                    let end = self.prefix.len() + at + self.delimiter.len();
                    folders.push(key[..end].to_owned());
                }
                None => listed.push(key.clone()),
            }
        }
        folders.dedup();
        if self.is_reverse {
            listed.reverse();
            folders.reverse();
        }
        (listed, folders)
    }

    fn query(&self) -> String {
        let Self {
            prefix,
            delimiter,
            is_reverse,
            ..
        } = self;
        let start = self.start.map(|start| format!("&start={start}"));
        let start = start.unwrap_or_default();
        format!("prefix={prefix}{start}&delimiter={delimiter}&reverse={is_reverse}")
    }
}

#[tokio::test]
async fn lists_begin_anywhere_go_either_way_and_have_folders_and_values() {
    let mut cluster = PROGRAMS.cluster(4, &[]);
    let (client, url) = (client(), cluster.gateway.url(""));
    let mut keys = BTreeMap::new();
    for folder in ["", "a/", "a/b/", "a0", "c/", "c/d/e/", "f//"] {
        for number in 0..12 {
            keys.insert(
                format!("{folder}{number}"),
                format!("value of {folder}{number}"),
            );
        }
    }
    let put = |(key, value): (&String, &String)| json!({ "op": "put", "key": key, "value": value, "content_type": "text/plain" });
    let deleted = ["a/b/gone", "gone/1", "gone/2", "z"];
    let gone = deleted
        .iter()
        .map(|key| json!({ "op": "put", "key": key, "value": "v" }));
    let puts = keys.iter().map(put).chain(gone).collect();
    batch(&client, format!("{url}/batch"), puts).await;
    cluster.nodes[1].process.kill();
    let deletes = deleted
        .iter()
        .map(|key| json!({ "op": "delete", "key": key }));
    batch(&client, format!("{url}/batch"), deletes.collect()).await;

    let starts = [
        None,
        Some("a/5"),
        Some("a/b/"),
        Some("b"),
        Some(""),
        Some("zz"),
    ];
    for prefix in ["", "a", "a/", "c/d", "f/", "none"] {
        for start in starts {
            for (delimiter, is_reverse) in [
                ("", false),
                ("", true),
                ("/", false),
                ("/", true),
                ("//", false),
            ] {
                let wanted = Wanted {
                    prefix,
                    start,
                    delimiter,
                    is_reverse,
                };
                let (listed, folders) = wanted.expected(&keys);
                for limit in [3, 1_000] {
                    let query = format!("{}&limit={limit}&values=true", wanted.query());
                    let pages = pages(&client, &url, &query).await;
                    assert_eq!(members(&pages, "keys"), listed, "{query}");
                    assert_eq!(members(&pages, "folders"), folders, "{query}");
                    assert_eq!(pages[0].json["folders"].is_array(), !delimiter.is_empty());
                    for page in &pages {
                        let count = |name: &str| page.json[name].as_array().map_or(0, Vec::len);
                        assert!(count("keys") + count("folders") <= limit, "{page:?}");
                    }
                    let entries = members(&pages, "entries");
                    assert_eq!(entries.len(), listed.len());
                    for (entry, key) in entries.into_iter().zip(&listed) {
                        assert_eq!(entry["key"], **key);
                        assert_eq!(entry["value"], keys[key]);
                        assert_eq!(entry["content_type"], "text/plain");
                        assert_eq!(entry["size"], keys[key].len());
                        assert_eq!(entry["consistency"], "linearizable");
                        assert_eq!(entry["tag"].as_str().unwrap().len(), 33);
                    }
                }
            }
        }
    }
}

#[tokio::test]
async fn lines_have_keys_entries_and_folders_in_their_order() {
    let gateway = PROGRAMS.gateway(&["--embedded", "3"]);
    let client = client();
    for path in [
        "/kv/a",
        "/kv/b/1",
        "/kv/b/2",
        "/kv/c",
        "/kv/%ff/1",
        "/kv/%ff%fe",
    ] {
        let put = client.put(gateway.url(path)).body("v");
        assert_eq!(send(put).await.status, 200);
    }
    let lines = async |query: &str| {
        let request = client.get(gateway.url(&format!("/kv?{query}")));
        let reply = send(request.header("accept", "application/x-ndjson")).await;
        assert_eq!(reply.header("content-type"), "application/x-ndjson");
        let text = String::from_utf8(reply.body).unwrap();
        assert!(text.is_empty() || text.ends_with('\n'));
        text.lines()
            .map(|line| line.parse().unwrap())
            .collect::<Vec<Json>>()
    };
    let folders = [json!("a"), json!({ "folder": "b/" }), json!("c")];
    let binary = [
        json!({ "folder_base64": "/y8=" }),
        json!({ "key_base64": "//4=" }),
    ];
    let all = [&folders[..], &binary[..]].concat();
    assert_eq!(lines("delimiter=/").await, all);
    let entries = lines("delimiter=/&values=true").await;
    assert_eq!((&entries[1], &entries[3]), (&all[1], &all[3]));
    for (entry, name, key) in [(0, "key", "a"), (2, "key", "c"), (4, "key_base64", "//4=")] {
        assert_eq!(entries[entry][name], key, "{entries:?}");
        assert_eq!(entries[entry]["value"], "v", "{entries:?}");
    }
    assert!(lines("prefix=none").await.is_empty());
}

#[tokio::test]
async fn values_that_memory_has_no_room_for_at_once_are_read_as_the_reply_is() {
    let gateway = PROGRAMS.gateway(&["--embedded", "3"]);
    let client = client();
    let value = |number: u8| vec![b'a' + number; 1_000_000];
    // The caller may hold 64 MiB beside others.
    let count = 26;
    for copy in 0..3 {
        let puts = (0..count).map(|number| {
            let path = format!("/kv/{copy}/{number:02}");
            send(client.put(gateway.url(&path)).body(value(number)))
        });
        for put in puts.collect::<JoinSet<Reply>>().join_all().await {
            assert_eq!(put.status, 200, "{put:?}");
        }
    }
    let reply = get(&client, gateway.url("/kv?values=true&limit=1000")).await;
    assert_eq!(reply.status, 200);
    assert_eq!(
        reply.header("content-length"),
        "",
        "it is made as it is read"
    );
    let entries = reply.json["entries"].as_array().unwrap();
    assert_eq!(entries.len(), 3 * usize::from(count));
    for (number, entry) in entries.iter().enumerate() {
        let number = number % usize::from(count);
        let held = entry["value"]
            .as_str()
            .unwrap_or_else(|| panic!("{}", entry["problem"]));
        assert!(held.as_bytes() == value(number as u8), "entry {number}");
    }
    assert_eq!(reply.json["cursor"], Json::Null);
}

fn examined(server: std::net::SocketAddr) -> u64 {
    let request = Request::Command(ReplicaCommand::GetStatistics);
    let reply = v2::Client::new(server).ask(&request);
    let WireReply::Response(ReplicaResponse::Statistics(numbers)) = reply else {
        panic!("no statistics: {reply:?}");
    };
    let is_it = |(name, _): &&(u8, u64)| *name == Statistic::ListRecordsExamined as u8;
    numbers.iter().find(is_it).expect("it is counted").1
}

#[tokio::test]
async fn a_list_costs_servers_what_it_returns_however_many_other_keys_there_are() {
    let cluster = PROGRAMS.cluster(3, &[]);
    let (client, url) = (client(), cluster.gateway.url(""));
    let name = |number: usize| match number {
        0..10 => format!("some/{number}"),
        10..20 => format!("folders/{number}/x"),
        _ => format!("folders/{}/{number}", number % 10 + 10),
    };
    let puts = (0..3_000).map(|number| json!({ "op": "put", "key": name(number), "value": "" }));
    batch(&client, format!("{url}/batch"), puts.collect()).await;
    let of_all = || {
        cluster
            .nodes
            .iter()
            .map(|node| examined(node.addr))
            .sum::<u64>()
    };
    for (query, items, most) in [
        ("prefix=none", 0, 0),
        ("prefix=folders0&reverse=true", 0, 0),
        ("prefix=some/", 10, 3 * 10),
        ("prefix=some/&limit=2", 10, 3 * (5 * 3)),
        // A page of four keys for each folder, and what follows the last.
        ("prefix=folders/&delimiter=/", 10, 3 * (10 * 4)),
        ("delimiter=/&reverse=true", 2, 3 * (2 * 4)),
    ] {
        let before = of_all();
        let pages = pages(&client, &url, query).await;
        let found = members(&pages, "keys").len() + members(&pages, "folders").len();
        assert_eq!(found, items, "{query}");
        let examined = of_all() - before;
        assert!(examined <= most, "{query}: {examined} records examined");
    }
}

/// Keys that are there all the time, and every tenth that is deleted before: 20,000, or as many as
/// the variable `LISTED_KEYS` says.
fn keys_kept() -> usize {
    let said = std::env::var("LISTED_KEYS").ok();
    said.map_or(20_000, |keys| keys.parse().expect("a number of keys"))
}

#[tokio::test]
async fn nothing_is_missing_or_twice_or_out_of_order_while_keys_come_and_go_and_a_server_dies() {
    let key_count = keys_kept();
    let mut cluster = PROGRAMS.cluster(4, &[]);
    let (client, url) = (client(), cluster.gateway.url(""));
    let kept = |number: usize| format!("k/{number:06}/kept");
    let name = |number: usize| match number % 10 {
        9 => format!("k/{number:06}/gone"),
        _ => kept(number),
    };
    let puts = |numbers: std::ops::Range<usize>| {
        let put = |number| json!({ "op": "put", "key": name(number), "value": "v" });
        numbers.map(put).collect::<Vec<Json>>()
    };
    let mut fillers = JoinSet::new();
    for part in 0..4 {
        let (client, url) = (client.clone(), format!("{url}/batch"));
        let numbers = puts(part * key_count / 4..(part + 1) * key_count / 4);
        fillers.spawn(async move { batch(&client, url, numbers).await });
    }
    fillers.join_all().await;
    let deletes = (0..key_count).filter(|number| number % 10 == 9);
    let deletes = deletes.map(|number| json!({ "op": "delete", "key": name(number) }));
    batch(&client, format!("{url}/batch"), deletes.collect()).await;

    let (is_over, changes) = (
        Arc::new(AtomicBool::new(false)),
        Arc::new(AtomicU64::new(0)),
    );
    let mut writers = JoinSet::new();
    for writer in 0..2 {
        let (client, url) = (client.clone(), format!("{url}/batch"));
        let (is_over, changes) = (Arc::clone(&is_over), Arc::clone(&changes));
        writers.spawn(async move {
            let mut random = Random::new(writer);
            while !is_over.load(Ordering::Relaxed) {
                let change = |_| {
                    let key = format!("k/{:06}/passing {writer}", random.below(key_count));
                    match random.below(2) {
                        0 => json!({ "op": "put", "key": key, "value": "v" }),
                        _ => json!({ "op": "delete", "key": key }),
                    }
                };
                batch(&client, url.clone(), (0..50).map(change).collect()).await;
                changes.fetch_add(50, Ordering::Relaxed);
            }
        });
    }

    let mut expected: Vec<String> = (0..key_count)
        .filter(|number| number % 10 != 9)
        .map(kept)
        .collect();
    for is_reverse in [false, true] {
        let (mut listed, mut cursor, mut count) = (Vec::new(), String::new(), 0);
        loop {
            let target =
                format!("{url}/kv?limit=500&reverse={is_reverse}&timeout_ms=10000{cursor}");
            let page = get(&client, target).await;
            assert_eq!(page.status, 200, "{page:?}");
            let keys = page.json["keys"].as_array().unwrap().iter();
            listed.extend(keys.map(|key| key.as_str().unwrap().to_owned()));
            count += 1;
            if count == 7 && !is_reverse {
                cluster.nodes[2].process.kill();
            }
            match page.json["cursor"].as_str() {
                Some(next) => cursor = format!("&cursor={next}"),
                None => break,
            }
        }
        let is_in_order = match is_reverse {
            false => listed.is_sorted_by(|one, next| one < next),
            true => listed.is_sorted_by(|one, next| one > next),
        };
        assert!(is_in_order, "each once and in order");
        let (stayed, passing): (Vec<String>, Vec<String>) =
            listed.into_iter().partition(|key| !key.contains("passing"));
        assert!(stayed == expected, "{} of {}", stayed.len(), expected.len());
        let passing: BTreeSet<String> = passing.into_iter().collect();
        assert!(!passing.is_empty(), "keys come and go");
        expected.reverse();
    }
    is_over.store(true, Ordering::Relaxed);
    writers.join_all().await;
    assert!(changes.load(Ordering::Relaxed) > 500);
}
