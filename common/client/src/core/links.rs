//! The links of a core: one per server that was opened, with what is due on them.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::transport::link::{Event, Link, Ticket};
use crate::transport::peer::{Config, Counters, Incarnation, Speaks};
use dkvs_common::cluster::ServerId;
use dkvs_common::wire::v2::keys::Keys;

use super::words::Token;

/// What a link knows of its server.
#[derive(Debug, Clone, Copy)]
pub struct LinkStatus {
    /// The smoothed round trip.
    pub round_trip: Option<Duration>,
    /// Counts since the link was opened.
    pub counters: Counters,
    /// Datagrams received.
    pub datagrams_received: u64,
    /// Bytes on their way to the server or asked of it.
    pub in_flight_bytes: usize,
    /// How many may be.
    pub window_bytes: usize,
}

pub(super) struct Links {
    /// By server; none before it is opened.
    opened: Vec<Option<Opened>>,
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

impl Links {
    pub(super) fn new(servers: usize) -> Self {
        Self {
            opened: (0..servers).map(|_| None).collect(),
            dirty: VecDeque::new(),
            next_due: None,
        }
    }

    pub(super) fn is_open(&self, server: ServerId) -> bool {
        self.opened[server.index()].is_some()
    }

    pub(super) fn open(&mut self, server: ServerId, config: Config, random: u64, now: Instant) {
        self.opened[server.index()].get_or_insert_with(|| Opened {
            link: Link::new(config, random, now),
            is_dirty: false,
            datagrams_received: 0,
        });
    }

    pub(super) fn speaks(&self, server: ServerId) -> Speaks {
        let opened = self.opened[server.index()].as_ref();
        opened.map_or(Speaks::Unknown, |opened| opened.link.speaks())
    }

    pub(super) fn is_downgraded(&self, server: ServerId) -> bool {
        let opened = self.opened[server.index()].as_ref();
        opened.is_some_and(|opened| opened.link.is_downgraded())
    }

    pub(super) fn incarnation(&self, server: ServerId) -> Option<Incarnation> {
        let opened = self.opened[server.index()].as_ref()?;
        opened.link.incarnation()
    }

    /// The longest message to `server`, as far as is known; none before it is opened.
    pub(super) fn message_bytes_max(&self, server: ServerId) -> Option<usize> {
        let opened = self.opened[server.index()].as_ref();
        opened.map(|opened| opened.link.message_bytes_max())
    }

    pub(super) fn status(&self, server: ServerId) -> Option<LinkStatus> {
        let opened = self.opened[server.index()].as_ref()?;
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
        let opened = self.opened[server.index()].as_mut()?;
        if !opened.is_dirty {
            opened.is_dirty = true;
            self.dirty.push_back(server);
        }
        Some(&mut opened.link)
    }

    /// The same, when a datagram has arrived: that may have made room for more.
    pub(super) fn from(&mut self, server: ServerId) -> Option<&mut Link<Token>> {
        if let Some(opened) = &mut self.opened[server.index()] {
            opened.datagrams_received += 1;
        }
        self.to(server)
    }

    pub(super) fn poll_event(&mut self, server: ServerId) -> Option<Event<Token>> {
        self.opened[server.index()].as_mut()?.link.poll_event()
    }

    pub(super) fn abandon(&mut self, server: ServerId, ticket: Ticket) {
        if let Some(opened) = &mut self.opened[server.index()] {
            opened.link.abandon(ticket);
        }
    }

    pub(super) fn set_keys(&mut self, keys: &Arc<Keys>) {
        for opened in self.opened.iter_mut().flatten() {
            opened.link.set_keys(Arc::clone(keys));
        }
    }

    pub(super) fn poll_server(&mut self) -> Option<ServerId> {
        let server = self.dirty.pop_front()?;
        if let Some(opened) = &mut self.opened[server.index()] {
            opened.is_dirty = false;
        }
        Some(server)
    }

    pub(super) fn is_any_dirty(&self) -> bool {
        !self.dirty.is_empty()
    }

    pub(super) fn poll_transmit(&mut self, to: ServerId, now: Instant) -> Option<Vec<u8>> {
        let link = &mut self.opened[to.index()].as_mut()?.link;
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

    /// Lets time pass on every link; gives the servers on whose links something was due.
    pub(super) fn handle_timeout(&mut self, now: Instant) -> Vec<ServerId> {
        let mut due_now = Vec::new();
        self.next_due = None;
        for number in 0..self.opened.len() {
            let Some(opened) = &mut self.opened[number] else {
                continue;
            };
            let due = opened.link.poll_timeout();
            if due.is_some_and(|due| due <= now) {
                let server = ServerId(number as u16);
                opened.link.handle_timeout(now);
                due_now.push(server);
                self.to(server);
            } else {
                self.next_due = self.next_due.into_iter().chain(due).min();
            }
        }
        due_now
    }
}
