//! The requests open towards one server: what is to be sent, sent again, or given up.
//!
//! ```text
//!   open() --> first sends --+                    +--> handle_reply(): Reply
//!                            +--> in flight ------+
//!          +-> resends ------+       |            +--> handle_timeout(): Expired
//!          |                         | timer
//!          +---- retry budget <------+
//! ```

use std::cmp::Reverse;
use std::collections::{BinaryHeap, VecDeque};
use std::time::{Duration, Instant};

use super::counters::PeerCounters;
use super::encoding::EncodedRequest;
use super::event::PeerEvent;
use super::retransmission::RetransmissionTimer;
use super::retry_budget::RetryBudget;
use super::window::Window;
use crate::id_map::IdMap;
use dkvs_common::model::{Refusal, ReplicaResponse};
use dkvs_common::mutants::{self, Mutant};
use dkvs_common::wire::v2::message::RequestId;
use dkvs_common::wire::v2::reply::Reply;

/// All open requests, the window that they share, and the events of those that have ended.
#[derive(Debug)]
pub(super) struct OpenRequests<T> {
    open: IdMap<RequestId, OpenRequest<T>>,
    /// For [`Mutant::RepeatsCounted`]: the requests that were answered.
    #[cfg(feature = "mutants")]
    answered: IdMap<RequestId, T>,
    /// Requests to send again. These go first.
    resends: VecDeque<RequestId>,
    /// Requests to send for the first time.
    first_sends: VecDeque<RequestId>,
    /// Earliest first. An entry counts only while the request's own timer says the same.
    timers: BinaryHeap<Reverse<(Instant, RequestId)>>,
    window: Window,
    budget: RetryBudget,
    events: VecDeque<PeerEvent<T>>,
    counters: PeerCounters,
}

/// One request without a reply.
#[derive(Debug)]
pub(super) struct OpenRequest<T> {
    token: T,
    message: EncodedRequest,
    /// Sent before the message the first time, if the datagram has room for both.
    pub(super) trace: Option<EncodedRequest>,
    /// What the request takes of the window: its own bytes and those of a reply with a block.
    window_bytes: usize,
    deadline: Instant,
    transmissions: u32,
    first_sent: Instant,
    last_sent: Instant,
    /// When to retransmit or expire it; none before it is sent or held back.
    timer: Option<Instant>,
    /// Whether its bytes count in the window.
    is_in_flight: bool,
    /// The caller does not wait for the reply, so the request is not sent again.
    is_abandoned: bool,
}

impl<T> OpenRequest<T> {
    /// A request that was not sent yet. `reply_bytes` is what its reply takes of the window.
    pub(super) fn new(
        token: T,
        message: EncodedRequest,
        reply_bytes: usize,
        now: Instant,
        deadline: Instant,
    ) -> Self {
        Self {
            token,
            window_bytes: message.message_bytes() + reply_bytes,
            message,
            trace: None,
            deadline,
            transmissions: 0,
            first_sent: now,
            last_sent: now,
            timer: None,
            is_in_flight: false,
            is_abandoned: false,
        }
    }

    /// The message, with the time that the client still waits.
    pub(super) fn message_at(&mut self, now: Instant) -> &EncodedRequest {
        self.message.write_wait(self.deadline, now);
        &self.message
    }

    fn was_sent(&self) -> bool {
        self.transmissions > 0
    }
}

impl<T: Copy> OpenRequests<T> {
    pub(super) fn new(window: Window) -> Self {
        Self {
            open: IdMap::default(),
            #[cfg(feature = "mutants")]
            answered: IdMap::default(),
            resends: VecDeque::new(),
            first_sends: VecDeque::new(),
            timers: BinaryHeap::new(),
            window,
            budget: RetryBudget::default(),
            events: VecDeque::new(),
            counters: PeerCounters::default(),
        }
    }

    pub(super) fn len(&self) -> usize {
        self.open.len()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.open.is_empty()
    }

    pub(super) fn window(&self) -> &Window {
        &self.window
    }

    /// The counts of requests; those of datagrams are zero.
    pub(super) fn counters(&self) -> PeerCounters {
        self.counters
    }

    /// Whether nothing waits to be sent, and the window has room for `window_bytes` more.
    pub(super) fn has_capacity(&self, window_bytes: usize) -> bool {
        self.resends.is_empty() && self.first_sends.is_empty() && self.window.has_room(window_bytes)
    }

    pub(super) fn open(&mut self, id: RequestId, request: OpenRequest<T>) {
        self.open.insert(id, request);
        self.first_sends.push_back(id);
    }

    /// Sends `trace` before the request, if that was not sent yet.
    pub(super) fn set_trace(&mut self, id: RequestId, trace: EncodedRequest) {
        if let Some(request) = self.open.get_mut(&id) {
            request.trace = Some(trace);
        }
    }

    /// Stops sending a request. Its reply is still reported; an end without a reply is not.
    pub(super) fn abandon(&mut self, id: RequestId) {
        if let Some(request) = self.open.get_mut(&id) {
            request.is_abandoned = true;
        }
    }

    /// The next request to send. Drops those that were answered, or abandoned unsent, while they
    /// waited.
    pub(super) fn next_to_send(&mut self) -> Option<RequestId> {
        loop {
            let id = *self.resends.front().or_else(|| self.first_sends.front())?;
            let request = self.open.get(&id);
            if request.is_some_and(|request| request.was_sent() || !request.is_abandoned) {
                return Some(id);
            }
            self.dequeue();
            self.open.remove(&id);
        }
    }

    /// A request that waits to be sent; none while the window has no room for it.
    pub(super) fn sendable(&mut self, id: RequestId) -> Option<&mut OpenRequest<T>> {
        let request = self.open.get_mut(&id)?;
        self.window
            .has_room(request.window_bytes)
            .then_some(request)
    }

    /// The request that [`Self::next_to_send`] named was sent.
    pub(super) fn handle_sent(
        &mut self,
        id: RequestId,
        timer: &mut RetransmissionTimer,
        now: Instant,
    ) {
        self.dequeue();
        let Some(request) = self.open.get_mut(&id) else {
            return;
        };
        request.transmissions += 1;
        request.is_in_flight = true;
        request.last_sent = now;
        self.window.sent(request.window_bytes);
        if request.transmissions == 1 {
            request.first_sent = now;
            self.counters.sent += 1;
            self.budget.earn();
        } else {
            self.counters.retransmitted += 1;
        }
        let wait = timer.wait_after(request.transmissions);
        let at = request.deadline.min(now + wait);
        schedule(&mut self.timers, id, request, at);
    }

    /// The request that [`Self::next_to_send`] named fits no datagram to this server.
    pub(super) fn handle_too_long(&mut self, id: RequestId) {
        self.dequeue();
        if let Some(request) = self.open.remove(&id) {
            let token = request.token;
            self.events.push_back(PeerEvent::TooLong { token });
        }
    }

    /// Sets the deadlines of requests that cannot be sent now. They are scheduled in order, so all
    /// before one that has a timer have one as well.
    pub(super) fn schedule_held_back(&mut self) {
        for id in self.first_sends.iter().rev() {
            let Some(request) = self.open.get_mut(id) else {
                continue;
            };
            if request.timer.is_some() {
                break;
            }
            let deadline = request.deadline;
            schedule(&mut self.timers, *id, request, deadline);
        }
    }

    /// Ends the request that a reply answers. A reply to none is counted and dropped.
    pub(super) fn handle_reply(
        &mut self,
        id: RequestId,
        reply: Reply,
        timer: &mut RetransmissionTimer,
        now: Instant,
    ) {
        let response = match reply {
            Reply::Response(response) => response,
            // This id is not that of a greeting.
            Reply::Greeting(_) | Reply::Description(_) => {
                ReplicaResponse::Refused(Refusal::Internal)
            }
        };
        #[cfg(feature = "mutants")]
        if let Some(token) = self.answered.get(&id).copied() {
            return self.events.push_back(PeerEvent::Response {
                token,
                response,
                after: Duration::ZERO,
                was_repeated: true,
            });
        }
        let mut removed = self.open.remove(&id);
        if removed.is_none() && mutants::is_on(Mutant::OlderRequestAnswered) {
            let oldest = self.open.keys().min().copied();
            removed = oldest.and_then(|id| self.open.remove(&id));
        }
        let Some(request) = removed else {
            self.counters.unmatched += 1;
            return;
        };
        self.counters.replies += 1;
        let after = now.saturating_duration_since(request.first_sent);
        if request.transmissions == 1 {
            timer.sample(after);
        } else if timer.is_sooner_than_possible(now.saturating_duration_since(request.last_sent)) {
            // It answers a transmission before the last, which was late and not lost.
            self.window.was_late();
        }
        if request.is_in_flight {
            self.window.answered(request.window_bytes);
        }
        #[cfg(feature = "mutants")]
        if mutants::is_on(Mutant::RepeatsCounted) {
            self.answered.insert(id, request.token);
        }
        self.events.push_back(PeerEvent::Response {
            token: request.token,
            response,
            after,
            was_repeated: request.transmissions > 1,
        });
    }

    /// Another process answers now. What the one before it received has to be sent again.
    pub(super) fn handle_restart(&mut self) {
        self.requeue_in_flight();
        self.events.push_back(PeerEvent::Restarted);
    }

    /// The server speaks DKVS/1 only. No request was sent: none goes to a server before it has
    /// spoken DKVS/2.
    pub(super) fn handle_not_v2(&mut self) {
        for request in self.take_all() {
            if !request.is_abandoned {
                let token = request.token;
                self.events.push_back(PeerEvent::NotV2 { token });
            }
        }
    }

    /// Nothing listens at the server's port.
    pub(super) fn handle_unreachable(&mut self) {
        for request in self.take_all() {
            let (token, sent) = (request.token, request.was_sent());
            self.counters.unanswered += u64::from(sent);
            if !request.is_abandoned {
                self.events
                    .push_back(PeerEvent::Unreachable { token, sent });
            }
        }
    }

    /// The earliest timer. It may belong to a request that has ended.
    pub(super) fn poll_timeout(&self) -> Option<Instant> {
        self.timers.peek().map(|Reverse((at, _))| *at)
    }

    /// Expires requests whose deadline has passed, and queues those without a timely reply to be
    /// sent again. `timeout` is the retransmission timeout. Returns whether there was one of the
    /// latter.
    pub(super) fn handle_timeout(&mut self, now: Instant, timeout: Duration) -> bool {
        let mut has_timed_out = false;
        while let Some(Reverse((at, id))) = self.timers.peek().copied()
            && at <= now
        {
            self.timers.pop();
            let request = self.open.get(&id);
            if request.is_some_and(|request| request.timer == Some(at)) {
                has_timed_out |= self.handle_timer(id, now, timeout);
            }
        }
        has_timed_out
    }

    fn handle_timer(&mut self, id: RequestId, now: Instant, timeout: Duration) -> bool {
        let Some(request) = self.open.get_mut(&id) else {
            return false;
        };
        let was_in_flight = std::mem::take(&mut request.is_in_flight);
        if was_in_flight {
            self.window.given_up(request.window_bytes);
            self.window.lost(now, timeout);
        }
        let deadline = request.deadline;
        if request.is_abandoned || deadline <= now {
            let token = request.token;
            self.counters.unanswered += u64::from(request.was_sent());
            if !request.is_abandoned {
                self.events.push_back(PeerEvent::Expired { token });
            }
            self.open.remove(&id);
            return false;
        }
        if !was_in_flight {
            // It still waits to be sent.
            schedule(&mut self.timers, id, request, deadline);
        } else if self.budget.spend() {
            schedule(&mut self.timers, id, request, deadline);
            self.resends.push_back(id);
        } else {
            self.counters.over_budget += 1;
            request.is_in_flight = true;
            self.window.sent(request.window_bytes);
            let at = deadline.min(now + timeout);
            schedule(&mut self.timers, id, request, at);
        }
        was_in_flight
    }

    pub(super) fn poll_event(&mut self) -> Option<PeerEvent<T>> {
        self.events.pop_front()
    }

    /// Removes all, and returns them in the order in which they were opened.
    fn take_all(&mut self) -> Vec<OpenRequest<T>> {
        self.window.reset();
        self.resends.clear();
        self.first_sends.clear();
        self.timers.clear();
        let mut all: Vec<_> = self.open.drain().collect();
        all.sort_unstable_by_key(|(id, _)| *id);
        all.into_iter().map(|(_, request)| request).collect()
    }

    fn requeue_in_flight(&mut self) {
        self.window.reset();
        let in_flight = self.open.iter_mut();
        let mut in_flight: Vec<_> = in_flight
            .filter_map(|(id, request)| {
                std::mem::take(&mut request.is_in_flight).then_some((*id, request))
            })
            .collect();
        in_flight.sort_unstable_by_key(|(id, _)| *id);
        for (id, request) in in_flight {
            let deadline = request.deadline;
            schedule(&mut self.timers, id, request, deadline);
            self.resends.push_back(id);
        }
    }

    /// Takes the request that [`Self::next_to_send`] names from its queue.
    fn dequeue(&mut self) {
        if self.resends.pop_front().is_none() {
            self.first_sends.pop_front();
        }
    }
}

/// Sets a request's timer, in place of the one that it had.
fn schedule<T>(
    timers: &mut BinaryHeap<Reverse<(Instant, RequestId)>>,
    id: RequestId,
    request: &mut OpenRequest<T>,
    at: Instant,
) {
    request.timer = Some(at);
    timers.push(Reverse((at, id)));
}

/// Consecutive ids from a random start, so that an outsider cannot guess them.
#[derive(Debug)]
pub(super) struct RequestIds {
    next: u64,
}

impl RequestIds {
    pub(super) fn starting_at(random: u64) -> Self {
        Self { next: random }
    }

    pub(super) fn next(&mut self) -> RequestId {
        let id = RequestId(self.next);
        self.next = self.next.wrapping_add(1);
        id
    }
}
