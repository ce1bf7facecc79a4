//! The beginnings of conditional writes. `driving` carries on with them.

use std::sync::Arc;
use std::time::Duration;

use dkvs_common::kv::Key;
use dkvs_common::quorum::Level;
use dkvs_common::quorum::conditional::{Attempt, Condition, ConditionalWrite};
use dkvs_common::quorum::params::Quorum;
use dkvs_common::record::{Attributes, Content, OperationId};
use dkvs_common::ring::PreferenceList;
use dkvs_common::tag::Tag;

use super::caller::CallerId;
use super::config::{AdmissionError, Now, RequestOptions, Wait};
use super::operation::{ConditionalOperation, ConditionalResult, Subject};
use super::random::Random;
use super::request::RequestId;
use super::state::Core;

/// A write of a key on a condition.
#[derive(Debug, Clone)]
pub struct ConditionalRequest {
    /// The key.
    pub key: Key,
    /// What is stored; a tombstone deletes the key.
    pub content: Content,
    /// What the record says beside its content and its operation.
    pub attributes: Attributes,
    /// What has to be there.
    pub condition: Condition,
    /// An earlier write of the same, of which it is not known what became of it; none for a new one.
    pub attempt: Option<Attempt>,
    /// Its replicas, one for each of the quorum's n.
    pub list: PreferenceList,
    /// Quorum, time and trace. Its level is linearizable.
    pub options: RequestOptions,
}

impl Core {
    /// Begins to write a key if what is there meets a condition; otherwise as [`Self::read`]. The level is
    /// linearizable: servers without tags refuse it.
    pub fn write_if(
        &mut self,
        request: ConditionalRequest,
        now: Now,
        on_end: impl FnOnce(ConditionalResult) + Send + 'static,
    ) -> Result<RequestId, AdmissionError> {
        let ConditionalRequest {
            key,
            content,
            attributes,
            condition,
            attempt,
            list,
            options,
        } = request;
        let options = RequestOptions {
            level: Level::Linearizable,
            may_fall_back: false,
            ..options
        };
        self.check(&key, Some(&content))?;
        let _ = self.level(&list, options, now)?;
        let proposer = self.random.number();
        let write = match attempt {
            Some(attempt) => ConditionalWrite::repeat(condition, attempt, proposer),
            None => {
                let operation = OperationId(self.random.bytes());
                ConditionalWrite::new(condition, operation, proposer)
            }
        };
        let subject = Subject {
            key,
            content,
            attributes,
            list,
            quorum: options.quorum,
            first: Tag::first(self.random.number() as u32),
        };
        let view = Arc::clone(&self.view);
        let memory = self.memory.account(options.caller);
        let random = Random::new(self.random.number());
        let deadline = now.at + options.timeout;
        let at = now.at;
        let operation =
            ConditionalOperation::new(view, write, subject, (random, memory), at, deadline, on_end);
        self.begin(operation, options, now)
    }

    /// A conditional write that a server makes once more, for whoever has left it: by all replicas of the key,
    /// a majority of which has to store it.
    pub fn request_of_server(
        &self,
        key: Key,
        (content, attributes): (Content, Attributes),
        (condition, attempt): (Condition, Attempt),
        timeout: Duration,
    ) -> ConditionalRequest {
        let n = self.config.replication.max(1);
        let n = n.min(u8::try_from(self.view.servers().count()).unwrap_or(u8::MAX));
        let one = Quorum::new(n, 1).expect("one of at least one is a quorum");
        let quorum = one.of_majority();
        ConditionalRequest {
            list: self.preference_list(&key, quorum),
            key,
            content,
            attributes,
            condition,
            attempt: Some(attempt),
            options: RequestOptions {
                quorum,
                level: Level::Linearizable,
                may_fall_back: false,
                timeout,
                wait: Wait::Quorum,
                caller: CallerId::Internal,
                trace: None,
            },
        }
    }
}
