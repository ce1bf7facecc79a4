//! How long a connection may be idle or slow.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use tokio::time::Sleep;

/// How long the head of a request may take, and the handshake of TLS.
pub const HEAD_TIMEOUT: Duration = Duration::from_secs(10);

/// When a connection has to have made progress: shared by its stream, its handler, its alarm and its
/// place.
#[derive(Clone)]
pub(super) struct Clock {
    started: Instant,
    /// How long it may be idle between requests, or make no progress taking a response.
    idle_timeout: Duration,
    /// Milliseconds after `started`, above [`TIME_SHIFT`] bits for the phase and the flags.
    state: Arc<AtomicU64>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Phase {
    /// Between requests, or while a response is being taken.
    Idle = 0,
    /// A request has begun to arrive.
    Head = 1,
    /// The handler works on the request, with time-outs of its own.
    Handling = 2,
}

const PHASE_BITS: u32 = 2;
const PHASE_MASK: u64 = (1 << PHASE_BITS) - 1;

/// Set once a whole head of a request has arrived.
const SERVED: u64 = 1 << PHASE_BITS;

/// The body of a request was not read to its end.
const UNREAD: u64 = SERVED << 1;

/// The connection ends once it is idle.
const DRAINING: u64 = UNREAD << 1;

/// The response has no end.
const ENDLESS: u64 = DRAINING << 1;

/// All has been sent, and the end waits for the peer.
const LINGERING: u64 = ENDLESS << 1;

/// What arrives belongs to the body of a request, even after the response.
const BODY: u64 = LINGERING << 1;

/// The peer takes no more of a response for now.
const BLOCKED: u64 = BODY << 1;

/// The gateway is still making the body of a response.
const UNFINISHED: u64 = BLOCKED << 1;

const FLAGS: u64 = SERVED | UNREAD | DRAINING | ENDLESS | LINGERING | BODY | BLOCKED | UNFINISHED;
const TIME_SHIFT: u32 = PHASE_BITS + FLAGS.count_ones();

/// The time-out of a handler, far beyond its own ones: a safeguard.
const HANDLING_TIMEOUT: Duration = Duration::from_secs(600);

/// What a clock shows at one moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Reading {
    pub(super) phase: Phase,
    /// Whether the connection ever sent the whole head of a request.
    pub(super) has_served: bool,
    /// When the phase began, or the connection last took a part of its response.
    pub(super) since: Instant,
}

impl Clock {
    /// The clock of a connection that is idle; `started` is before it.
    pub(super) fn new(started: Instant, idle_timeout: Duration) -> Self {
        let clock = Self {
            started,
            idle_timeout,
            state: Arc::default(),
        };
        clock.enter(Phase::Idle);
        clock
    }

    /// Begins a phase, and the time that it has.
    pub(super) fn enter(&self, phase: Phase) {
        let ms = (self.started.elapsed() + self.limit(phase)).as_millis() as u64;
        // Only tasks of the connection's own worker write here.
        let mut flags = self.state.load(Ordering::Relaxed) & FLAGS;
        if phase == Phase::Handling {
            flags |= SERVED;
        }
        let state = (ms << TIME_SHIFT) | flags | phase as u64;
        self.state.store(state, Ordering::Relaxed);
    }

    fn limit(&self, phase: Phase) -> Duration {
        match phase {
            Phase::Idle => self.idle_timeout,
            Phase::Head => HEAD_TIMEOUT,
            Phase::Handling => HANDLING_TIMEOUT,
        }
    }

    pub(super) fn phase(&self) -> Phase {
        phase_of(self.state.load(Ordering::Relaxed))
    }

    fn raise(&self, flag: u64) {
        self.state.fetch_or(flag, Ordering::Relaxed);
    }

    fn lower(&self, flag: u64) {
        self.state.fetch_and(!flag, Ordering::Relaxed);
    }

    fn has(&self, flag: u64) -> bool {
        self.state.load(Ordering::Relaxed) & flag != 0
    }

    /// Whether the peer takes no more of a response for now. Its time begins when it takes no more, and
    /// not when the gateway last had something for it.
    pub(super) fn note_blocked(&self, is_blocked: bool) {
        match (self.is_blocked(), is_blocked) {
            (false, true) => {
                self.raise(BLOCKED);
                self.begin_again();
            }
            (true, false) => self.lower(BLOCKED),
            (true, true) | (false, false) => {}
        }
    }

    /// Gives a phase that is up to the peer its whole time.
    fn begin_again(&self) {
        let phase = self.phase();
        if phase != Phase::Handling {
            self.enter(phase);
        }
    }

    /// The gateway goes on making the body of a response, after its head.
    pub(super) fn note_unfinished(&self) {
        self.raise(UNFINISHED);
    }

    /// The body of the response is made. What follows is up to the peer.
    pub(super) fn note_finished(&self) {
        self.lower(UNFINISHED);
        self.begin_again();
    }

    /// Whether it is the gateway that the connection waits for, and not the peer: it is making a response,
    /// and the peer has taken what there is of it.
    pub(super) fn is_working(&self) -> bool {
        self.has(UNFINISHED) && !self.is_blocked() && self.phase() != Phase::Handling
    }

    /// Whether the peer takes no more of a response for now.
    pub(super) fn is_blocked(&self) -> bool {
        self.has(BLOCKED)
    }

    /// The body of a request arrives from now on.
    pub(super) fn note_body(&self) {
        self.raise(BODY);
    }

    /// The body of the request has arrived.
    pub(super) fn note_body_end(&self) {
        self.lower(BODY);
    }

    /// Whether what arrives may be, or follow, the head of the next request.
    pub(super) fn is_between_bodies(&self) -> bool {
        self.phase() != Phase::Handling && !self.has(BODY)
    }

    /// The body of a request is left where it is, and the connection ends.
    pub(super) fn note_unread(&self) {
        self.raise(UNREAD);
    }

    /// The response has no end.
    pub(super) fn note_endless(&self) {
        self.raise(ENDLESS);
    }

    /// Whether the response has no end.
    pub(super) fn is_endless(&self) -> bool {
        self.has(ENDLESS)
    }

    /// The connection ends once it is idle.
    pub(super) fn note_draining(&self) {
        self.raise(DRAINING);
    }

    /// Whether the end of the connection waits for the peer. That of an idle one does not, where it is
    /// this side that wants it: the peer may not notice before its next request.
    pub(super) fn lingers(&self) -> bool {
        self.has(UNREAD) || !self.has(DRAINING) || self.phase() == Phase::Head
    }

    /// All has been sent, and the end waits for the peer.
    pub(super) fn note_lingering(&self) {
        self.raise(LINGERING);
    }

    /// Whether all has been sent, and the end waits for the peer.
    pub(super) fn is_lingering(&self) -> bool {
        self.has(LINGERING)
    }

    pub(super) fn deadline(&self) -> Instant {
        let ms = self.state.load(Ordering::Relaxed) >> TIME_SHIFT;
        self.started + Duration::from_millis(ms)
    }

    pub(super) fn read(&self) -> Reading {
        let state = self.state.load(Ordering::Relaxed);
        let phase = phase_of(state);
        let deadline = self.started + Duration::from_millis(state >> TIME_SHIFT);
        Reading {
            phase,
            has_served: state & SERVED != 0,
            since: deadline.checked_sub(self.limit(phase)).unwrap_or(deadline),
        }
    }
}

fn phase_of(state: u64) -> Phase {
    match state & PHASE_MASK {
        0 => Phase::Idle,
        1 => Phase::Head,
        _ => Phase::Handling,
    }
}

/// Ready once the peer has made no progress for too long. It has none to make while it is the gateway that
/// works on a response. The timer moves only when the
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
            if !clock.is_working() {
                return Poll::Ready(());
            }
            clock.begin_again();
        }
        alarm.as_mut().reset(clock.deadline().into());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_response_that_is_being_made_is_up_to_the_gateway_until_the_peer_takes_no_more() {
        let clock = Clock::new(Instant::now(), Duration::from_secs(60));
        clock.enter(Phase::Handling);
        clock.enter(Phase::Idle);
        assert!(!clock.is_working(), "the peer has a request to send");
        clock.note_unfinished();
        assert!(clock.is_working());
        clock.note_blocked(true);
        assert!(!clock.is_working() && clock.is_blocked());
        clock.note_blocked(false);
        assert!(clock.is_working());
        // Also where the next request has begun to arrive.
        clock.enter(Phase::Head);
        assert!(clock.is_working());
        clock.note_finished();
        assert!(!clock.is_working());
    }

    #[tokio::test]
    async fn an_alarm_that_is_due_while_the_gateway_works_is_put_off() {
        // So long after the start of its worker that what it reads is no later than that.
        let clock = Clock::new(Instant::now(), Duration::from_secs(60));
        for phase in [Phase::Idle, Phase::Head] {
            clock.enter(phase);
            clock.note_unfinished();
            let deadline = clock.deadline();
            let long_ago = FLAGS | PHASE_MASK;
            clock.state.fetch_and(long_ago, Ordering::Relaxed);
            assert!(clock.deadline() <= Instant::now());
            let mut alarm = std::pin::pin!(tokio::time::sleep(Duration::ZERO));
            std::future::poll_fn(|context| {
                assert!(poll_alarm(&clock, alarm.as_mut(), context).is_pending());
                match clock.deadline() >= deadline {
                    true => Poll::Ready(()),
                    false => Poll::Pending,
                }
            })
            .await;
            clock.note_blocked(true);
            clock.state.fetch_and(long_ago, Ordering::Relaxed);
            std::future::poll_fn(|context| poll_alarm(&clock, alarm.as_mut(), context)).await;
            clock.note_blocked(false);
            clock.note_finished();
        }
    }

    #[test]
    fn a_clock_shows_its_phase_since_when_and_whether_a_request_has_come() {
        let started = Instant::now();
        for idle_timeout in [Duration::from_secs(1), Duration::from_secs(3_600)] {
            let clock = Clock::new(started, idle_timeout);
            for (phase, has_served) in [
                (Phase::Idle, false),
                (Phase::Head, false),
                (Phase::Handling, true),
                (Phase::Idle, true),
                (Phase::Head, true),
            ] {
                clock.enter(phase);
                let reading = clock.read();
                assert_eq!((reading.phase, reading.has_served), (phase, has_served));
                assert!(reading.since >= started && reading.since <= Instant::now());
                assert_eq!(clock.phase(), phase);
                // Both are whole milliseconds.
                let limit = clock.deadline() - reading.since;
                assert_eq!(limit, clock.limit(phase));
            }
        }
    }
}
