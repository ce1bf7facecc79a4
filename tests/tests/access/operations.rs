//! Every operation, asked by everyone.

use std::io::ErrorKind;

use dkvs_gateway::http::{Access, OPERATIONS, Operation, OperationId};
use dkvs_gateway::tokens::{Minted, Scope};
use dkvs_tests::http::{Connection, Reply, client, exchange, get, request, send, target_of};
use dkvs_tests::process::ServersFile;
use reqwest::{Client, Method};
use serde_json::{Value as Json, json};
use tokio::net::UdpSocket;

use crate::{PROGRAMS, token, token_file};

/// Someone with a token or without one, and what their token is good for.
struct Asker {
    name: &'static str,
    token: Option<String>,
    scopes: &'static [Scope],
    /// Whether it is for the key that is asked for.
    covers: bool,
    /// Whether it is for some keys only.
    has_prefixes: bool,
}

const ALL: &[Scope] = &Scope::ALL;

impl Asker {
    fn with(minted: &Minted, name: &'static str, scopes: &'static [Scope], covers: bool) -> Self {
        Self {
            name,
            token: Some(minted.token.clone()),
            scopes,
            covers,
            has_prefixes: false,
        }
    }

    /// The status for those who may not: 401, 403, or nothing.
    fn expected(&self, operation: &Operation) -> Option<u16> {
        let access = operation.access;
        let is_known = !self.scopes.is_empty();
        let has = |scope| self.scopes.contains(&scope);
        match access {
            Access::Open => None,
            _ if !is_known => Some(401),
            // Of all keys.
            Access::Token if operation.id == OperationId::ListKeys => {
                (!has(Scope::Read) || self.has_prefixes).then_some(403)
            }
            // A batch, of operations that read or write.
            Access::Token => (!has(Scope::Read) && !has(Scope::Write)).then_some(403),
            Access::Key(scope) => (!has(scope) || !self.covers).then_some(403),
            Access::Cluster(scope) => (!has(scope)).then_some(403),
        }
    }

    async fn ask(&self, client: &Client, method: &Method, url: String) -> Reply {
        let mut request = client.request(method.clone(), url);
        if let Some(token) = &self.token {
            request = request.bearer_auth(token);
        }
        send(request).await
    }
}

#[tokio::test]
async fn every_operation_is_for_those_whom_it_is_declared_to_be_for() {
    let everything = token("everything", "read,write,admin", &[]);
    let [read, write, admin] = Scope::ALL.map(|scope| token(scope.name(), scope.name(), &[]));
    let near = token("near", "read,write,admin", &["elsewhere", "k"]);
    let far = token("far", "read,write,admin", &["elsewhere", "kk"]);
    let other = token("stranger", "read,write,admin", &[]);
    let tokens = token_file(&[&everything, &read, &write, &admin, &near, &far]);
    let nobody = |name, token: Option<&str>| Asker {
        name,
        token: token.map(str::to_owned),
        scopes: &[],
        covers: false,
        has_prefixes: false,
    };
    let with_prefixes = |minted, name, covers| Asker {
        has_prefixes: true,
        ..Asker::with(minted, name, ALL, covers)
    };
    let askers = [
        nobody("no token", None),
        nobody("a wrong token", Some(&other.token)),
        nobody("the beginning of a token", Some(&everything.token[..20])),
        nobody("a token and more", Some(&(everything.token.clone() + "x"))),
        nobody("a hash", everything.line.split(' ').nth(1)),
        nobody("an empty token", Some("")),
        nobody("a very long token", Some(&"x".repeat(60_000))),
        Asker::with(&everything, "everything", ALL, true),
        Asker::with(&read, "read", &[Scope::Read], true),
        Asker::with(&write, "write", &[Scope::Write], true),
        Asker::with(&admin, "admin", &[Scope::Admin], true),
        with_prefixes(&near, "a prefix of the key", true),
        with_prefixes(&far, "prefixes of other keys", false),
    ];
    let gateway = PROGRAMS.gateway(&["--embedded", "1", "--tokens", tokens.path()]);
    let client = client();
    for operation in OPERATIONS {
        let Operation { method, path, .. } = operation;
        for asker in &askers {
            let url = gateway.url(&target_of(path));
            let reply = asker.ask(&client, method, url).await;
            let status = reply.status.as_u16();
            let who = asker.name;
            let Some(expected) = asker.expected(operation) else {
                assert!(
                    ![401, 403].contains(&status),
                    "{method} {path} by {who}: {reply:?}"
                );
                continue;
            };
            assert_eq!(status, expected, "{method} {path} by {who}: {reply:?}");
            let challenge = reply.header("www-authenticate");
            assert_eq!(
                challenge.starts_with("Bearer"),
                status == 401,
                "{challenge}"
            );
            if method != Method::HEAD {
                let problem = if status == 401 {
                    "unauthorized"
                } else {
                    "forbidden"
                };
                assert_eq!(reply.problem(), problem, "{method} {path} by {who}");
            }
        }
    }
}

#[tokio::test]
async fn what_replicas_hold_is_for_those_who_may_read_the_key() {
    let reader = token("reader", "read", &["a/"]);
    let writer = token("writer", "write,admin", &[]);
    let tokens = token_file(&[&reader, &writer]);
    let gateway = PROGRAMS.gateway(&["--embedded", "3", "--tokens", tokens.path()]);
    let client = client();
    for (token, key, status) in [
        (None, "a/k", 401),
        (Some(&writer), "a/k", 403),
        (Some(&reader), "b/k", 403),
        (Some(&reader), "a/k", 200),
    ] {
        let mut request = client.get(gateway.url(&format!("/ring/{key}?replicas=true")));
        if let Some(token) = token {
            request = request.bearer_auth(&token.token);
        }
        let reply = send(request).await;
        assert_eq!(reply.status.as_u16(), status, "{reply:?}");
        assert_eq!(
            reply.json["replicas"].is_array(),
            status == 200,
            "{reply:?}"
        );
    }
}

#[tokio::test]
async fn a_batch_and_a_listing_do_what_the_token_is_good_for_and_no_more() {
    let reader = token("reader", "read", &["a/", "b"]);
    let writer = token("writer", "write", &[]);
    let tokens = token_file(&[&reader, &writer]);
    let gateway = PROGRAMS.gateway(&["--embedded", "1", "--tokens", tokens.path()]);
    let client = client();
    let batch = async |token: &Minted, operations: Json| {
        let body = json!({ "operations": operations });
        let request = client.post(gateway.url("/batch")).bearer_auth(&token.token);
        let reply = send(request.json(&body)).await;
        assert_eq!(reply.status, 200, "{reply:?}");
        let results = reply.json["results"].as_array().unwrap().iter();
        let status = |result: &Json| result["status"].as_u64().unwrap();
        results.map(status).collect::<Vec<_>>()
    };
    let put = |key| json!({ "op": "put", "key": key, "value": "v" });
    let get = |key| json!({ "op": "get", "key": key });
    let delete = json!({ "op": "delete", "key": "c" });
    let all = json!([put("a/1"), put("c"), get("c"), delete]);
    assert_eq!(batch(&writer, all).await, [200, 200, 403, 200]);
    let delete = json!({ "op": "delete", "key": "a/1" });
    let all = json!([get("a/1"), get("a"), get("c"), put("a/1"), delete]);
    assert_eq!(batch(&reader, all).await, [200, 403, 403, 403, 403]);

    for (token, prefix, expected) in [
        (&reader, "a/", 200),
        (&reader, "a/1", 200),
        (&reader, "bc", 200),
        (&reader, "a", 403),
        (&reader, "", 403),
        (&reader, "c", 403),
        (&writer, "a/", 403),
    ] {
        let url = gateway.url(&format!("/kv?prefix={prefix}"));
        let reply = send(client.get(url).bearer_auth(&token.token)).await;
        assert_eq!(reply.status, expected, "{prefix}: {reply:?}");
    }
}

#[test]
fn nothing_but_health_the_contract_and_pages_is_open() {
    let open = OPERATIONS.iter().filter(|it| it.access == Access::Open);
    let open: Vec<_> = open.map(|it| (it.method.as_str(), it.path)).collect();
    assert_eq!(
        open,
        [
            ("GET", "/livez"),
            ("GET", "/healthz"),
            ("GET", "/readyz"),
            ("GET", "/openapi.yaml"),
            ("GET", "/openapi.json"),
            ("GET", "/docs"),
            ("GET", "/docs/page.js"),
            ("GET", "/docs/swagger-ui-bundle.js"),
            ("GET", "/docs/swagger-ui.css"),
            ("GET", "/"),
            ("GET", "/console/{file}"),
        ]
    );
    for operation in OPERATIONS {
        let of_a_key = matches!(operation.access, Access::Key(_));
        let id = operation.id;
        assert_eq!(of_a_key, operation.path.ends_with("{key}"), "{id}");
        if ![Method::GET, Method::HEAD].contains(&operation.method) {
            let access = operation.access;
            let may_change = [
                Access::Token,
                Access::Key(Scope::Write),
                Access::Cluster(Scope::Admin),
            ];
            assert!(may_change.contains(&access), "{id} has {access:?}");
        }
    }
}

#[tokio::test]
async fn without_a_token_there_is_not_even_a_missing_path() {
    let known = token("known", "read", &[]);
    let tokens = token_file(&[&known]);
    let gateway = PROGRAMS.gateway(&["--embedded", "1", "--tokens", tokens.path()]);
    let client = client();
    for (method, path, status) in [
        (Method::GET, "/nothing", 404),
        (Method::GET, "/livez/", 404),
        (Method::GET, "/readyz/../ring", 404),
        (Method::POST, "/kv/k", 405),
        (Method::POST, "/livez", 405),
        (Method::OPTIONS, "/kv/k", 405),
        (Method::GET, "/kv/", 400),
    ] {
        let target = request(method.as_str(), path, None);
        let reply = exchange(gateway.addr, target).await;
        assert_eq!(reply.status, 401, "{method} {path}");
        assert_eq!(reply.problem(), "unauthorized");
        let request = client.request(method.clone(), gateway.url(path));
        // Paths as they are: the client would shorten them.
        if path.contains("..") {
            continue;
        }
        let reply = send(request.bearer_auth(&known.token)).await;
        assert_eq!(reply.status, status, "{method} {path}");
    }
    for path in ["/livez", "/healthz", "/readyz"] {
        assert_eq!(get(&client, gateway.url(path)).await.status, 200);
        let head = send(client.head(gateway.url(path))).await;
        assert_eq!(head.status, 200);
    }
}

#[tokio::test]
async fn a_refusal_says_what_is_missing_and_never_shows_the_token() {
    let reader = token("reader", "read", &["a/"]);
    let tokens = token_file(&[&reader]);
    let mut gateway = PROGRAMS.gateway(&[
        "--embedded",
        "1",
        "--log",
        "debug",
        "--tokens",
        tokens.path(),
    ]);
    let client = client();
    for (method, path, credentials, said) in [
        ("GET", "/kv/a/k", None, "Authorization: Bearer"),
        ("GET", "/kv/a/k", Some("Basic"), "Authorization: Bearer"),
        ("PUT", "/kv/a/k", Some("Bearer"), "the scope write"),
        ("GET", "/servers", Some("bearer"), "the scope admin"),
        ("GET", "/kv/b/k", Some("BEARER"), "outside of the prefixes"),
        ("GET", "/kv/a", Some("Bearer "), "outside of the prefixes"),
        (
            "GET",
            "/kv/%61%2",
            Some("Bearer"),
            "outside of the prefixes",
        ),
    ] {
        let mut request = client.request(method.parse().unwrap(), gateway.url(path));
        if let Some(scheme) = credentials {
            request = request.header("authorization", format!("{scheme} {}", reader.token));
        }
        let reply = send(request).await;
        let detail = reply.json["detail"].as_str().unwrap();
        assert!(detail.contains(said), "{path}: {detail}");
        assert!(!String::from_utf8_lossy(&reply.body).contains(&reader.token));
    }
    let twice = client
        .get(gateway.url("/kv/a/k"))
        .bearer_auth(&reader.token);
    let twice = send(twice.bearer_auth(&reader.token)).await;
    assert_eq!(
        (twice.status.as_u16(), twice.problem()),
        (401, "unauthorized")
    );
    let found = client.get(gateway.url("/kv/%61%2Fk"));
    let found = send(found.bearer_auth(&reader.token)).await;
    assert_eq!(found.problem(), "key-not-found");

    gateway.process.kill();
    let log = gateway.process.rest_of_stderr().join("\n");
    assert!(!log.contains(&reader.token), "{log}");
}

#[tokio::test]
async fn a_refusal_comes_before_the_body_and_reaches_no_server() {
    let server = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let servers = ServersFile::new(&[server.local_addr().unwrap()]);
    let reader = token("reader", "read", &[]);
    let tokens = token_file(&[&reader]);
    let gateway = PROGRAMS.gateway_over(&servers, &["--tokens", tokens.path()]);
    for (credentials, status) in [
        (String::new(), 401),
        (format!("authorization: Bearer {}\r\n", reader.token), 403),
    ] {
        let head = format!("PUT /kv/k HTTP/1.1\r\nhost: localhost\r\n{credentials}");
        // None of the body is there, and none is asked for.
        for expectation in ["", "expect: 100-continue\r\n"] {
            let mut connection = Connection::open(gateway.addr).await;
            let end = format!("{head}{expectation}content-length: 1000000\r\n\r\n");
            connection.send(end).await;
            assert_eq!(connection.reply().await.status, status);
        }
        // All of it is sent all the same, and the answer arrives.
        let mut connection = Connection::open(gateway.addr).await;
        connection
            .send(format!("{head}content-length: 1000000\r\n\r\n"))
            .await;
        connection.send("v".repeat(1_000_000)).await;
        assert_eq!(connection.reply().await.status, status);
        connection.send(request("GET", "/livez", None)).await;
        assert_eq!(connection.reply().await.status, 200);
    }
    let heard = server.try_recv(&mut [0; 64]);
    assert_eq!(heard.unwrap_err().kind(), ErrorKind::WouldBlock);
}

#[tokio::test]
async fn with_a_token_all_is_as_it_is_without_tokens() {
    let shop = token("shop", "read,write", &["cart/"]);
    let tokens = token_file(&[&shop]);
    let gateway = PROGRAMS.gateway(&["--embedded", "3", "--tokens", tokens.path()]);
    let client = client();
    let url = gateway.url("/kv/cart/1");
    let put = client.put(&url).bearer_auth(&shop.token).body("three");
    assert_eq!(send(put).await.json["outcome"], "committed");
    let get = send(client.get(&url).bearer_auth(&shop.token)).await;
    assert_eq!(get.json["value"], "three");
    let delete = send(client.delete(&url).bearer_auth(&shop.token)).await;
    assert_eq!(delete.json["outcome"], "committed");
}
