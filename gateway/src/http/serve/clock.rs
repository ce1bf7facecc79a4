//! How long a connection may be idle or slow.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::Sleep;

/// How long the head of a request may take, and the handshake of TLS.
pub const HEAD_TIMEOUT: Duration = Duration::from_secs(10);

/// How long a connection may be idle between requests, or make no progress taking a response.
pub const IDLE_TIMEOUT: Duration = Duration::from_secs(60);

/// When a connection has to have made progress: shared by its stream, its handler and its alarm.
#[derive(Clone)]
pub(super) struct Clock {
    started: Instant,
    /// Milliseconds after `started`, above [`PHASE_BITS`] bits for the phase.
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
        self.state
            .store((ms << PHASE_BITS) | phase as u64, Ordering::Relaxed);
    }

    fn is_idle(&self) -> bool {
        let phase = self.state.load(Ordering::Relaxed) & ((1 << PHASE_BITS) - 1);
        phase == Phase::Idle as u64
    }

    pub(super) fn deadline(&self) -> Instant {
        let ms = self.state.load(Ordering::Relaxed) >> PHASE_BITS;
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

/// A stream whose progress moves the clock.
pub(super) struct TimedStream<S> {
    pub(super) stream: S,
    pub(super) clock: Clock,
}

impl<S: AsyncRead + Unpin> AsyncRead for TimedStream<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let read = Pin::new(&mut self.stream).poll_read(context, buffer);
        if buffer.filled().len() > before && self.clock.is_idle() {
            self.clock.enter(Phase::Head);
        }
        read
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for TimedStream<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write(context, bytes);
        self.note_progress(&written);
        written
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write_vectored(context, slices);
        self.note_progress(&written);
        written
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}

impl<S> TimedStream<S> {
    fn note_progress(&self, written: &Poll<io::Result<usize>>) {
        if matches!(written, Poll::Ready(Ok(_))) && self.clock.is_idle() {
            self.clock.enter(Phase::Idle);
        }
    }
}
