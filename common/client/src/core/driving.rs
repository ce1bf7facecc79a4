//! A request from its admission to its outcome, and the follow-ups after that.
//!
//! Owns the loop between the core and an operation: it carries out the operation's steps, passes it
//! what comes back, and ends it when it is decided or its deadline has come. What a step sends is
//! routed by `routing`. Invariant: the caller of a request gets at most one outcome, and none after
//! [`Core::cancel`] has ended it.

use std::sync::Arc;
use std::time::Instant;

use dkvs_common::cluster::ServerId;
use dkvs_common::kv::{Key, Value};
use dkvs_common::model::{ReplicaCommand, ReplicaResponse};
use dkvs_common::mutants::{self, Mutant};
use dkvs_common::quorum::FetchFailure;
use dkvs_common::quorum::read::Read;
use dkvs_common::quorum::write::{Write, WriteResponse};
use dkvs_common::record::{Attributes, Content};
use dkvs_common::ring::PreferenceList;
use dkvs_common::tag::Tag;

use super::attestations::PendingAttestation;
use super::caller::CallerId;
use super::config::{AdmissionError, Now, RequestOptions, Wait};
use super::counts::Limit;
use super::operation::{
    CommandId, FollowUp, Operation, Outgoing, Purpose, ReadOperation, ReadResult, Step,
    WriteOperation, WriteResult,
};
use super::places::NoPlace;
use super::request::{InFlight, Progress, RequestId, Sent, Token};
use super::state::Core;
use crate::transport::assembly::Assembly;
use crate::transport::link::RequestHandle;
use crate::transport::peer::RequestError;

/// A read of a key.
#[derive(Debug, Clone)]
pub struct ReadRequest {
    /// The key.
    pub key: Key,
    /// Its replicas, one for each of the quorum's n.
    pub list: PreferenceList,
    /// Quorum, level, time and trace.
    pub options: RequestOptions,
}

/// A write of a key.
#[derive(Debug, Clone)]
pub struct WriteRequest {
    /// The key.
    pub key: Key,
    /// What is stored; a tombstone deletes the key.
    pub content: Content,
    /// What the record says beside its content. A write that is sent again has the same, but perhaps
    /// a greater age.
    pub attributes: Attributes,
    /// The tag of an earlier write that is sent again under it; none for a new one.
    pub tag: Option<Tag>,
    /// Its replicas, one for each of the quorum's n.
    pub list: PreferenceList,
    /// Quorum, level, time and trace.
    pub options: RequestOptions,
}

impl Core {
    /// Begins to read a key. Fails, with nothing sent, if it cannot begin.
    pub fn read(
        &mut self,
        request: ReadRequest,
        now: Now,
        on_end: impl FnOnce(ReadResult) + Send + 'static,
    ) -> Result<RequestId, AdmissionError> {
        let ReadRequest { key, list, options } = request;
        self.check(&key, None)?;
        let level = self.level(&list, options, now)?;
        let deadline = now.at + options.timeout;
        let read = Read::new(key, list, options.quorum, level, now.at, deadline);
        let view = Arc::clone(&self.view);
        let memory = self.memory.account(options.caller);
        let may_fall_back = options.may_fall_back;
        let operation = ReadOperation::new(view, read, deadline, may_fall_back, memory, on_end);
        self.begin(operation, options, now)
    }

    /// Begins to write a key; otherwise as [`Self::read`].
    pub fn write(
        &mut self,
        request: WriteRequest,
        now: Now,
        on_end: impl FnOnce(WriteResult) + Send + 'static,
    ) -> Result<RequestId, AdmissionError> {
        let WriteRequest {
            key,
            content,
            attributes,
            tag,
            list,
            options,
        } = request;
        self.check(&key, Some(&content))?;
        let level = self.level(&list, options, now)?;
        let deadline = now.at + options.timeout;
        let tag = tag.filter(|_| !mutants::is_on(Mutant::RetryWithNewTag));
        let (quorum, at) = (options.quorum, now.at);
        let write = match tag {
            Some(tag) => Write::resubmit(key, content, tag, list, quorum, level, at, deadline),
            None => Write::new(key, content, list, quorum, level, at, deadline),
        };
        let write = write.with_attributes(attributes);
        let view = Arc::clone(&self.view);
        let operation = WriteOperation::new(view, write, deadline, options.may_fall_back, on_end);
        self.begin(operation, options, now)
    }

    /// Begins an operation. It is completed once, unless it is cancelled. Fails, with nothing sent, if
    /// too much is under way.
    pub(super) fn begin(
        &mut self,
        operation: impl Operation + 'static,
        options: RequestOptions,
        now: Now,
    ) -> Result<RequestId, AdmissionError> {
        self.take_place(options.caller)?;
        let deadline = now.at + options.timeout;
        let soft_deadline = operation.soft_deadline();
        let request = InFlight {
            operation: Box::new(operation),
            started: now.at,
            deadline,
            wait: options.wait,
            caller: options.caller,
            is_among_decided: false,
            trace: options.trace,
            attempt: 0,
            sent: Vec::new(),
        };
        let id = self.requests.insert(request);
        for at in std::iter::once(deadline).chain(soft_deadline) {
            let requests = &self.requests;
            let is_in_flight = |other| requests.contains(other);
            self.deadlines.insert(now.at, at, id, is_in_flight);
        }
        self.drive(id, now);
        Ok(id)
    }

    /// Takes a place among the requests in flight, or says why there is none.
    fn take_place(&mut self, caller: CallerId) -> Result<(), AdmissionError> {
        let (limit, error) = match self.places.take(caller) {
            Ok(()) => return Ok(()),
            Err(NoPlace::Full) => {
                let what = "too many requests are in flight";
                (Limit::RequestsInFlight, AdmissionError::Overloaded { what })
            }
            Err(NoPlace::ShareTaken(held)) => {
                let max = self.config.requests_max;
                (
                    Limit::RequestsOfCaller,
                    AdmissionError::ShareTaken { held, max },
                )
            }
        };
        self.counts.limit_hit(limit);
        Err(error)
    }

    /// The caller does not wait for a request any more. A read ends; a write continues until it is
    /// decided.
    pub fn cancel(&mut self, id: RequestId, now: Now) {
        let Some(request) = self.requests.get_mut(id) else {
            return;
        };
        if !request.operation.outlives_caller() {
            if let Some(mut request) = self.take_out(id) {
                let counted = request.operation.counted_as_cancelled();
                self.counts.ended(counted);
                self.detach(id, &mut request);
            }
            return;
        }
        // Nobody wants to hear of the other replicas any more. They are sent the record all the same.
        request.wait = Wait::Quorum;
        if request.progress() == Progress::Due {
            self.end(id, now);
        }
    }

    /// Removes a request, which gives back its place.
    fn take_out(&mut self, id: RequestId) -> Option<InFlight> {
        let request = self.requests.remove(id)?;
        self.places.give_back(request.caller, id);
        Some(request)
    }

    /// Takes back a request of which nothing was sent yet. Its caller gets no outcome.
    pub fn withdraw(&mut self, id: RequestId) {
        if let Some(request) = self.take_out(id) {
            self.abandon(request.sent);
        }
    }

    /// Carries out the steps of an operation until it waits for something or has ended.
    pub(super) fn drive(&mut self, id: RequestId, now: Now) {
        loop {
            let Some(request) = self.requests.get_mut(id) else {
                return;
            };
            if request.operation.candidate().is_some() && !self.admit(id, now) {
                return self.conclude(id, now);
            }
            let Some(request) = self.requests.get_mut(id) else {
                return;
            };
            let operation = &mut request.operation;
            let Some(step) = operation.poll_step() else {
                return self.conclude(id, now);
            };
            match step {
                Step::Send {
                    to,
                    id: command,
                    outgoing,
                } => self.send(id, to, command, outgoing, now),
                Step::Fetch {
                    from,
                    key,
                    assembly,
                    stalls,
                } => self.fetch(id, from, key, (assembly, stalls), now),
                Step::Attest {
                    server,
                    round,
                    key,
                    tag,
                } => self.attest(id, server, round, (key, tag), now),
                Step::Wake { at } => {
                    let requests = &self.requests;
                    let is_in_flight = |other| requests.contains(other);
                    self.deadlines.insert(now.at, at, id, is_in_flight);
                }
                Step::MintTag { above } => {
                    let tag = self.clock.mint(now.unix_ms, above).ok();
                    operation.handle_minted(tag);
                    if tag.is_some() {
                        let abandoned = request.take_tag_queries();
                        self.abandon(abandoned);
                    }
                }
            }
        }
    }

    /// Ends a request that is due. One that is decided and waits leaves its place to others; where its
    /// caller has too many of those, the oldest of them ends with what it has.
    fn conclude(&mut self, id: RequestId, now: Now) {
        let Some(request) = self.requests.get_mut(id) else {
            return;
        };
        match request.progress() {
            Progress::Undecided => {}
            Progress::Due => self.end(id, now),
            Progress::Decided if request.is_among_decided => {}
            Progress::Decided => {
                request.is_among_decided = true;
                if let Some(oldest) = self.places.decide(request.caller, id) {
                    self.counts.limit_hit(Limit::RequestsDecided);
                    if mutants::is_on(Mutant::PendingAsTimedOut)
                        && let Some(request) = self.requests.get_mut(oldest)
                    {
                        request.operation.handle_deadline(request.deadline);
                    }
                    self.end(oldest, now);
                }
            }
        }
    }

    fn end(&mut self, id: RequestId, now: Now) {
        if let Some(mut request) = self.take_out(id) {
            self.detach(id, &mut request);
            self.note_missed(id, &request, now);
            self.counts.ended(request.operation.counted());
            request.complete();
        }
    }

    /// Abandons the commands whose responses no longer matter, and keeps the follow-ups.
    fn detach(&mut self, id: RequestId, request: &mut InFlight) {
        let abandoned = request.take_abandoned();
        self.abandon(abandoned);
        for FollowUp { server, key, tag } in request.operation.follow_ups() {
            let pending = PendingAttestation {
                key,
                tag,
                started: request.started,
                deadline: request.deadline,
            };
            self.attestations.insert(id, server, pending);
        }
    }

    /// A deadline, or a soft one, has passed.
    pub(super) fn handle_due(&mut self, id: RequestId, now: Now) {
        let Some(request) = self.requests.get_mut(id) else {
            return;
        };
        if now.at < request.deadline {
            request.operation.handle_soft_deadline();
            self.drive(id, now);
        } else {
            request.operation.handle_deadline(now.at);
            self.end(id, now);
        }
    }

    /// The request that a response, or the failure of a command, is for; none if that changes nothing
    /// any more. A request whose deadline has passed ends by this.
    fn in_time(&mut self, token: Token, now: Now) -> Option<&mut InFlight> {
        let deadline = self.requests.get(token.request)?.deadline;
        if now.at >= deadline {
            self.handle_due(token.request, now);
            return None;
        }
        let request = self.requests.get_mut(token.request)?;
        (request.attempt == token.attempt).then_some(request)
    }

    /// A server responded: the operation takes the response and is driven on.
    pub(super) fn handle_response(
        &mut self,
        token: Token,
        from: ServerId,
        response: ReplicaResponse,
        now: Now,
    ) {
        let id = token.command;
        match id.purpose {
            Purpose::Commit => drop(self.nudges.forget(token.request, from)),
            Purpose::Put => {
                self.note_room(from, token.request, &response, now);
                let _ = self.nudges.forget(token.request, from);
            }
            Purpose::WriteBack if response == ReplicaResponse::Done => {
                self.counts.of_mut(from).repairs_stored += 1;
            }
            _ => {}
        }
        if !self.requests.contains(token.request) {
            return self.handle_late_response(token, from, response, now);
        }
        if let Some(request) = self.in_time(token, now) {
            let operation = &mut request.operation;
            operation.handle_response(from, id, response, now.at);
            self.fall_back_or_drive(token.request, now);
        }
    }

    /// A command has ended: starts a new attempt if the operation asks for that, then drives it.
    fn fall_back_or_drive(&mut self, id: RequestId, now: Now) {
        let request = self.requests.get(id);
        if request.is_some_and(|request| request.operation.wants_to_fall_back()) {
            self.fall_back(id, now);
        }
        self.drive(id, now);
    }

    /// Starts a new attempt at the agreement level, if the operation may. One that had an outcome, and
    /// waited for the other replicas, has none any more.
    pub(super) fn fall_back(&mut self, id: RequestId, now: Now) -> bool {
        let Some(request) = self.requests.get_mut(id) else {
            return false;
        };
        let Some(abandoned) = request.fall_back(now.at) else {
            return false;
        };
        if std::mem::take(&mut request.is_among_decided) {
            self.places.reopen(request.caller, id);
        }
        self.abandon(abandoned);
        true
    }

    /// Nothing listens where a command was sent, or was to be sent.
    pub(super) fn handle_lost(&mut self, token: Token, to: ServerId, was_sent: bool, now: Now) {
        if !self.requests.contains(token.request) {
            return self.handle_late_failure(token, to, now);
        }
        if let Some(request) = self.in_time(token, now) {
            let operation = &mut request.operation;
            if token.command.purpose == Purpose::Put && mutants::is_on(Mutant::NudgeCounts) {
                operation.handle_response(to, token.command, ReplicaResponse::Done, now.at);
                return self.fall_back_or_drive(token.request, now);
            }
            operation.handle_unreachable(to, token.command, was_sent, now.at);
            self.fall_back_or_drive(token.request, now);
        }
    }

    /// A fetch has ended, with the value or with the part of it that has arrived.
    pub(super) fn handle_fetch_end(
        &mut self,
        token: Token,
        from: ServerId,
        end: Result<Value, (FetchFailure, Option<Assembly>)>,
        now: Now,
    ) {
        if let Some(request) = self.in_time(token, now) {
            match end {
                Ok(value) => request.operation.handle_fetched(from, value),
                Err((failure, assembly)) => {
                    request
                        .operation
                        .handle_fetch_failed(from, failure, assembly);
                }
            }
            self.fall_back_or_drive(token.request, now);
        }
    }

    /// A server responded when the request had ended. If it has thereby confirmed a write-back after
    /// which it is to attest the key, it is asked to.
    fn handle_late_response(
        &mut self,
        token: Token,
        from: ServerId,
        response: ReplicaResponse,
        now: Now,
    ) {
        if token.command.purpose != Purpose::WriteBack {
            return;
        }
        let Some(pending) = self.attestations.remove(token.request, from) else {
            return;
        };
        let PendingAttestation { key, tag, .. } = pending;
        if WriteResponse::to_put(response).confirms(tag)
            && let Some(boot_id) = self.boot_id_before(from, pending.started)
            && let Some(link) = self.servers.to(from)
        {
            let command = ReplicaCommand::Attest { boot_id, key, tag };
            let id = CommandId {
                purpose: Purpose::Attest,
                ..token.command
            };
            let token = Token {
                command: id,
                ..token
            };
            // If it cannot be asked, a later read asks again.
            let by = (token, CallerId::Internal.party());
            let _ = link.send(command, by, now.at, pending.deadline);
        }
    }

    /// Has `server` attest what it was given, if it is known to have lost nothing since long enough
    /// before the operation began.
    fn attest(
        &mut self,
        id: RequestId,
        server: ServerId,
        round: u32,
        (key, tag): (Key, Tag),
        now: Now,
    ) {
        let command = CommandId {
            round,
            purpose: Purpose::Attest,
        };
        let started = self.requests.get(id).map(|request| request.started);
        if let Some(boot_id) = started.and_then(|started| self.boot_id_before(server, started)) {
            let attest = ReplicaCommand::Attest { boot_id, key, tag };
            let outgoing = Outgoing::Command(attest);
            self.send(id, server, command, outgoing, now);
        } else if let Some(request) = self.requests.get_mut(id) {
            let operation = &mut request.operation;
            operation.handle_unreachable(server, command, false, now.at);
        }
    }

    /// The boot id of `server`, if it had that so long before `at` that whatever counts a response
    /// from before it was started was decided by then.
    fn boot_id_before(&self, server: ServerId, at: Instant) -> Option<u64> {
        let incarnation = self.servers.incarnation(server)?;
        // A quarter more, for clocks that do not run alike.
        let settling = self.config.timeout_max * 5 / 4;
        let is_long_known = incarnation.known_since + settling <= at;
        is_long_known.then_some(incarnation.boot_id)
    }

    /// Fetches a value of which so much is there, from a server that has stalled with it so often.
    fn fetch(&mut self, id: RequestId, from: ServerId, key: Key, begun: (Assembly, u32), now: Now) {
        let Some(request) = self.requests.get_mut(id) else {
            return;
        };
        let command = CommandId {
            round: 0,
            purpose: Purpose::Fetch,
        };
        let token = request.token(id, command);
        let fetch: Result<RequestHandle, RequestError> = match self.servers.to(from) {
            Some(link) => {
                let by = (token, request.caller.party());
                link.fetch(key, begun, by, now.at, request.deadline)
            }
            None => Err(RequestError::TooMany),
        };
        match fetch {
            Ok(handle) => request.sent.push(Sent {
                to: from,
                id: command,
                handle,
            }),
            Err(_) => {
                let failed = FetchFailure::Failed;
                request.operation.handle_fetch_failed(from, failed, None);
            }
        }
    }

    pub(super) fn abandon(&mut self, sent: Vec<Sent>) {
        for Sent { to, handle, .. } in sent {
            self.servers.abandon(to, handle);
        }
    }
}
