//! A worker at its socket: whose turn it is.

use super::*;
use crate::config::ServiceConfig;
use crate::handlers::RECORDS_PER_SLICE_MAX;
use crate::store::{MemoryStore, RecordStore as _, Store};
use dkvs_common::kv::Key;
use dkvs_common::model::{Direction, KeyPosition, ReplicaCommand, ReplicaResponse};
use dkvs_common::record::{Content, Record};
use dkvs_common::tag::Tag;
use dkvs_common::wire::v2::envelope::{self, Builder, Envelope, Proof};
use dkvs_common::wire::v2::message::{RequestId, RequestMessage, next_reply};
use dkvs_common::wire::v2::reply::Reply;

/// Records in the store, with keys too long for a page: one looks at all of them, in sixteen slices.
const RECORDS: usize = 4_096;

/// Lists that wait at a time.
const LISTS: u64 = 40;

/// The number of the first get; those of lists are less.
const GETS: u64 = 1_000;

fn key(number: usize) -> Key {
    Key::new(format!("{number:01200}")).unwrap()
}

fn service() -> Arc<Service> {
    let store = Store::Memory(MemoryStore::new(usize::MAX));
    let service = Service::new(store, ServiceConfig::new(1));
    for number in 0..RECORDS {
        let key = key(number);
        let record = Record::new(&key, Tag { time: 1, op: 2 }, Content::Tombstone);
        let put = service.store().apply(&key, &record, || Box::new(drop));
        put.unwrap().unwrap();
    }
    Arc::new(service)
}

fn datagram(number: u64, command: ReplicaCommand) -> Vec<u8> {
    let envelope = Envelope {
        sender: envelope::Sender::Client,
        epoch: dkvs_common::epoch::StatedEpoch::None,
        authentication: None,
    };
    let mut builder = Builder::new(envelope, 1_200);
    let message = RequestMessage {
        id: RequestId(number),
        wait_ms: u16::MAX,
        request: command.into(),
    };
    assert!(builder.push(|datagram| message.encode(datagram)));
    builder.finish()
}

fn list(number: u64) -> Vec<u8> {
    let list = ReplicaCommand::List {
        prefix: Bytes::new(),
        start: KeyPosition::START,
        direction: Direction::Ascending,
        limit: u16::MAX,
    };
    datagram(number, list)
}

/// The numbers of the requests that the next datagram answers.
async fn answered(socket: &UdpSocket) -> Vec<u64> {
    let mut buffer = [0; 2_000];
    let length = socket.recv(&mut buffer).await.unwrap();
    let datagram = Bytes::copy_from_slice(&buffer[..length]);
    let (_, mut messages) = envelope::open(&datagram, Proof::Checksum).unwrap();
    let mut numbers = Vec::new();
    while let Some(message) = next_reply(&mut messages).unwrap() {
        let is_page = matches!(message.reply, Reply::Response(ReplicaResponse::Page { .. }));
        assert_eq!(is_page, message.id.0 < GETS);
        numbers.push(message.id.0);
    }
    numbers
}

/// One thread, so that how much a worker does before it answers can be counted.
#[tokio::test]
async fn a_get_is_answered_before_the_next_slice_of_the_lists_that_wait() {
    let service = service();
    let sockets = Sockets::bind(([127, 0, 0, 1], 0).into(), NonZeroUsize::MIN).unwrap();
    let server = sockets.local_addr().unwrap();
    let [socket] = <[_; 1]>::try_from(sockets.into_inner()).unwrap();
    let worker = Worker::new(socket, Arc::clone(&service));
    let (lister, getter) = (
        UdpSocket::bind("127.0.0.1:0").await.unwrap(),
        UdpSocket::bind("127.0.0.1:0").await.unwrap(),
    );
    lister.connect(server).await.unwrap();
    getter.connect(server).await.unwrap();
    for number in 0..LISTS {
        lister.send(&list(number)).await.unwrap();
    }
    let shutdown = CancellationToken::new();
    let run = tokio::spawn(worker.run(shutdown.clone()));
    let examined = || service.counters.list_records_examined.count();
    let all = LISTS * RECORDS as u64;
    let mut gets = 0;
    while examined() < all / 2 {
        let before = examined();
        let key = Key::new("k").unwrap();
        let get = ReplicaCommand::Get { key };
        getter.send(&datagram(GETS + gets, get)).await.unwrap();
        assert_eq!(answered(&getter).await, [GETS + gets]);
        // The slice that was due when the get was sent, and the one that the reply crossed.
        let slices = (examined() - before).div_ceil(RECORDS_PER_SLICE_MAX as u64);
        assert!(slices <= 3, "{slices} slices came before the get {gets}");
        gets += 1;
    }
    assert!(gets >= all / 2 / 3 / RECORDS_PER_SLICE_MAX as u64, "{gets}");
    let mut pages = Vec::new();
    while pages.len() < LISTS as usize {
        pages.extend(answered(&lister).await);
    }
    pages.sort_unstable();
    assert!(pages.into_iter().eq(0..LISTS));
    assert_eq!(examined(), all);
    shutdown.cancel();
    run.await.unwrap().unwrap();
}
