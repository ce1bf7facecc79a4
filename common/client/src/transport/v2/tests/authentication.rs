//! Requests and replies of a cluster that has keys.

use std::sync::Arc;
use std::time::Duration;

use super::super::link::LinkEvent;
use super::super::peer::{PeerConfig, PeerVersion};
use super::fixtures::{CLIENT, SECOND, config};
use super::world::{Faults, World};
use dkvs_common::wire::v2::keys::Keys;

fn keys(text: &str) -> Arc<Keys> {
    let lines = text.split_whitespace().map(|id| {
        let from: u8 = id.parse().unwrap();
        let digits: String = (from..from + 32)
            .map(|byte| format!("{byte:02x}"))
            .collect();
        format!("{id} {digits}\n")
    });
    let text: String = lines.collect();
    Arc::new(Keys::parse("test", text.as_bytes()).unwrap())
}

fn with_keys(text: &str) -> PeerConfig {
    PeerConfig {
        keys: Some((keys(text), CLIENT)),
        ..config()
    }
}

#[test]
fn with_keys_everything_is_authenticated_and_rotation_loses_nothing() {
    let mut world = World::with(with_keys("1"), 5, Faults::default());
    world.server.keys = Some(keys("1"));
    let mut number = 0;
    let mut ask = |world: &mut World| {
        world.put(number, world.now + SECOND);
        world.run(world.now + Duration::from_millis(5));
        assert_eq!(world.replied().len() as u64, number + 1);
        number += 1;
    };
    ask(&mut world);
    // The new key is made known to both, then used by both, then the old one is forgotten.
    world.server.keys = Some(keys("1 2"));
    ask(&mut world);
    world.link.set_keys(keys("1 2"));
    ask(&mut world);
    world.link.set_keys(keys("2 1"));
    ask(&mut world);
    world.server.keys = Some(keys("2"));
    ask(&mut world);
    world.link.set_keys(keys("2"));
    ask(&mut world);
    assert_eq!(world.link.counters().damaged, 0);
    assert_eq!(world.server.sessions_refused, 0);
}

#[test]
fn with_keys_one_request_is_enough_to_notice_a_restart() {
    let mut world = World::with(with_keys("1"), 5, Faults::default());
    world.server.keys = Some(keys("1"));
    world.put(1, world.now + SECOND);
    world.run(world.now + Duration::from_millis(5));
    assert_eq!(world.replied(), [1].into());

    // Before the next greeting is due, so that the request goes out under the old session.
    world.server.boot_id += 1;
    world.put(2, world.now + 10 * SECOND);
    world.run(world.now + SECOND);
    assert!(world.server.sessions_refused > 0);
    assert_eq!(world.replied(), [1, 2].into());
}

#[test]
fn with_keys_unauthenticated_replies_are_ignored() {
    for server_keys in [None, Some(keys("2"))] {
        let mut world = World::with(with_keys("1"), 5, Faults::default());
        world.server.speaks_v1_only = server_keys.is_none();
        world.server.keys = server_keys;
        world.put(1, world.now + SECOND);
        world.run(world.now + 2 * SECOND);
        assert!(matches!(
            world.events[..],
            [(_, LinkEvent::Expired { token: 1 })]
        ));
        assert_eq!(world.link.speaks(), PeerVersion::Unknown);
    }
}
