//! Many clients at once, and nothing mixed up.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};

use dkvs_tests::http::{Reply, client, get, put};
use dkvs_tests::random::Random;
use dkvs_tests::{patiently, programs};
use tokio::task::JoinSet;

const CLIENTS: usize = 64;
const SHARED_KEYS: usize = 16;
const ROUNDS: usize = 200;

/// Every value that was ever sent to be stored, each of which names its key.
#[derive(Clone, Default)]
struct Written(Arc<Mutex<BTreeSet<String>>>);

impl Written {
    fn note(&self, key: &str, writer: usize, sequence: usize) -> String {
        let value = format!("{key} by {writer} as {sequence}");
        assert!(self.0.lock().unwrap().insert(value.clone()));
        value
    }

    fn assert_holds(&self, key: &str, read: &Reply) {
        let value = read.json["value"].as_str().unwrap();
        assert!(value.starts_with(&format!("{key} by ")), "{key}: {read:?}");
        assert!(
            self.0.lock().unwrap().contains(value),
            "never written: {read:?}"
        );
    }
}

#[tokio::test]
async fn no_reply_is_ever_taken_for_another() {
    let cluster = programs!().cluster(5, &[]);
    let written = Written::default();
    let mut clients = JoinSet::new();
    for number in 0..CLIENTS {
        let base = cluster.gateway.url("/kv/");
        clients.spawn(one_client(number, base, written.clone()));
    }
    let found = patiently(clients.join_all()).await;
    assert!(
        found.into_iter().sum::<usize>() > CLIENTS,
        "reads found something"
    );
}

/// Puts and gets shared keys and one of its own; how many reads of a shared key found a value.
async fn one_client(number: usize, base: String, written: Written) -> usize {
    let client = client();
    let mut random = Random::new(number as u64);
    let mut found = 0;
    for round in 0..ROUNDS {
        let key = format!("shared-{}", random.below(SHARED_KEYS));
        if random.below(2) == 0 {
            let value = written.note(&key, number, round);
            let put = put(&client, format!("{base}{key}"), value).await;
            assert_eq!(put.status, 200, "{put:?}");
            assert_eq!(put.json["key"], key);
        } else {
            let read = get(&client, format!("{base}{key}")).await;
            assert!(matches!(read.status.as_u16(), 200 | 404 | 409), "{read:?}");
            if read.status == 200 {
                assert_eq!(read.json["key"], key);
                written.assert_holds(&key, &read);
                found += 1;
            }
        }
        if round % 4 == 0 {
            // All replicas are waited for: at the agreement level a put that was confirmed by
            // two may reach the third after the next one has.
            let url = format!("{base}own-{number}");
            let value = format!("{number} in {round}");
            let put = put(&client, url.clone() + "?wait=all", value.clone()).await;
            assert_eq!(put.count("stored"), 3, "{put:?}");
            for _ in 0..2 {
                let read = get(&client, url.clone()).await;
                assert_eq!(read.json["value"], value, "{read:?}");
            }
        }
    }
    found
}
