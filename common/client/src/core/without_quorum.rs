//! The beginnings of operations that need no quorum. `driving` carries on with them.

use std::sync::Arc;
use std::time::Duration;

use dkvs_common::cluster::ServerId;
use dkvs_common::model::{ReplicaCommand, ReplicaResponse};
use dkvs_common::quorum::Level;
use dkvs_common::quorum::inspect::Inspect;
use dkvs_common::quorum::list::{List, Listing};
use dkvs_common::quorum::params::Quorum;

use super::caller::CallerId;
use super::config::{AdmissionError, Now, Protocol, RequestOptions, Wait};
use super::driving::ReadRequest;
use super::operation::{
    AskOperation, InspectOperation, InspectResult, ListOperation, ListResult, Statistics,
    StatusOperation,
};
use super::request::RequestId;
use super::state::Core;
use crate::transport::peer::PeerVersion;

/// A listing waits for silent servers for one part in this many of its timeout.
const LIST_SOFT_DEADLINE_PART: u32 = 4;

impl Core {
    /// Begins to list keys, for up to `timeout`. Fails, with nothing sent, if it cannot begin.
    pub fn list(
        &mut self,
        listing: Listing,
        timeout: Duration,
        caller: CallerId,
        now: Now,
        on_end: impl FnOnce(ListResult) + Send + 'static,
    ) -> Result<RequestId, AdmissionError> {
        if self.config.protocol == Protocol::V1 {
            return Err(AdmissionError::NoListing);
        }
        let prefix = listing.prefix.clone();
        let servers = self.view.servers();
        let list = List::new(servers, listing, now.at, timeout / LIST_SOFT_DEADLINE_PART);
        let memory = self.memory.account(caller);
        let operation = ListOperation::new(Arc::clone(&self.view), list, prefix, memory, on_end);
        self.begin(operation, without_quorum(timeout, caller), now)
    }

    /// Begins to ask every server for its statistics.
    pub fn status(
        &mut self,
        timeout: Duration,
        caller: CallerId,
        now: Now,
        on_end: impl FnOnce(Vec<(ServerId, Option<Statistics>)>) + Send + 'static,
    ) -> Result<RequestId, AdmissionError> {
        let operation = StatusOperation::new(self.view.servers(), on_end);
        let options = without_quorum(timeout, caller);
        self.begin(operation, options, now)
    }

    /// Begins to ask the replicas of a key what they hold. The options say how long, on whose behalf, and
    /// under which trace; it has neither quorum nor level.
    pub fn inspect(
        &mut self,
        request: ReadRequest,
        now: Now,
        on_end: impl FnOnce(InspectResult) + Send + 'static,
    ) -> Result<RequestId, AdmissionError> {
        let ReadRequest { key, list, options } = request;
        // Those that seem to speak DKVS/1 only are not asked, but met again: they may speak DKVS/2 by now.
        for point in &list {
            if self.servers.speaks(point.server) == PeerVersion::V1 {
                self.servers.greet_if_due(point.server, now.at);
            }
        }
        let inspect = Inspect::new(key, list, now.at);
        let operation = InspectOperation::new(Arc::clone(&self.view), inspect, on_end);
        let options = RequestOptions {
            trace: options.trace,
            ..without_quorum(options.timeout, options.caller)
        };
        self.begin(operation, options, now)
    }

    /// Begins to ask one server to carry out a command, whatever the others hold. Gives its response,
    /// with the whole of a long value; none if it did not answer in time, or there was no memory for
    /// its value.
    pub fn ask(
        &mut self,
        to: ServerId,
        command: ReplicaCommand,
        timeout: Duration,
        now: Now,
        on_end: impl FnOnce(Option<ReplicaResponse>) + Send + 'static,
    ) -> Result<RequestId, AdmissionError> {
        let memory = self.memory.account(CallerId::Internal);
        let operation = AskOperation::new(to, command, memory, on_end);
        self.begin(operation, without_quorum(timeout, CallerId::Internal), now)
    }
}

/// How an operation is carried out that needs no quorum.
fn without_quorum(timeout: Duration, caller: CallerId) -> RequestOptions {
    RequestOptions {
        quorum: Quorum::new(1, 1).expect("one of one is a quorum"),
        level: Level::Agreement,
        may_fall_back: false,
        timeout,
        wait: Wait::All,
        caller,
        trace: None,
    }
}
