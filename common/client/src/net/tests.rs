//! A client whose servers are nowhere: what it does when a request cannot begin.

use std::net::{Ipv4Addr, SocketAddrV4};
use std::sync::Arc;
use std::time::Duration;

use crate::transport::peer::{V1_GREETINGS, V1_PAUSE};
use dkvs_common::cluster::{Cluster, ServerId};
use dkvs_common::kv::{Key, Value};
use dkvs_common::quorum::Level;
use dkvs_common::quorum::params::Quorum;
use dkvs_common::record::{Content, ContentType};

use super::*;
use crate::core::{
    AdmissionError, CallerId, Core, Endpoint, Limits, Now, Protocol, ReadRequest, RequestOptions,
    Wait,
};
use crate::transport::peer::PeerVersion;

fn client(protocol: Protocol) -> Client {
    let cluster = Cluster::parse("test", b"127.0.0.1 4000 1\n127.0.0.1 4001 1\n").unwrap();
    let config = ClientConfig {
        protocol,
        replication: 2,
        datagram_bytes_max: 1_200,
        value_bytes_max: 1 << 20,
        offload: false,
        keys: None,
        limits: Limits {
            requests_max: 1,
            sockets_max: 0,
            value_bytes_in_flight_max: 1 << 20,
        },
        timeout_max: Duration::from_secs(60),
    };
    Client::new(Arc::new(Shared::new(cluster)), config).unwrap()
}

fn options(level: Level) -> RequestOptions {
    RequestOptions {
        quorum: Quorum::new(2, 2).unwrap(),
        level,
        may_fall_back: false,
        timeout: Duration::from_secs(60),
        wait: Wait::Quorum,
        caller: CallerId::Internal,
        trace: None,
    }
}

#[tokio::test]
async fn a_write_for_which_there_are_no_sockets_is_withdrawn() {
    let client = client(Protocol::V1);
    let content = Content::Value {
        content_type: ContentType::default(),
        value: Value::default(),
    };
    for _ in 0..2 {
        let key = Key::new("k").unwrap();
        let options = options(Level::Agreement);
        let write = client.write(&key, content.clone(), None, options);
        let what = "no socket towards the servers can be had";
        assert_eq!(write.await.err(), Some(AdmissionError::Overloaded { what }));
    }
}

#[tokio::test]
async fn servers_without_tags_are_greeted_though_the_request_that_needs_tags_does_not_begin() {
    let client = client(Protocol::Auto);
    let (key, options) = (Key::new("k").unwrap(), options(Level::Linearizable));
    // Both answered a greeting as a server of DKVS/1 does, so long ago that they are due another.
    let mut now = now();
    now.at -= Duration::from_secs(1);
    {
        let core = &mut client.worker().state().core;
        for server in [ServerId(0), ServerId(1)] {
            let endpoint = Endpoint {
                local: SocketAddrV4::new(Ipv4Addr::LOCALHOST, 5_000),
                window_bytes_max: 1 << 16,
            };
            core.open(server, endpoint, 7, now);
        }
        let list = core.preference_list(&key, options.quorum);
        let request = ReadRequest {
            key: key.clone(),
            list,
            options,
        };
        core.read(request, now, |_| {}).unwrap();
        for _ in 0..V1_GREETINGS {
            send_all(core, now);
            for server in [ServerId(0), ServerId(1)] {
                core.handle_datagram(server, &bytes::Bytes::new(), now);
            }
            now.at += V1_PAUSE;
        }
        for server in [ServerId(0), ServerId(1)] {
            assert_eq!(core.speaks(server), PeerVersion::V1);
        }
        send_all(core, now);
    }

    let read = client.read(&key, options).await;
    assert!(matches!(read, Err(AdmissionError::NoTags { .. })));
    assert!(client.worker().state().core.wants_to_send());
    for _ in 0..10 {
        tokio::task::yield_now().await;
    }
    assert!(
        !client.worker().state().core.wants_to_send(),
        "the driver sent"
    );
}

fn send_all(core: &mut Core, now: Now) {
    while let Some(server) = core.poll_server() {
        while core.poll_transmit(server, now).is_some() {}
    }
}

#[tokio::test]
async fn requests_that_begin_after_the_cluster_was_replaced_see_the_new_one() {
    let client = client(Protocol::V2);
    let before = client.view().number();
    // What the first request starts follows the views.
    let key = Key::new("k").unwrap();
    let first = client.read(&key, options(Level::Agreement));
    let cluster = Cluster::parse("test", b"127.0.0.1 4001 1\n127.0.0.1 4002 1\n").unwrap();
    client.shared().replace(cluster).unwrap();
    for _ in 0..10 {
        tokio::task::yield_now().await;
    }
    let view = client.view();
    assert!(view.number() > before);
    assert!(view.servers().eq([ServerId(1), ServerId(2)]));
    drop(first);
}
