//! A server that answers for a key holds what its confirmations were counted for: the newest record of a
//! write that is done, be it from before its disk was lost.
//!
//! That is why replicas which lost records may answer again: any majority meets the one that counted.

use std::collections::BTreeMap;

use dkvs_client::core::ConditionalResult;
use dkvs_common::kv::Key;
use dkvs_common::quorum::conditional::ConditionalOutcome;
use dkvs_common::quorum::conditional::proposal::MemberState;
use dkvs_common::quorum::level::Level;
use dkvs_common::quorum::tally::ReplicaState;
use dkvs_common::quorum::write::{Applied, Write, WriteResponse};
use dkvs_common::tag::Tag;
use dkvs_storage_node::store::RecordStore as _;

use super::Violation;
use super::v1_records::is_by_v1;
use crate::sim::datagram::tag_words;
use crate::sim::server::Server;

const NAME: &str = "completion";

/// What servers were counted for.
#[derive(Debug, Default)]
pub struct Completion {
    /// By server and key: the greatest tag of a write that is done and counted the server.
    counted: BTreeMap<(usize, Key), Tag>,
}

impl Completion {
    /// A gateway has answered a write. Nothing is promised of one at the level agreement.
    pub fn look_at_write(
        &mut self,
        key: &Key,
        write: &Write,
        tag: Option<Tag>,
        servers: &[Server],
    ) -> Result<(), Violation> {
        let is_linearizable = write.level() == Level::Linearizable;
        let is_done = write.applied() == Applied::Committed;
        let (Some(tag), true) = (tag, is_linearizable && is_done) else {
            return Ok(());
        };
        for replica in write.replicas() {
            let is_counted = match replica.state {
                ReplicaState::Responded(WriteResponse::Stored) => true,
                ReplicaState::Responded(WriteResponse::Superseded(by)) => !is_by_v1(by),
                _ => false,
            };
            if is_counted {
                self.count(usize::from(replica.server.0), key, tag, servers)?;
            }
        }
        Ok(())
    }

    /// A gateway has answered a conditional write.
    pub fn look_at_conditional(
        &mut self,
        key: &Key,
        result: &ConditionalResult,
        servers: &[Server],
    ) -> Result<(), Violation> {
        let ConditionalOutcome::Committed(tag) = result.outcome else {
            return Ok(());
        };
        for (server, state) in &result.states {
            if *state == MemberState::Stored {
                self.count(usize::from(server.0), key, tag, servers)?;
            }
        }
        Ok(())
    }

    /// A write at this tag is done, and counted a server.
    fn count(
        &mut self,
        server: usize,
        key: &Key,
        tag: Tag,
        servers: &[Server],
    ) -> Result<(), Violation> {
        let counted = self.counted.entry((server, key.clone())).or_insert(tag);
        *counted = tag.max(*counted);
        self.check(server, &servers[server])
    }

    /// A server has forgotten what it held, and does not know.
    pub fn forget(&mut self, server: usize) {
        self.counted.retain(|(counted, _), _| *counted != server);
    }

    /// Checks what a server answers for now.
    pub fn check(&self, number: usize, server: &Server) -> Result<(), Violation> {
        for ((counted, key), tag) in &self.counted {
            let held = server.store().peek(key).map_or(Tag::ZERO, |held| held.tag);
            if *counted == number && held < *tag && server.answers_for(key) {
                let (tag, held) = (tag_words(*tag), tag_words(held));
                let what = format!(
                    "s{number} was counted for {key:?} at {tag}, and answers for it with {held}"
                );
                return Err(Violation::new(NAME, what));
            }
        }
        Ok(())
    }
}
