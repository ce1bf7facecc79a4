//! How long a connection may be idle or slow.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use tokio::time::Sleep;

/// How long the head of a request may take, and the handshake of TLS.
pub const HEAD_TIMEOUT: Duration = Duration::from_secs(10);

/// How long a connection may be idle between requests, or make no progress taking a response.
pub const IDLE_TIMEOUT: Duration = Duration::from_secs(60);

/// When a connection has to have made progress: shared by its stream, its handler and its alarm.
#[derive(Clone)]
pub(super) struct Clock {
    started: Instant,
    /// Milliseconds after `started`, above [`FLAG_BITS`] bits for the phase and the flags.
    state: Arc<AtomicU64>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Phase {
    /// Between requests, or while a response is being taken.
    Idle = 0,
    /// A request has begun to arrive.
    Head = 1,
    /// The handler works on the request, with time-outs of its own.
    Handling = 2,
}

const PHASE_BITS: u32 = 2;

/// The body of a request was not read to its end.
const UNREAD: u64 = 1 << PHASE_BITS;

/// The connection ends once it is idle.
const DRAINING: u64 = UNREAD << 1;

/// The response has no end.
const ENDLESS: u64 = DRAINING << 1;

const FLAG_BITS: u32 = PHASE_BITS + 3;

/// The time-out of a handler, far beyond its own ones: a safeguard.
const HANDLING_TIMEOUT: Duration = Duration::from_secs(600);

impl Clock {
    /// The clock of a connection that is idle; `started` is before it.
    pub(super) fn new(started: Instant) -> Self {
        let clock = Self {
            started,
            state: Arc::default(),
        };
        clock.enter(Phase::Idle);
        clock
    }

    /// Begins a phase, and the time that it has.
    pub(super) fn enter(&self, phase: Phase) {
        let limit = match phase {
            Phase::Idle => IDLE_TIMEOUT,
            Phase::Head => HEAD_TIMEOUT,
            Phase::Handling => HANDLING_TIMEOUT,
        };
        let ms = (self.started.elapsed() + limit).as_millis() as u64;
        let flags = self.state.load(Ordering::Relaxed) & (UNREAD | DRAINING | ENDLESS);
        let state = (ms << FLAG_BITS) | flags | phase as u64;
        self.state.store(state, Ordering::Relaxed);
    }

    fn is_in(&self, phase: Phase) -> bool {
        let current = self.state.load(Ordering::Relaxed) & ((1 << PHASE_BITS) - 1);
        current == phase as u64
    }

    /// Whether a handler works on a request.
    pub(super) fn is_handling(&self) -> bool {
        self.is_in(Phase::Handling)
    }

    /// Something has arrived: between requests, it is the next one.
    pub(super) fn note_read(&self) {
        if self.is_in(Phase::Idle) {
            self.enter(Phase::Head);
        }
    }

    /// Something has been sent.
    pub(super) fn note_written(&self) {
        if self.is_in(Phase::Idle) {
            self.enter(Phase::Idle);
        }
    }

    /// The body of a request is left where it is, and the connection ends.
    pub(super) fn note_unread(&self) {
        self.state.fetch_or(UNREAD, Ordering::Relaxed);
    }

    /// The response has no end.
    pub(super) fn note_endless(&self) {
        self.state.fetch_or(ENDLESS, Ordering::Relaxed);
    }

    /// Whether the response has no end.
    pub(super) fn is_endless(&self) -> bool {
        self.state.load(Ordering::Relaxed) & ENDLESS != 0
    }

    /// The connection ends once it is idle.
    pub(super) fn note_draining(&self) {
        self.state.fetch_or(DRAINING, Ordering::Relaxed);
    }

    /// Whether the end of the connection waits for the peer. That of an idle one does not, where it is
    /// this side that wants it: the peer may not notice before its next request.
    pub(super) fn lingers(&self) -> bool {
        let flags = self.state.load(Ordering::Relaxed) & (UNREAD | DRAINING);
        flags != DRAINING || self.is_in(Phase::Head)
    }

    pub(super) fn deadline(&self) -> Instant {
        let ms = self.state.load(Ordering::Relaxed) >> FLAG_BITS;
        self.started + Duration::from_millis(ms)
    }
}

/// Ready once the connection has made no progress for too long. The timer moves only when the
/// deadline has come closer or when it has fired, so a busy connection does not touch it.
pub(super) fn poll_alarm(
    clock: &Clock,
    mut alarm: Pin<&mut Sleep>,
    context: &mut Context<'_>,
) -> Poll<()> {
    loop {
        let deadline = clock.deadline();
        if alarm.deadline().into_std() > deadline {
            alarm.as_mut().reset(deadline.into());
        }
        if alarm.as_mut().poll(context).is_pending() {
            return Poll::Pending;
        }
        if clock.deadline() <= Instant::now() {
            return Poll::Ready(());
        }
        alarm.as_mut().reset(clock.deadline().into());
    }
}
