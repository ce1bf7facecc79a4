//! What a browser may be made to do by pages of others.

use dkvs_tests::http::{Connection, Reply, client, exchange, get, put, request, send};
use dkvs_tests::process::Gateway;
use reqwest::Method;

use crate::{PROGRAMS, token, token_file};

const APP: &str = "https://app.example.org";

/// The status of a reply, and the problem where there is one.
fn shown(reply: &Reply) -> (u16, &str) {
    let status = reply.status.as_u16();
    (status, if status < 400 { "" } else { reply.problem() })
}

async fn at_host(gateway: &Gateway, host: &str) -> Reply {
    let head = format!("GET /livez HTTP/1.1\r\nhost: {host}\r\n\r\n");
    exchange(gateway.addr, head).await
}

#[tokio::test]
async fn a_request_for_another_host_goes_no_further() {
    let gateway = PROGRAMS.gateway(&["--embedded", "1", "--allowed-host", "kv.example.org,kv2"]);
    let addr = gateway.addr.to_string();
    for host in [
        "localhost",
        "LOCALHOST:1",
        &addr,
        "127.0.0.1",
        "[::1]:8080",
        "kv.example.org",
        "KV2:8443",
    ] {
        assert_eq!(shown(&at_host(&gateway, host).await), (200, ""), "{host}");
    }
    for host in [
        "evil.example",
        "localhost.evil.example",
        "10.0.0.1",
        "localhost,evil.example",
    ] {
        let reply = at_host(&gateway, host).await;
        assert_eq!(shown(&reply), (421, "host-not-allowed"), "{host}");
        let detail = reply.json["detail"].as_str().unwrap();
        assert!(detail.contains("--allowed-host"), "{detail}");
    }
    for host in [
        "",
        ":80",
        "localhost:port",
        "localhost:99999",
        "a@localhost",
        "local host",
        "localhost, evil.example",
        "localhost/",
        "[::1",
        "[localhost]",
    ] {
        let reply = at_host(&gateway, host).await;
        assert_eq!(shown(&reply), (400, "invalid-host"), "{host}");
    }
    let put = "PUT /kv/k HTTP/1.1\r\nhost: evil.example\r\ncontent-length: 1\r\n\r\nv";
    assert_eq!(exchange(gateway.addr, put).await.status, 421);
    let absent = get(&client(), gateway.url("/kv/k")).await;
    assert_eq!(shown(&absent), (404, "key-not-found"));
}

#[tokio::test]
async fn a_request_has_one_host_and_that_of_its_target_counts() {
    let gateway = PROGRAMS.gateway(&["--embedded", "1"]);
    for (head, expected) in [
        ("GET /livez HTTP/1.1\r\n\r\n", (400, "invalid-host")),
        (
            "GET /livez HTTP/1.1\r\nhost: localhost\r\nhost: localhost\r\n\r\n",
            (400, "invalid-host"),
        ),
        (
            "GET /livez HTTP/1.1\r\nhost: caf\u{e9}\r\n\r\n",
            (400, "invalid-host"),
        ),
        ("GET /livez HTTP/1.0\r\n\r\n", (200, "")),
        (
            "GET /livez HTTP/1.0\r\nhost: evil.example\r\n\r\n",
            (421, "host-not-allowed"),
        ),
        (
            "GET http://evil.example/livez HTTP/1.1\r\nhost: localhost\r\n\r\n",
            (421, "host-not-allowed"),
        ),
        (
            "GET http://localhost:1/livez HTTP/1.1\r\nhost: evil.example\r\n\r\n",
            (200, ""),
        ),
        (
            "GET http://localhost/livez HTTP/1.1\r\n\r\n",
            (400, "invalid-host"),
        ),
        (
            "GET http://localhost/livez HTTP/1.1\r\nhost: a b\r\n\r\n",
            (400, "invalid-host"),
        ),
        (
            "GET https://localhost/livez HTTP/1.1\r\nhost: localhost\r\n\r\n",
            (421, "invalid-target"),
        ),
    ] {
        let reply = exchange(gateway.addr, head).await;
        assert_eq!(shown(&reply), expected, "{head}");
    }
}

#[tokio::test]
async fn beyond_loopback_any_address_will_do_and_no_name() {
    let mut command = PROGRAMS.gateway_command();
    command.args(["--embedded", "1", "--listen", "0.0.0.0:0", "--insecure"]);
    let mut gateway = Gateway::of(command);
    gateway.addr.set_ip([127, 0, 0, 1].into());
    for host in ["192.0.2.1:8080", "[2001:db8::1]", "localhost"] {
        assert_eq!(shown(&at_host(&gateway, host).await), (200, ""), "{host}");
    }
    for host in ["gateway:8080", "192.0.2.1.example"] {
        assert_eq!(at_host(&gateway, host).await.status, 421, "{host}");
    }
}

/// The names of CORS among a reply's headers.
fn cors_headers(reply: &Reply) -> Vec<&str> {
    let names = reply.headers.keys().map(|name| name.as_str());
    let mut names: Vec<_> = names
        .filter(|name| name.starts_with("access-control") || *name == "vary")
        .collect();
    names.sort_unstable();
    names
}

/// What a browser asks before it lets a page of this origin send a PUT.
async fn preflight(gateway: &Gateway, origin: &str) -> Reply {
    let request = client().request(Method::OPTIONS, gateway.url("/kv/k"));
    let request = request.header("origin", origin);
    let request = request.header("access-control-request-method", "PUT");
    send(request.header("access-control-request-headers", "authorization")).await
}

#[tokio::test]
async fn no_page_of_another_origin_reads_anything_unless_it_is_said() {
    let gateway = PROGRAMS.gateway(&["--embedded", "1"]);
    let client = client();
    put(&client, gateway.url("/kv/k"), "v").await;
    for path in ["/kv/k", "/kv/k?raw=true", "/kv/none", "/nothing"] {
        let reply = send(client.get(gateway.url(path)).header("origin", APP)).await;
        let mut answer = cors_headers(&reply);
        // The forms of a value are not about origins.
        answer.retain(|name| *name != "vary" || reply.header(name) != "accept");
        assert_eq!(answer, [""; 0], "{path}");
    }
    let reply = preflight(&gateway, APP).await;
    assert_eq!((reply.status.as_u16(), cors_headers(&reply)), (405, vec![]));
}

#[tokio::test]
async fn pages_of_an_origin_that_is_named_read_and_write_and_others_do_not() {
    let known = token("known", "read,write", &[]);
    let tokens = token_file(&[&known]);
    for with_tokens in [false, true] {
        let mut arguments = vec!["--embedded", "1"];
        arguments.extend([
            "--cors-origin",
            "http://localhost:3000",
            "--cors-origin",
            APP,
        ]);
        if with_tokens {
            arguments.extend(["--tokens", tokens.path()]);
        }
        let gateway = PROGRAMS.gateway(&arguments);
        for origin in [APP, "http://localhost:3000"] {
            let asked = preflight(&gateway, origin).await;
            assert_eq!(asked.status, 204, "{asked:?}");
            assert_eq!(asked.header("access-control-allow-origin"), origin);
            assert!(asked.header("access-control-allow-methods").contains("PUT"));
            assert!(
                asked
                    .header("access-control-allow-headers")
                    .contains("authorization")
            );
            let request = client().put(gateway.url("/kv/k")).bearer_auth(&known.token);
            let request = request.header("sec-fetch-site", "cross-site");
            let reply = send(request.header("origin", origin).body("v")).await;
            assert_eq!(shown(&reply), (200, ""));
            assert_eq!(reply.header("access-control-allow-origin"), origin);
            assert_eq!(reply.header("access-control-expose-headers"), "*");
            let vary = if with_tokens {
                "authorization, origin"
            } else {
                "origin"
            };
            assert_eq!(reply.header("vary"), vary);
            assert_eq!(reply.header("access-control-allow-credentials"), "");
        }
        // A page may read why it was refused.
        let request = client().get(gateway.url("/nothing")).header("origin", APP);
        let refused = send(request).await;
        assert_eq!(refused.status, if with_tokens { 401 } else { 404 });
        assert_eq!(refused.header("access-control-allow-origin"), APP);

        for origin in ["https://other.example", "null", "http://app.example.org"] {
            let asked = preflight(&gateway, origin).await;
            assert_eq!(asked.status, if with_tokens { 401 } else { 405 });
            assert_eq!(cors_headers(&asked), ["vary"], "{origin}");
            let request = client().get(gateway.url("/kv/k")).header("origin", origin);
            let reply = send(request.bearer_auth(&known.token)).await;
            assert_eq!(reply.status, 200);
            assert_eq!(cors_headers(&reply), ["vary"], "{origin}");
        }
    }
}

#[tokio::test]
async fn a_page_of_another_origin_changes_nothing() {
    let gateway = PROGRAMS.gateway(&["--embedded", "1"]);
    let client = client();
    let url = gateway.url("/kv/k");
    put(&client, url.clone(), "v").await;
    let own = format!("http://{}", gateway.addr);
    for (site, origin, may) in [
        (Some("cross-site"), Some(APP), false),
        (Some("cross-site"), None, false),
        (Some("same-site"), Some("http://127.0.0.1:1"), false),
        (None, Some(APP), false),
        (None, Some("null"), false),
        (Some("same-origin"), Some(&*own), true),
        (Some("none"), None, true),
        (None, Some(&own), true),
        (None, None, true),
    ] {
        let from = |mut request: reqwest::RequestBuilder| {
            for (name, value) in [("sec-fetch-site", site), ("origin", origin)] {
                if let Some(value) = value {
                    request = request.header(name, value);
                }
            }
            send(request)
        };
        let put = from(client.put(&url).body("w")).await;
        let delete = from(client.delete(&url)).await;
        let post = from(client.post(&url)).await;
        if may {
            assert_eq!(shown(&put), (200, ""), "{site:?} {origin:?}");
            assert_eq!(shown(&delete), (200, ""));
            assert_eq!(shown(&post), (405, "method-not-allowed"));
        } else {
            for refused in [put, delete, post] {
                assert_eq!(shown(&refused), (403, "cross-site"), "{site:?} {origin:?}");
            }
            // Looking is another matter: what it sees the browser keeps from the page.
            let seen = from(client.get(&url)).await;
            assert_eq!(seen.json["value"], "v");
        }
    }
}

#[tokio::test]
async fn every_reply_makes_browsers_guess_nothing_and_run_nothing() {
    let known = token("known", "read,write", &[]);
    let tokens = token_file(&[&known]);
    let limits = ["--workers", "1", "--max-connections", "1"];
    let arguments = [&["--embedded", "1", "--tokens", tokens.path()][..], &limits].concat();
    let gateway = PROGRAMS.gateway(&arguments);
    let client = client();
    let ask = |method: &str, path: &str| {
        let request = client.request(method.parse().unwrap(), gateway.url(path));
        send(request.bearer_auth(&known.token))
    };
    let mut replies = vec![ask("PUT", "/kv/k").await];
    for (method, path) in [
        ("GET", "/kv/k"),
        ("HEAD", "/kv/k"),
        ("GET", "/kv/none"),
        ("GET", "/kv/k?n=x"),
        ("GET", "/servers"),
        ("GET", "/livez"),
        ("GET", "/openapi.yaml"),
        ("GET", "/nothing"),
        ("POST", "/kv/k"),
        ("DELETE", "/kv/k?n=0"),
    ] {
        replies.push(ask(method, path).await);
    }
    replies.push(get(&client, gateway.url("/kv/k")).await);
    let foreign = client.get(gateway.url("/")).header("host", "evil.example");
    replies.push(send(foreign).await);
    let raw = ask("GET", "/kv/k?raw=true").await;
    // The only connection that there may be waits for a value; with a token it is let wait.
    let mut busy = Connection::open(gateway.addr).await;
    busy.send(format!(
        "PUT /kv/k HTTP/1.1\r\nhost: localhost\r\nauthorization: Bearer {}\r\n\
         expect: 100-continue\r\ncontent-length: 1\r\n\r\n",
        known.token
    ))
    .await;
    assert_eq!(busy.reply().await.status, 100);
    let refused = exchange(gateway.addr, request("GET", "/livez", None)).await;
    assert_eq!(shown(&refused), (503, "overloaded"));
    replies.push(refused);
    for reply in &replies {
        assert_eq!(
            reply.header("x-content-type-options"),
            "nosniff",
            "{reply:?}"
        );
        for (name, expected) in [
            ("referrer-policy", "no-referrer"),
            ("cross-origin-resource-policy", "same-origin"),
        ] {
            assert_eq!(reply.header(name), expected, "{reply:?}");
        }
        assert!(reply.header("cache-control").contains("no-"), "{reply:?}");
        let policies = reply.headers.get_all("content-security-policy");
        let policies: Vec<_> = policies.iter().collect();
        assert_eq!(policies, ["default-src 'none'"], "{reply:?}");
    }
    let policies = raw.headers.get_all("content-security-policy");
    let policies: Vec<_> = policies.iter().collect();
    assert_eq!(policies, ["default-src 'none'; sandbox"]);
}
