//! What names a record, without its value: the responses to `GetTag` and `GetDigest`.

use dkvs_common::kv::Key;
use dkvs_common::model::ReplicaResponse;

use super::outcome::{read_response, value_response};
use super::replica::Replica;
use crate::store::{PackedRecord, RecordStore as _};

impl Replica {
    pub(super) fn get_tag(&self, key: &Key) -> ReplicaResponse {
        self.describe(key, |held| ReplicaResponse::Tag { tag: held.tag() })
    }

    pub(super) fn get_digest(&self, key: &Key) -> ReplicaResponse {
        self.describe(key, |held| ReplicaResponse::Digest {
            tag: held.tag(),
            value_bytes: held.value().len() as u32,
            checksum: held.checksum(),
        })
    }

    fn describe(
        &self,
        key: &Key,
        response: impl FnOnce(&PackedRecord) -> ReplicaResponse,
    ) -> ReplicaResponse {
        let lookup = self.store.get(key, |held| value_response(held, response));
        read_response(&self.counters, lookup)
    }
}
