//! What names a record, without its value: the responses to `GetTag` and `GetDigest`.

use dkvs_common::kv::Key;
use dkvs_common::model::ReplicaResponse;

use super::outcome::{read_response, value_response};
use super::replica::Replica;
use crate::store::{Lookup, RecordHead, RecordStore as _};

impl Replica {
    pub(super) fn get_tag(&self, key: &Key) -> ReplicaResponse {
        self.describe(key, |head| ReplicaResponse::Tag { tag: head.tag })
    }

    pub(super) fn get_digest(&self, key: &Key) -> ReplicaResponse {
        self.describe(key, |head| ReplicaResponse::Digest {
            tag: head.tag,
            value_bytes: head.value_bytes,
            checksum: head.checksum,
        })
    }

    fn describe(
        &self,
        key: &Key,
        response: impl FnOnce(&RecordHead) -> ReplicaResponse,
    ) -> ReplicaResponse {
        let lookup = match self.store.head(key) {
            Lookup::Found(head) => Lookup::Found(value_response(&head, || response(&head))),
            Lookup::Absent => Lookup::Absent,
            Lookup::Corrupt => Lookup::Corrupt,
        };
        read_response(&self.counters, lookup)
    }
}
