//! Background work of a server: what no datagram asks for at the time.
//!
//! ```text
//!                      handle              poll_transmit
//!   disk, peers ----------------> [      ] -------------> socket
//!                handle_timeout   [      ]
//!   clock ----------------------> [      ] <------------- poll_timeout
//! ```
//!
//! Each worker drives one [`Maintenance`] beside its socket: it calls [`Maintenance::handle`] when
//! something arrived, [`Maintenance::handle_timeout`] when the time of
//! [`Maintenance::poll_timeout`] has come, and sends what [`Maintenance::poll_transmit`] returns,
//! after every call of either. It does no I/O and reads no clock. So far it sends deferred replies,
//! lets lists take turns, and drops idle uploads.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Instant;

use crate::protocol::{Backlog, Deferred, DeferredReply, Protocol, Replies, Transmit};
use crate::service::Service;

/// The background work of one worker.
pub struct Maintenance {
    service: Arc<Service>,
    backlog: Backlog,
    transmits: VecDeque<Transmit>,
}

/// Something that arrived.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Arrival {
    /// The disk has completed changes: the replies to them wait in [`Maintenance::backlog`].
    Completions,
}

impl Maintenance {
    /// The background work of a worker of this service. Calls `wake` when [`Arrival::Completions`]
    /// is to be handled.
    pub fn new(service: Arc<Service>, wake: impl Fn() + Send + Sync + 'static) -> Self {
        Self {
            service,
            backlog: Backlog::new(wake),
            transmits: VecDeque::new(),
        }
    }

    /// What the worker's requests are answered from later.
    pub fn backlog(&mut self) -> &mut Backlog {
        &mut self.backlog
    }

    /// Takes note of something that arrived.
    pub fn handle(&mut self, arrival: Arrival) {
        match arrival {
            Arrival::Completions => self.send_deferred(),
        }
    }

    /// Does what is due at this time: of the lists that wait, a bounded part of one.
    pub fn handle_timeout(&mut self, now: Instant) {
        let replica = &self.service.replica;
        replica.expire_uploads(now);
        self.backlog.lists.take_turn(replica, now);
        self.send_deferred();
    }

    /// When [`Self::handle_timeout`] is to be called next, if ever. Datagrams that were handled may
    /// have changed it. While lists wait it is a time that has passed: they have the next turn, after
    /// everything that has arrived by then.
    pub fn poll_timeout(&self) -> Option<Instant> {
        let list = self.backlog.lists.next_turn();
        list.or_else(|| self.service.replica.next_upload_expiry())
    }

    /// Whether there is work that only waits for its turn.
    pub fn has_turn(&self) -> bool {
        !self.backlog.lists.is_empty()
    }

    /// The next datagram to send, if there is one.
    pub fn poll_transmit(&mut self) -> Option<Transmit> {
        self.transmits.pop_front()
    }

    /// Puts the replies that are known into datagrams, those to one client together.
    fn send_deferred(&mut self) {
        let mut waiting = self.backlog.replies.take();
        if waiting.is_empty() {
            return;
        }
        // Stable: to each client in the order in which they came.
        waiting.sort_by_key(|deferred| deferred.peer);
        let mut waiting = waiting.into_iter().peekable();
        let (config, transmits) = (self.service.config(), &mut self.transmits);
        while let Some(DeferredReply { peer, reply }) = waiting.next() {
            let mut transmit = |datagram, protocol| {
                transmits.push_back(Transmit {
                    datagram,
                    peer,
                    protocol,
                });
            };
            let (auth, epoch, first) = match reply {
                Deferred::V1(datagram) => {
                    transmit(datagram, Protocol::V1);
                    continue;
                }
                Deferred::V2(auth, epoch, first) => (auth, epoch, first),
            };
            let mut send = |datagram: Vec<u8>| transmit(datagram.into(), Protocol::V2);
            let mut replies =
                Replies::new(auth.clone(), epoch, config.datagram_bytes_max, &mut send);
            replies.push(&first);
            let belongs = |next: &DeferredReply| {
                let is_alike = matches!(&next.reply, Deferred::V2(ours, stated, _) if ours.is_same(&auth) && *stated == epoch);
                next.peer == peer && is_alike
            };
            while let Some(DeferredReply { reply, .. }) = waiting.next_if(belongs) {
                if let Deferred::V2(_, _, reply) = reply {
                    replies.push(&reply);
                }
            }
            replies.finish();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::ServiceConfig;
    use crate::protocol::{Access, Received, ReplyAuth};
    use crate::store::{MemoryStore, Store};
    use bytes::Bytes;
    use dkvs_common::model::{ReplicaCommand, ReplicaResponse, Statistic};
    use dkvs_common::wire::v2::envelope::{self, Builder, Envelope, Proof, Sender};
    use dkvs_common::wire::v2::message::{ReplyMessage, RequestId, RequestMessage, next_reply};
    use std::net::SocketAddr;
    use std::sync::atomic::{AtomicU32, Ordering};
    use std::time::Duration;

    const SECOND: Duration = Duration::from_secs(1);

    fn peer(port: u16) -> SocketAddr {
        ([127, 0, 0, 1], port).into()
    }

    fn maintenance(wake: impl Fn() + Send + Sync + 'static) -> Maintenance {
        let store = Store::Memory(MemoryStore::new(usize::MAX));
        Maintenance::new(Arc::new(Service::new(store, ServiceConfig::new(1))), wake)
    }

    fn reply(id: u64) -> Deferred {
        let reply = ReplyMessage {
            id: RequestId(id),
            operation: 6,
            reply: ReplicaResponse::Done.into(),
        };
        Deferred::V2(
            ReplyAuth::Checksum,
            dkvs_common::epoch::StatedEpoch::None,
            reply,
        )
    }

    fn ids(transmit: &Transmit) -> Vec<u64> {
        let (_, mut messages) = envelope::open(&transmit.datagram, Proof::Checksum).unwrap();
        let mut ids = Vec::new();
        while let Some(message) = next_reply(&mut messages).unwrap() {
            ids.push(message.id.0);
        }
        ids
    }

    #[test]
    fn deferred_replies_leave_together_by_client_and_in_their_order() {
        let woken = Arc::new(AtomicU32::new(0));
        let wakes = Arc::clone(&woken);
        let mut maintenance = maintenance(move || {
            wakes.fetch_add(1, Ordering::Relaxed);
        });
        maintenance.handle(Arrival::Completions);
        assert_eq!(maintenance.poll_transmit(), None);
        for (port, id) in [(2, 1), (1, 2), (2, 3), (1, 4)] {
            maintenance.backlog.replies.push(peer(port), reply(id));
        }
        let stored = Deferred::V1(Bytes::from_static(b"\0"));
        maintenance.backlog.replies.push(peer(2), stored);
        maintenance.backlog.replies.push(peer(2), reply(5));
        assert_eq!(maintenance.poll_transmit(), None, "nobody has said so");
        assert_eq!(woken.load(Ordering::Relaxed), 1);
        maintenance.handle(Arrival::Completions);
        let mut sent = Vec::new();
        while let Some(transmit) = maintenance.poll_transmit() {
            let ids = match transmit.protocol {
                Protocol::V1 => Vec::new(),
                Protocol::V2 => ids(&transmit),
            };
            sent.push((transmit.peer.port(), ids));
        }
        let expected = [(1, vec![2, 4]), (2, vec![1, 3]), (2, vec![]), (2, vec![5])];
        assert_eq!(sent, expected);
        assert_eq!(woken.load(Ordering::Relaxed), 1);
        maintenance.backlog.replies.push(peer(1), reply(6));
        assert_eq!(woken.load(Ordering::Relaxed), 2, "none was there");
    }

    #[test]
    fn an_idle_upload_is_dropped_when_its_time_has_come_and_not_before() {
        let mut maintenance = maintenance(|| {});
        assert_eq!(maintenance.poll_timeout(), None);
        let start = Instant::now();
        let envelope = Envelope {
            sender: Sender::Client,
            epoch: dkvs_common::epoch::StatedEpoch::None,
            authentication: None,
        };
        let mut builder = Builder::new(envelope, 1_200);
        let message = RequestMessage {
            id: RequestId(1),
            wait_ms: 1_000,
            request: ReplicaCommand::Stage {
                upload: 9,
                value_bytes: 5,
                offset: 0,
                block_bytes: 4,
                block: Bytes::from_static(b"valu"),
            }
            .into(),
        };
        assert!(builder.push(|datagram| message.encode(datagram)));
        let received = Received {
            datagram: builder.finish().into(),
            peer: peer(1),
            at: start,
            waited: Duration::ZERO,
        };
        let service = Arc::clone(&maintenance.service);
        let backlog = maintenance.backlog();
        service.handle_v2(&received, &mut Access::Open, backlog, &mut drop);
        let expired = |now| {
            let numbers = service.statistics(now);
            let is_it = |(name, _): &&(u8, u64)| *name == Statistic::UploadsExpired as u8;
            numbers.iter().find(is_it).unwrap().1
        };
        assert_eq!(maintenance.poll_timeout(), Some(start + 10 * SECOND));
        maintenance.handle_timeout(start + 9 * SECOND);
        assert_eq!(expired(start + 20 * SECOND), 0, "nothing else drops it");
        maintenance.handle_timeout(start + 10 * SECOND);
        assert_eq!(expired(start + 10 * SECOND), 1);
        assert_eq!(maintenance.poll_timeout(), None);
    }
}
