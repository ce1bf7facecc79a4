//! A core without a network.

mod vouching;

use std::net::{Ipv4Addr, SocketAddrV4};

use super::*;
use crate::Limits;
use crate::testing::start_of_time;
use crate::transport::peer::{V1_GREETINGS, V1_PAUSE};
use dkvs_common::cluster::Cluster;
use dkvs_common::quorum::read::Standing;
use dkvs_common::wire::v2::envelope::{Proof, open};
use dkvs_common::wire::v2::message::next_request;
use dkvs_common::wire::v2::request::Request;
use dkvs_storage_node::protocol::{Access, DeferredReplies, Received};
use dkvs_storage_node::service::{Config as ServiceConfig, Service};
use dkvs_storage_node::store::{MemoryStore, RecordStore as _, Store};

const SERVERS: [ServerId; 2] = [ServerId(0), ServerId(1)];

fn core() -> Core<()> {
    core_of(2)
}

fn core_of(servers: u16) -> Core<()> {
    core_that_speaks(Protocol::V2, servers)
}

fn core_that_speaks(protocol: Protocol, servers: u16) -> Core<()> {
    let file: String = (0..servers)
        .map(|number| format!("127.0.0.1 {} 1\n", 4_000 + number))
        .collect();
    let cluster = Cluster::parse("test", file.as_bytes()).unwrap();
    let settings = Settings {
        protocol,
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

/// Every greeting of a core is answered by DKVS/1, for as long as it takes to believe that.
fn answer_by_v1(core: &mut Core<()>, now: &mut Now) {
    for _ in 0..V1_GREETINGS {
        assert!(greets_both(&sent(core, *now)));
        for server in SERVERS {
            core.handle_datagram(server, &Bytes::new(), *now);
        }
        now.at += V1_PAUSE;
    }
}

fn greets_both(sent: &[Request]) -> bool {
    matches!(sent, [Request::Greet { .. }, Request::Greet { .. }])
}

#[test]
fn servers_without_tags_are_greeted_though_they_are_not_asked() {
    let mut core = core_that_speaks(Protocol::Auto, 2);
    let mut now = now();
    open_all(&mut core, now);
    let wish = wish(Level::Linearizable);
    assert!(read(&mut core, wish, now));
    answer_by_v1(&mut core, &mut now);
    for server in SERVERS {
        assert!(matches!(core.speaks(server), Speaks::V1));
        assert_eq!(core.v1_only(server), Some(V1Only::SinceMet));
    }

    now.at += Duration::from_secs(1);
    assert!(!read(&mut core, wish, now));
    assert!(greets_both(&sent(&mut core, now)));
}

/// Where DKVS/1 is not spoken, no answer by it makes a request promise less.
#[test]
fn a_core_for_dkvs_2_asks_nobody_by_dkvs_1_and_lowers_no_level() {
    let mut core = core();
    let mut now = now();
    open_all(&mut core, now);
    let wish = Wish {
        may_fall_back: true,
        wait: Wait::All,
        ..wish(Level::Linearizable)
    };
    assert!(read(&mut core, wish, now));
    answer_by_v1(&mut core, &mut now);
    for is_again in [false, true] {
        if is_again {
            now.at += Duration::from_secs(1);
            assert!(read(&mut core, wish, now));
            assert!(greets_both(&sent(&mut core, now)));
            for server in SERVERS {
                core.handle_datagram(server, &Bytes::new(), now);
            }
        }
        let Some(((), Ended { machine, .. })) = core.poll_ended() else {
            panic!("it is refused");
        };
        let Machine::Read(read) = machine else {
            panic!("it is a read");
        };
        assert_eq!(read.level(), Level::Linearizable);
        for replica in read.replicas() {
            assert_eq!(read.standing(replica), Standing::Refused(Refusal::NotV2));
        }
        assert!(core.poll_ask_by_v1().is_none());
    }
}

fn now() -> Now {
    Now {
        at: start_of_time(),
        unix_ms: 1_000,
    }
}

fn read(core: &mut Core<()>, wish: Wish, now: Now) -> bool {
    let key = Key::new("k").unwrap();
    let list = core.preference_list(&key, wish.quorum);
    core.read(&key, list, wish, (), now).is_ok()
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
            let deferred = DeferredReplies::new(|| {});
            service.handle_v2(&received, &mut Access::Open, &deferred, &mut |reply| {
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
        at: start_of_time(),
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
        assert!(service.store().is_empty());
    }
    for (stored, level) in [(1, Level::Agreement), (2, Level::Linearizable)] {
        let id = write(&mut core, level, level.name());
        core.cancel(id);
        exchange(&mut core, &service, now);
        assert_eq!(service.store().len(), stored);
    }
}
