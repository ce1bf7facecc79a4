//! Requests whose work or reply is out of proportion to their bytes.
//!
//! No time is measured: callers who behave are served meanwhile, and no problem is longer than some
//! kilobytes, whatever its request has.

use std::net::SocketAddr;

use dkvs_tests::http::{Connection, Reply, exchange, request};
use dkvs_tests::process::own_loopback;
use tokio::task::JoinSet;

use crate::PROGRAMS;
use crate::attack::{alone, beside_callers};

/// The longest problem that a caller gets, in bytes.
const PROBLEM_BYTES_MAX: usize = 8 << 10;

/// How often each of the connections sends its request.
const ROUNDS: usize = 4;

/// About as many as the longest target has room for.
const NAMES: usize = 11_000;

#[tokio::test]
async fn thousands_of_unknown_parameters_cost_little() {
    let _alone = alone().await;
    let mut cluster = PROGRAMS.cluster(3, &[]);
    let addr = cluster.gateway.addr;
    let names = (0..NAMES).map(|number| format!("{number:x}="));
    let distinct = names.collect::<Vec<_>>().join("&");
    let same = "n&".repeat(30_000);
    let gateway = &mut cluster.gateway;
    beside_callers(gateway, 64 << 20, async || {
        let targets = [
            format!("/livez?{distinct}"),
            format!("/kv/k?{distinct}"),
            format!("/kv?{distinct}"),
            format!("/kv/k?{same}"),
        ];
        let connections = targets.map(|target| insist(addr, target));
        connections
            .into_iter()
            .collect::<JoinSet<()>>()
            .join_all()
            .await;
    })
    .await;
}

async fn insist(addr: SocketAddr, target: String) {
    for _ in 0..ROUNDS {
        let reply = exchange(addr, request("GET", &target, None)).await;
        assert_eq!(
            (reply.status.as_u16(), reply.problem()),
            (400, "invalid-parameter")
        );
        assert_short(&reply, &target);
    }
}

fn assert_short(reply: &Reply, of: &str) {
    let of: String = of.chars().take(60).collect();
    let head: usize = reply
        .headers
        .iter()
        .map(|(name, value)| name.as_str().len() + value.len())
        .sum();
    let bytes = reply.body.len() + head;
    assert!(bytes <= PROBLEM_BYTES_MAX, "{of}: {bytes} bytes");
}

/// Of one header or part of a request, as much as a head may have.
struct Hostile {
    line: String,
    headers: String,
    body: String,
}

fn hostile() -> Vec<Hostile> {
    const LONG: usize = 60_000;
    let fill = |unit: &str| unit.repeat(LONG / unit.len());
    let of = |line: String, headers: String, body: String| Hostile {
        line,
        headers,
        body,
    };
    let mut all = Vec::new();
    for unit in ["a", "%00", "%22", "%5C", "%ff", "%F0%9F%98%80", "/", "%"] {
        let text = fill(unit);
        for line in [
            format!("GET /{text}"),
            format!("GET /kv/{text}"),
            format!("DELETE /kv/k/{text}?n=99"),
            format!("GET /ring/{text}?r=1"),
            format!("POST /servers/{text}/stop"),
            format!("GET /console/{text}"),
            format!("GET /kv/k?{text}"),
            format!("GET /kv/k?n={text}&wait={text}&consistency=x&timeout_ms=&raw=1")
                .chars()
                .take(65_000)
                .collect(),
            format!("PUT /kv/k?tag={text}"),
            format!("GET /kv?cursor={text}"),
            format!("GET /kv?limit={text}"),
        ] {
            all.push(of(line, String::new(), String::new()));
        }
    }
    let method = fill("M");
    all.push(of(format!("{method} /kv/k"), String::new(), String::new()));
    for (name, units) in [
        (
            "accept",
            &[
                "a/b,",
                "a/b;c=\"d,\",",
                "*/*;q=0,",
                "text/plain;a=b;",
                ",",
                "\"",
                "/",
            ][..],
        ),
        ("if-match", &["\"a\",", "W/\"\",", "W/", ",", "\"", "*,"]),
        ("if-none-match", &["\"a\",", "\"", "*,"]),
        (
            "if-unmodified-since",
            &["Sun, 06 Nov 1994 08:49:37 GMT, ", "9"],
        ),
        ("range", &["bytes=", "bytes=0-1,", "0-1,", ",", "9", "-"]),
        ("if-range", &["\"a\"", "W/"]),
        ("authorization", &["Bearer ", "a"]),
        ("traceparent", &["00-", "-"]),
        ("x-request-id", &["a", "\u{e9}"]),
        ("content-type", &["a/b;", "a"]),
        ("content-encoding", &["gzip,", ","]),
        ("content-range", &["bytes ", "9"]),
        ("expect", &["100-continue,", "x,", ","]),
        ("origin", &["http://", "a"]),
        ("sec-fetch-site", &["same-origin,"]),
        ("host-like", &["a"]),
        ("cookie", &["a=b; "]),
    ] {
        for unit in units {
            for line in [
                "GET /kv/k?n=99",
                "GET /kv/none",
                "PUT /kv/k?n=99",
                "GET /kv?limit=0",
            ] {
                let headers = format!("{name}: {}\r\n", fill(unit));
                all.push(of(line.to_owned(), headers, String::new()));
            }
        }
    }
    for host in ["a", "a.", "a:", "[", "%41", "\"", "\u{e9}", "a@"] {
        let headers = format!("host: {}\r\n", fill(host));
        all.push(of("GET /livez".to_owned(), headers, String::new()));
        let line = format!("GET http://{}/livez", fill(host));
        all.push(of(line, String::new(), String::new()));
    }
    let long = "\\u0000".repeat(100_000);
    for body in [
        format!("{{\"{long}\":1}}"),
        format!("{{\"operations\":[{{\"op\":\"{long}\"}}]}}"),
        format!("{{\"operations\":[{{\"op\":\"get\",\"{long}\":1}}]}}"),
        format!("{{\"operations\":\"{long}\"}}"),
        format!("{{\"operations\":{}", "[".repeat(100_000)),
        format!("{{\"operations\":[{{\"op\":\"get\",\"key\":\"k\",\"n\":\"{long}\"}}]}}"),
        format!("{{\"operations\":[{}0]}}", "0,".repeat(100_000)),
    ] {
        all.push(of("POST /batch".to_owned(), String::new(), body));
    }
    all
}

/// Ranges of media types with as many parameters as fit, and a value whose type has as many.
#[tokio::test]
async fn parameters_of_accept_cost_little() {
    let _alone = alone().await;
    let mut cluster = PROGRAMS.cluster(3, &["--workers", "1"]);
    let addr = cluster.gateway.addr;
    let parameters = |bytes: usize| {
        let names = (0..).map(|number| format!(";p{number}=1"));
        let mut text = String::new();
        names
            .take_while(|name| {
                text += name;
                text.len() < bytes
            })
            .for_each(drop);
        text
    };
    let kind = format!("text/plain{}", &parameters(200));
    let put = format!(
        "PUT /kv/typed HTTP/1.1\r\nhost: localhost\r\ncontent-type: {kind}\r\ncontent-length: 1\r\n\r\nv"
    );
    assert_eq!(exchange(addr, put).await.status, 200);
    let ranges = [
        format!("text/plain{}", parameters(100_000)),
        format!("{kind},").repeat(100_000 / kind.len()),
        "text/plain;p0=\"".repeat(6_000),
    ];
    let gateway = &mut cluster.gateway;
    beside_callers(gateway, 64 << 20, async || {
        let mut asking = JoinSet::new();
        for accept in ranges {
            asking.spawn(async move {
                let get = format!(
                    "GET /kv/typed HTTP/1.1\r\nhost: localhost\r\naccept: {accept}\r\n\r\n"
                );
                for _ in 0..4 * ROUNDS {
                    let reply = exchange(addr, &get).await;
                    let is_expected = reply.status == 200 || reply.status == 406;
                    assert!(is_expected, "{:.60}: {}", get, reply.status);
                }
            });
        }
        asking.join_all().await;
    })
    .await;
}

/// As many requests as a buffer has room for, sent at once on each of some connections.
#[tokio::test]
async fn requests_that_are_sent_at_once_take_turns_with_those_of_others() {
    const PIPELINED: usize = 2_000;
    const CONNECTIONS: usize = 8;
    let _alone = alone().await;
    let mut cluster = PROGRAMS.cluster(3, &["--workers", "1"]);
    let addr = cluster.gateway.addr;
    let pipelined = request("GET", "/livez", None).repeat(PIPELINED);
    beside_callers(&mut cluster.gateway, 96 << 20, async || {
        let (from, mut asking) = (own_loopback(), JoinSet::new());
        for _ in 0..CONNECTIONS {
            let pipelined = pipelined.clone();
            asking.spawn(async move {
                let mut connection = Connection::open_from(from, addr).await;
                connection.send(pipelined).await;
                for _ in 0..PIPELINED {
                    assert_eq!(connection.reply().await.status, 200);
                }
            });
        }
        let mut answers = 0;
        while !asking.is_empty() {
            while let Some(ended) = asking.try_join_next() {
                ended.expect("all are answered");
            }
            let reply = exchange(addr, request("GET", "/livez", None)).await;
            assert_eq!(reply.status, 200);
            answers += 1;
        }
        // In each turn of the worker a few of each are answered.
        assert!(answers >= CONNECTIONS * PIPELINED / 1_000, "{answers}");
    })
    .await;
}

#[tokio::test]
async fn a_problem_is_short_whatever_the_request_has() {
    let _alone = alone().await;
    let mut cluster = PROGRAMS.cluster(3, &[]);
    let addr = cluster.gateway.addr;
    beside_callers(&mut cluster.gateway, 64 << 20, async || {
        for Hostile {
            line,
            headers,
            body,
        } in hostile()
        {
            let host = match headers.starts_with("host:") {
                true => "",
                false => "host: localhost\r\n",
            };
            let length = body.len();
            let request =
                format!("{line} HTTP/1.1\r\n{host}{headers}content-length: {length}\r\n\r\n{body}");
            let reply = exchange(addr, request).await;
            assert!(
                reply.status.is_client_error() || reply.status == 501,
                "{line:.60} {headers:.60} {reply:?}"
            );
            assert_short(&reply, &format!("{line:.40} {headers:.40}"));
        }
    })
    .await;
}
