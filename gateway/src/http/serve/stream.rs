//! The stream of a connection: what arrives moves its clock and is counted, so that neither a head nor
//! a body makes the connection's buffer larger than it may be, and no target is corrected.

use std::future::Future as _;
use std::io;
use std::pin::{Pin, pin};
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::clock::{Clock, Phase};
use super::heads::{HeadMemory, NoRoom};
use super::targets::Targets;

/// The most that is read of a body at a time, in bytes. The connection's buffer keeps the size of the
/// largest read.
const READ_BYTES_MAX: usize = 16 << 10;

/// A stream whose progress moves the clock.
pub(super) struct TimedStream<S> {
    stream: S,
    clock: Clock,
    head: HeadMemory,
    targets: Targets,
    is_refused: bool,
    /// Whether bytes that were taken are kept back below, as TLS does.
    is_flush_blocked: bool,
}

impl<S> TimedStream<S> {
    pub(super) fn new(stream: S, clock: Clock, head: HeadMemory) -> Self {
        Self {
            stream,
            clock,
            head,
            targets: Targets::default(),
            is_refused: false,
            is_flush_blocked: false,
        }
    }

    /// The stream, if it ended for want of memory for a head.
    pub(super) fn refused(self) -> Option<S> {
        self.is_refused.then_some(self.stream)
    }

    /// How many bytes may be read now.
    fn room(&mut self) -> Result<usize, NoRoom> {
        if !self.clock.is_between_bodies() {
            return Ok(READ_BYTES_MAX);
        }
        if self.clock.phase() == Phase::Idle {
            self.head.begin();
        }
        self.head.room()
    }

    fn note_arrived(&mut self, bytes: usize) {
        if bytes == 0 || !self.clock.is_between_bodies() {
            return;
        }
        self.head.record(bytes);
        if self.clock.phase() == Phase::Idle {
            self.clock.enter(Phase::Head);
        }
    }

    /// A part of a response was taken, which also gives time to the next head, if that has begun.
    fn note_progress(&self, written: &Poll<io::Result<usize>>) {
        self.clock.note_blocked(written.is_pending());
        let phase = self.clock.phase();
        if matches!(written, Poll::Ready(Ok(_))) && phase != Phase::Handling {
            self.clock.enter(phase);
        }
    }
}

/// Has the task polled again once all others had their turn, and the runtime has asked the system what
/// has arrived.
pub(super) fn look_again(context: &mut Context<'_>) {
    let is_pending = pin!(tokio::task::yield_now()).poll(context).is_pending();
    debug_assert!(is_pending, "the runtime polls it once more");
}

impl<S: AsyncRead + Unpin> AsyncRead for TimedStream<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let room = match self.room() {
            Ok(room) => room,
            Err(NoRoom::Yet) => {
                look_again(context);
                return Poll::Pending;
            }
            Err(NoRoom::ForThis) => {
                self.is_refused = true;
                return Poll::Ready(Err(io::ErrorKind::OutOfMemory.into()));
            }
        };
        let before = buffer.filled().len();
        let read = if buffer.remaining() <= room {
            Pin::new(&mut self.stream).poll_read(context, buffer)
        } else {
            let mut part = ReadBuf::new(buffer.initialize_unfilled_to(room));
            let read = Pin::new(&mut self.stream).poll_read(context, &mut part);
            let arrived = part.filled().len();
            buffer.advance(arrived);
            read
        };
        let arrived = &mut buffer.filled_mut()[before..];
        self.targets.refuse_fragments(arrived);
        self.note_arrived(arrived.len());
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
        let flushed = Pin::new(&mut self.stream).poll_flush(context);
        if flushed.is_pending() != self.is_flush_blocked {
            self.is_flush_blocked = flushed.is_pending();
            self.clock.note_blocked(flushed.is_pending());
        }
        flushed
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}
