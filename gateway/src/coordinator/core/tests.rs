//! A core without a network.

mod vouching;

use std::net::{Ipv4Addr, SocketAddrV4};
use std::time::Instant;

use super::*;
use crate::coordinator::Limits;
use dkvs_common::cluster::Cluster;
use dkvs_common::wire::v2::envelope::{Proof, open};
use dkvs_common::wire::v2::message::next_request;
use dkvs_storage_node::service::access::Access;
use dkvs_storage_node::service::late::Mailbox;
use dkvs_storage_node::service::{Config as ServiceConfig, Received, Service};
use dkvs_storage_node::store::{MemoryStore, Store};

const SERVERS: [ServerId; 2] = [ServerId(0), ServerId(1)];

fn core() -> Core<()> {
    core_of(2)
}

fn core_of(servers: u16) -> Core<()> {
    let file: String = (0..servers)
        .map(|number| format!("127.0.0.1 {} 1\n", 4_000 + number))
        .collect();
    let cluster = Cluster::parse("test", file.as_bytes()).unwrap();
    let settings = Settings {
        protocol: Protocol::V2,
        datagram_bytes_max: 1_200,
        value_bytes_max: 1 << 20,
        offload: false,
        keys: None,
        timeout_max: Duration::from_secs(1),
        limits: Limits {
            requests_max: 10,
            sockets_max: 0,
            value_bytes_in_flight_max: 1 << 20,
        },
    };
    let memory = Arc::new(Semaphore::new(1_024));
    Core::new(Arc::new(Shared::new(cluster)), &settings, memory, || 7)
}

fn open_all(core: &mut Core<()>, now: Now) {
    let path = Path {
        local: SocketAddrV4::new(Ipv4Addr::LOCALHOST, 5_000),
        window_bytes_max: 1 << 16,
    };
    for server in SERVERS {
        core.open(server, path, now);
    }
}

fn wish(level: Level) -> Wish {
    Wish {
        quorum: Quorum::new(2, 2).unwrap(),
        level,
        may_fall_back: false,
        timeout: Duration::from_secs(1),
        wait: Wait::Quorum,
        trace: None,
    }
}

/// What is sent to the servers.
fn sent(core: &mut Core<()>, now: Now) -> Vec<Request> {
    let mut requests = Vec::new();
    while let Some(server) = core.poll_server() {
        while let Some(datagram) = core.poll_transmit(server, now) {
            let (_, mut messages) = open(&datagram.into(), Proof::Checksum).unwrap();
            while let Some(message) = next_request(&mut messages).unwrap() {
                requests.push(message.unwrap().request);
            }
        }
    }
    requests
}

#[test]
fn servers_without_tags_are_greeted_though_they_are_not_asked() {
    let mut core = core();
    let mut now = Now {
        at: Instant::now(),
        unix_ms: 1_000,
    };
    open_all(&mut core, now);
    let key = Key::new("k").unwrap();
    let wish = wish(Level::Linearizable);
    let read = |core: &mut Core<()>, now| {
        let list = core.preference_list(&key, wish.quorum);
        core.read(&key, list, wish, (), now).is_ok()
    };
    assert!(read(&mut core, now));
    assert!(greets_both(&sent(&mut core, now)));
    for server in SERVERS {
        core.handle_datagram(server, &Bytes::new(), now);
        assert!(matches!(core.speaks(server), Speaks::V1));
    }

    now.at += Duration::from_secs(1);
    assert!(!read(&mut core, now));
    assert!(greets_both(&sent(&mut core, now)));
}

fn greets_both(sent: &[Request]) -> bool {
    matches!(sent, [Request::Greet { .. }, Request::Greet { .. }])
}

/// Hands what is sent to a server, and its answers back, until nobody has anything to say.
fn exchange(core: &mut Core<()>, service: &Service, now: Now) {
    while let Some(server) = core.poll_server() {
        while let Some(datagram) = core.poll_transmit(server, now) {
            let received = Received {
                datagram: datagram.into(),
                peer: (Ipv4Addr::LOCALHOST, 5_000).into(),
                at: now.at,
                waited: Duration::ZERO,
            };
            let mut replies = Vec::new();
            let mailbox = Mailbox::new(|| {});
            service.handle_v2(&received, &mut Access::Open, &mailbox, &mut |reply| {
                replies.push(reply);
            });
            for reply in replies {
                core.handle_datagram(server, &reply.into(), now);
            }
        }
    }
}

#[test]
fn a_write_that_is_withdrawn_is_stored_nowhere_and_one_whose_caller_goes_away_is() {
    let service = Service::new(
        Store::Memory(MemoryStore::new(1 << 20)),
        ServiceConfig::new(1),
    );
    let mut core = core();
    let now = Now {
        at: Instant::now(),
        unix_ms: 1_000,
    };
    open_all(&mut core, now);
    core.probe(Duration::from_secs(1), (), now).unwrap();
    exchange(&mut core, &service, now);
    let write = |core: &mut Core<()>, level, name: &'static str| {
        let key = Key::new(name).unwrap();
        let wish = wish(level);
        let list = core.preference_list(&key, wish.quorum);
        core.write(&key, Content::Tombstone, list, None, wish, (), now)
            .unwrap()
    };
    for level in [Level::Agreement, Level::Linearizable] {
        let id = write(&mut core, level, "withdrawn");
        core.withdraw(id);
        exchange(&mut core, &service, now);
        assert!(service.store().records().is_empty());
    }
    for (stored, level) in [(1, Level::Agreement), (2, Level::Linearizable)] {
        let id = write(&mut core, level, level.name());
        core.cancel(id);
        exchange(&mut core, &service, now);
        assert_eq!(service.store().records().len(), stored);
    }
}
