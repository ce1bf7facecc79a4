//! Many keys, put in batches and listed page by page, with a server gone.

use std::collections::BTreeSet;

use dkvs_tests::http::{client, get, send};
use dkvs_tests::keys::key_file;
use dkvs_tests::process::ServersFile;
use dkvs_tests::v1;
use reqwest::Client;
use serde_json::{Value as Json, json};

use crate::PROGRAMS;

const KEYS: usize = 1_200;

/// Does operations, 100 at a time; all of them have to be done.
pub async fn batch(client: &Client, url: String, operations: Vec<Json>) {
    for operations in operations.chunks(100) {
        let body = json!({ "operations": operations });
        let done = send(client.post(&url).json(&body)).await;
        let results = done.json["results"].as_array().unwrap();
        assert_eq!(results.len(), operations.len());
        for result in results {
            assert_eq!(result["status"], 200, "{result}");
        }
    }
}

#[tokio::test]
async fn every_key_is_listed_once_and_no_deleted_one_with_a_server_gone() {
    let mut cluster = PROGRAMS.cluster(5, &[]);
    let (client, url) = (client(), cluster.gateway.url("/batch"));
    let name = |number: usize| match number % 3 {
        0 => format!("rare/{number}"),
        _ => format!("user/{}/{number}", "x".repeat(number % 200)),
    };
    let puts = (0..KEYS).map(|number| json!({ "op": "put", "key": name(number), "value": "v" }));
    batch(&client, url.clone(), puts.collect()).await;
    cluster.nodes[2].process.kill();
    let gone: Vec<usize> = (0..KEYS).filter(|number| number % 10 == 0).collect();
    let deletes = gone
        .iter()
        .map(|number| json!({ "op": "delete", "key": name(*number) }));
    batch(&client, url, deletes.collect()).await;

    let kept = (0..KEYS).filter(|number| !gone.contains(number)).map(name);
    let kept: BTreeSet<String> = kept.collect();
    for (prefix, limit) in [("", 1_000), ("rare/", 50), ("user/xx", 1_000), ("none", 10)] {
        let (mut listed, mut cursor) = (Vec::new(), String::new());
        loop {
            let target = format!("/kv?prefix={prefix}&limit={limit}{cursor}");
            let page = get(&client, cluster.gateway.url(&target)).await;
            assert_eq!(page.status, 200, "{page:?}");
            let keys = page.json["keys"].as_array().unwrap().iter();
            listed.extend(keys.map(|key| key.as_str().unwrap().to_owned()));
            match page.json["cursor"].as_str() {
                Some(next) => cursor = format!("&cursor={next}"),
                None => break,
            }
        }
        let expected = kept.iter().filter(|key| key.starts_with(prefix));
        assert!(listed.iter().eq(expected), "{prefix}");
    }
}

#[tokio::test]
async fn a_list_says_that_keys_are_too_long_for_it_and_longer_datagrams_list_them() {
    let longest = |bytes: usize| format!("long/{}", "x".repeat(bytes - 5));
    // The page after that key is asked for without naming it, which takes more than a page does.
    let (fits, does_not) = (longest(1_152), longest(1_153));
    for (max_datagram, are_all_told) in [("1200", false), ("1300", true)] {
        let arguments = ["--max-datagram", max_datagram];
        let nodes: Vec<_> = (0..3).map(|_| PROGRAMS.node(&arguments)).collect();
        let addrs: Vec<_> = nodes.iter().map(|node| node.addr).collect();
        let servers = ServersFile::new(&addrs);
        let gateway = PROGRAMS.gateway_over(&servers, &arguments);
        let client = client();
        let ask = async |query: &str, accept| {
            let url = gateway.url(&format!("/kv?{query}"));
            send(client.get(url).header("accept", accept)).await
        };
        // All of them from a C client: of these, some are longer than a gateway would put.
        for addr in &addrs {
            v1::Client::new(*addr).store("short", "v");
            v1::Client::new(*addr).store(&fits, "v");
        }
        for query in ["", "prefix=long/", "prefix=short"] {
            let list = ask(query, "application/json").await;
            assert_eq!(list.json["left_out"], false, "{max_datagram} {query}");
            let lines = ask(query, "application/x-ndjson").await;
            assert!(!lines.headers.contains_key("dkvs-left-out"));
        }
        for addr in &addrs {
            v1::Client::new(*addr).store(&does_not, "v");
        }
        let all = [&fits, &does_not].map(|key| key.as_str());
        for (query, are_asked_for) in [("", true), ("prefix=long/", true), ("prefix=s", false)] {
            let is_left_out = are_asked_for && !are_all_told;
            let list = ask(query, "application/json").await;
            assert_eq!(list.status, 200, "{list:?}");
            assert_eq!(list.json["left_out"], is_left_out, "{max_datagram} {query}");
            let keys = list.json["keys"].as_array().unwrap();
            for key in all {
                let is_told = are_asked_for && (are_all_told || key != does_not);
                assert_eq!(
                    keys.contains(&key.into()),
                    is_told,
                    "{max_datagram} {query}"
                );
            }
            let lines = ask(query, "application/x-ndjson").await;
            assert_eq!(lines.headers.contains_key("dkvs-left-out"), is_left_out);
        }
        // By its name, it is there.
        let by_name = format!("/kv/{does_not}?consistency=agreement");
        let found = get(&client, gateway.url(&by_name)).await;
        assert_eq!(found.json["value"], "v", "{found:?}");
    }
}

#[tokio::test]
async fn gateways_with_a_key_in_common_go_on_from_each_others_lists_and_no_others_do() {
    let keys = key_file(&[1]);
    let with_keys = ["--key-file", keys.path()];
    let nodes: Vec<_> = (0..3).map(|_| PROGRAMS.node(&with_keys)).collect();
    let addrs: Vec<_> = nodes.iter().map(|node| node.addr).collect();
    let servers = ServersFile::new(&addrs);
    let gateways = [(); 2].map(|()| PROGRAMS.gateway_over(&servers, &with_keys));
    let client = client();
    let put = |name: &str| json!({ "op": "put", "key": name, "value": "v" });
    let names = ["a/1", "a/2", "a/3", "b/1", "b/2"];
    batch(&client, gateways[0].url("/batch"), names.map(put).to_vec()).await;

    // One page at each gateway in turn.
    let (mut listed, mut cursors) = (Vec::new(), vec![String::new()]);
    for gateway in gateways.iter().cycle() {
        let cursor = cursors.last().unwrap();
        let page = gateway.url(&format!("/kv?prefix=a/&limit=1{cursor}"));
        let page = get(&client, page).await;
        assert_eq!(page.status, 200, "{page:?}");
        listed.extend(page.json["keys"].as_array().unwrap().clone());
        match page.json["cursor"].as_str() {
            Some(next) => cursors.push(format!("&cursor={next}")),
            None => break,
        }
    }
    assert_eq!(listed, ["a/1", "a/2", "a/3"]);

    // Nobody else's: of another list, of another cluster, of a version before, nor one that was made up.
    let embedded = PROGRAMS.gateway(&["--embedded", "3"]);
    let cursor = &cursors[1];
    for (gateway, query) in [
        (&gateways[1], format!("prefix=b/{cursor}")),
        (&gateways[1], cursor[1..].to_owned()),
        (&gateways[1], format!("prefix=a/&start=a/{cursor}")),
        (&gateways[1], format!("prefix=a/&delimiter=/{cursor}")),
        (&gateways[1], format!("prefix=a/&reverse=true{cursor}")),
        (
            &gateways[1],
            format!("prefix=a/&cursor=Ag{}", "A".repeat(80)),
        ),
        (&gateways[1], format!("prefix=a/{cursor}A")),
        (&gateways[1], "prefix=a/&cursor=AV".to_owned()),
        (&embedded, format!("prefix=a/{cursor}")),
    ] {
        let refused = get(&client, gateway.url(&format!("/kv?{query}"))).await;
        assert_eq!(refused.status, 400, "{query}: {refused:?}");
        assert_eq!(refused.problem(), "invalid-parameter");
        let parameters = refused.json["invalid_parameters"].as_array().unwrap();
        assert_eq!(parameters[0]["name"], "cursor", "{refused:?}");
        let reason = parameters[0]["reason"].as_str().unwrap();
        assert!(reason.contains("begin the list anew"), "{reason}");
        let is_old = query.contains("=Ag");
        assert_eq!(reason.contains("of a version before"), is_old, "{reason}");
    }
}
