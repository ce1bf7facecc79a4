//! Blocks of long values, and the puts that store them: the responses to `Stage` and `PutStaged`.

use std::collections::HashSet;
use std::sync::{Arc, MutexGuard, PoisonError};
use std::time::Instant;

use dkvs_common::kv::{Key, Value};
use dkvs_common::model::{Refusal, ReplicaResponse};
use dkvs_common::record::{Attributes, Content, ContentType, Record, RecordVersion};
use dkvs_common::tag::Tag;

use super::caller::Responder;
use super::outcome::put_response;
use super::replica::Replica;
use super::uploads::{Block, BlockError, Progress, Shape, TakeError, UploadId};
use crate::peer::Account;
use crate::store::{PutOutcome, RecordStore as _};

/// A record whose value was sent in blocks.
pub(super) struct StagedRecord {
    pub(super) tag: Tag,
    pub(super) attributes: Attributes,
    pub(super) content_type: ContentType,
    pub(super) value_bytes: u32,
    pub(super) checksum: u32,
}

impl Replica {
    /// Keeps a block of a value.
    pub(super) fn stage(
        &self,
        (id, account): (UploadId, Account),
        shape: Shape,
        block: &Block,
        now: Instant,
    ) -> ReplicaResponse {
        let staged = self.uploads().stage(id, account, shape, block, now);
        match staged {
            Ok(Progress { base, bitmap }) => ReplicaResponse::Staged {
                base,
                bitmap: bitmap.into(),
            },
            Err(error) => {
                tracing::debug!(peer = %id.peer, upload = id.number, %error, "a block is refused");
                match error {
                    BlockError::TooLarge => self.too_large(),
                    BlockError::Contradiction => ReplicaResponse::Refused(Refusal::Corrupt),
                    BlockError::Busy => ReplicaResponse::Refused(Refusal::Busy),
                }
            }
        }
    }

    /// Stores the value of an upload. Looks at what the store holds before it looks at the upload:
    /// a repeat finds its own record there, and the upload gone.
    pub(super) fn put_staged(
        &self,
        key: &Key,
        record: StagedRecord,
        id: UploadId,
        now: Instant,
        responder: impl FnOnce() -> Responder,
    ) -> Option<ReplicaResponse> {
        if record.value_bytes as usize > self.config.value_bytes_max {
            return Some(self.too_large());
        }
        let version = RecordVersion {
            tag: record.tag,
            checksum: record.checksum,
            born: record.attributes.born,
        };
        if let Some(put) = self.store.resolve(key, version) {
            self.uploads().free(id);
            return Some(match put {
                PutOutcome::Stored => ReplicaResponse::Done,
                PutOutcome::Superseded(tag) => ReplicaResponse::Superseded { tag },
            });
        }
        if self.pending_uploads().contains(&id) {
            return None;
        }
        if let Err(refused) = self.store.check_room_for(record.value_bytes as usize) {
            // The upload stays for another try.
            return Some(put_response(&self.counters, Err(refused)));
        }
        let taken = self.uploads().take(id, record.value_bytes, now);
        let value = match taken {
            Ok(value) => value,
            Err(TakeError::Incomplete) => return Some(ReplicaResponse::absent(Tag::ZERO)),
            Err(TakeError::Contradiction) => {
                return Some(ReplicaResponse::Refused(Refusal::Corrupt));
            }
        };
        let Ok(value) = Value::new(value) else {
            return Some(self.too_large());
        };
        let content = Content::Value {
            content_type: record.content_type,
            value,
        };
        let record = Record {
            tag: record.tag,
            attributes: record.attributes,
            content,
            checksum: record.checksum,
        };
        self.pending_uploads().insert(id);
        let pending = Arc::clone(&self.pending_uploads);
        let response = self.put(key, &record, responder, move || {
            pending
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .remove(&id);
        });
        if response.is_some() {
            self.pending_uploads().remove(&id);
        }
        response
    }

    fn pending_uploads(&self) -> MutexGuard<'_, HashSet<UploadId>> {
        let pending = self.pending_uploads.lock();
        pending.unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::ServiceConfig;
    use crate::handlers::uploads::UPLOADS_MAX;
    use crate::peer::Peer;
    use crate::store::{Lookup, MemoryStore, Part, RecordView, Store, overhead_bytes};
    use bytes::Bytes;

    const SHAPE: Shape = Shape {
        value_bytes: 10,
        block_bytes: 4,
    };

    fn replica(bytes_max: usize) -> Replica {
        let config = ServiceConfig {
            value_bytes_max: 100,
            ..ServiceConfig::new(1)
        };
        Replica::new(Store::Memory(MemoryStore::new(bytes_max)), config)
    }

    fn key() -> Key {
        Key::new("k").unwrap()
    }

    fn id(number: u64) -> UploadId {
        let peer = Peer::at_port(4_000);
        UploadId { peer, number }
    }

    fn by(number: u64) -> (UploadId, Account) {
        let id = id(number);
        (id, Account::of(id.peer, 0))
    }

    /// The record of this time whose value is ten of `byte`.
    fn record(time: u64, byte: u8) -> Record {
        let content = Content::Value {
            content_type: ContentType::new("a/b").unwrap(),
            value: Value::new(vec![byte; 10]).unwrap(),
        };
        Record::new(&key(), Tag { time, op: 1 }, content)
    }

    fn put_staged(replica: &Replica, number: u64, staged: StagedRecord) -> ReplicaResponse {
        let responder = || -> Responder { Box::new(drop) };
        let response = replica.put_staged(&key(), staged, id(number), Instant::now(), responder);
        response.unwrap()
    }

    fn stage(replica: &Replica, number: u64, offset: u32, byte: u8) -> ReplicaResponse {
        let length = usize::min(4, 10 - offset as usize);
        let bytes = vec![byte; length].into();
        replica.stage(by(number), SHAPE, &Block { offset, bytes }, Instant::now())
    }

    fn stage_all(replica: &Replica, number: u64, byte: u8) {
        for offset in [8, 0, 4] {
            assert!(matches!(
                stage(replica, number, offset, byte),
                ReplicaResponse::Staged { .. }
            ));
        }
    }

    fn put(replica: &Replica, number: u64, record: &Record) -> ReplicaResponse {
        let staged = StagedRecord {
            tag: record.tag,
            attributes: record.attributes,
            content_type: ContentType::new("a/b").unwrap(),
            value_bytes: 10,
            checksum: record.checksum,
        };
        put_staged(replica, number, staged)
    }

    fn store(replica: &Replica, record: &Record) {
        let put = replica.store.apply(&key(), record, || Box::new(drop));
        put.unwrap().unwrap();
    }

    fn held(replica: &Replica) -> Option<(Tag, Vec<u8>)> {
        let held = |held: &RecordView<'_>| (held.head().tag, held.value().to_vec());
        match replica.store.read_now(&key(), Part::Whole, held) {
            Lookup::Found(held) => Some(held),
            Lookup::Absent => None,
            Lookup::Corrupt => panic!("it is sound"),
        }
    }

    #[test]
    fn an_upload_changes_nothing_until_its_put_and_is_gone_after_it() {
        let replica = replica(usize::MAX);
        assert_eq!(
            stage(&replica, 1, 4, b'v'),
            ReplicaResponse::Staged {
                base: 0,
                bitmap: Bytes::from_static(&[2]),
            }
        );
        stage_all(&replica, 1, b'v');
        assert_eq!(held(&replica), None);
        let record = record(5, b'v');
        assert_eq!(put(&replica, 1, &record), ReplicaResponse::Done);
        assert_eq!(held(&replica), Some((record.tag, vec![b'v'; 10])));
        assert_eq!(replica.uploads().bytes_reserved(), 0);
        assert_eq!(replica.uploads().report().completed, 1);
    }

    #[test]
    fn a_put_staged_that_comes_again_is_done_again() {
        let replica = replica(usize::MAX);
        stage_all(&replica, 1, b'v');
        let record = record(5, b'v');
        for _ in 0..2 {
            assert_eq!(put(&replica, 1, &record), ReplicaResponse::Done);
        }
        assert_eq!(replica.counters.puts.count(), 1);
    }

    #[test]
    fn an_upload_that_has_not_all_arrived_is_absent_and_can_go_on() {
        let replica = replica(usize::MAX);
        let record = record(5, b'v');
        let absent = ReplicaResponse::absent(Tag::ZERO);
        assert_eq!(put(&replica, 1, &record), absent);
        stage(&replica, 1, 0, b'v');
        stage(&replica, 1, 8, b'v');
        assert_eq!(put(&replica, 1, &record), absent);
        stage(&replica, 1, 4, b'v');
        assert_eq!(put(&replica, 1, &record), ReplicaResponse::Done);
    }

    #[test]
    fn an_older_record_is_superseded_whether_its_upload_is_there_or_not() {
        let replica = replica(usize::MAX);
        store(&replica, &record(9, b'n'));
        stage_all(&replica, 1, b'v');
        let tag = Tag { time: 9, op: 1 };
        for _ in 0..2 {
            let response = put(&replica, 1, &record(5, b'v'));
            assert_eq!(response, ReplicaResponse::Superseded { tag });
            assert_eq!(replica.uploads().bytes_reserved(), 0);
        }
        assert_eq!(held(&replica), Some((tag, vec![b'n'; 10])));
    }

    #[test]
    fn another_record_under_the_tag_of_one_is_superseded_by_it() {
        let replica = replica(usize::MAX);
        store(&replica, &record(5, b'n'));
        stage_all(&replica, 1, b'v');
        let tag = Tag { time: 5, op: 1 };
        let response = put(&replica, 1, &record(5, b'v'));
        assert_eq!(response, ReplicaResponse::Superseded { tag });
        assert_eq!(held(&replica), Some((tag, vec![b'n'; 10])));
    }

    #[test]
    fn a_value_that_is_not_what_the_put_says_is_corrupt_and_not_stored() {
        let replica = replica(usize::MAX);
        stage_all(&replica, 1, b'x');
        assert_eq!(
            put(&replica, 1, &record(5, b'v')),
            ReplicaResponse::Refused(Refusal::Corrupt)
        );
        assert_eq!(replica.counters.damaged.count(), 1);
        let other_length = Shape {
            value_bytes: 4,
            ..SHAPE
        };
        let bytes = vec![b'v'; 4].into();
        let block = Block { offset: 0, bytes };
        let response = replica.stage(by(2), other_length, &block, Instant::now());
        assert!(matches!(response, ReplicaResponse::Staged { base: 1, .. }));
        assert_eq!(
            put(&replica, 2, &record(5, b'v')),
            ReplicaResponse::Refused(Refusal::Corrupt)
        );
        assert_eq!(
            stage(&replica, 2, 4, b'v'),
            ReplicaResponse::Refused(Refusal::Corrupt)
        );
        assert_eq!(held(&replica), None);
    }

    #[test]
    fn the_longest_value_can_be_uploaded_whatever_memory_is_configured() {
        let config = ServiceConfig {
            value_bytes_max: 10,
            upload_bytes_max: 0,
            ..ServiceConfig::new(1)
        };
        let replica = Replica::new(Store::Memory(MemoryStore::new(usize::MAX)), config);
        assert!(matches!(
            stage(&replica, 1, 0, b'v'),
            ReplicaResponse::Staged { .. }
        ));
        // Three with the bits that say what has arrived of each.
        for number in 2..=3 {
            let staged = stage(&replica, number, 0, b'v');
            assert!(matches!(staged, ReplicaResponse::Staged { .. }));
        }
        assert_eq!(
            stage(&replica, 4, 0, b'v'),
            ReplicaResponse::Refused(Refusal::Busy)
        );
        stage_all(&replica, 1, b'v');
        assert_eq!(put(&replica, 1, &record(5, b'v')), ReplicaResponse::Done);
        assert!(matches!(
            stage(&replica, 4, 0, b'v'),
            ReplicaResponse::Staged { .. }
        ));
    }

    #[test]
    fn what_has_no_room_is_refused_with_its_reason() {
        let replica = replica(overhead_bytes(1) + 30);
        stage_all(&replica, 1, b'v');
        assert_eq!(
            put(&replica, 1, &record(5, b'v')),
            ReplicaResponse::Refused(Refusal::Full)
        );
        assert_eq!(replica.uploads().bytes_reserved(), 0);
        let value_bytes_max = 100;
        let longer = Shape {
            value_bytes: 101,
            ..SHAPE
        };
        let bytes = vec![b'v'; 4].into();
        let block = Block { offset: 0, bytes };
        let response = replica.stage(by(1), longer, &block, Instant::now());
        assert_eq!(
            response,
            ReplicaResponse::Refused(Refusal::TooLarge { value_bytes_max })
        );
        let staged = StagedRecord {
            tag: Tag { time: 1, op: 1 },
            attributes: Attributes::NONE,
            content_type: ContentType::default(),
            value_bytes: 101,
            checksum: 0,
        };
        let response = put_staged(&replica, 1, staged);
        assert_eq!(
            response,
            ReplicaResponse::Refused(Refusal::TooLarge { value_bytes_max })
        );
        let begun = (2..).take_while(|number| {
            stage(&replica, *number, 0, b'v') != ReplicaResponse::Refused(Refusal::Busy)
        });
        assert_eq!(begun.count(), UPLOADS_MAX);
    }
}
