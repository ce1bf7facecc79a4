//! A core without a network.

mod attestations;
mod attributes;
mod places;
mod views;

use std::net::{Ipv4Addr, SocketAddrV4};
use std::sync::Arc;
use std::time::Duration;

use super::*;
use crate::testing::start_of_time;
use crate::transport::peer::{PeerVersion, V1_GREETINGS, V1_PAUSE};
use bytes::Bytes;
use dkvs_common::cluster::{Cluster, ServerId};
use dkvs_common::kv::Key;
use dkvs_common::model::Refusal;
use dkvs_common::quorum::Level;
use dkvs_common::quorum::params::Quorum;
use dkvs_common::quorum::read::ReplicaStanding;
use dkvs_common::record::{Attributes, Content};
use dkvs_common::view::ClusterView;
use dkvs_common::wire::v2::envelope::{Proof, open};
use dkvs_common::wire::v2::message::next_request;
use dkvs_common::wire::v2::request::Request;
use dkvs_storage_node::protocol::{Access, Backlog, Received};
use dkvs_storage_node::service::{Service, ServiceConfig};
use dkvs_storage_node::store::{MemoryStore, RecordStore as _, Store};

const SERVERS: [ServerId; 2] = [ServerId(0), ServerId(1)];

fn core() -> Core {
    core_of(2)
}

fn core_of(servers: u16) -> Core {
    core_that_speaks(Protocol::V2, servers)
}

fn core_that_speaks(protocol: Protocol, servers: u16) -> Core {
    let file: String = (0..servers)
        .map(|number| format!("127.0.0.1 {} 1\n", 4_000 + number))
        .collect();
    let cluster = Cluster::parse("test", file.as_bytes()).unwrap();
    let config = CoreConfig {
        protocol,
        replication: 3,
        datagram_bytes_max: 1_200,
        timeout_max: Duration::from_secs(1),
        requests_max: 10,
        decided_max: 10,
    };
    let view = Arc::new(ClusterView::first(cluster));
    let memory = MemoryBudget::new(1 << 20);
    Core::new(config, view, None, memory, RoundTrips::default(), 7)
}

fn open_all(core: &mut Core, now: Now) {
    let endpoint = Endpoint {
        local: SocketAddrV4::new(Ipv4Addr::LOCALHOST, 5_000),
        window_bytes_max: 1 << 16,
    };
    for server in SERVERS {
        core.open(server, endpoint, 7, now);
    }
}

fn options(level: Level) -> RequestOptions {
    RequestOptions {
        quorum: Quorum::new(2, 2).unwrap(),
        level,
        may_fall_back: false,
        timeout: Duration::from_secs(1),
        wait: Wait::Quorum,
        caller: CallerId::Internal,
        trace: None,
    }
}

/// What is sent to the servers.
fn sent(core: &mut Core, now: Now) -> Vec<Request> {
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
fn answer_by_v1(core: &mut Core, now: &mut Now) {
    for _ in 0..V1_GREETINGS {
        assert!(greets_both(&sent(core, *now)));
        for server in SERVERS {
            core.handle_datagram(server, &Bytes::new(), *now);
        }
        now.at += V1_PAUSE;
    }
}

fn greets_both(sent: &[Request]) -> bool {
    matches!(
        sent,
        [
            Request::Greet { .. },
            Request::Describe,
            Request::Greet { .. },
            Request::Describe
        ]
    )
}

#[test]
fn servers_without_tags_are_greeted_though_they_are_not_asked() {
    let mut core = core_that_speaks(Protocol::Auto, 2);
    let mut now = now();
    open_all(&mut core, now);
    let options = options(Level::Linearizable);
    assert!(read(&mut core, options, now));
    answer_by_v1(&mut core, &mut now);
    for server in SERVERS {
        assert!(matches!(core.speaks(server), PeerVersion::V1));
        assert_eq!(core.v1_only(server), Some(V1Only::SinceMet));
    }

    now.at += Duration::from_secs(1);
    assert!(!read(&mut core, options, now));
    assert!(greets_both(&sent(&mut core, now)));

    now.at += Duration::from_secs(1);
    let key = Key::new("k").unwrap();
    let list = core.preference_list(&key, options.quorum);
    let (ended, results) = std::sync::mpsc::channel();
    let on_end = move |result: InspectResult| ended.send(result.inspect.is_in_step()).unwrap();
    let request = ReadRequest { key, list, options };
    core.inspect(request, now, on_end).unwrap();
    assert_eq!(results.try_recv(), Ok(None));
    assert!(greets_both(&sent(&mut core, now)));
}

/// Where DKVS/1 is not spoken, no answer by it makes a request promise less.
#[test]
fn a_core_for_dkvs_2_asks_nobody_by_dkvs_1_and_lowers_no_level() {
    let mut core = core();
    let mut now = now();
    open_all(&mut core, now);
    let options = RequestOptions {
        may_fall_back: true,
        wait: Wait::All,
        ..options(Level::Linearizable)
    };
    let (ended, results) = std::sync::mpsc::channel();
    let begin = |core: &mut Core, now| {
        let ended = ended.clone();
        let key = Key::new("k").unwrap();
        begin_read(core, key, options, now, move |result| {
            ended.send(result).unwrap();
        })
        .unwrap();
    };
    begin(&mut core, now);
    answer_by_v1(&mut core, &mut now);
    for is_again in [false, true] {
        if is_again {
            now.at += Duration::from_secs(1);
            begin(&mut core, now);
            assert!(greets_both(&sent(&mut core, now)));
            for server in SERVERS {
                core.handle_datagram(server, &Bytes::new(), now);
            }
        }
        let read = results.try_recv().expect("it is refused").read;
        assert_eq!(read.level(), Level::Linearizable);
        for replica in read.replicas() {
            assert_eq!(
                read.standing(replica),
                ReplicaStanding::Refused(Refusal::NotV2)
            );
        }
        assert!(core.poll_exchange().is_none());
    }
}

fn now() -> Now {
    Now {
        at: start_of_time(),
        unix_ms: 1_000,
    }
}

fn read(core: &mut Core, options: RequestOptions, now: Now) -> bool {
    let key = Key::new("k").unwrap();
    begin_read(core, key, options, now, |_| {}).is_ok()
}

fn begin_read(
    core: &mut Core,
    key: Key,
    options: RequestOptions,
    now: Now,
    on_end: impl FnOnce(ReadResult) + Send + 'static,
) -> Result<RequestId, AdmissionError> {
    let list = core.preference_list(&key, options.quorum);
    core.read(ReadRequest { key, list, options }, now, on_end)
}

/// Hands what is sent to a server, and its answers back, until nobody has anything to say.
fn exchange(core: &mut Core, service: &Service, now: Now) {
    while let Some(server) = core.poll_server() {
        while let Some(datagram) = core.poll_transmit(server, now) {
            let received = Received {
                datagram: datagram.into(),
                peer: (Ipv4Addr::LOCALHOST, 5_000).into(),
                at: now.at,
                waited: Duration::ZERO,
            };
            let mut replies = Vec::new();
            let backlog = &mut Backlog::new(|| {});
            service.handle_v2(&received, &mut Access::Open, backlog, &mut |reply| {
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
    core.status(Duration::from_secs(1), CallerId::Internal, now, |_| {})
        .unwrap();
    exchange(&mut core, &service, now);
    let write = |core: &mut Core, level, name: &'static str| {
        let key = Key::new(name).unwrap();
        let options = options(level);
        let request = WriteRequest {
            list: core.preference_list(&key, options.quorum),
            key,
            content: Content::Tombstone,
            attributes: Attributes::NONE,
            tag: None,
            options,
        };
        core.write(request, now, |_| {}).unwrap()
    };
    for level in [Level::Agreement, Level::Linearizable] {
        let id = write(&mut core, level, "withdrawn");
        core.withdraw(id);
        assert_eq!(core.undecided(), 0);
        exchange(&mut core, &service, now);
        assert!(service.store().is_empty());
    }
    for (stored, level) in [(1, Level::Agreement), (2, Level::Linearizable)] {
        let id = write(&mut core, level, level.name());
        core.cancel(id, now);
        exchange(&mut core, &service, now);
        assert_eq!(service.store().len(), stored);
    }
}
