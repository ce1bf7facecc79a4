//! DKVS/2: a datagram of requests in, datagrams of replies out.

use dkvs_common::model::{Refusal, ReplicaCommand, ReplicaResponse};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use dkvs_common::kv::Key;
use dkvs_common::model::Statistic;
use dkvs_common::mutants::{self, Mutant};
use dkvs_common::record::{Content, ContentType, Digest, Record};
use dkvs_common::tag::Tag;
use dkvs_common::trace::Trace;
use dkvs_common::wire::v2::message::{ReplyMessage, RequestId, RequestMessage, next_request};
use dkvs_common::wire::v2::reply::{Greeting, PAGE_HEAD_BYTES, RECORD_HEAD_BYTES, Reply};
use dkvs_common::wire::v2::request::Request;

use super::access::{Access, Standing};
use super::late::{Mailbox, ReplyTo};
use super::replies::Replies;
use super::stage::StagedRecord;
use super::uploads::{Block, Shape, UploadId};
use super::{Counters, Received, Service, note};
use crate::store::{
    AttestError, Lookup, Packed, PutOutcome, PutResult, RecordStore as _, Store, StoreError,
};

/// What the requests of a datagram have in common.
#[derive(Clone, Copy)]
struct Origin<'a> {
    /// The ring of the sender.
    epoch: u32,
    peer: SocketAddr,
    standing: Standing,
    /// When the datagram was taken from the socket.
    now: Instant,
    /// How long it had lain there.
    waited: Duration,
    /// Where replies go that come later.
    mailbox: &'a Arc<Mailbox>,
}

impl<'a> Origin<'a> {
    fn reply_to<'b>(self, id: RequestId, operation: u8, replies: &'b Replies<'_>) -> ReplyTo<'b>
    where
        'a: 'b,
    {
        ReplyTo {
            mailbox: self.mailbox,
            peer: self.peer,
            seal: replies.seal(),
            id,
            operation,
        }
    }
}

/// The answer to a put.
pub(super) fn put_reply(counters: &Counters, told: PutResult) -> ReplicaResponse {
    match note(counters, told) {
        Ok(PutOutcome::Stored) => ReplicaResponse::Done,
        Ok(PutOutcome::Superseded(tag)) => ReplicaResponse::Superseded { tag },
        Err(refused) => refusal(refused),
    }
}

/// What `reply` makes of a record that has a value.
fn of_held(held: &Packed, reply: impl FnOnce(&Packed) -> ReplicaResponse) -> ReplicaResponse {
    match held.is_tombstone() {
        true if mutants::is_on(Mutant::TombstoneDropped) => {
            ReplicaResponse::Absent { tag: Tag::ZERO }
        }
        true => ReplicaResponse::Absent { tag: held.tag() },
        false => reply(held),
    }
}

fn refusal(refused: StoreError) -> ReplicaResponse {
    match refused {
        StoreError::Full(_) | StoreError::DiskFull => ReplicaResponse::Refused(Refusal::Full),
        StoreError::Busy => ReplicaResponse::Refused(Refusal::Busy),
        StoreError::ReadOnly => ReplicaResponse::Refused(Refusal::ReadOnly),
        StoreError::Failed | StoreError::NoTag => ReplicaResponse::Refused(Refusal::Internal),
    }
}

/// Adds a reply to those that leave together; returns its status.
fn push(replies: &mut Replies<'_>, id: RequestId, operation: u8, reply: Reply) -> u8 {
    let status = reply.status();
    replies.push(&ReplyMessage {
        id,
        operation,
        reply,
    });
    status
}

impl Service {
    /// Answers a DKVS/2 datagram, its requests together, by calls of `send` with a datagram each;
    /// what has to wait for the disk is answered by the mailbox. One that does not prove, was taken
    /// before, or does not come from a client, gets no answer.
    pub fn handle_v2(
        &self,
        received: &Received,
        access: &mut Access,
        mailbox: &Arc<Mailbox>,
        send: &mut dyn FnMut(Vec<u8>),
    ) {
        #[cfg(feature = "mutants")]
        self.put_late();
        let Some(opened) = access.open(&received.datagram, received.peer, &self.counters) else {
            return;
        };
        let origin = Origin {
            epoch: opened.epoch,
            peer: received.peer,
            standing: opened.standing,
            now: received.at,
            waited: received.waited,
            mailbox,
        };
        self.counters.datagrams.add(1);
        let our_epoch = self.config.epoch.unwrap_or(0);
        let datagram_bytes_max = self.config.datagram_bytes_max;
        let mut replies = Replies::new(opened.seal, our_epoch, datagram_bytes_max, send);
        match opened.standing {
            Standing::Known { .. } => self.serve_all(opened.messages, origin, &mut replies),
            Standing::Stranger { .. } => self.greet(opened.messages, origin, &mut replies),
        }
        replies.finish();
    }

    /// Answers the greeting that a stranger's datagram begins with, and nothing else: a single
    /// answer, in the same envelope, is as long as its question.
    fn greet(&self, mut messages: Bytes, origin: Origin<'_>, replies: &mut Replies<'_>) {
        match next_request(&mut messages) {
            Ok(Some(Ok(message))) if matches!(message.request, Request::Greet { .. }) => {
                let _ = self.serve_in_time(message, origin, replies);
            }
            _ => return self.counters.not_greetings.add(1),
        }
        if !messages.is_empty() {
            self.counters.not_greetings.add(1);
        }
    }

    fn serve_all(&self, mut messages: Bytes, origin: Origin<'_>, replies: &mut Replies<'_>) {
        let mut traced: Option<(RequestId, Trace)> = None;
        loop {
            match next_request(&mut messages) {
                Ok(Some(Ok(message))) => match message.request {
                    Request::Trace { of, trace } => traced = Some((of, trace)),
                    _ => match traced.take_if(|(of, _)| *of == message.id) {
                        Some((_, trace)) => self.serve_traced(trace, message, origin, replies),
                        None => drop(self.serve_in_time(message, origin, replies)),
                    },
                },
                Ok(Some(Err(bad))) => {
                    self.counters.malformed.add(1);
                    tracing::debug!(error = %bad.error, "a request that is not understood");
                    let (id, operation, reply) = (
                        bad.id,
                        bad.operation,
                        ReplicaResponse::Refused(Refusal::Unsupported),
                    );
                    replies.push(&ReplyMessage {
                        id,
                        operation,
                        reply: reply.into(),
                    });
                }
                Ok(None) => break,
                Err(_) => {
                    self.counters.malformed.add(1);
                    break;
                }
            }
        }
    }

    /// Serves a request, and leaves a line in the log that its trace leads to.
    fn serve_traced(
        &self,
        trace: Trace,
        message: RequestMessage,
        origin: Origin<'_>,
        replies: &mut Replies<'_>,
    ) {
        let (operation, peer) = (message.request.name(), origin.peer);
        let key = match &message.request {
            Request::Command(command) => command.key(),
            Request::Greet { .. } | Request::Trace { .. } => None,
        };
        let key_bytes = key.map(|key| key.as_bytes().len());
        let status = self.serve_in_time(message, origin, replies);
        let Trace { trace_id, span_id } = trace;
        tracing::debug!(%trace_id, %span_id, operation, key_bytes, status, %peer, "served");
    }

    /// Serves a request unless nobody waits for its reply any more; gives the status of the reply,
    /// if it has left.
    fn serve_in_time(
        &self,
        message: RequestMessage,
        origin: Origin<'_>,
        replies: &mut Replies<'_>,
    ) -> Option<u8> {
        if origin.waited >= Duration::from_millis(message.wait_ms.into()) {
            self.counters.expired.add(1);
            return None;
        }
        self.serve(message, origin, replies)
    }

    fn serve(
        &self,
        message: RequestMessage,
        origin: Origin<'_>,
        replies: &mut Replies<'_>,
    ) -> Option<u8> {
        let Origin {
            epoch, peer, now, ..
        } = origin;
        let (id, operation) = (message.id, message.request.operation());
        self.counters.messages.add(1);
        let command = match message.request {
            Request::Command(command) => command,
            Request::Greet { .. } => {
                let reply = Reply::Greeting(self.greeting(origin.standing));
                return Some(push(replies, id, operation, reply));
            }
            // It is about another request, and is not answered.
            Request::Trace { .. } => return None,
        };
        let response = match command {
            ReplicaCommand::Ping => ReplicaResponse::Done,
            ReplicaCommand::GetStatistics => ReplicaResponse::Statistics(self.statistics(now)),
            _ if self.config.epoch.is_some_and(|ours| ours != epoch) => {
                ReplicaResponse::Refused(Refusal::WrongEpoch {
                    epoch: self.config.epoch.unwrap_or(0),
                })
            }
            ReplicaCommand::Get { key } => {
                return self.serve_get(id, operation, &key, replies);
            }
            ReplicaCommand::GetTag { key } => self.tag(&key),
            ReplicaCommand::GetDigest { key } => self.digest(&key),
            ReplicaCommand::Put { key, record } => {
                let reply_to = origin.reply_to(id, operation, replies);
                self.put_record(&key, &record, reply_to, || {})?
            }
            ReplicaCommand::GetBlock {
                key,
                tag,
                offset,
                block_bytes,
            } => {
                let block_bytes = usize::from(block_bytes).min(replies.block_bytes_max(&[]));
                self.block(&key, tag, offset, block_bytes)
            }
            ReplicaCommand::Stage {
                upload: number,
                value_bytes,
                offset,
                block_bytes,
                block: bytes,
            } => {
                let shape = Shape {
                    value_bytes,
                    block_bytes,
                };
                self.stage(
                    UploadId { peer, number },
                    shape,
                    &Block { offset, bytes },
                    now,
                )
            }
            ReplicaCommand::PutStaged {
                key,
                tag,
                content_type,
                upload: number,
                value_bytes,
                checksum,
            } => {
                let record = StagedRecord {
                    tag,
                    content_type,
                    value_bytes,
                    checksum,
                };
                let upload = UploadId { peer, number };
                let reply_to = origin.reply_to(id, operation, replies);
                self.put_staged(&key, record, upload, now, reply_to)?
            }
            ReplicaCommand::List {
                from,
                after,
                prefix,
                limit,
                accepts_left_out,
            } => {
                let start = (from, after.as_ref());
                let page_bytes_max =
                    replies.block_bytes_max(&[]) + RECORD_HEAD_BYTES - PAGE_HEAD_BYTES;
                let mut page = self.list(start, &prefix, limit.into(), page_bytes_max);
                if let ReplicaResponse::Page { is_left_out, .. } = &mut page {
                    *is_left_out &= accepts_left_out;
                }
                page
            }
            ReplicaCommand::Attest { boot_id, key, tag } => {
                let reply_to = origin.reply_to(id, operation, replies);
                self.vouch(boot_id, &key, tag, reply_to)?
            }
        };
        Some(push(replies, id, operation, response.into()))
    }

    fn greeting(&self, standing: Standing) -> Greeting {
        let (Standing::Known { session } | Standing::Stranger { session }) = standing;
        Greeting {
            boot_id: self.config.boot_id,
            session,
            datagram_bytes_max: u16::try_from(self.config.datagram_bytes_max).unwrap_or(u16::MAX),
            value_bytes_max: u32::try_from(self.config.value_bytes_max).unwrap_or(u32::MAX),
            durability: self.store.durability(),
        }
    }

    fn serve_get(
        &self,
        id: RequestId,
        operation: u8,
        key: &Key,
        replies: &mut Replies<'_>,
    ) -> Option<u8> {
        self.counters.gets.add(1);
        let record = |held: &Packed| {
            let block_bytes = replies.block_bytes_max(held.content_type());
            let value = held.value();
            let copy = Bytes::copy_from_slice;
            ReplicaResponse::Record {
                digest: Digest {
                    tag: held.tag(),
                    content_type: ContentType::new(copy(held.content_type())).unwrap_or_default(),
                    value_bytes: value.len() as u32,
                    checksum: held.checksum(),
                },

                block: copy(&value[..value.len().min(block_bytes)]),
            }
        };
        let response = self.show(key, record);
        Some(push(replies, id, operation, response.into()))
    }

    fn tag(&self, key: &Key) -> ReplicaResponse {
        self.show(key, |held| ReplicaResponse::Tag { tag: held.tag() })
    }

    fn digest(&self, key: &Key) -> ReplicaResponse {
        self.show(key, |held| ReplicaResponse::Digest {
            tag: held.tag(),
            value_bytes: held.value().len() as u32,
            checksum: held.checksum(),
        })
    }

    fn block(&self, key: &Key, tag: Tag, offset: u32, block_bytes: usize) -> ReplicaResponse {
        // The whole value may be thousands of blocks: it is verified once it is together.
        let block = |held: &Packed| {
            if held.tag() != tag {
                return ReplicaResponse::Superseded { tag: held.tag() };
            }
            let value = held.value();
            let start = (offset as usize).min(value.len());
            let end = start.saturating_add(block_bytes).min(value.len());
            ReplicaResponse::Block {
                offset,
                block: Bytes::copy_from_slice(&value[start..end]),
            }
        };
        self.told(self.store.get_unverified(key, |held| of_held(held, block)))
    }

    /// Answers for `key` from now on, if it holds `tag` or something newer. What was found of
    /// another start of the server says nothing of what it may have lost since.
    fn vouch(
        &self,
        boot_id: u64,
        key: &Key,
        tag: Tag,
        reply_to: ReplyTo<'_>,
    ) -> Option<ReplicaResponse> {
        if boot_id != self.config.boot_id {
            return Some(ReplicaResponse::Absent { tag: Tag::ZERO });
        }
        let reply = |told: PutResult| match told {
            Ok(_) => ReplicaResponse::Done,
            Err(refused) => refusal(refused),
        };
        match self.store.attest(key, tag, || reply_to.later(reply)) {
            Ok(told) => told.map(reply),
            Err(AttestError::Absent) => Some(ReplicaResponse::Absent { tag: Tag::ZERO }),
            Err(AttestError::Older(tag)) => Some(ReplicaResponse::Absent { tag }),
            Err(AttestError::Corrupt) => Some(ReplicaResponse::Refused(Refusal::Corrupt)),
        }
    }

    /// What `reply` makes of the key's value; a tombstone or nothing is absent.
    fn show(&self, key: &Key, reply: impl FnOnce(&Packed) -> ReplicaResponse) -> ReplicaResponse {
        self.told(self.store.get(key, |held| of_held(held, reply)))
    }

    fn told(&self, shown: Lookup<ReplicaResponse>) -> ReplicaResponse {
        match shown {
            Lookup::Found(reply) => reply,
            Lookup::Absent => ReplicaResponse::Absent { tag: Tag::ZERO },
            Lookup::Corrupt => {
                self.counters.corrupt_answers.add(1);
                ReplicaResponse::Refused(Refusal::Corrupt)
            }
        }
    }

    pub(super) fn too_large(&self) -> ReplicaResponse {
        let value_bytes_max = u32::try_from(self.config.value_bytes_max).unwrap_or(u32::MAX);
        ReplicaResponse::Refused(Refusal::TooLarge { value_bytes_max })
    }

    /// None if the reply comes later; `settled` is called before it leaves then.
    pub(super) fn put_record(
        &self,
        key: &Key,
        record: &Record,
        reply_to: ReplyTo<'_>,
        settled: impl FnOnce() + Send + 'static,
    ) -> Option<ReplicaResponse> {
        let value_bytes = match &record.content {
            Content::Value { value, .. } => value.len(),
            Content::Tombstone => 0,
        };
        if value_bytes > self.config.value_bytes_max {
            return Some(self.too_large());
        }
        if !record.is_sound(key) {
            self.counters.damaged.add(1);
            return Some(ReplicaResponse::Refused(Refusal::Corrupt));
        }
        #[cfg(feature = "mutants")]
        if mutants::is_on(Mutant::AcknowledgedBeforeStored) {
            self.put_later(key, record);
            return Some(ReplicaResponse::Done);
        }
        let counters = &self.counters;
        let later = || {
            let counters = Arc::clone(counters);
            reply_to.later(move |told| {
                settled();
                put_reply(&counters, told)
            })
        };
        let told = self.store.apply(key, record, later)?;
        Some(put_reply(counters, told))
    }

    /// [`Mutant::AcknowledgedBeforeStored`]: keeps a record that was confirmed until the next
    /// datagram comes.
    #[cfg(feature = "mutants")]
    fn put_later(&self, key: &Key, record: &Record) {
        self.late().push((key.clone(), record.clone()));
    }

    #[cfg(feature = "mutants")]
    fn put_late(&self) {
        for (key, record) in self.late().drain(..) {
            let _ = self.store.apply(&key, &record, || Box::new(drop));
        }
    }

    #[cfg(feature = "mutants")]
    fn late(&self) -> std::sync::MutexGuard<'_, Vec<(Key, Record)>> {
        let late = self.late.lock();
        late.unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    /// What the server says of itself, by the bytes of [`Statistic`].
    pub fn statistics(&self, now: Instant) -> Vec<(u8, u64)> {
        let counters = &self.counters;
        let (uploads, upload_bytes_reserved) = {
            let mut uploads = self.uploads();
            uploads.expire(now);
            (uploads.counts(), uploads.bytes_reserved() as u64)
        };
        [
            (Statistic::Keys, self.store.len() as u64),
            (Statistic::Bytes, self.store.bytes() as u64),
            (Statistic::Gets, counters.gets.count()),
            (Statistic::Puts, counters.puts.count()),
            (
                Statistic::PutsRefusedFull,
                counters.puts_refused_full.count(),
            ),
            (Statistic::Malformed, counters.malformed.count()),
            (Statistic::Damaged, counters.damaged.count()),
            (Statistic::Datagrams, counters.datagrams.count()),
            (Statistic::Messages, counters.messages.count()),
            (Statistic::UploadsBegun, uploads.begun),
            (Statistic::UploadsCompleted, uploads.completed),
            (Statistic::UploadsExpired, uploads.expired),
            (Statistic::UploadsRefusedBusy, uploads.refused_busy),
            (Statistic::UploadBytesReserved, upload_bytes_reserved),
            (
                Statistic::ListKeysLeftOut,
                counters.list_keys_left_out.count(),
            ),
            (Statistic::Unauthenticated, counters.unauthenticated.count()),
            (
                Statistic::SessionsRefused,
                counters.sessions_refused.count(),
            ),
            (Statistic::NotGreetings, counters.not_greetings.count()),
            (Statistic::Replayed, counters.replayed.count()),
            (Statistic::Expired, counters.expired.count()),
            (Statistic::V1Refused, counters.v1_refused.count()),
            (Statistic::RepliesTooLong, counters.replies_too_long.count()),
            (
                Statistic::PutsRefusedBusy,
                counters.puts_refused_busy.count(),
            ),
            (Statistic::PutsFailed, counters.puts_failed.count()),
            (Statistic::CorruptAnswers, counters.corrupt_answers.count()),
        ]
        .into_iter()
        .chain(self.disk_statistics(now))
        .map(|(name, value)| (name as u8, value))
        .collect()
    }

    /// What a durable store has to say beside; nothing in memory.
    fn disk_statistics(&self, now: Instant) -> Vec<(Statistic, u64)> {
        let Store::Disk(store) = &self.store else {
            return Vec::new();
        };
        let status = store.status();
        let age = |at: Instant| now.saturating_duration_since(at).as_millis();
        let number = |large: u128| u64::try_from(large).unwrap_or(u64::MAX);
        let told = [
            (Statistic::IsReadOnly, status.is_read_only.into()),
            (Statistic::IsDiskFull, status.is_disk_full.into()),
            (Statistic::IsIncomplete, (!status.is_complete).into()),
            (Statistic::LogBytes, status.log_bytes),
            (Statistic::DiskBytes, status.disk_bytes),
            (Statistic::DiskAvailableBytes, status.disk_available_bytes),
            (Statistic::Commits, status.commits),
            (
                Statistic::CommitMicros,
                number(status.commit_time.as_micros()),
            ),
            (Statistic::CommittedBytes, status.written_bytes),
            (Statistic::Waiting, status.waiting as u64),
        ];
        let last = status
            .last_commit
            .map(|at| (Statistic::LastCommitAgeMs, number(age(at))));
        told.into_iter().chain(last).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::service::Config;
    use crate::store::MemoryStore;
    use dkvs_common::kv::Value;
    use dkvs_common::model::{EntryKind, PageEntry};
    use dkvs_common::ring::Position;
    use dkvs_common::wire::v2::envelope::{self, Builder, Envelope, PLAIN_BYTES, Proof, Sender};
    use dkvs_common::wire::v2::message::next_reply;
    use dkvs_common::wire::v2::reply::PAGE_ENTRY_BYTES;

    fn service(bytes_max: usize) -> Service {
        let config = Config {
            boot_id: 77,
            ..Config::new(1)
        };
        Service::new(Store::Memory(MemoryStore::new(bytes_max)), config)
    }

    fn key() -> Key {
        Key::new("k").unwrap()
    }

    fn record(time: u64, value: Vec<u8>) -> Record {
        let content = Content::Value {
            content_type: ContentType::new("a/b").unwrap(),
            value: Value::new(value).unwrap(),
        };
        Record::new(&key(), Tag { time, op: 1 }, content)
    }

    fn received(datagram: Vec<u8>, waited: Duration) -> Received {
        Received {
            datagram: datagram.into(),
            peer: ([127, 0, 0, 1], 4_000).into(),
            at: Instant::now(),
            waited,
        }
    }

    /// Sends requests in one datagram; the replies, and in how many datagrams they came.
    fn ask(
        service: &Service,
        epoch: u32,
        requests: Vec<ReplicaCommand>,
    ) -> (Vec<ReplicaResponse>, usize) {
        let envelope = Envelope {
            sender: Sender::Client,
            epoch,
            authentication: None,
        };
        let mut builder = Builder::new(envelope, 60_000);
        for (number, request) in (0..).zip(requests) {
            let message = RequestMessage {
                id: RequestId(number),
                wait_ms: 1_000,
                request: request.into(),
            };
            assert!(builder.push(|datagram| message.encode(datagram)));
        }
        let mut datagrams = Vec::new();
        let received = received(builder.finish(), Duration::ZERO);
        service.handle_v2(
            &received,
            &mut Access::Open,
            &Mailbox::new(|| {}),
            &mut |reply| {
                datagrams.push(Bytes::from(reply));
            },
        );
        let mut replies = Vec::new();
        for datagram in &datagrams {
            assert!(datagram.len() <= 1_200);
            let (envelope, mut messages) = envelope::open(datagram, Proof::Checksum).unwrap();
            assert_eq!(envelope.sender, Sender::Server);
            while let Some(message) = next_reply(&mut messages).unwrap() {
                assert_eq!(message.id, RequestId(replies.len() as u64));
                match message.reply {
                    Reply::Response(response) => replies.push(response),
                    Reply::Greeting(_) => panic!("nobody greeted"),
                }
            }
        }
        (replies, datagrams.len())
    }

    fn one(service: &Service, request: ReplicaCommand) -> ReplicaResponse {
        ask(service, 0, vec![request]).0.remove(0)
    }

    fn store(service: &Service, key: &Key, record: &Record) {
        let put = service.store().apply(key, record, || Box::new(drop));
        put.unwrap().unwrap();
    }

    fn put(time: u64, value: &str) -> ReplicaCommand {
        ReplicaCommand::Put {
            key: key(),
            record: record(time, value.into()),
        }
    }

    #[test]
    fn the_newest_record_is_kept_and_told_in_every_form() {
        let service = service(usize::MAX);
        assert_eq!(
            one(&service, ReplicaCommand::Get { key: key() }),
            ReplicaResponse::Absent { tag: Tag::ZERO }
        );
        assert_eq!(one(&service, put(5, "five")), ReplicaResponse::Done);
        let tag = Tag { time: 5, op: 1 };
        assert_eq!(
            one(&service, put(4, "four")),
            ReplicaResponse::Superseded { tag }
        );
        assert_eq!(one(&service, put(5, "five")), ReplicaResponse::Done);
        let checksum = record(5, "five".into()).checksum;
        let content_type = ContentType::new("a/b").unwrap();
        let block = Bytes::from_static(b"five");
        let whole = ReplicaResponse::Record {
            digest: Digest {
                tag,
                content_type,
                value_bytes: 4,
                checksum,
            },

            block,
        };
        assert_eq!(one(&service, ReplicaCommand::Get { key: key() }), whole);
        assert_eq!(
            one(&service, ReplicaCommand::GetTag { key: key() }),
            ReplicaResponse::Tag { tag }
        );
        let digest = ReplicaResponse::Digest {
            tag,
            value_bytes: 4,
            checksum,
        };
        assert_eq!(
            one(&service, ReplicaCommand::GetDigest { key: key() }),
            digest
        );

        let tombstone = Record::new(&key(), Tag { time: 6, op: 1 }, Content::Tombstone);
        assert_eq!(
            one(
                &service,
                ReplicaCommand::Put {
                    key: key(),
                    record: tombstone
                }
            ),
            ReplicaResponse::Done
        );
        let absent = ReplicaResponse::Absent {
            tag: Tag { time: 6, op: 1 },
        };
        for request in [
            ReplicaCommand::Get { key: key() },
            ReplicaCommand::GetTag { key: key() },
            ReplicaCommand::GetDigest { key: key() },
        ] {
            assert_eq!(one(&service, request), absent);
        }
    }

    #[test]
    fn requests_of_one_datagram_are_answered_in_one_where_they_fit() {
        let service = service(usize::MAX);
        let (replies, datagrams) = ask(
            &service,
            0,
            vec![
                put(1, "v"),
                ReplicaCommand::Get { key: key() },
                ReplicaCommand::Ping,
            ],
        );
        assert_eq!((replies.len(), datagrams), (3, 1));
        let long = ReplicaCommand::Put {
            key: key(),
            record: record(2, vec![b'v'; 700]),
        };
        let gets = vec![ReplicaCommand::Get { key: key() }; 3];
        let (replies, datagrams) = ask(&service, 0, [vec![long], gets].concat());
        assert_eq!((replies.len(), datagrams), (4, 3));
    }

    #[test]
    fn a_long_value_is_told_by_its_first_block_and_then_block_by_block() {
        let service = service(usize::MAX);
        let value: Vec<u8> = (0..20_000u32).map(|number| number as u8).collect();
        let record = record(1, value.clone());
        store(&service, &key(), &record);
        let ReplicaResponse::Record {
            digest: Digest {
                value_bytes: 20_000,
                ..
            },
            block,
            ..
        } = one(&service, ReplicaCommand::Get { key: key() })
        else {
            panic!("no record");
        };
        let mut got = block.to_vec();
        assert!(got.len() > 1_000);
        while got.len() < value.len() {
            let request = ReplicaCommand::GetBlock {
                key: key(),
                tag: record.tag,
                offset: got.len() as u32,
                block_bytes: u16::MAX,
            };
            let ReplicaResponse::Block { offset, block } = one(&service, request) else {
                panic!("no block");
            };
            assert_eq!(offset as usize, got.len());
            assert!(!block.is_empty());
            got.extend_from_slice(&block);
        }
        assert_eq!(got, value);
        let past_the_end = |offset, time| ReplicaCommand::GetBlock {
            key: key(),
            tag: Tag { time, op: 1 },
            offset,
            block_bytes: 9,
        };
        let nothing = ReplicaResponse::Block {
            offset: u32::MAX,
            block: Bytes::new(),
        };
        assert_eq!(one(&service, past_the_end(u32::MAX, 1)), nothing);
        assert_eq!(
            one(&service, past_the_end(0, 2)),
            ReplicaResponse::Superseded { tag: record.tag }
        );
    }

    #[test]
    fn what_cannot_be_stored_is_refused_with_its_reason() {
        let service = service(100);
        assert_eq!(
            one(&service, put(1, &"v".repeat(100))),
            ReplicaResponse::Refused(Refusal::Full)
        );
        let mut damaged = record(1, b"v".to_vec());
        damaged.checksum ^= 1;
        assert_eq!(
            one(
                &service,
                ReplicaCommand::Put {
                    key: key(),
                    record: damaged
                }
            ),
            ReplicaResponse::Refused(Refusal::Corrupt)
        );
        let service = Service::new(
            Store::Memory(MemoryStore::new(usize::MAX)),
            Config {
                value_bytes_max: 10,
                epoch: Some(7),
                ..Config::new(1)
            },
        );
        let (replies, _) = ask(&service, 7, vec![put(1, "12345678901")]);
        assert_eq!(
            replies,
            [ReplicaResponse::Refused(Refusal::TooLarge {
                value_bytes_max: 10
            })]
        );
        let (replies, _) = ask(&service, 8, vec![put(1, "v"), ReplicaCommand::Ping]);
        assert_eq!(
            replies,
            [
                ReplicaResponse::Refused(Refusal::WrongEpoch { epoch: 7 }),
                ReplicaResponse::Done
            ]
        );
    }

    #[test]
    fn it_vouches_in_its_own_incarnation_for_what_it_holds_and_for_nothing_newer() {
        let service = service(usize::MAX);
        let vouch = |boot_id, time| {
            let (key, tag) = (key(), Tag { time, op: 1 });
            one(&service, ReplicaCommand::Attest { boot_id, key, tag })
        };
        let absent = |tag| ReplicaResponse::Absent { tag };
        assert_eq!(vouch(77, 5), absent(Tag::ZERO), "it holds nothing");
        assert_eq!(one(&service, put(5, "five")), ReplicaResponse::Done);
        assert_eq!(vouch(77, 5), ReplicaResponse::Done);
        assert_eq!(vouch(77, 4), ReplicaResponse::Done);
        assert_eq!(vouch(77, 6), absent(Tag { time: 5, op: 1 }));
        assert_eq!(vouch(76, 5), absent(Tag::ZERO), "it was started anew");
        let tag = Tag { time: 6, op: 1 };
        let record = Record::new(&key(), tag, Content::Tombstone);
        let key = key();
        assert_eq!(
            one(&service, ReplicaCommand::Put { key, record }),
            ReplicaResponse::Done
        );
        assert_eq!(
            vouch(77, 6),
            ReplicaResponse::Done,
            "a tombstone is a record"
        );
    }

    #[test]
    fn a_server_of_another_ring_vouches_for_nothing() {
        let config = Config {
            epoch: Some(7),
            ..Config::new(77)
        };
        let service = Service::new(Store::Memory(MemoryStore::new(usize::MAX)), config);
        let (boot_id, key, tag) = (77, key(), Tag::ZERO);
        let (replies, _) = ask(
            &service,
            8,
            vec![ReplicaCommand::Attest { boot_id, key, tag }],
        );
        assert_eq!(
            replies,
            [ReplicaResponse::Refused(Refusal::WrongEpoch { epoch: 7 })]
        );
    }

    #[test]
    fn a_long_value_is_put_in_blocks_over_datagrams() {
        let service = service(usize::MAX);
        let value: Vec<u8> = (0..20_000u32).map(|number| (number % 251) as u8).collect();
        let record = record(1, value.clone());
        for (number, block) in value.chunks(1_100).enumerate() {
            let stage = ReplicaCommand::Stage {
                upload: 9,
                value_bytes: 20_000,
                offset: 1_100 * number as u32,
                block_bytes: 1_100,
                block: Bytes::copy_from_slice(block),
            };
            let base = number as u32 + 1;
            let bitmap = Bytes::new();
            assert_eq!(
                one(&service, stage),
                ReplicaResponse::Staged { base, bitmap }
            );
        }
        let put = ReplicaCommand::PutStaged {
            key: key(),
            tag: record.tag,
            content_type: ContentType::new("a/b").unwrap(),
            upload: 9,
            value_bytes: 20_000,
            checksum: record.checksum,
        };
        assert_eq!(one(&service, put), ReplicaResponse::Done);
        let is_whole = |held: &Packed| held.is_sound() && held.value() == value;
        assert_eq!(service.store().peek(&key(), is_whole), Some(true));
    }

    #[test]
    fn pages_over_datagrams_have_every_key_once_in_ring_order() {
        let service = service(usize::MAX);
        let mut keys: Vec<Key> = (0..500)
            .map(|number| Key::new(format!("{number:0width$}", width = 1 + number % 90)).unwrap())
            .collect();
        for key in &keys {
            let record = Record::new(key, Tag { time: 3, op: 1 }, Content::Tombstone);
            store(&service, key, &record);
        }
        let too_long = Key::new(vec![b'k'; 2_000]).unwrap();
        let record = Record::new(&too_long, Tag { time: 3, op: 1 }, Content::Tombstone);
        store(&service, &too_long, &record);
        keys.sort_by_key(Position::of_key);
        let mut listed = Vec::<Key>::new();
        let mut left_out_heard = 0;
        loop {
            let after = listed.last().cloned();
            let from = after.as_ref().map_or(Position([0; 20]), Position::of_key);
            let list = ReplicaCommand::List {
                from,
                after,
                prefix: Bytes::new(),
                limit: ReplicaCommand::LIST_LIMIT_MAX,
                accepts_left_out: true,
            };
            let mut list_of_old = list.clone();
            if let ReplicaCommand::List {
                accepts_left_out, ..
            } = &mut list_of_old
            {
                *accepts_left_out = false;
            }
            let page_of_old = one(&service, list_of_old);
            let ReplicaResponse::Page {
                more,
                entries,
                is_left_out,
                ..
            } = one(&service, list)
            else {
                panic!("no page");
            };
            // Who does not understand it is not told.
            let is_told_to_all = matches!(
                page_of_old,
                ReplicaResponse::Page {
                    is_left_out: true,
                    ..
                }
            );
            assert!(!is_told_to_all);
            left_out_heard += usize::from(is_left_out);
            let entry_bytes = |entry: &PageEntry| PAGE_ENTRY_BYTES + entry.key.as_bytes().len();
            let page_bytes: usize = entries.iter().map(entry_bytes).sum();
            // One more would not have fitted: no key here is longer than 90 bytes.
            assert!(!more || page_bytes > 1_200 - PLAIN_BYTES - PAGE_HEAD_BYTES - 110);
            for PageEntry { key, tag, kind } in entries {
                assert!(tag.time == 3 && kind == EntryKind::Tombstone);
                listed.push(key);
            }
            if !more {
                break;
            }
        }
        assert!(listed == keys);
        assert!((1..=2).contains(&left_out_heard), "{left_out_heard}");
    }

    #[test]
    fn statistics_count_datagrams_messages_and_uploads() {
        let service = service(usize::MAX);
        let stage = ReplicaCommand::Stage {
            upload: 9,
            value_bytes: 5,
            offset: 0,
            block_bytes: 4,
            block: Bytes::from_static(b"valu"),
        };
        ask(&service, 0, vec![put(1, "v"), stage, ReplicaCommand::Ping]);
        let ReplicaResponse::Statistics(told) = one(&service, ReplicaCommand::GetStatistics) else {
            panic!("no statistics");
        };
        let number = |wanted: Statistic| {
            let mut told = told.iter().filter(|(name, _)| *name == wanted as u8);
            told.next().unwrap().1
        };
        // A disk has more to tell.
        assert_eq!(told.len(), Statistic::ALL.len() - 11);
        assert_eq!(number(Statistic::Keys), 1);
        assert_eq!(number(Statistic::Datagrams), 2);
        assert_eq!(number(Statistic::Messages), 4);
        assert_eq!(number(Statistic::UploadsBegun), 1);
        assert_eq!(number(Statistic::UploadBytesReserved), 6);
    }

    #[test]
    fn strangers_and_damaged_datagrams_get_nothing() {
        let service = service(usize::MAX);
        let silent = |datagram: Vec<u8>| {
            let received = received(datagram, Duration::ZERO);
            service.handle_v2(
                &received,
                &mut Access::Open,
                &Mailbox::new(|| {}),
                &mut |_| panic!("an answer"),
            );
        };
        let envelope = Envelope {
            sender: Sender::Server,
            epoch: 0,
            authentication: None,
        };
        silent(Builder::new(envelope, 1_200).finish());
        silent(b"\0DK2".to_vec());
        silent(b"\0DK2\x02\0\0\0\0\0\0\0\0\0\0\0".to_vec());
        assert_eq!(service.counters.damaged.count(), 3);
    }

    #[test]
    fn a_request_that_nobody_waits_for_is_dropped_and_counted() {
        let service = service(usize::MAX);
        let envelope = Envelope {
            sender: Sender::Client,
            epoch: 0,
            authentication: None,
        };
        let answered = |waited| {
            let mut builder = Builder::new(envelope, 1_200);
            for (number, wait_ms) in [(0, 0), (1, 100), (2, 101), (3, u16::MAX)] {
                let message = RequestMessage {
                    id: RequestId(number),
                    wait_ms,
                    request: ReplicaCommand::Ping.into(),
                };
                assert!(builder.push(|datagram| message.encode(datagram)));
            }
            let mut ids = Vec::new();
            let received = received(builder.finish(), waited);
            service.handle_v2(
                &received,
                &mut Access::Open,
                &Mailbox::new(|| {}),
                &mut |reply| {
                    let (_, mut messages) = envelope::open(&reply.into(), Proof::Checksum).unwrap();
                    while let Some(message) = next_reply(&mut messages).unwrap() {
                        ids.push(message.id.0);
                    }
                },
            );
            ids
        };
        assert_eq!(answered(Duration::ZERO), [1, 2, 3]);
        assert_eq!(answered(Duration::from_millis(100)), [2, 3]);
        assert_eq!(answered(Duration::from_secs(66)), [0; 0]);
        assert_eq!(service.counters.expired.count(), 1 + 2 + 4);
    }
}
