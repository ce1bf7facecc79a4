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
//! something arrived, [`Maintenance::handle_timeout`] when the time of [`Maintenance::poll_timeout`]
//! has come, and sends what [`Maintenance::poll_transmit`] returns, after every call of either. It
//! does no I/O and reads no clock. So far it sends deferred replies, and drops idle uploads.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Instant;

use crate::protocol::{Deferred, DeferredReplies, DeferredReply, Protocol, Replies, Transmit};
use crate::service::Service;

/// The background work of one worker.
pub struct Maintenance {
    service: Arc<Service>,
    deferred: Arc<DeferredReplies>,
    transmits: VecDeque<Transmit>,
}

/// Something that arrived.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Arrival {
    /// The disk has completed changes: the replies to them wait in [`Maintenance::deferred`].
    Completions,
}

impl Maintenance {
    /// The background work of a worker of this service. Calls `wake` when [`Arrival::Completions`]
    /// is to be handled.
    pub fn new(service: Arc<Service>, wake: impl Fn() + Send + Sync + 'static) -> Self {
        Self {
            service,
            deferred: DeferredReplies::new(wake),
            transmits: VecDeque::new(),
        }
    }

    /// Where the replies wait that the worker's requests get later.
    pub fn deferred(&self) -> &Arc<DeferredReplies> {
        &self.deferred
    }

    /// Takes note of something that arrived.
    pub fn handle(&mut self, arrival: Arrival) {
        match arrival {
            Arrival::Completions => self.send_deferred(),
        }
    }

    /// Does what is due at this time.
    pub fn handle_timeout(&mut self, now: Instant) {
        self.service.replica.expire_uploads(now);
    }

    /// When [`Self::handle_timeout`] is to be called next, if ever. Datagrams that were handled may
    /// have changed it.
    pub fn poll_timeout(&self) -> Option<Instant> {
        self.service.replica.next_upload_expiry()
    }

    /// The next datagram to send, if there is one.
    pub fn poll_transmit(&mut self) -> Option<Transmit> {
        self.transmits.pop_front()
    }

    /// Puts the replies that are known into datagrams, those to one client together.
    fn send_deferred(&mut self) {
        let mut waiting = self.deferred.take();
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
            let (auth, first) = match reply {
                Deferred::V1(datagram) => {
                    transmit(datagram, Protocol::V1);
                    continue;
                }
                Deferred::V2(auth, first) => (auth, first),
            };
            let mut send = |datagram: Vec<u8>| transmit(datagram.into(), Protocol::V2);
            let epoch = config.epoch.unwrap_or(0);
            let mut replies =
                Replies::new(auth.clone(), epoch, config.datagram_bytes_max, &mut send);
            replies.push(&first);
            let belongs = |next: &DeferredReply| {
                let is_alike = matches!(&next.reply, Deferred::V2(ours, _) if ours.is_same(&auth));
                next.peer == peer && is_alike
            };
            while let Some(DeferredReply { reply, .. }) = waiting.next_if(belongs) {
                if let Deferred::V2(_, reply) = reply {
                    replies.push(&reply);
                }
            }
            replies.finish();
        }
    }
}
