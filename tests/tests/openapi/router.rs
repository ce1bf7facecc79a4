//! The paths, methods and parameters that a gateway takes: those of the file and no other.

use std::collections::BTreeSet;

use dkvs_tests::http::{self, Reply, target_of};
use dkvs_tests::process::Gateway;
use dkvs_tests::programs;
use reqwest::{Client, Method};
use serde_json::{Value as Json, json};

use crate::contract::{Contract, Operation, reference};

const METHODS: [&str; 8] = [
    "GET", "HEAD", "PUT", "POST", "DELETE", "PATCH", "OPTIONS", "TRACE",
];

#[tokio::test]
async fn a_path_takes_the_methods_that_are_declared_and_no_other() {
    let contract = Contract::read();
    let gateway = gateway();
    let client = http::client();
    http::put(&client, gateway.url("/kv/k"), "v").await;
    let servers = http::get(&client, gateway.url("/servers")).await;
    let server = servers.json["servers"][0]["server"].as_str().unwrap();
    let paths: BTreeSet<_> = contract.operations.iter().map(|it| &it.path).collect();
    for path in paths {
        let operations = contract.operations.iter().filter(|it| it.path == *path);
        let mut declared: BTreeSet<_> = operations.map(|it| it.method.as_str()).collect();
        if declared.contains("GET") {
            declared.insert("HEAD");
        }
        for method in METHODS {
            let path = target_of(&path.replace("{server}", server));
            let mut request = client.request(method.parse().unwrap(), gateway.url(&path));
            if path == "/batch" {
                let get = json!({ "op": "get", "key": "k" });
                request = request.json(&json!({ "operations": [get] }));
            }
            let reply = http::send(request).await;
            if declared.contains(method) {
                assert_eq!(reply.status, 200, "{method} {path}: {reply:?}");
            } else {
                assert_eq!(reply.status, 405, "{method} {path}: {reply:?}");
                let allowed: BTreeSet<_> = reply.header("allow").split(',').collect();
                assert_eq!(allowed, declared, "{method} {path}");
            }
        }
    }
}

/// Paths that are near to those of the file, or that it may have one day.
const OTHER_PATHS: &[&str] = &[
    "/",
    "/kv",
    "/KV/k",
    "/v1/kv/k",
    "//kv/k",
    "/rings",
    "/servers/",
    "/livez/x",
    "/metrics",
    "/openapi.yml",
    "/openapi.json",
];

#[tokio::test]
async fn nothing_is_at_a_path_that_is_not_declared() {
    let contract = Contract::read();
    let gateway = gateway();
    let client = http::client();
    let declared: BTreeSet<_> = contract.operations.iter().map(|it| &*it.path).collect();
    for path in OTHER_PATHS.iter().filter(|path| !declared.contains(**path)) {
        for method in [Method::GET, Method::PUT, Method::DELETE] {
            let reply = http::send(client.request(method, gateway.url(path))).await;
            assert_eq!(reply.status, 404, "{path}: {reply:?}");
            assert_eq!(reply.problem(), "no-such-path", "{path}");
            let violations = contract.violations(&reference("Problem"), &reply.json);
            assert_eq!(violations, [""; 0], "{path}");
        }
    }
}

#[tokio::test]
async fn a_parameter_takes_every_value_that_its_schema_allows() {
    let (gateway, client, contract) = (gateway(), http::client(), Contract::read());
    for operation in &contract.operations {
        for parameter in &operation.parameters {
            let name = parameter["name"].as_str().unwrap();
            let values = match name {
                // Only a gateway can make one.
                "cursor" => vec![cursor(&client, &gateway).await],
                _ => allowed(name, contract.resolve(&parameter["schema"])),
            };
            for value in values {
                let reply = ask(&client, &gateway, operation, name, &value).await;
                // Three servers are fewer than the file can know of.
                if ["n", "w", "r"].contains(&name) && value != "1" {
                    let reason = refusal(&reply, name).expect("too many");
                    assert!(reason.contains("the number of servers"), "{reason}");
                } else {
                    let id = &operation.id;
                    assert_ne!(reply.status, 400, "{id} {name}={value}: {reply:?}");
                }
            }
        }
    }
}

#[tokio::test]
async fn a_parameter_takes_no_value_that_its_schema_does_not_allow() {
    let (gateway, client, contract) = (gateway(), http::client(), Contract::read());
    for operation in &contract.operations {
        for parameter in &operation.parameters {
            let name = parameter["name"].as_str().unwrap();
            for value in not_allowed(name, contract.resolve(&parameter["schema"])) {
                let reply = ask(&client, &gateway, operation, name, &value).await;
                let reason = refusal(&reply, name);
                let id = &operation.id;
                let reason = reason.unwrap_or_else(|| panic!("{id} takes {name}={value}"));
                // What the file says is the reason, and not what this cluster adds to it.
                assert!(!reason.contains("the number of servers"), "{id}: {reason}");
            }
        }
    }
}

#[tokio::test]
async fn a_parameter_of_another_operation_or_of_none_is_refused() {
    let contract = Contract::read();
    let (gateway, client) = (gateway(), http::client());
    let operations = contract.operations.iter();
    let declared = operations.flat_map(Operation::parameter_names);
    let names: BTreeSet<_> = declared.chain(["colour", "N"]).collect();
    for operation in &contract.operations {
        let own: BTreeSet<_> = operation.parameter_names().collect();
        for name in names.difference(&own) {
            let reply = ask(&client, &gateway, operation, name, "1").await;
            let reason = refusal(&reply, name);
            let reason = reason.unwrap_or_else(|| panic!("{} takes {name}", operation.id));
            assert!(reason.contains("there is no such parameter"), "{reason}");
        }
    }
}

/// What a page such as `/docs` fills in by itself, before anybody has typed anything.
fn filled_in<'a>(contract: &'a Contract, parameter: &'a Json) -> Option<&'a Json> {
    let schema = contract.resolve(&parameter["schema"]);
    let examples = parameter["examples"].as_object().into_iter().flatten();
    let examples = examples.map(|(_, example)| &contract.resolve(example)["value"]);
    let mut given = [
        &parameter["example"],
        &schema["example"],
        &schema["default"],
    ]
    .into_iter()
    .chain(examples);
    given.find(|given| !given.is_null())
}

/// Defaults say what holds without the parameter; all else that is filled in says something new.
const DEFAULTS: [(&str, &str); 6] = [
    ("limit", "100"),
    ("raw", "false"),
    ("replicas", "false"),
    ("reverse", "false"),
    ("values", "false"),
    ("wait", "\"quorum\""),
];

#[test]
fn nothing_that_a_tool_fills_in_changes_what_a_request_means() {
    let contract = Contract::read();
    let mut defaults = BTreeSet::new();
    let items = contract.document["paths"].as_object().unwrap().values();
    let operations = items.flat_map(|item| {
        let fields = item.as_object().unwrap().values();
        fields.chain([item])
    });
    let parameters = operations.flat_map(|it| it["parameters"].as_array().into_iter().flatten());
    let mut seen = BTreeSet::new();
    for parameter in parameters.map(|parameter| contract.resolve(parameter)) {
        let name = parameter["name"].as_str().unwrap();
        seen.insert(name);
        if let Some(given) = filled_in(&contract, parameter) {
            defaults.insert((name, given.to_string()));
        }
    }
    for name in ["key", "tag", "cursor", "n", "w", "If-None-Match", "Range"] {
        assert!(seen.contains(name), "{name}");
    }
    let defaults: Vec<_> = defaults.iter().map(|(name, it)| (*name, &**it)).collect();
    assert_eq!(defaults, DEFAULTS);

    // Nor does a body that is filled in write anything.
    let batch = contract.operations.iter().find(|it| it.id == "runBatch");
    let example = &batch.unwrap().body_example["operations"];
    let operations = example.as_array().unwrap();
    assert!(!operations.is_empty());
    for operation in operations {
        let members: Vec<_> = operation
            .as_object()
            .unwrap()
            .keys()
            .map(String::as_str)
            .collect();
        assert_eq!(
            (&operation["op"], members),
            (&"get".into(), vec!["op", "key"])
        );
    }
}

#[tokio::test]
async fn a_put_as_a_tool_fills_it_in_is_seen_by_the_next_get() {
    let (gateway, client, contract) = (gateway(), http::client(), Contract::read());
    let url = |id| {
        let parameters = contract.operation(id).parameters.iter();
        let given = parameters.filter_map(|parameter| {
            let given = filled_in(&contract, parameter)?;
            let given = given
                .as_str()
                .map_or_else(|| given.to_string(), str::to_owned);
            Some(format!("{}={given}", parameter["name"].as_str().unwrap()))
        });
        let given: Vec<_> = given.collect();
        assert!(!given.is_empty(), "{id} has defaults");
        gateway.url(&format!("/kv/k?{}", given.join("&")))
    };
    for value in ["first", "second"] {
        let put = http::put(&client, url("putValue"), value).await;
        assert_eq!(put.json["outcome"], "committed", "{put:?}");
        let get = http::get(&client, url("getValue")).await;
        assert_eq!(get.json["value"], value, "{get:?}");
    }
}

#[test]
fn the_page_and_generated_clients_are_for_whatever_origin_the_contract_came_from() {
    let servers = &Contract::read().document["servers"];
    let urls = servers.as_array().unwrap().iter().map(|it| &it["url"]);
    assert_eq!(urls.collect::<Vec<_>>(), ["/"]);
}

fn gateway() -> Gateway {
    programs!().gateway(&["--embedded", "3"])
}

/// The reply of an operation about the key `k` to one parameter. That to a HEAD does not say what
/// is wrong; the one to a GET does, and comes back in its place.
async fn ask(
    client: &Client,
    gateway: &Gateway,
    operation: &Operation,
    name: &str,
    value: &str,
) -> Reply {
    let path = target_of(&operation.path);
    let url = gateway.url(&format!("{path}?{name}={value}"));
    let reply = http::send(client.request(operation.method.clone(), &url)).await;
    if operation.method != Method::HEAD {
        return reply;
    }
    let get = http::get(client, url).await;
    assert_eq!(get.status == 400, reply.status == 400, "{name}={value}");
    get
}

/// A cursor of the gateway's.
async fn cursor(client: &Client, gateway: &Gateway) -> String {
    for key in ["one", "two"] {
        http::put(client, gateway.url(&format!("/kv/{key}")), "").await;
    }
    let page = http::get(client, gateway.url("/kv?limit=1")).await;
    page.json["cursor"].as_str().expect("one more").to_owned()
}

/// Why a parameter was refused, if it was.
fn refusal<'a>(reply: &'a Reply, name: &str) -> Option<&'a str> {
    let refused = reply.json["invalid_parameters"].as_array()?;
    assert_eq!(reply.status, 400, "{reply:?}");
    let refused = refused.iter().find(|it| it["name"] == name)?;
    refused["reason"].as_str()
}

/// What a parameter may be that takes neither a number nor one of some words. The file has no
/// examples of them: a tool would fill those in.
fn sample(name: &str) -> Option<&'static str> {
    match name {
        "tag" => Some("019aada1f3d00000-9f3c21d400000007"),
        "prefix" => Some("user/"),
        "start" => Some("user/1"),
        "delimiter" => Some("/"),
        "cursor" => Some("AaD353n5JHVmyEA28H9730pAqGm9Z3JlZXRpbmc"),
        _ => None,
    }
}

/// Values that a parameter's schema allows: all words, a sample, or the least and the greatest
/// number.
fn allowed(name: &str, schema: &Json) -> Vec<String> {
    match (schema["type"].as_str(), schema["enum"].as_array()) {
        (Some("string"), None) => texts([sample(name).expect("a sample")]),
        (Some("string"), Some(words)) => texts(words.iter().map(|it| it.as_str().unwrap())),
        (Some("boolean"), _) => texts(["true", "false"]),
        (Some("integer"), _) => texts([&schema["minimum"], &schema["maximum"]]),
        _ => panic!("no samples of {schema}"),
    }
}

/// Values that it does not allow.
fn not_allowed(name: &str, schema: &Json) -> Vec<String> {
    if let Some(longest) = schema["maxLength"].as_u64() {
        return vec!["k".repeat(longest as usize + 1)];
    }
    let word = schema["enum"][0].as_str().or(sample(name));
    match (schema["type"].as_str(), word) {
        (Some("string"), Some(word)) => texts(["", "some", &word.to_uppercase()]),
        (Some("boolean"), _) => texts(["", "1", "True"]),
        (Some("integer"), _) => {
            let below = schema["minimum"].as_i64().unwrap() - 1;
            let above = schema["maximum"].as_i64().unwrap() + 1;
            texts([&below.to_string(), &above.to_string(), "", "x", "1.5"])
        }
        _ => panic!("no samples of {schema}"),
    }
}

fn texts(values: impl IntoIterator<Item = impl ToString>) -> Vec<String> {
    values.into_iter().map(|it| it.to_string()).collect()
}
