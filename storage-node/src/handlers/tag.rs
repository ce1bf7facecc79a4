//! What names a record, without its value: the responses to `GetTag` and `GetDigest`.

use dkvs_common::kv::Key;
use dkvs_common::model::ReplicaResponse;

use super::outcome::{read_response, record_response, value_response};
use super::replica::Replica;
use crate::store::{PackedRecord, RecordStore as _};

impl Replica {
    pub(super) fn get_tag(&self, key: &Key) -> ReplicaResponse {
        let tag = |held: &PackedRecord| ReplicaResponse::Tag { tag: held.tag() };
        self.describe(key, |held| value_response(held, tag))
    }

    pub(super) fn get_digest(&self, key: &Key) -> ReplicaResponse {
        let digest = |held: &PackedRecord| ReplicaResponse::Digest {
            tag: held.tag(),
            attributes: held.attributes(),
            value_bytes: held.value().len() as u32,
            checksum: held.checksum(),
        };
        self.describe(key, |held| record_response(held, digest))
    }

    fn describe(
        &self,
        key: &Key,
        response: impl FnOnce(&PackedRecord) -> ReplicaResponse,
    ) -> ReplicaResponse {
        read_response(&self.counters, self.store.get(key, response))
    }
}
