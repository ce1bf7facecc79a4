//! The servers inside a gateway, asked at their own ports by those who have no key of theirs.

use dkvs_common::model::ReplicaCommand;
use std::fs;
use std::net::{Ipv4Addr, SocketAddr, UdpSocket};

use dkvs_common::tag::Tag;
use dkvs_common::wire::v2::message::RequestId;
use dkvs_common::wire::v2::request::Request;
use dkvs_tests::http::{Reply, client, send};
use dkvs_tests::keys::{key_file, key_lines};
use dkvs_tests::process::{DataDir, Gateway, ServersFile};
use dkvs_tests::v2::{key, put, sealed};
use dkvs_tests::{PATIENCE, v1};
use reqwest::Method;
use rustix::process::Signal;

use crate::{PROGRAMS, token, token_file};

/// What anybody can send who has no key: DKVS/1, and DKVS/2 as servers without keys answer it.
fn datagrams() -> Vec<(&'static str, Vec<u8>)> {
    let greeting = Request::Greet {
        datagram_bytes_max: 1_200,
    };
    let newest = Tag {
        time: u64::MAX,
        op: 1,
    };
    let sealed = |request| sealed(RequestId(1), request);
    vec![
        ("dump", b"".into()),
        ("get", b"k".into()),
        ("put", b"k\0forged".into()),
        ("neither", b"\0".into()),
        ("greeting", sealed(&greeting)),
        (
            "get",
            sealed(&Request::Command(ReplicaCommand::Get { key: key("k") })),
        ),
        ("put", sealed(&put("k", "forged", newest))),
        (
            "statistics",
            sealed(&Request::Command(ReplicaCommand::GetStatistics)),
        ),
    ]
}

fn unknown_sender(server: SocketAddr) -> UdpSocket {
    let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    socket.connect(server).unwrap();
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    socket
}

/// A gateway and the token that its callers need, if they need one.
struct Asked {
    gateway: Gateway,
    token: Option<String>,
}

impl Asked {
    async fn ask(&self, method: Method, path: &str, body: &'static str) -> Reply {
        let mut request = client().request(method, self.gateway.url(path)).body(body);
        if let Some(token) = &self.token {
            request = request.bearer_auth(token);
        }
        send(request).await
    }

    /// The value of `k`, which all of its replicas hold.
    async fn value(&self) -> String {
        let read = self.ask(Method::GET, "/kv/k?wait=all", "").await;
        assert_eq!(read.statuses(), ["match"; 3], "{read:?}");
        read.json["value"].as_str().unwrap().to_owned()
    }
}

/// Has all three servers asked by unknown senders, which get no answer and change nothing.
async fn assert_closed(asked: &Asked, servers: &[SocketAddr]) {
    let before = asked.value().await;
    let senders: Vec<UdpSocket> = servers.iter().copied().map(unknown_sender).collect();
    for socket in &senders {
        for (_, datagram) in datagrams() {
            socket.send(&datagram).unwrap();
        }
    }
    // A server answers in the order of arrival, but what it answers together it sends in any.
    // So what the first of these comes after was sent when the second is answered.
    for _ in 0..2 {
        assert_eq!(asked.value().await, before);
    }
    for socket in &senders {
        socket.set_nonblocking(true).unwrap();
        let heard = socket.recv(&mut [0; 65_536]);
        assert!(heard.is_err(), "{heard:?}");
    }
}

#[test]
fn a_server_without_keys_answers_all_that_unknown_senders_ask() {
    let node = PROGRAMS.node(&["k", "v"]);
    for (name, datagram) in datagrams() {
        let socket = unknown_sender(node.addr);
        socket.send(&datagram).unwrap();
        assert!(socket.recv(&mut [0; 65_536]).is_ok(), "{name}");
    }
}

#[tokio::test]
async fn embedded_servers_answer_nobody_but_their_gateway() {
    let owner = token("owner", "read,write,admin", &[]);
    let tokens = token_file(&[&owner]);
    let keys = key_file(&[1]);
    let data = DataDir::new();
    for (arguments, token) in [
        (&[][..], None),
        (&["--protocol", "auto"], None),
        (&["--tokens", tokens.path()], Some(owner.token.clone())),
        (&["--key-file", keys.path()], None),
        (&["--data-dir", data.path()], None),
    ] {
        let arguments = [&["--embedded", "3", "--workers", "1"], arguments].concat();
        let gateway = PROGRAMS.gateway(&arguments);
        let asked = Asked { gateway, token };
        let written = asked.ask(Method::PUT, "/kv/k?wait=all", "v").await;
        assert_eq!(written.statuses(), ["stored"; 3], "{arguments:?}");
        let servers = written.servers();
        assert_closed(&asked, &servers).await;

        // Nor does one that was stopped and started again.
        for verb in ["stop", "start"] {
            let path = format!("/servers/{}/{verb}", servers[0]);
            assert_eq!(asked.ask(Method::POST, &path, "").await.status, 200);
        }
        let written = asked.ask(Method::PUT, "/kv/k?wait=all", "w").await;
        assert_eq!(written.statuses(), ["stored"; 3], "{written:?}");
        assert_closed(&asked, &servers).await;
    }
}

#[tokio::test]
async fn embedded_servers_answer_dkvs_1_where_that_is_asked_for() {
    let keys = key_file(&[1]);
    for arguments in [
        &["--embedded-v1", "on"][..],
        &["--embedded-v1", "on", "--key-file", keys.path()],
        &["--protocol", "v1"],
    ] {
        let arguments = [&["--embedded", "3"], arguments].concat();
        let asked = Asked {
            gateway: PROGRAMS.gateway(&arguments),
            token: None,
        };
        let written = asked.ask(Method::PUT, "/kv/k?wait=all", "v").await;
        assert_eq!(written.statuses(), ["stored"; 3], "{arguments:?}");
        for server in written.servers() {
            let by_hand = v1::Client::new(server);
            assert_eq!(by_hand.get("k"), b"v");
            by_hand.store("k", "by hand");
        }
        // Each under a tag of the server's own: replicas need not match.
        let read = asked.ask(Method::GET, "/kv/k", "").await;
        assert_eq!(read.json["value"], "by hand", "{read:?}");
    }
}

#[tokio::test]
async fn embedded_servers_go_over_to_new_keys_with_their_gateway() {
    let keys = key_file(&[1]);
    let arguments = ["--embedded", "3", "--key-file", keys.path()];
    let mut asked = Asked {
        gateway: PROGRAMS.gateway(&arguments),
        token: None,
    };
    let written = asked.ask(Method::PUT, "/kv/k?wait=all", "v").await;
    assert_eq!(written.statuses(), ["stored"; 3], "{written:?}");
    let line = |addr: &SocketAddr| format!("{} {} 64\n", addr.ip(), addr.port());
    let text = written.servers().iter().map(line).collect::<String>();
    let servers = ServersFile::with_text(text);
    // Others with the same servers file, each by a key of its own.
    let others = [1, 2].map(|id| {
        let file = key_file(&[id]);
        let gateway = PROGRAMS.gateway_over(&servers, &["--key-file", file.path()]);
        Asked {
            gateway,
            token: None,
        }
    });
    let is_answered = async |other: &Asked| {
        let read = other.ask(Method::GET, "/kv/k?timeout_ms=300", "").await;
        assert!([200, 504].contains(&read.status.as_u16()), "{read:?}");
        read.status == 200
    };
    assert_eq!(others[0].value().await, "v");
    assert!(!is_answered(&others[1]).await);

    fs::write(&keys, key_lines(&[2])).unwrap();
    asked.gateway.process.signal(Signal::HUP);
    let process = &mut asked.gateway.process;
    process.stderr_line_with("the key file was read again");
    assert_eq!(asked.value().await, "v");
    let written = asked.ask(Method::PUT, "/kv/k?wait=all", "w").await;
    assert_eq!(written.statuses(), ["stored"; 3], "{written:?}");
    assert_eq!(others[1].value().await, "w");
    assert!(!is_answered(&others[0]).await);
}
