//! A refusal reaches the caller whatever is still being sent, and whichever half of the connection the
//! caller has closed.

use std::fs;
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt as _;

use dkvs_gateway::tokens::{Scopes, mint};
use dkvs_tests::http::{Connection, Reply};
use dkvs_tests::process::{DataDir, Gateway};
use dkvs_tests::{patiently, programs};
use tokio::task::JoinSet;

/// How often each is asked with a body of one and of three mebibytes.
const ROUNDS: [usize; 2] = [20, 5];

/// A request that is answered before its body is read, or in the middle of it.
struct Refused {
    head: String,
    /// For a body of 1 MiB, and for one of 3 MiB.
    statuses: [u16; 2],
}

fn refused(head: &str, status: u16) -> Refused {
    Refused {
        head: format!("{head}\r\n"),
        statuses: [status; 2],
    }
}

/// What a gateway without tokens refuses, and what it answers without the body.
fn everywhere() -> Vec<Refused> {
    let host = "HTTP/1.1\r\nhost: localhost";
    let many_fields: String = (0..80).map(|number| format!("\r\nx-{number}: y")).collect();
    vec![
        refused(&format!("PUT /nothing {host}"), 404),
        refused(&format!("PATCH /kv/k {host}"), 405),
        refused(&format!("PUT /livez {host}"), 405),
        refused("PUT /kv/k HTTP/1.1\r\nhost: elsewhere.example", 421),
        refused("PUT /kv/k HTTP/1.1", 400),
        refused(
            &format!("PUT /kv/k {host}\r\nsec-fetch-site: cross-site"),
            403,
        ),
        refused(&format!("PUT /kv/k?n=0 {host}"), 400),
        refused(&format!("PUT /kv/ {host}"), 400),
        refused(&format!("PUT /kv/k {host}"), 413),
        refused(&format!("POST /batch?x=1 {host}"), 400),
        Refused {
            head: format!("POST /batch {host}\r\n"),
            // It is none; it is too long.
            statuses: [400, 413],
        },
        refused(&format!("GET /livez {host}"), 200),
        refused(&format!("DELETE /kv/k?w=0 {host}"), 400),
        refused(&format!("POST /servers/1/stop {host}"), 404),
        // By the HTTP library.
        refused(&format!("PUT /k{}k {host}", "\x01"), 400),
        refused(&format!("PUT /{} {host}", "k".repeat(66_000)), 414),
        refused(&format!("PUT /kv/k {host}{many_fields}"), 431),
    ]
}

#[derive(Debug, Clone, Copy)]
enum Framing {
    ContentLength,
    Chunked,
    /// It says that it waits for `100 Continue`, and does not.
    Expect,
}

async fn each_arrives(addr: SocketAddr, refused: Vec<Refused>) {
    let mut rounds = JoinSet::new();
    for Refused { head, statuses } in refused {
        rounds.spawn(async move {
            let bodies = [1, 3].into_iter().zip(ROUNDS).zip(statuses);
            for ((mib, rounds), status) in bodies {
                for framing in [Framing::ContentLength, Framing::Chunked, Framing::Expect] {
                    for is_half_closed in [false, true] {
                        let request = framed(&head, framing, mib << 20);
                        for round in 0..rounds {
                            let reply = ask(addr, &request, is_half_closed).await;
                            assert_eq!(
                                reply.status, status,
                                "{framing:?}, {mib} MiB, half-closed {is_half_closed}, \
                                 round {round}: {head}"
                            );
                        }
                    }
                }
            }
        });
    }
    patiently(rounds.join_all()).await;
}

fn framed(head: &str, framing: Framing, bytes: usize) -> Vec<u8> {
    let body = vec![b'v'; bytes];
    let (before, after) = match framing {
        Framing::ContentLength => (format!("content-length: {bytes}\r\n\r\n"), ""),
        Framing::Expect => (
            format!("content-length: {bytes}\r\nexpect: 100-continue\r\n\r\n"),
            "",
        ),
        Framing::Chunked => (
            format!("transfer-encoding: chunked\r\n\r\n{bytes:x}\r\n"),
            "\r\n0\r\n\r\n",
        ),
    };
    [head.as_bytes(), before.as_bytes(), &body, after.as_bytes()].concat()
}

/// Sends all of a request before it reads anything.
async fn ask(addr: SocketAddr, request: &[u8], is_half_closed: bool) -> Reply {
    let mut connection = Connection::open(addr).await;
    connection.send(request).await;
    if is_half_closed {
        connection.finish().await;
    }
    loop {
        let reply = connection.reply().await;
        // In the middle of a body that is read after all.
        if !reply.status.is_informational() {
            return reply;
        }
    }
}

#[tokio::test]
async fn a_refusal_reaches_a_caller_that_has_sent_everything_first() {
    let gateway = programs!().gateway(&["--embedded", "1", "--max-value", "65536"]);
    each_arrives(gateway.addr, everywhere()).await;
}

#[tokio::test]
async fn so_does_that_of_a_gateway_with_tokens() {
    let minted = mint("t", Scopes::parse("read").unwrap(), &[]).unwrap();
    let directory = DataDir::new();
    fs::create_dir_all(directory.path()).unwrap();
    let tokens = format!("{}/tokens", directory.path());
    fs::write(&tokens, format!("{}\n", minted.line)).unwrap();
    fs::set_permissions(&tokens, fs::Permissions::from_mode(0o600)).unwrap();
    let gateway: Gateway = programs!().gateway(&["--embedded", "1", "--tokens", &tokens]);
    let host = "HTTP/1.1\r\nhost: localhost";
    let authorized = format!("{host}\r\nauthorization: Bearer {}", minted.token);
    let wrong = format!("{host}\r\nauthorization: Bearer dkvs_wrong");
    let all = vec![
        refused(&format!("PUT /kv/k {host}"), 401),
        refused(&format!("PUT /kv/k {wrong}"), 401),
        refused(&format!("PUT /kv/k {authorized}"), 403),
        refused(&format!("PUT /nothing {authorized}"), 404),
    ];
    each_arrives(gateway.addr, all).await;
}

/// A caller may have nothing more to say, and still listen.
#[tokio::test]
async fn a_caller_that_has_closed_its_half_gets_its_reply() {
    let cluster = programs!().cluster(3, &[]);
    let addr = cluster.gateway.addr;
    let request = framed(
        "PUT /kv/k HTTP/1.1\r\nhost: localhost\r\n",
        Framing::ContentLength,
        100_000,
    );
    assert_eq!(ask(addr, &request, true).await.status, 200);
    for node in &cluster.nodes {
        node.process.stop();
    }
    let get = b"GET /kv/k?timeout_ms=300 HTTP/1.1\r\nhost: localhost\r\n\r\n";
    assert_eq!(ask(addr, get, true).await.problem(), "timeout");
    for node in &cluster.nodes {
        node.process.go_on();
    }
    assert_eq!(ask(addr, get, true).await.json["size"], 100_000);
}
