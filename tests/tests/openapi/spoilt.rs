//! Replies that are wrong in one way each, which [`Contract::judge`](crate::contract) must see.

use dkvs_tests::process::DataDir;
use dkvs_tests::programs;
use reqwest::header::HeaderValue;
use serde_json::{Map, Value as Json, json};

use crate::replies::Witness;

#[tokio::test]
async fn a_reply_that_is_wrong_anywhere_is_refused() {
    let mut witness = Witness::new();
    let cluster = programs!().cluster(3, &[]);
    let mut at = witness.at(&cluster.gateway);
    let mut replies = vec![("putValue", at.put("/kv/k", "v", "200").await)];
    for (id, target, expected) in [
        ("deleteValue", "/kv/gone", "200"),
        ("getValue", "/kv/gone", "404 key-not-found"),
        ("getValue", "/kv/k", "200"),
        ("getValue", "/kv/absent", "404 key-not-found"),
        ("getValue", "/kv/k?n=9", "400 invalid-parameter"),
        ("getRing", "/ring", "200"),
        ("getPreferenceList", "/ring/k", "200"),
        ("getPreferenceList", "/ring/k?replicas=true", "200"),
        ("getServers", "/servers", "200"),
        ("getLiveness", "/livez", "200"),
        ("getReadiness", "/readyz", "200"),
    ] {
        replies.push((id, at.ask(id, target, expected).await));
    }
    let data = DataDir::new();
    let durable = programs!().gateway(&["--embedded", "1", "--data-dir", data.path()]);
    let mut at = witness.at(&durable);
    replies.push(("getServers", at.ask("getServers", "/servers", "200").await));
    for (id, reply) in &mut replies {
        let good = reply.json.clone();
        for (what, bad) in spoilt(&good) {
            reply.json = bad;
            let judged = witness.contract.judge(id, reply);
            assert!(judged.is_err(), "{id} may come {what}: {}", reply.json);
        }
        reply.json = good;
        reply.headers.insert("x-strange", HeaderValue::from(1));
        assert!(witness.contract.judge(id, reply).is_err(), "{id}");
        reply.headers.remove("x-strange");
        reply.headers.remove("x-request-id");
        assert!(witness.contract.judge(id, reply).is_err(), "{id}");
    }
}

/// Members of which every word is listed.
const WORDS: &[&str] = &[
    "type",
    "status",
    "outcome",
    "consistency",
    "encoding",
    "protocol",
    "durability",
    "tag",
    "boot_id",
];

/// A document in many wrong ways, each with what is wrong.
fn spoilt(good: &Json) -> Vec<(String, Json)> {
    let mut spoilt = Vec::new();
    for pointer in objects(good) {
        let members = good.pointer(&pointer).and_then(Json::as_object).unwrap();
        let mut spoil = |what: &str, change: &dyn Fn(&mut Map<String, Json>)| {
            let mut bad = good.clone();
            let object = bad.pointer_mut(&pointer).and_then(Json::as_object_mut);
            change(object.unwrap());
            spoilt.push((format!("{what} in {pointer:?}"), bad));
        };
        spoil("with one more", &|it| {
            it.insert("extra".into(), json!(1));
        });
        for name in members.keys() {
            if !is_optional(name, &pointer, good) {
                spoil(&format!("without {name}"), &|it| {
                    it.shift_remove(name);
                });
            }
            if WORDS.contains(&&**name) {
                spoil(&format!("with another {name}"), &|it| {
                    it[name] = json!("perhaps");
                });
            }
        }
    }
    spoilt
}

/// Whether a member may be missing: a key may be given in base64, a replica may have no tag or hold no
/// value, and a problem has what its kind has.
fn is_optional(name: &str, pointer: &str, document: &Json) -> bool {
    if pointer.starts_with("/replicas/") && ["tag", "size", "checksum"].contains(&name) {
        return true;
    }
    let of_any_problem = ["type", "title", "status", "detail", "instance"].contains(&name);
    let is_problem = document["title"].is_string();
    pointer.is_empty() && (name == "key" || is_problem && !of_any_problem)
}

/// The pointers of all objects in a document, itself among them.
fn objects(document: &Json) -> Vec<String> {
    let members = document.as_object().into_iter().flatten();
    let members = members.map(|(name, it)| (name.clone(), it));
    let elements = document.as_array().into_iter().flatten().enumerate();
    let elements = elements.map(|(number, it)| (number.to_string(), it));
    let within = members.chain(elements).flat_map(|(step, it)| {
        let objects = objects(it).into_iter();
        objects.map(move |pointer| format!("/{step}{pointer}"))
    });
    let itself = document.is_object().then(String::new);
    itself.into_iter().chain(within).collect()
}
