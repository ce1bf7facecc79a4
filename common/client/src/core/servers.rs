//! The servers of a core: a link to each that was opened, with what is due on it.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use dkvs_common::cluster::ServerId;
use dkvs_common::model::Description;
use dkvs_common::server_map::ServerMap;
use dkvs_common::wire::v2::keys::Keys;

use super::request::Token;
use crate::transport::link::{Link, LinkEvent, RequestHandle};
use crate::transport::peer::{Incarnation, PeerConfig, PeerCounters, PeerVersion};

/// What a link knows of its server.
#[derive(Debug, Clone, Copy)]
pub struct LinkStatus {
    /// The smoothed round trip.
    pub round_trip: Option<Duration>,
    /// Counts since the link was opened.
    pub counters: PeerCounters,
    /// Datagrams received.
    pub datagrams_received: u64,
    /// Bytes on their way to the server or asked of it.
    pub in_flight_bytes: usize,
    /// How many may be.
    pub window_bytes: usize,
}

/// The links of a core.
#[derive(Default)]
pub(super) struct Servers {
    opened: ServerMap<Opened>,
    /// The servers towards which there may be something to send.
    dirty: VecDeque<ServerId>,
    /// No link has anything due before, but for those that are dirty.
    next_due: Option<Instant>,
}

struct Opened {
    link: Link<Token>,
    is_dirty: bool,
    datagrams_received: u64,
}

impl Servers {
    pub(super) fn is_open(&self, server: ServerId) -> bool {
        self.opened.contains(server)
    }

    pub(super) fn open(&mut self, server: ServerId, config: PeerConfig, random: u64, now: Instant) {
        self.opened.get_or_insert_with(server, || Opened {
            link: Link::new(config, random, now),
            is_dirty: false,
            datagrams_received: 0,
        });
    }

    fn link(&self, server: ServerId) -> Option<&Link<Token>> {
        self.opened.get(server).map(|opened| &opened.link)
    }

    pub(super) fn speaks(&self, server: ServerId) -> PeerVersion {
        self.link(server).map_or(PeerVersion::Unknown, Link::speaks)
    }

    pub(super) fn is_downgraded(&self, server: ServerId) -> bool {
        self.link(server).is_some_and(Link::is_downgraded)
    }

    pub(super) fn incarnation(&self, server: ServerId) -> Option<Incarnation> {
        self.link(server)?.incarnation()
    }

    pub(super) fn description(&self, server: ServerId) -> Option<Description> {
        self.link(server)?.description()
    }

    /// The longest message to `server`, as far as is known; none before it is opened.
    pub(super) fn message_bytes_max(&self, server: ServerId) -> Option<usize> {
        self.link(server).map(Link::message_bytes_max)
    }

    pub(super) fn status(&self, server: ServerId) -> Option<LinkStatus> {
        let opened = self.opened.get(server)?;
        Some(LinkStatus {
            round_trip: opened.link.round_trip(),
            counters: opened.link.counters(),
            datagrams_received: opened.datagrams_received,
            in_flight_bytes: opened.link.in_flight_bytes(),
            window_bytes: opened.link.window_bytes(),
        })
    }

    /// The link of `server`, to make it send something.
    pub(super) fn to(&mut self, server: ServerId) -> Option<&mut Link<Token>> {
        let opened = self.opened.get_mut(server)?;
        if !opened.is_dirty {
            opened.is_dirty = true;
            self.dirty.push_back(server);
        }
        Some(&mut opened.link)
    }

    /// Greets a server if it was not greeted lately: it may have been restarted as one that can do
    /// more.
    pub(super) fn greet_if_due(&mut self, server: ServerId, now: Instant) {
        if let Some(link) = self.to(server) {
            link.greet_if_due(now);
        }
    }

    /// A datagram has arrived, which may have made room for more.
    pub(super) fn handle_datagram(&mut self, from: ServerId, datagram: &Bytes, now: Instant) {
        if let Some(opened) = self.opened.get_mut(from) {
            opened.datagrams_received += 1;
        }
        if let Some(link) = self.to(from) {
            link.handle_datagram(datagram, now);
        }
    }

    pub(super) fn poll_event(&mut self, server: ServerId) -> Option<LinkEvent<Token>> {
        self.opened.get_mut(server)?.link.poll_event()
    }

    pub(super) fn abandon(&mut self, server: ServerId, handle: RequestHandle) {
        if let Some(opened) = self.opened.get_mut(server) {
            opened.link.abandon(handle);
        }
    }

    pub(super) fn set_keys(&mut self, keys: &Arc<Keys>) {
        for (_, opened) in self.opened.iter_mut() {
            opened.link.set_keys(Arc::clone(keys));
        }
    }

    pub(super) fn poll_server(&mut self) -> Option<ServerId> {
        let server = self.dirty.pop_front()?;
        if let Some(opened) = self.opened.get_mut(server) {
            opened.is_dirty = false;
        }
        Some(server)
    }

    pub(super) fn is_any_dirty(&self) -> bool {
        !self.dirty.is_empty()
    }

    pub(super) fn poll_transmit(&mut self, to: ServerId, now: Instant) -> Option<Vec<u8>> {
        let link = &mut self.opened.get_mut(to)?.link;
        let datagram = link.poll_transmit(now);
        if datagram.is_none() {
            let due = link.poll_timeout();
            self.next_due = self.next_due.into_iter().chain(due).min();
        }
        datagram
    }

    pub(super) fn next_due(&self) -> Option<Instant> {
        self.next_due
    }

    /// Lets time pass on every link; returns the servers on whose links something was due.
    pub(super) fn handle_timeout(&mut self, now: Instant) -> Vec<ServerId> {
        let mut due_now = Vec::new();
        self.next_due = None;
        for (server, opened) in self.opened.iter_mut() {
            let due = opened.link.poll_timeout();
            if due.is_some_and(|due| due <= now) {
                opened.link.handle_timeout(now);
                due_now.push(server);
                if !opened.is_dirty {
                    opened.is_dirty = true;
                    self.dirty.push_back(server);
                }
            } else {
                self.next_due = self.next_due.into_iter().chain(due).min();
            }
        }
        due_now
    }
}
