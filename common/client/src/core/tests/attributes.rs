//! Records with attributes, from a write through wire and servers to a read and what it writes back.

use std::sync::mpsc::{Receiver, channel};

use super::*;
use dkvs_common::kv::Value;
use dkvs_common::model::ReplicaCommand;
use dkvs_common::quorum::read::ReadOutcome;
use dkvs_common::quorum::write::WriteOutcome;
use dkvs_common::record::{ContentType, OperationId};
use dkvs_common::tag::Tag;
use dkvs_storage_node::store::{Lookup, Part};
use proptest::prelude::*;

const SERVERS: [ServerId; 3] = [ServerId(0), ServerId(1), ServerId(2)];

/// Three servers, and a core that knows them.
struct World {
    core: Core,
    services: [Service; 3],
    now: Now,
    /// The servers that puts and blocks reach; everything else reaches all.
    reached: Vec<ServerId>,
}

/// What a server holds.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Held {
    tag: Tag,
    attributes: Attributes,
    content: Content,
    checksum: u32,
}

impl World {
    fn new() -> Self {
        let service = |boot_id| {
            let store = Store::Memory(MemoryStore::new(1 << 24));
            Service::new(store, ServiceConfig::new(boot_id))
        };
        let (mut core, now) = (core_of(3), now());
        let endpoint = Endpoint {
            local: SocketAddrV4::new(Ipv4Addr::LOCALHOST, 5_000),
            window_bytes_max: 1 << 16,
        };
        for server in SERVERS {
            core.open(server, endpoint, 7, now);
        }
        let mut world = Self {
            core,
            services: [1, 2, 3].map(service),
            now,
            reached: SERVERS.to_vec(),
        };
        let second = Duration::from_secs(1);
        let status = world.core.status(second, CallerId::Internal, now, |_| {});
        status.unwrap();
        world.exchange();
        world
    }

    fn options(wait: Wait) -> RequestOptions {
        RequestOptions {
            quorum: Quorum::new(3, 2).unwrap(),
            wait,
            ..options(Level::Linearizable)
        }
    }

    /// Writes to the servers of `reached`, which have to be enough; the tag.
    fn write(
        &mut self,
        content: &Content,
        attributes: Attributes,
        tag: Option<Tag>,
        reached: &[ServerId],
    ) -> Tag {
        self.reached = reached.to_vec();
        let (ended, results) = channel();
        let options = Self::options(Wait::Quorum);
        let request = WriteRequest {
            list: self.core.preference_list(&key(), options.quorum),
            key: key(),
            content: content.clone(),
            attributes,
            tag,
            options,
        };
        let on_end = move |result: WriteResult| {
            let outcome = result.write.outcome();
            ended.send((outcome, result.tag)).unwrap();
        };
        self.core.write(request, self.now, on_end).unwrap();
        self.exchange();
        self.reached = SERVERS.to_vec();
        let (outcome, tag) = of_end(results);
        assert_eq!(outcome, Some(WriteOutcome::Committed));
        tag.unwrap()
    }

    /// Reads from all servers, and carries out what follows.
    fn read(&mut self) -> ReadOutcome {
        let (ended, results) = channel();
        let on_end = move |result: ReadResult| {
            ended.send(result.read.outcome().cloned()).unwrap();
        };
        let options = Self::options(Wait::All);
        begin_read(&mut self.core, key(), options, self.now, on_end).unwrap();
        self.exchange();
        of_end(results).unwrap()
    }

    fn exchange(&mut self) {
        while let Some(server) = self.core.poll_server() {
            while let Some(datagram) = self.core.poll_transmit(server, self.now) {
                let datagram = Bytes::from(datagram);
                if !self.reached.contains(&server) && stores(&datagram) {
                    continue;
                }
                let received = Received {
                    datagram,
                    peer: (Ipv4Addr::LOCALHOST, 5_000).into(),
                    at: self.now.at,
                    waited: Duration::ZERO,
                };
                let (mut replies, backlog) = (Vec::new(), &mut Backlog::new(|| {}));
                let service = &self.services[server.index()];
                service.handle_v2(&received, &mut Access::Open, backlog, &mut |reply| {
                    replies.push(reply);
                });
                for reply in replies {
                    self.core.handle_datagram(server, &reply.into(), self.now);
                }
            }
        }
    }

    fn held(&self, server: ServerId) -> Option<Held> {
        let store = self.services[server.index()].store();
        let held = store.read_now(&key(), Part::Whole, |held| {
            let content = match held.head().is_tombstone {
                true => Content::Tombstone,
                false => value(held.content_type(), held.value()),
            };
            Held {
                tag: held.head().tag,
                attributes: held.attributes(),
                content,
                checksum: held.head().checksum,
            }
        });
        match held {
            Lookup::Found(held) => Some(held),
            Lookup::Absent => None,
            Lookup::Corrupt => panic!("it is sound"),
        }
    }
}

fn of_end<T>(results: Receiver<T>) -> T {
    results.try_recv().expect("it has ended")
}

fn stores(datagram: &Bytes) -> bool {
    let (_, mut messages) = open(datagram, Proof::Checksum).unwrap();
    let requests = std::iter::from_fn(|| next_request(&mut messages).unwrap());
    requests.into_iter().any(|message| {
        matches!(
            message.unwrap().request,
            Request::Command(
                ReplicaCommand::Put { .. }
                    | ReplicaCommand::PutStaged { .. }
                    | ReplicaCommand::Stage { .. }
            )
        )
    })
}

fn key() -> Key {
    Key::new("key").unwrap()
}

fn value(content_type: &[u8], value: &[u8]) -> Content {
    Content::Value {
        content_type: ContentType::new(content_type.to_vec()).unwrap(),
        value: Value::new(value.to_vec()).unwrap(),
    }
}

fn attributes() -> impl Strategy<Value = Attributes> {
    let born = prop_oneof![Just(0), any::<u32>()];
    let operation = any::<Option<[u8; 16]>>();
    (born, any::<Option<u64>>(), operation).prop_map(|(born, expires_ms, operation)| Attributes {
        born,
        expires_ms,
        operation: operation.map(OperationId),
    })
}

/// A tombstone, or a value that fits a datagram, just about, or not.
fn content() -> impl Strategy<Value = Content> {
    let value_bytes = prop_oneof![0..100_usize, 1_050..1_200_usize, 5_000..20_000_usize];
    let kind = prop::collection::vec(any::<u8>(), 0..40);
    prop_oneof![
        1 => Just(Content::Tombstone),
        4 => (kind, value_bytes, any::<u8>()).prop_map(|(kind, bytes, first)| {
            let bytes: Vec<u8> = (0..bytes).map(|at| first.wrapping_add(at as u8)).collect();
            value(&kind, &bytes)
        }),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]

    #[test]
    fn any_record_is_put_read_and_written_back_as_it_is(
        attributes in attributes(),
        content in content(),
    ) {
        let mut world = World::new();
        let tag = world.write(&content, attributes, None, &SERVERS[..2]);
        let written = world.held(SERVERS[0]).unwrap();
        prop_assert_eq!(&written.content, &content);
        prop_assert_eq!((written.tag, written.attributes), (tag, attributes));
        prop_assert_eq!(world.held(SERVERS[2]), None, "it did not arrive");
        let found = match world.read() {
            ReadOutcome::Found(value, version) => {
                prop_assert_eq!(version.tag, Some(tag));
                Content::Value { content_type: version.content_type, value }
            }
            outcome => {
                prop_assert_eq!(outcome, ReadOutcome::Absent);
                Content::Tombstone
            }
        };
        prop_assert_eq!(found, content);
        for server in SERVERS {
            prop_assert_eq!(world.held(server), Some(written.clone()));
        }
    }
}

#[test]
fn of_a_write_that_is_sent_again_the_greater_age_is_kept_and_written_back() {
    for content in [
        Content::Tombstone,
        value(b"a/b", b"short"),
        value(b"a/b", &[7; 9_000]),
    ] {
        let mut world = World::new();
        let attributes = Attributes {
            born: 5,
            expires_ms: Some(1_000),
            operation: None,
        };
        let tag = world.write(&content, attributes, None, &SERVERS[..2]);
        let later = attributes.born_at_least(8);
        world.write(&content, later, Some(tag), &SERVERS[1..]);
        let earlier = Attributes {
            born: 2,
            ..attributes
        };
        world.write(&content, earlier, Some(tag), &SERVERS[..2]);
        let ages = |world: &World| SERVERS.map(|it| world.held(it).map(|held| held.attributes));
        assert_eq!(
            ages(&world),
            [Some(attributes), Some(later), Some(later)],
            "each has the greatest that it was put with"
        );
        for lost in [0, 2] {
            let store = Store::Memory(MemoryStore::new(1 << 24));
            world.services[lost] = Service::new(store, ServiceConfig::new(3));
        }
        world.read();
        assert_eq!(ages(&world), [Some(later); 3]);
    }
}
