//! Datagrams into a socket: together where the system can, one by one where it cannot.
//!
//! With offload, datagrams leave with Don't Fragment set, as DKVS/2 wants it: one that is too long
//! for the path is lost and not sent in pieces. DKVS/1 has nothing but the pieces for a long
//! value, so its long replies leave without.

use std::io;
use std::sync::Arc;

use dkvs_common::wire::v2::{DATAGRAM_BYTES_DEFAULT, DATAGRAM_BYTES_MAX};
use quinn_udp::{UdpSocketState, is_msg_size_err};
use tokio::io::Interest;
use tokio::net::UdpSocket;

use super::system;
use crate::protocol::{Protocol, Transmit};
use crate::service::Service;

/// How many datagrams an outbox holds before it asks to be emptied.
const DATAGRAMS_MAX: usize = 256;

/// How many bytes.
const BYTES_MAX: usize = 1 << 20;

/// Whether the datagram may have to travel in pieces: it is DKVS/1, and not so short that every
/// path carries it.
fn needs_fragments(transmit: &Transmit) -> bool {
    transmit.protocol == Protocol::V1 && transmit.datagram.len() > DATAGRAM_BYTES_DEFAULT
}

/// The replies to what arrived together.
#[derive(Default)]
pub(super) struct Outbox {
    waiting: Vec<Transmit>,
    bytes: usize,
}

impl Outbox {
    pub(super) fn push(&mut self, transmit: Transmit) {
        self.bytes += transmit.datagram.len();
        self.waiting.push(transmit);
    }

    pub(super) fn is_full(&self) -> bool {
        self.waiting.len() >= DATAGRAMS_MAX || self.bytes >= BYTES_MAX
    }
}

/// Sends replies, and counts those that the system did not send.
pub(super) struct Sender {
    pub(super) socket: Arc<UdpSocket>,
    pub(super) service: Arc<Service>,
    pub(super) offload: Option<Arc<UdpSocketState>>,
}

impl Sender {
    /// Sends what is in the outbox, and empties it.
    pub(super) async fn flush(&self, outbox: &mut Outbox) {
        let waiting = &outbox.waiting[..];
        let (mut begin, mut at) = (0, 0);
        while at < waiting.len() {
            let end = at + self.run(&waiting[at..]);
            if end - at > 1 {
                self.send_each(&waiting[begin..at]).await;
                self.send_run(&waiting[at..end]).await;
                begin = end;
            }
            at = end;
        }
        self.send_each(&waiting[begin..]).await;
        outbox.waiting.clear();
        outbox.bytes = 0;
    }

    /// How many of the first datagrams the system can cut from one piece: to one peer and of one
    /// length, of which the last may fall short.
    fn run(&self, waiting: &[Transmit]) -> usize {
        let segments_max = match &self.offload {
            Some(state) => state.max_gso_segments(),
            None => 1,
        };
        let first = &waiting[0];
        let length = first.datagram.len();
        // A piece of no bytes would be none.
        if needs_fragments(first) || length == 0 {
            return 1;
        }
        let count_max = segments_max.min(DATAGRAM_BYTES_MAX / length);
        let mut run = 1;
        while run < count_max.min(waiting.len()) {
            let next = &waiting[run];
            let next_length = next.datagram.len();
            let fits = !needs_fragments(next) && (1..=length).contains(&next_length);
            if !fits || next.peer != first.peer {
                break;
            }
            run += 1;
            if next_length < length {
                break;
            }
        }
        run
    }

    /// Sends a run as one piece (GSO), or each by itself where that does not work.
    async fn send_run(&self, run: &[Transmit]) {
        let Some(state) = &self.offload else {
            return self.send_each(run).await;
        };
        let mut contents = Vec::with_capacity(run[0].datagram.len() * run.len());
        for transmit in run {
            contents.extend_from_slice(&transmit.datagram);
        }
        let batch = quinn_udp::Transmit {
            destination: run[0].peer,
            ecn: None,
            contents: &contents,
            segment_size: Some(run[0].datagram.len()),
            src_ip: None,
        };
        let send = || state.try_send((&*self.socket).into(), &batch);
        if let Err(error) = self.socket.async_io(Interest::WRITABLE, send).await {
            tracing::debug!(%error, "segmentation failed");
            self.send_each(run).await;
        }
    }

    async fn send_each(&self, mut waiting: &[Transmit]) {
        while let Some(first) = waiting.first() {
            let together = waiting.iter().take_while(|next| !needs_fragments(next));
            let together = together.count();
            if self.offload.is_none() || together < 2 {
                self.send(first).await;
                waiting = &waiting[1..];
                continue;
            }
            let send = || system::send_many(&self.socket, &waiting[..together]);
            let sent = match self.socket.async_io(Interest::WRITABLE, send).await {
                Ok(sent) => sent.max(1),
                // An error is about the first alone.
                Err(error) => {
                    self.failed(first, &error);
                    1
                }
            };
            waiting = &waiting[sent..];
        }
    }

    /// Sends one datagram.
    pub(super) async fn send(&self, transmit: &Transmit) {
        let Transmit { datagram, peer, .. } = transmit;
        let sent = if self.offload.is_some() && needs_fragments(transmit) {
            let send = || system::send_in_fragments(&self.socket, datagram, *peer);
            self.socket.async_io(Interest::WRITABLE, send).await
        } else {
            self.socket.send_to(datagram, *peer).await
        };
        if let Err(error) = sent {
            self.failed(transmit, &error);
        }
    }

    fn failed(&self, transmit: &Transmit, error: &io::Error) {
        let (peer, bytes) = (transmit.peer, transmit.datagram.len());
        if is_msg_size_err(error) {
            self.service.counters.replies_too_long.add(1);
            tracing::debug!(%peer, bytes, "a reply is too long for its path");
        } else {
            self.service.counters.io_errors.add(1);
            tracing::debug!(%peer, bytes, %error, "a reply could not be sent");
        }
    }
}
