//! What a server answers: a request's bytes in, a response out. No sockets, no clock.

pub mod access;
pub mod dump;
pub mod late;
mod list;
mod replies;
pub mod sessions;
mod stage;
mod uploads;
mod v2;

use std::collections::HashSet;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use dkvs_common::kv::{Key, Value};
use dkvs_common::record::{Content, ContentType};
use dkvs_common::tag::TagClock;
use dkvs_common::wire::v1::{GetReply, PutReply, Request};
use dkvs_common::wire::v2::{DATAGRAM_BYTES_DEFAULT, VALUE_BYTES_DEFAULT};

use crate::store::{
    Completion, Lookup, PutOutcome, PutResult, RecordStore as _, Store, StoreError,
};
use dump::Dump;
use late::{Mailbox, later_v1};
use uploads::{UploadId, Uploads};

pub use uploads::UploadCounts;

/// The store, and how requests change and read it.
pub struct Service {
    store: Store,
    config: Config,
    /// Mints the tags of what comes without one.
    clock: Arc<Mutex<TagClock>>,
    /// One table for all workers, so that its limits hold for all of them together. Blocks are
    /// rare beside gets and puts, and none waits here for longer than it takes to copy a block or
    /// to make room for a value.
    uploads: Mutex<Uploads>,
    /// Uploads whose values wait for the disk: a put of them that comes again has its reply coming.
    pending_uploads: Arc<Mutex<HashSet<UploadId>>>,
    /// For the mutant that acknowledges before it stores: what it has not stored.
    #[cfg(feature = "mutants")]
    late: Mutex<Vec<(Key, dkvs_common::record::Record)>>,
    /// What happened so far.
    pub counters: Arc<Counters>,
}

/// What a server is told about itself.
#[derive(Debug, Clone, Copy)]
pub struct Config {
    /// Random, and another one after every start.
    pub boot_id: u64,
    /// The longest DKVS/2 datagram to send, in bytes.
    pub datagram_bytes_max: usize,
    /// The longest value to store by DKVS/2, in bytes.
    pub value_bytes_max: usize,
    /// The ring that the server belongs to, if it knows: requests for another are refused.
    pub epoch: Option<u32>,
    /// The memory for uploads, in bytes; no less than four of the longest values.
    pub upload_bytes_max: usize,
    /// Whether DKVS/1 is answered. If not, what is no DKVS/2 gets no answer.
    pub is_v1_on: bool,
}

/// The memory for uploads by default, in bytes.
pub const UPLOAD_BYTES_DEFAULT: usize = 64 << 20;

impl Config {
    /// The defaults.
    pub fn new(boot_id: u64) -> Self {
        Self {
            boot_id,
            datagram_bytes_max: DATAGRAM_BYTES_DEFAULT,
            value_bytes_max: VALUE_BYTES_DEFAULT,
            epoch: None,
            upload_bytes_max: UPLOAD_BYTES_DEFAULT,
            is_v1_on: true,
        }
    }
}

/// A datagram as it arrived.
#[derive(Debug, Clone)]
pub struct Received {
    /// Its bytes.
    pub datagram: Bytes,
    /// Who sent it, or says so.
    pub peer: SocketAddr,
    /// When it was taken from the socket.
    pub at: Instant,
    /// How long it had been there by then, as far as that is known.
    pub waited: Duration,
}

/// What a datagram gets.
pub enum Response {
    /// One datagram back.
    Datagram(Bytes),
    /// As many datagrams as the dump makes, step by step ([`Service::step`]).
    Dump(Dump),
    /// Nothing, or nothing yet: DKVS/1 is off, the put waits for the disk, another dump is under
    /// way, or DKVS/1 has no word for what there is to say.
    Silence,
}

/// Counts since the start.
#[derive(Debug, Default)]
pub struct Counters {
    /// Gets answered, with a value or without.
    pub gets: Counter,
    /// Puts stored.
    pub puts: Counter,
    /// Puts refused because memory or disk are full.
    pub puts_refused_full: Counter,
    /// Puts refused because too much waited for the disk.
    pub puts_refused_busy: Counter,
    /// Puts refused because the disk had failed, or failed under them.
    pub puts_failed: Counter,
    /// Questions of which the answer is that the record is damaged, or may be.
    pub corrupt_answers: Counter,
    /// Dumps begun.
    pub dumps: Counter,
    /// Dumps dropped because another was under way.
    pub dumps_dropped: Counter,
    /// Dumps that ended early, because too much changed meanwhile.
    pub dumps_cut_short: Counter,
    /// Pairs left out of dumps because DKVS/1 cannot carry them, or the store does not vouch for
    /// them.
    pub dump_pairs_left_out: Counter,
    /// Datagrams of DKVS/2 that proved whole.
    pub datagrams: Counter,
    /// Requests in them that were understood.
    pub messages: Counter,
    /// Keys left out of lists because no datagram holds them, each time.
    pub list_keys_left_out: Counter,
    /// Datagrams or messages that were no request.
    pub malformed: Counter,
    /// Datagrams and records that did not match their checksum.
    pub damaged: Counter,
    /// DKVS/2 datagrams that did not authenticate, where they have to.
    pub unauthenticated: Counter,
    /// Authentic ones under a session that is another's or too old.
    pub sessions_refused: Counter,
    /// Authentic ones without a session that held more than one greeting.
    pub not_greetings: Counter,
    /// Authentic ones that came before, or were too late to tell.
    pub replayed: Counter,
    /// Requests that were looked at when nobody waited for the reply any more.
    pub expired: Counter,
    /// Datagrams that were no DKVS/2 where DKVS/1 is off.
    pub v1_refused: Counter,
    /// Replies that the path to their client would not carry whole.
    pub replies_too_long: Counter,
    /// Gets of values that DKVS/1 cannot carry, answered as unknown.
    pub values_unrepresentable: Counter,
    /// Datagrams that the system would not receive or send.
    pub io_errors: Counter,
}

/// A count that only grows.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

impl Counter {
    /// Counts `more`.
    pub fn add(&self, more: u64) {
        self.0.fetch_add(more, Ordering::Relaxed);
    }

    /// The count.
    pub fn count(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

impl Service {
    /// Serves `store`.
    pub fn new(store: Store, config: Config) -> Self {
        let value_bytes_max = config.value_bytes_max;
        let upload_bytes_max = config
            .upload_bytes_max
            .max(value_bytes_max.saturating_mul(4));
        Self {
            store,
            config,
            // The boot id is as random as the clock's operations have to be.
            clock: Arc::new(Mutex::new(TagClock::for_v1(config.boot_id as u32))),
            uploads: Mutex::new(Uploads::new(upload_bytes_max, value_bytes_max)),
            pending_uploads: Arc::default(),
            #[cfg(feature = "mutants")]
            late: Mutex::default(),
            counters: Arc::default(),
        }
    }

    /// The store, for statistics and for pairs that are there from the start.
    pub fn store(&self) -> &Store {
        &self.store
    }

    /// The store, for whoever goes on with it when this service has ended. Uploads that are under
    /// way are gone.
    pub fn into_store(self) -> Store {
        self.store
    }

    /// Has what waits for the disk taken there: to be called once what came together is handled.
    pub fn wake_disk(&self) {
        if let Store::Disk(store) = &self.store {
            store.wake();
        }
    }

    /// Answers one datagram of DKVS/1, if that is on, now or by the mailbox. `unix_ms` is what the
    /// wall clock shows.
    pub fn handle_v1(
        &self,
        datagram: Bytes,
        peer: SocketAddr,
        unix_ms: u64,
        mailbox: &Arc<Mailbox>,
    ) -> Response {
        if !self.config.is_v1_on {
            self.counters.v1_refused.add(1);
            return Response::Silence;
        }
        match Request::decode(datagram) {
            Ok(Request::Get(key)) => match self.get(&key) {
                Some(reply) => Response::Datagram(reply.encode()),
                None => Response::Silence,
            },
            Ok(Request::Put(key, value)) => {
                let counters = Arc::clone(&self.counters);
                let reply = move |told| put_reply(&counters, told).encode();
                let later = || later_v1(mailbox, peer, reply.clone());
                match self.put(&key, &value, unix_ms, later) {
                    Some(told) => Response::Datagram(reply(told)),
                    None => Response::Silence,
                }
            }
            Ok(Request::Dump) => self.dump().map_or(Response::Silence, Response::Dump),
            Err(malformed) => {
                self.counters.malformed.add(1);
                tracing::debug!(%malformed, "a datagram that is no request");
                Response::Datagram(malformed.reply())
            }
        }
    }

    /// None if it cannot be told whether there is a value: DKVS/1 has no word for that.
    fn get(&self, key: &Key) -> Option<GetReply> {
        self.counters.gets.add(1);
        let value = self.store.get(key, |held| {
            let value = || Value::new(Bytes::copy_from_slice(held.value())).ok();
            if held.is_tombstone() { None } else { value() }
        });
        let value = match value {
            Lookup::Found(Some(value)) => value,
            Lookup::Found(None) | Lookup::Absent => return Some(GetReply::Unknown),
            Lookup::Corrupt => {
                self.counters.corrupt_answers.add(1);
                return None;
            }
        };
        let (reply, unrepresentable) = GetReply::of_stored(value);
        if let Some(reason) = unrepresentable {
            self.counters.values_unrepresentable.add(1);
            tracing::debug!(?key, %reason, "told as unknown");
        }
        Some(reply)
    }

    /// DKVS/1 has no tags: whatever comes last is the newest.
    fn put(
        &self,
        key: &Key,
        value: &Value,
        unix_ms: u64,
        later: impl FnOnce() -> Completion<PutResult>,
    ) -> Option<PutResult> {
        let content = Content::Value {
            content_type: ContentType::default(),
            value: value.clone(),
        };
        let clock = Arc::clone(&self.clock);
        let mint = move |held| {
            let mut clock = clock.lock().unwrap_or_else(PoisonError::into_inner);
            clock.mint(unix_ms, held)
        };
        self.store.apply_next(key, &content, Box::new(mint), later)
    }
}

/// DKVS/1 knows stored and not stored.
fn put_reply(counters: &Counters, told: PutResult) -> PutReply {
    match note(counters, told) {
        Ok(_) => PutReply::Stored,
        Err(_) => PutReply::Failed,
    }
}

/// Counts what a put came to.
fn note(counters: &Counters, told: PutResult) -> PutResult {
    match told {
        Ok(PutOutcome::Stored) => counters.puts.add(1),
        Ok(PutOutcome::Superseded(_)) => {}
        Err(refused) => {
            match refused {
                StoreError::Full(_) | StoreError::DiskFull => counters.puts_refused_full.add(1),
                StoreError::Busy => counters.puts_refused_busy.add(1),
                StoreError::ReadOnly | StoreError::Failed => counters.puts_failed.add(1),
                StoreError::NoTag => {}
            }
            tracing::debug!(%refused, "a put is refused");
        }
    }
    told
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::MemoryStore;
    use dkvs_common::wire::v1::KEY_OR_VALUE_BYTES_MAX;
    use dump::DumpStep;
    use serde::Deserialize;

    pub(super) fn service(bytes_max: usize) -> Service {
        Service::new(Store::Memory(MemoryStore::new(bytes_max)), Config::new(1))
    }

    pub(super) fn replies(service: &Service, datagram: impl Into<Bytes>) -> Vec<Bytes> {
        let mailbox = Mailbox::new(|| {});
        let peer = ([127, 0, 0, 1], 4_000).into();
        match service.handle_v1(datagram.into(), peer, 1_000, &mailbox) {
            Response::Datagram(reply) => vec![reply],
            Response::Dump(mut dump) => {
                let mut datagrams = Vec::new();
                loop {
                    match service.step(&mut dump) {
                        DumpStep::Datagram(datagram) => datagrams.push(datagram),
                        DumpStep::Pause => {}
                        DumpStep::End => return datagrams,
                    }
                }
            }
            Response::Silence => Vec::new(),
        }
    }

    #[derive(Deserialize)]
    struct Vectors {
        exchanges: Vec<Exchange>,
    }

    #[derive(Deserialize)]
    struct Exchange {
        name: String,
        request: String,
        reply: Option<Vec<String>>,
        reply_pattern: Option<String>,
    }

    fn bytes_of_hex(hex: &str) -> Bytes {
        (0..hex.len() / 2)
            .map(|at| u8::from_str_radix(&hex[2 * at..2 * at + 2], 16).unwrap())
            .collect()
    }

    fn sorted_lines(text: &str) -> Vec<&str> {
        let mut lines: Vec<_> = text.lines().collect();
        lines[1..].sort_unstable();
        lines
    }

    #[test]
    fn wire_v1_vectors_hold() {
        let text = include_str!("../../../common/tests/vectors/wire-v1.json");
        let vectors: Vectors = serde_json::from_str(text).unwrap();
        assert_eq!(vectors.exchanges.len(), 13);
        let service = service(usize::MAX);
        for exchange in vectors.exchanges {
            let got = replies(&service, bytes_of_hex(&exchange.request));
            if let Some(expected) = exchange.reply {
                let expected: Vec<_> = expected.iter().map(|hex| bytes_of_hex(hex)).collect();
                assert_eq!(got, expected, "{}", exchange.name);
            }
            if let Some(pattern) = exchange.reply_pattern {
                let text = String::from_utf8(got.concat()).unwrap();
                assert_eq!(
                    sorted_lines(&text),
                    sorted_lines(&pattern),
                    "{}",
                    exchange.name
                );
            }
        }
    }

    #[test]
    fn with_dkvs_1_off_nothing_is_answered_or_stored() {
        let config = Config {
            is_v1_on: false,
            ..Config::new(1)
        };
        let service = Service::new(Store::Memory(MemoryStore::new(usize::MAX)), config);
        for datagram in [&b""[..], b"k", b"k\0v", b"\0", b"\0v", b"\0DK3"] {
            assert_eq!(replies(&service, datagram), [""; 0]);
        }
        assert_eq!(service.counters.v1_refused.count(), 6);
        assert_eq!(service.store().len(), 0);
    }

    #[test]
    fn a_full_store_refuses_puts_and_serves_gets() {
        let service = service(crate::store::ENTRY_OVERHEAD_BYTES + 24 + 2);
        assert_eq!(replies(&service, &b"a\x001"[..]), ["\0"]);
        assert_eq!(replies(&service, &b"b\x002"[..]), [""]);
        assert_eq!(replies(&service, &b"a"[..]), ["1"]);
        assert_eq!(service.counters.puts_refused_full.count(), 1);
    }

    #[test]
    fn a_value_that_the_protocol_cannot_carry_is_told_as_unknown_and_counted() {
        let service = service(usize::MAX);
        let key = Key::new("k").unwrap();
        for value in [vec![0, 1], vec![b'v'; KEY_OR_VALUE_BYTES_MAX + 1]] {
            let content = Content::Value {
                content_type: ContentType::default(),
                value: Value::new(value).unwrap(),
            };
            let mut clock = TagClock::new(2);
            let mint = Box::new(move |held| clock.mint(2_000, held));
            let put = service
                .store()
                .apply_next(&key, &content, mint, || Box::new(drop));
            put.unwrap().unwrap();
            assert_eq!(replies(&service, "k"), ["\0"]);
        }
        assert_eq!(service.counters.values_unrepresentable.count(), 2);
    }
}
