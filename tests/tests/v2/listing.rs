//! Many keys, put in batches and listed page by page, with a server gone.

use std::collections::BTreeSet;

use dkvs_tests::http::{client, get, send};
use reqwest::Client;
use serde_json::{Value as Json, json};

use crate::PROGRAMS;

const KEYS: usize = 1_200;

/// Does operations, 100 at a time; all of them have to be done.
async fn batch(client: &Client, url: String, operations: Vec<Json>) {
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
        assert_eq!(listed.len(), expected.clone().count(), "{prefix}");
        let listed: BTreeSet<&String> = listed.iter().collect();
        assert!(listed.into_iter().eq(expected), "{prefix}");
    }
}
