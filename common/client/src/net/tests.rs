//! A coordinator whose servers are nowhere: what it does when a request cannot begin.

use std::net::{Ipv4Addr, SocketAddrV4};

use crate::transport::peer::{V1_GREETINGS, V1_PAUSE};
use dkvs_common::kv::Value;
use dkvs_common::quorum::Level;
use dkvs_common::quorum::params::Quorum;
use dkvs_common::record::ContentType;

use super::*;
use crate::core::Path;

fn coordinator(protocol: Protocol) -> Coordinator {
    let cluster = Cluster::parse("test", b"127.0.0.1 4000 1\n127.0.0.1 4001 1\n").unwrap();
    let settings = Settings {
        protocol,
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
    Coordinator::new(Arc::new(Shared::new(cluster)), settings).unwrap()
}

fn wish(level: Level) -> Wish {
    Wish {
        quorum: Quorum::new(2, 2).unwrap(),
        level,
        may_fall_back: false,
        timeout: Duration::from_secs(60),
        wait: Wait::Quorum,
        trace: None,
    }
}

#[tokio::test]
async fn a_write_for_which_there_are_no_sockets_is_withdrawn() {
    let coordinator = coordinator(Protocol::V1);
    let content = Content::Value {
        content_type: ContentType::default(),
        value: Value::default(),
    };
    for _ in 0..2 {
        let key = Key::new("k").unwrap();
        let wish = wish(Level::Agreement);
        let write = coordinator.write(&key, content.clone(), None, wish);
        let what = "no socket towards the servers can be had";
        assert_eq!(write.await.err(), Some(NotBegun::Overloaded { what }));
    }
}

#[tokio::test]
async fn servers_without_tags_are_greeted_though_the_request_that_needs_tags_does_not_begin() {
    let coordinator = coordinator(Protocol::Auto);
    let (key, wish) = (Key::new("k").unwrap(), wish(Level::Linearizable));
    // Both answered a greeting as a server of DKVS/1 does, so long ago that they are due another.
    let mut now = now();
    now.at -= Duration::from_secs(1);
    {
        let core = &mut coordinator.state().core;
        for server in [ServerId(0), ServerId(1)] {
            let path = Path {
                local: SocketAddrV4::new(Ipv4Addr::LOCALHOST, 5_000),
                window_bytes_max: 1 << 16,
            };
            core.open(server, path, now);
        }
        let list = core.preference_list(&key, wish.quorum);
        let waiter = oneshot::channel().0;
        core.read(&key, list, wish, waiter, now).unwrap();
        for _ in 0..V1_GREETINGS {
            send_all(core, now);
            for server in [ServerId(0), ServerId(1)] {
                core.handle_datagram(server, &bytes::Bytes::new(), now);
            }
            now.at += V1_PAUSE;
        }
        for server in [ServerId(0), ServerId(1)] {
            assert_eq!(core.speaks(server), Speaks::V1);
        }
        send_all(core, now);
    }

    let read = coordinator.read(&key, wish).await;
    assert!(matches!(read, Err(NotBegun::NoTags { .. })));
    assert!(coordinator.state().core.wants_to_send());
    for _ in 0..10 {
        tokio::task::yield_now().await;
    }
    assert!(!coordinator.state().core.wants_to_send(), "the driver sent");
}

fn send_all(core: &mut Core<Waiter>, now: Now) {
    while let Some(server) = core.poll_server() {
        while core.poll_transmit(server, now).is_some() {}
    }
}
