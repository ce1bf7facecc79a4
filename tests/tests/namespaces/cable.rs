//! Two namespaces with a cable between them: what a server sends to an address that never asked,
//! and whether anything travels in fragments.

use dkvs_common::model::{ReplicaCommand, ReplicaResponse};
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4, UdpSocket};
use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use dkvs_client::transport::link::{Link, LinkEvent, Party};
use dkvs_client::transport::peer::PeerConfig;
use dkvs_common::kv::Key;
use dkvs_common::wire::v2::keys::Keys;
use dkvs_tests::PATIENCE;
use dkvs_tests::http::{client, get, put};
use dkvs_tests::keys::{key_file, key_lines};
use dkvs_tests::process::ServersFile;
use dkvs_tests::random::Random;

use crate::{PROGRAMS, SKIPPED, fragments, ip, runtime, within};

const SERVER: Ipv4Addr = Ipv4Addr::new(10, 213, 0, 1);
const CLIENT: Ipv4Addr = Ipv4Addr::new(10, 213, 0, 2);
const BYSTANDER: Ipv4Addr = Ipv4Addr::new(10, 213, 0, 3);

/// Two namespaces with a cable between them: one for servers, one for clients.
struct Cable {
    servers: String,
    clients: String,
}

impl Cable {
    /// None where the machine does not allow it; says so.
    fn lay(name: &str, mtu: u32) -> Option<Self> {
        let name = format!("dkvs-{}-{name}", std::process::id());
        let cable = Self {
            servers: format!("{name}-s"),
            clients: format!("{name}-c"),
        };
        let mtu = mtu.to_string();
        let (servers, clients) = (&cable.servers[..], &cable.clients[..]);
        let address = |host: Ipv4Addr| format!("{host}/24");
        let is_laid = ip(&["netns", "add", servers])
            && ip(&["netns", "add", clients])
            && ip(&[
                "-n", servers, "link", "add", "cable", "type", "veth", "peer", "cable", "netns",
                clients,
            ])
            && [servers, clients].iter().all(|end| {
                ip(&["-n", end, "link", "set", "cable", "mtu", &mtu, "up"])
                    && ip(&["-n", end, "link", "set", "lo", "up"])
            })
            && ip(&[
                "-n",
                servers,
                "addr",
                "add",
                &address(SERVER),
                "dev",
                "cable",
            ])
            && ip(&[
                "-n",
                clients,
                "addr",
                "add",
                &address(CLIENT),
                "dev",
                "cable",
            ])
            && ip(&[
                "-n",
                clients,
                "addr",
                "add",
                &address(BYSTANDER),
                "dev",
                "cable",
            ]);
        if !is_laid {
            println!("{SKIPPED}");
            return None;
        }
        Some(cable)
    }

    fn among_servers<R: Send>(&self, act: impl FnOnce() -> R + Send) -> R {
        within(&self.servers, act)
    }

    fn among_clients<R: Send>(&self, act: impl FnOnce() -> R + Send) -> R {
        within(&self.clients, act)
    }
}

impl Drop for Cable {
    fn drop(&mut self) {
        ip(&["netns", "del", &self.servers]);
        ip(&["netns", "del", &self.clients]);
    }
}

/// Asks by the connection core, and keeps every datagram that it sent.
fn ask(
    link: &mut Link<u8>,
    socket: &UdpSocket,
    command: ReplicaCommand,
    sent: &mut Vec<Vec<u8>>,
) -> ReplicaResponse {
    let deadline = Instant::now() + PATIENCE;
    let by = (0, Party::default());
    link.send(command, by, Instant::now(), deadline).unwrap();
    loop {
        while let Some(datagram) = link.poll_transmit(Instant::now()) {
            socket.send(&datagram).unwrap();
            sent.push(datagram);
        }
        let mut buffer = vec![0; 65_536];
        let length = socket.recv(&mut buffer).expect("an answer");
        buffer.truncate(length);
        link.handle_datagram(&Bytes::from(buffer), Instant::now());
        while let Some(event) = link.poll_event() {
            if let LinkEvent::Response { response, .. } = event {
                return response;
            }
        }
    }
}

#[test]
fn what_was_captured_makes_a_server_send_nothing_to_a_bystander() {
    let Some(cable) = Cable::lay("captured", 1_500) else {
        return;
    };
    let lines = key_lines(&[1]);
    let file = key_file(&[1]);
    let port = 4_000;
    let server = SocketAddr::from((SERVER, port));
    let arguments = ["--key-file", file.path(), "--workers", "1"];
    let _node = cable.among_servers(|| PROGRAMS.node_at(server, &arguments));
    cable.among_clients(|| {
        let connect = |from: Ipv4Addr, port: u16| {
            let socket = UdpSocket::bind((from, port)).unwrap();
            socket.connect(server).unwrap();
            socket.set_read_timeout(Some(PATIENCE)).unwrap();
            socket
        };
        // Of one port, so that nothing but the address differs.
        let socket = connect(CLIENT, 5_000);
        let bystander = connect(BYSTANDER, 5_000);
        let keys = Keys::parse("keys", lines.as_bytes()).unwrap();
        let config = PeerConfig {
            datagram_bytes_max: 1_200,
            window_bytes_max: 1 << 20,
            ring: 0,
            epoch: dkvs_common::epoch::Epoch { number: 1, hash: 0 },
            falls_back_to_v1: false,
            keys: Some((Arc::new(keys), SocketAddrV4::new(CLIENT, 5_000))),
        };
        let mut link = Link::new(config, 7, Instant::now());
        let mut sent = Vec::new();
        let key = Key::new("k").unwrap();
        for request in [ReplicaCommand::GetStatistics, ReplicaCommand::Get { key }] {
            ask(&mut link, &socket, request, &mut sent);
        }
        assert!(sent.len() >= 3, "a greeting and two requests");
        for datagram in &sent {
            bystander.send(datagram).unwrap();
        }
        // The server takes datagrams in their order, so by this answer it has done with those.
        ask(&mut link, &socket, ReplicaCommand::Ping, &mut sent);
        bystander.set_nonblocking(true).unwrap();
        assert!(bystander.recv(&mut [0; 65_536]).is_err(), "not a byte");
    });
}

#[test]
fn long_values_travel_whole_over_a_path_of_1280_bytes_and_nothing_in_fragments() {
    let Some(cable) = Cable::lay("narrow", 1_280) else {
        return;
    };
    let file = key_file(&[1]);
    let arguments = ["--key-file", file.path()];
    let addrs = [4_001, 4_002, 4_003].map(|port| SocketAddr::from((SERVER, port)));
    let start = || addrs.map(|addr| PROGRAMS.node_at(addr, &arguments));
    let _nodes = cable.among_servers(start);
    let servers = ServersFile::new(&addrs);
    let value = Random::new(1_280).bytes(1 << 20);
    let sent_in_fragments = cable.among_clients(|| {
        let gateway = PROGRAMS.gateway_over(&servers, &arguments);
        runtime().block_on(async {
            let client = client();
            let url = gateway.url("/kv/long?wait=all&raw=true");
            let written = gateway.url("/kv/long?wait=all");
            let reply = put(&client, written, value.clone()).await;
            assert_eq!(reply.count("stored"), 3, "{reply:?}");
            let reply = get(&client, url).await;
            assert!(reply.body == value, "{}", reply.status);
        });
        fragments()
    });
    let received_in_fragments = cable.among_servers(fragments);
    assert_eq!((sent_in_fragments, received_in_fragments), (0, 0));
}
