//! By which protocol a command goes, and what follows where a server speaks DKVS/1 only.

use std::time::Instant;

use dkvs_common::cluster::ServerId;
use dkvs_common::kv::Key;
use dkvs_common::model::{Refusal, ReplicaCommand, ReplicaResponse};
use dkvs_common::quorum::Level;
use dkvs_common::record::Content;
use dkvs_common::ring::PreferenceList;

use super::config::{AdmissionError, Now, Protocol, RequestOptions};
use super::counts::Limit;
use super::operation::{CommandId, Outgoing, Purpose};
use super::request::{RequestId, Sent, Token};
use super::state::Core;
use crate::transport::link::LinkEvent;
use crate::transport::peer::{PeerVersion, RequestError};
use crate::transport::v1;

impl Core {
    /// Whether the protocols that may be spoken can carry the key and, to write it, the content.
    pub(super) fn check(&self, key: &Key, content: Option<&Content>) -> Result<(), AdmissionError> {
        // By DKVS/2, what fits depends on what is asked, and of whom.
        if self.config.protocol != Protocol::V1 {
            return Ok(());
        }
        v1::check_key(key)?;
        match content {
            None => Ok(()),
            Some(Content::Value { value, .. }) => Ok(v1::check_value(value)?),
            Some(Content::Tombstone) => Err(AdmissionError::NoDeletion),
        }
    }

    /// The level that a request can have at these servers, as far as they are known.
    pub(super) fn level(
        &mut self,
        list: &PreferenceList,
        options: RequestOptions,
        now: Now,
    ) -> Result<Level, AdmissionError> {
        // Where DKVS/1 is not spoken, a server that speaks nothing else cannot be asked, and that is
        // no reason to promise less of what the others say.
        if options.level == Level::Agreement || self.config.protocol == Protocol::V2 {
            return Ok(options.level);
        }
        let speaks_v1 = |server: &ServerId| self.speaks(*server) == PeerVersion::V1;
        let servers = list.iter().map(|point| point.server);
        let without_tags: Vec<ServerId> = servers.filter(speaks_v1).collect();
        match without_tags[..] {
            [] => Ok(Level::Linearizable),
            _ if options.may_fall_back => Ok(Level::Agreement),
            [server, ..] => {
                // Servers that are never asked would count as servers of DKVS/1 for ever, even after
                // a restart, or if damage alone made it seem so.
                for server in without_tags {
                    self.servers.greet_if_due(server, now.at);
                }
                let server = self.view.name(server).to_owned();
                Err(AdmissionError::NoTags { server })
            }
        }
    }

    /// Sends a command to a server, by the protocol that it speaks.
    pub(super) fn send(
        &mut self,
        id: RequestId,
        to: ServerId,
        command: CommandId,
        outgoing: Outgoing,
        now: Now,
    ) {
        let Some(request) = self.requests.get_mut(id) else {
            return;
        };
        let is_v1 = match self.config.protocol {
            Protocol::V1 => true,
            Protocol::V2 => false,
            Protocol::Auto => self.servers.speaks(to) == PeerVersion::V1,
        };
        let failed = match (is_v1, request.operation.requires_tags()) {
            (true, true) => Some(ReplicaResponse::Refused(Refusal::NotV2)),
            (true, false) => self.send_by_v1(id, to, command, outgoing, now),
            (false, _) => return self.send_by_v2(id, to, command, outgoing, now),
        };
        if let Some(response) = failed
            && let Some(request) = self.requests.get_mut(id)
        {
            let operation = &mut request.operation;
            operation.handle_response(to, command, response, now.at);
        }
    }

    /// Returns a refusal if DKVS/1 cannot carry the command.
    fn send_by_v1(
        &mut self,
        id: RequestId,
        to: ServerId,
        command: CommandId,
        outgoing: Outgoing,
        now: Now,
    ) -> Option<ReplicaResponse> {
        let request = self.requests.get(id)?;
        let token = request.token(id, command);
        let deadline = request.deadline;
        let message = outgoing.into_command(0);
        let sent = self.exchange(to, &message, token, deadline);
        // It may have been restarted as one that speaks DKVS/2.
        self.servers.greet_if_due(to, now.at);
        sent.err().map(ReplicaResponse::Refused)
    }

    fn exchange(
        &mut self,
        to: ServerId,
        command: &ReplicaCommand,
        token: Token,
        deadline: Instant,
    ) -> Result<(), Refusal> {
        // A server that is in no view any more is not asked.
        let addr = self.view.cluster().addr(to).ok_or(Refusal::Busy)?;
        self.by_v1.send((to, addr), command, token, deadline)
    }

    fn send_by_v2(
        &mut self,
        id: RequestId,
        to: ServerId,
        command: CommandId,
        outgoing: Outgoing,
        now: Now,
    ) {
        let Some(request) = self.requests.get_mut(id) else {
            return;
        };
        let token = request.token(id, command);
        let sent = match self.servers.to(to) {
            Some(link) => {
                let message = outgoing.into_command(link.message_bytes_max());
                let by = (token, request.caller.party());
                let sent = link.send(message, by, now.at, request.deadline);
                if let (Ok(handle), Some(trace)) = (&sent, request.trace) {
                    link.set_trace(*handle, trace);
                }
                sent
            }
            None => Err(RequestError::TooMany),
        };
        let refusal = match sent {
            Ok(handle) => {
                if command.purpose == Purpose::WriteBack {
                    self.counts.of_mut(to).repairs_sent += 1;
                }
                let id = command;
                return request.sent.push(Sent { to, id, handle });
            }
            Err(RequestError::Unreachable) => {
                let operation = &mut request.operation;
                return operation.handle_unreachable(to, command, false, now.at);
            }
            Err(RequestError::TooLong { .. }) => {
                let max = self.servers.message_bytes_max(to).unwrap_or(0);
                key_too_long(request.operation.key_bytes_max(command, max))
            }
            Err(RequestError::TooMany) => {
                self.counts.limit_hit(Limit::RequestsToServer);
                Refusal::Busy
            }
        };
        let response = ReplicaResponse::Refused(refusal);
        let operation = &mut request.operation;
        operation.handle_response(to, command, response, now.at);
    }

    /// A server answered by DKVS/1.
    pub fn handle_exchange(
        &mut self,
        token: Token,
        from: ServerId,
        response: ReplicaResponse,
        now: Now,
    ) {
        self.handle_response(token, from, response, now);
    }

    /// A command by DKVS/1 did not reach its server.
    pub fn handle_exchange_unreachable(&mut self, token: Token, to: ServerId, now: Now) {
        self.handle_lost(token, to, false, now);
    }

    /// Passes on what the link to a server reports.
    pub(super) fn handle_events(&mut self, server: ServerId, now: Now) {
        while let Some(event) = self.servers.poll_event(server) {
            match event {
                LinkEvent::Response {
                    token,
                    response,
                    after,
                    was_repeated,
                } => {
                    if let Some(after) = after {
                        self.counts.round_trip(server, after);
                    }
                    if was_repeated && matches!(response, ReplicaResponse::Refused(_)) {
                        self.handle_repeated_refusal(token);
                    }
                    self.handle_response(token, server, response, now);
                }
                LinkEvent::Fetched { token, value } => {
                    self.handle_fetch_end(token, server, Ok(value), now);
                }
                LinkEvent::FetchFailed {
                    token,
                    failure,
                    assembly,
                } => {
                    self.handle_fetch_end(token, server, Err((failure, assembly)), now);
                }
                LinkEvent::Unreachable { token, sent } => {
                    self.handle_lost(token, server, sent, now);
                }
                LinkEvent::TooLong { token } => self.handle_too_long(token, server, now),
                LinkEvent::NotV2 { token } => self.handle_not_v2(token, server, now),
                // The deadline is the request's own, which `Core::handle_timeout` ends.
                LinkEvent::Expired { token } => self.handle_late_failure(token, server, now),
                LinkEvent::Restarted => {
                    self.full.remove(server);
                    let addr = self.view.name(server);
                    tracing::info!(%addr, "a server was restarted");
                }
            }
        }
    }

    /// A command turned out to be longer than the server takes.
    fn handle_too_long(&mut self, token: Token, to: ServerId, now: Now) {
        let Some(request) = self.requests.get(token.request) else {
            return self.handle_late_failure(token, to, now);
        };
        let max = self.servers.message_bytes_max(to).unwrap_or(0);
        let refusal = key_too_long(request.operation.key_bytes_max(token.command, max));
        self.handle_response(token, to, ReplicaResponse::Refused(refusal), now);
    }

    /// A server refuses what was sent to it more than once, or may have been.
    fn handle_repeated_refusal(&mut self, token: Token) {
        if let Some(request) = self.requests.get_mut(token.request)
            && request.attempt == token.attempt
        {
            let operation = &mut request.operation;
            operation.handle_repeated_refusal(token.command);
        }
    }

    /// A server turned out to speak DKVS/1 only: the command is sent by that, if that will do.
    fn handle_not_v2(&mut self, token: Token, server: ServerId, now: Now) {
        let Token {
            request: id,
            attempt,
            command,
        } = token;
        let Some(request) = self.requests.get_mut(id) else {
            return self.handle_late_failure(token, server, now);
        };
        if request.attempt != attempt {
            return;
        }
        let is_v2_only = matches!(command.purpose, Purpose::Fetch | Purpose::Page);
        let is_v1_spoken = self.config.protocol != Protocol::V2 && !is_v2_only;
        if is_v1_spoken && request.operation.requires_tags() && self.fall_back(id, now) {
            return self.drive(id, now);
        }
        let Some(request) = self.requests.get_mut(id) else {
            return;
        };
        let requires_tags = request.operation.requires_tags()
            && !(is_v1_spoken && request.operation.fall_back_midway());
        let is_put = command.purpose == Purpose::Put;
        if is_put && !requires_tags && request.operation.wants_another_round() {
            // It is asked in that, and not in this one.
            request.forget(server);
            return self.drive(id, now);
        }
        if !is_v1_spoken || requires_tags || command.purpose == Purpose::Ping {
            let response = ReplicaResponse::Refused(Refusal::NotV2);
            return self.handle_response(token, server, response, now);
        }
        let Some(again) = request.operation.command(command) else {
            return;
        };
        request.forget(server);
        let deadline = request.deadline;
        if let Err(refusal) = self.exchange(server, &again, token, deadline) {
            let response = ReplicaResponse::Refused(refusal);
            self.handle_response(token, server, response, now);
        }
    }
}

fn key_too_long(key_bytes_max: usize) -> Refusal {
    let key_bytes_max = u32::try_from(key_bytes_max).unwrap_or(u32::MAX);
    Refusal::KeyTooLong { key_bytes_max }
}
