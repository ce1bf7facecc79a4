//! What reaches a core from outside, and what it wants sent.

use std::time::Instant;

use bytes::Bytes;
use dkvs_common::cluster::ServerId;
use dkvs_common::model::Description;

use super::config::Now;
use super::request::Token;
use super::state::Core;
use crate::transport::v1::Exchange;

/// What a server means for this client that serves another configuration; for the log.
pub const OTHER_CONFIGURATION: &str = "it serves another configuration of the cluster, and refuses requests: its \
    servers file or its --replication differs from that of this client. Start both with the same";

impl Core {
    /// A datagram arrived from `server`.
    pub fn handle_datagram(&mut self, server: ServerId, datagram: &Bytes, now: Now) {
        let before = self.v1_only(server);
        let described = self.description(server);
        self.servers.handle_datagram(server, datagram, now.at);
        let after = self.v1_only(server);
        if before != after
            && let Some(v1_only) = after
        {
            let addr = self.view.name(server);
            tracing::warn!(%addr, "{}", v1_only.advice(self.config.protocol));
        }
        if let Some(Description {
            epoch: Some(served),
            ..
        }) = self.description(server)
            && described.is_none_or(|before| before.epoch != Some(served))
            && served != self.epoch()
        {
            let (addr, own) = (self.view.name(server), self.epoch());
            tracing::warn!(%addr, %served, %own, "{OTHER_CONFIGURATION}");
        }
        self.handle_events(server, now);
    }

    /// The system reports that nothing listens at the port of `server`.
    pub fn handle_unreachable(&mut self, server: ServerId, now: Now) {
        if let Some(link) = self.servers.to(server) {
            link.handle_unreachable(now.at);
        }
        self.handle_events(server, now);
    }

    /// Time has passed.
    pub fn handle_timeout(&mut self, now: Now) {
        // Requests first: that a fetch ends at its request's deadline is no failure of the server.
        while let Some(id) = self.deadlines.pop_due(now.at) {
            self.handle_due(id, now);
        }
        for server in self.servers.handle_timeout(now.at) {
            self.handle_events(server, now);
        }
    }

    /// When to call [`Self::handle_timeout`] next, once there is nothing more to send.
    pub fn poll_timeout(&self) -> Option<Instant> {
        let deadline = self.deadlines.next();
        deadline.into_iter().chain(self.servers.next_due()).min()
    }

    /// A server towards which there may be something to send, each once.
    pub fn poll_server(&mut self) -> Option<ServerId> {
        self.servers.poll_server()
    }

    /// Something can be sent to `server` again.
    pub fn resume(&mut self, server: ServerId) {
        self.servers.to(server);
    }

    /// Whether [`Self::poll_server`] would return one.
    pub fn wants_to_send(&self) -> bool {
        self.servers.is_any_dirty()
    }

    /// The next datagram to send to `to`, until there is none.
    pub fn poll_transmit(&mut self, to: ServerId, now: Now) -> Option<Vec<u8>> {
        let datagram = self.servers.poll_transmit(to, now.at);
        if datagram.is_none() {
            // A request that turned out to fit no datagram, for one, has ended by that.
            self.handle_events(to, now);
        }
        datagram
    }

    /// The next command to send by DKVS/1, from a socket of its own. Its end is reported to
    /// [`Self::handle_exchange`] or [`Self::handle_exchange_unreachable`].
    pub fn poll_exchange(&mut self) -> Option<Exchange<Token>> {
        self.by_v1.poll()
    }
}
