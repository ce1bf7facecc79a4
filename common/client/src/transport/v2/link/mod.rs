//! One server, with transfers: any record goes in and any value comes out, however many datagrams
//! that takes.
//!
//! ```text
//!   send, fetch                                     poll_event: Response, Fetched, FetchFailed, ...
//!      |                                                 ^
//!      v                                                 |
//!   [ small requests ] ---------------> peer ------------+
//!   [ uploads, fetches ] --- blocks ---> |
//! ```
//!
//! Small requests go first. Uploads and fetches take turns in what they leave of the peer's window,
//! and open no more requests than fit it. So a short request waits at most for what is in flight
//! already, however long the values are; and a long value for one of each other party's.
//!
//! * `transfers`: all uploads and fetches, and whose turn it is
//! * `upload`, `fetch`: one of each; [`assembly`]: the value that a fetch puts together
//! * `lengths`: what fits one message

pub mod assembly;
mod block_range;
mod event;
mod fetch;
mod lengths;
mod transfers;
mod upload;

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;

use super::peer::{
    Incarnation, Peer, PeerConfig, PeerCounters, PeerEvent, PeerVersion, RequestError,
};
use assembly::Assembly;
use block_range::BlockRange;
pub use event::{LinkEvent, RequestHandle};
use fetch::Fetch;
pub use lengths::{MESSAGE_BYTES_GUARANTEED, get_key_bytes_max, list_bytes_max, put_key_bytes_max};
pub use transfers::{Party, TRANSFERS_AT_ONCE, TRANSFERS_MAX};
use transfers::{Transfer, TransferKind, TransferProgress, Transfers};
use upload::{TooLong, Upload};

use dkvs_common::kv::Key;
use dkvs_common::model::Description;
use dkvs_common::model::{Refusal, ReplicaCommand, ReplicaResponse};
use dkvs_common::quorum::FetchFailure;
use dkvs_common::record::Record;
use dkvs_common::trace::Trace;
use dkvs_common::wire::v2::keys::Keys;
use dkvs_common::wire::v2::request::Request;

/// A fetch without a new block for this long, and for eight retransmission timeouts, is given up,
/// so that another server can supply the rest. If this one is asked again, it has twice the time.
pub const STALL: Duration = Duration::from_millis(50);

/// One server, with transfers. `T` names a request to the caller.
#[derive(Debug)]
pub struct Link<T> {
    peer: Peer<RequestPart<T>>,
    transfers: Transfers<T>,
    events: VecDeque<LinkEvent<T>>,
}

/// What a request of the peer is for.
#[derive(Debug, Clone, Copy)]
enum RequestPart<T> {
    /// The whole of a request of the caller.
    Whole(T),
    /// One message of a transfer.
    Part {
        transfer: u64,
        /// The block that the message sends or asks for; none for the put that ends an upload.
        block: Option<BlockRange>,
    },
}

impl<T: Copy> Link<T> {
    /// A server that was not met yet; see [`Peer::new`].
    pub fn new(config: PeerConfig, random: u64, now: Instant) -> Self {
        Self {
            peer: Peer::new(config, random, now),
            // A server distinguishes uploads by their numbers, also those of an earlier client at
            // the same address.
            transfers: Transfers::numbered_from(random.rotate_left(32)),
            events: VecDeque::new(),
        }
    }

    /// The protocol that the server speaks.
    pub fn speaks(&self) -> PeerVersion {
        self.peer.speaks()
    }

    /// Whether the server spoke DKVS/2 and now answers greetings by DKVS/1; see
    /// [`Peer::is_downgraded`].
    pub fn is_downgraded(&self) -> bool {
        self.peer.is_downgraded()
    }

    /// What the server has said of itself, if it is one that does.
    pub fn description(&self) -> Option<Description> {
        self.peer.description()
    }

    /// The server's last start, as far as is known.
    pub fn incarnation(&self) -> Option<Incarnation> {
        self.peer.incarnation()
    }

    /// The smoothed round trip; none before the first unambiguous reply.
    pub fn round_trip(&self) -> Option<Duration> {
        self.peer.round_trip()
    }

    /// Counts since the link was created.
    pub fn counters(&self) -> PeerCounters {
        self.peer.counters()
    }

    /// The bytes of requests in flight and of the blocks that they ask for.
    pub fn in_flight_bytes(&self) -> usize {
        self.peer.in_flight_bytes()
    }

    /// The most bytes that may be in flight.
    pub fn window_bytes(&self) -> usize {
        self.peer.window_bytes()
    }

    /// The longest message that fits a datagram to the server, as far as is known.
    pub fn message_bytes_max(&self) -> usize {
        self.peer.message_bytes_max()
    }

    /// Greets the server if it was not greeted lately.
    pub fn greet_if_due(&mut self, now: Instant) {
        self.peer.greet_if_due(now);
    }

    /// Uses other keys from the next datagram on.
    pub fn set_keys(&mut self, keys: Arc<Keys>) {
        self.peer.set_keys(keys);
    }

    /// Opens a request. A put whose record may fit no datagram becomes an upload, which ends with
    /// the reply to its last message.
    pub fn send(
        &mut self,
        command: ReplicaCommand,
        (token, party): (T, Party),
        now: Instant,
        deadline: Instant,
    ) -> Result<RequestHandle, RequestError> {
        let request = match command {
            ReplicaCommand::Put { key, record } if self.may_be_too_long(&key, &record) => {
                let upload = |number| TransferKind::Upload(Upload::new(number, key, record));
                return self.begin_transfer((token, party), now, deadline, upload);
            }
            command => Request::Command(command),
        };
        let purpose = RequestPart::Whole(token);
        let id = self.peer.request(request, purpose, now, deadline)?;
        Ok(RequestHandle::Request(id))
    }

    /// Names the trace that a request belongs to. Does nothing for a transfer.
    pub fn set_trace(&mut self, handle: RequestHandle, trace: Trace) {
        if let RequestHandle::Request(id) = handle {
            self.peer.trace(id, trace);
        }
    }

    /// Fetches the blocks that are missing of a value. `stalls` is how often the server has stalled
    /// with it before: it is waited for the longer.
    pub fn fetch(
        &mut self,
        key: Key,
        (assembly, stalls): (Assembly, u32),
        by: (T, Party),
        now: Instant,
        deadline: Instant,
    ) -> Result<RequestHandle, RequestError> {
        let fetch = |_| TransferKind::Fetch(Fetch::new(key, assembly, stalls));
        self.begin_transfer(by, now, deadline, fetch)
    }

    /// A server that was not met yet may announce a shorter limit than this client's, but none
    /// below the protocol's least.
    fn may_be_too_long(&self, key: &Key, record: &Record) -> bool {
        let bytes_max = self.peer.message_bytes_max();
        let certain = match self.peer.speaks() {
            PeerVersion::V2(_) => bytes_max,
            PeerVersion::Unknown | PeerVersion::V1 => bytes_max.min(MESSAGE_BYTES_GUARANTEED),
        };
        Request::put_bytes(key, record) > certain
    }

    fn begin_transfer(
        &mut self,
        by: (T, Party),
        now: Instant,
        deadline: Instant,
        kind: impl FnOnce(u64) -> TransferKind,
    ) -> Result<RequestHandle, RequestError> {
        if self.transfers.is_full() {
            return Err(RequestError::TooMany);
        }
        if self.peer.is_unreachable(now) {
            return Err(RequestError::Unreachable);
        }
        self.peer.greet_if_due(now);
        let number = self.transfers.begin(by, deadline, kind);
        Ok(RequestHandle::Transfer(number))
    }

    /// Abandons a request whose answer the caller does not wait for any more. It is not sent
    /// again; a transfer ends.
    pub fn abandon(&mut self, handle: RequestHandle) {
        match handle {
            RequestHandle::Request(id) => self.peer.abandon(id),
            RequestHandle::Transfer(number) => drop(self.end(number)),
        }
    }

    /// The next datagram to send; none when there is nothing to send now.
    pub fn poll_transmit(&mut self, now: Instant) -> Option<Vec<u8>> {
        loop {
            if let Some(datagram) = self.peer.poll_transmit(now) {
                return Some(datagram);
            }
            if !self.advance_transfers(now) {
                // A request that fits no datagram has ended by that.
                self.handle_events(now);
                return None;
            }
        }
    }

    /// Lets the transfer whose turn it is open one request, if the peer has room. Returns whether a
    /// transfer made a step.
    fn advance_transfers(&mut self, now: Instant) -> bool {
        for _ in 0..self.transfers.admit(now) {
            let Some((number, transfer)) = self.transfers.next_turn() else {
                return false;
            };
            if !matches!(self.peer.speaks(), PeerVersion::V2(_)) {
                return false;
            }
            let message_bytes_max = self.peer.message_bytes_max();
            let window_bytes = match transfer.prepare(message_bytes_max) {
                Ok(window_bytes) => window_bytes,
                Err(TooLong) => {
                    let error = RequestError::TooLong {
                        message_bytes: message_bytes_max + 1,
                        message_bytes_max,
                    };
                    self.fail(number, error);
                    return true;
                }
            };
            if !self.peer.has_capacity(window_bytes) {
                return false;
            }
            let Some((request, block)) = transfer.poll_request(message_bytes_max, now) else {
                continue;
            };
            let purpose = RequestPart::Part {
                transfer: number,
                block,
            };
            match self.peer.request(request, purpose, now, transfer.deadline) {
                Ok(id) => transfer.handle_sent(block, id),
                Err(error) => self.fail(number, error),
            }
            return true;
        }
        false
    }

    fn fail(&mut self, number: u64, error: RequestError) {
        self.end_with(number, FetchFailure::Failed, |token| match error {
            RequestError::TooLong { .. } => LinkEvent::TooLong { token },
            RequestError::Unreachable => LinkEvent::Unreachable { token, sent: false },
            RequestError::TooMany => LinkEvent::Response {
                token,
                response: ReplicaResponse::Refused(Refusal::Busy),
                after: None,
                was_repeated: false,
            },
        });
    }

    /// Handles a datagram from the server.
    pub fn handle_datagram(&mut self, datagram: &Bytes, now: Instant) {
        self.peer.handle_datagram(datagram, now);
        self.handle_events(now);
    }

    /// Handles the system's report that nothing listens at the server's port.
    pub fn handle_unreachable(&mut self, now: Instant) {
        self.peer.handle_unreachable(now);
        self.handle_events(now);
        // A transfer that waited for its turn had no request in the peer.
        for number in self.transfers.numbers() {
            self.fail(number, RequestError::Unreachable);
        }
    }

    /// When to call [`Self::handle_timeout`] next.
    pub fn poll_timeout(&self) -> Option<Instant> {
        let peer = self.peer.poll_timeout();
        if self.transfers.is_empty() {
            return peer;
        }
        let transfers = self.transfers.poll_timeout(self.stall());
        peer.into_iter().chain(transfers).min()
    }

    /// Handles the timers that have run out: the peer's, deadlines of uploads, stalled fetches.
    pub fn handle_timeout(&mut self, now: Instant) {
        self.peer.handle_timeout(now);
        self.handle_events(now);
        if self.transfers.is_empty() {
            return;
        }
        for number in self.transfers.due(now, self.stall()) {
            let stalled = FetchFailure::Stalled;
            self.end_with(number, stalled, |token| LinkEvent::Expired { token });
        }
    }

    /// How long a fetch may go without a new block.
    fn stall(&self) -> Duration {
        STALL.max(8 * self.peer.retransmission_timeout())
    }

    /// The next event, in order.
    pub fn poll_event(&mut self) -> Option<LinkEvent<T>> {
        self.events.pop_front()
    }

    fn handle_events(&mut self, now: Instant) {
        while let Some(event) = self.peer.poll_event() {
            match event {
                PeerEvent::Response {
                    token,
                    response,
                    after,
                    was_repeated,
                } => self.handle_response(token, response, after, was_repeated, now),
                PeerEvent::Expired { token } => {
                    self.end_purpose(token, |token| LinkEvent::Expired { token });
                }
                PeerEvent::NotV2 { token } => {
                    self.end_purpose(token, |token| LinkEvent::NotV2 { token });
                }
                PeerEvent::Unreachable { token, sent } => {
                    self.end_purpose(token, |token| LinkEvent::Unreachable { token, sent });
                }
                PeerEvent::TooLong { token } => {
                    self.end_purpose(token, |token| LinkEvent::TooLong { token });
                }
                PeerEvent::Restarted => self.events.push_back(LinkEvent::Restarted),
            }
        }
        if self.peer.speaks() == PeerVersion::V1 {
            for number in self.transfers.numbers() {
                let failed = FetchFailure::Failed;
                self.end_with(number, failed, |token| LinkEvent::NotV2 { token });
            }
        }
    }

    fn handle_response(
        &mut self,
        purpose: RequestPart<T>,
        response: ReplicaResponse,
        after: Duration,
        was_repeated: bool,
        now: Instant,
    ) {
        let (number, block) = match purpose {
            RequestPart::Part { transfer, block } => (transfer, block),
            RequestPart::Whole(token) => {
                return self.events.push_back(LinkEvent::Response {
                    token,
                    response,
                    after: Some(after),
                    was_repeated,
                });
            }
        };
        let Some(transfer) = self.transfers.get_mut(number) else {
            return;
        };
        match transfer.handle_response(block, response, now) {
            TransferProgress::Abandon(ids) => ids.into_iter().for_each(|id| self.peer.abandon(id)),
            TransferProgress::Uploaded(response) => {
                self.end_with(number, FetchFailure::Failed, |token| LinkEvent::Response {
                    token,
                    response,
                    after: None,
                    // A block that was sent twice stores nothing.
                    was_repeated: was_repeated && block.is_none(),
                });
            }
            TransferProgress::Fetched => {
                let transfer = self.end(number);
                self.events
                    .extend(transfer.and_then(Transfer::into_fetched));
            }
        }
    }

    /// A request of the peer has ended without a reply, and with it the transfer that it is part
    /// of.
    fn end_purpose(&mut self, purpose: RequestPart<T>, event: impl FnOnce(T) -> LinkEvent<T>) {
        match purpose {
            RequestPart::Whole(token) => self.events.push_back(event(token)),
            RequestPart::Part { transfer, .. } => {
                self.end_with(transfer, FetchFailure::Failed, event);
            }
        }
    }

    /// Ends an upload with `event`, or a fetch with `failure` and the blocks that have arrived.
    fn end_with(
        &mut self,
        number: u64,
        failure: FetchFailure,
        event: impl FnOnce(T) -> LinkEvent<T>,
    ) {
        let transfer = self.end(number);
        self.events
            .extend(transfer.map(|transfer| transfer.end_with(failure, event)));
    }

    /// Removes a transfer; its outstanding requests are not sent again.
    fn end(&mut self, number: u64) -> Option<Transfer<T>> {
        let transfer = self.transfers.remove(number)?;
        for id in transfer.outstanding() {
            self.peer.abandon(id);
        }
        Some(transfer)
    }
}
