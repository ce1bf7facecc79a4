//! What a connection has to do with its peer: one that has gone ends it, and at its end it waits for the
//! peer, so that the last response is not lost.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::Sleep;
use tokio_rustls::server::TlsStream;

use super::clock::{Clock, Phase};
use super::request_body::{DRAIN_BODY_BYTES_MAX, DRAIN_BODY_TIMEOUT};

/// What TCP says of the peer.
pub(super) trait Peer {
    /// Ready with an error once the peer has reset the connection; else, if there is something to
    /// read first, with how many bytes of it are seen: none at the end.
    fn poll_reset(&self, context: &mut Context<'_>) -> Poll<io::Result<usize>>;
}

impl Peer for TcpStream {
    fn poll_reset(&self, context: &mut Context<'_>) -> Poll<io::Result<usize>> {
        self.poll_peek(context, &mut ReadBuf::new(&mut [0]))
    }
}

impl Peer for TlsStream<TcpStream> {
    fn poll_reset(&self, context: &mut Context<'_>) -> Poll<io::Result<usize>> {
        self.get_ref().0.poll_reset(context)
    }
}

/// A stream that ends with its peer.
pub(super) struct PeerStream<S> {
    stream: S,
    clock: Clock,
    /// Whether there is nothing to learn of the peer before the stream is read again.
    is_readable: bool,
    lingering: Option<Lingering>,
}

/// Reads on at the end of a connection: closing it while bytes arrive would have the system reset it,
/// and what the peer has not yet read of the response would be lost (RFC 9112, section 9.6).
struct Lingering {
    timeout: Pin<Box<Sleep>>,
    read: usize,
}

impl<S> PeerStream<S> {
    pub(super) fn new(stream: S, clock: Clock) -> Self {
        Self {
            stream,
            clock,
            is_readable: false,
            lingering: None,
        }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for PeerStream<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        self.is_readable = false;
        Pin::new(&mut self.stream).poll_read(context, buffer)
    }
}

impl<S: AsyncRead + AsyncWrite + Peer + Unpin> AsyncWrite for PeerStream<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(context, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    /// Fails, while a handler works on a request, if the peer has reset the connection: nobody reads
    /// then, and nobody needs the response. The end of what the peer sends is no such sign, unless the
    /// response has no end.
    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(Pin::new(&mut self.stream).poll_flush(context))?;
        let is_endless = self.clock.is_endless();
        if (is_endless || (!self.is_readable && self.clock.phase() == Phase::Handling))
            && let Poll::Ready(readable) = self.stream.poll_reset(context)
        {
            if readable? == 0 && is_endless {
                return Poll::Ready(Err(io::ErrorKind::UnexpectedEof.into()));
            }
            self.is_readable = true;
        }
        Poll::Ready(Ok(()))
    }

    /// Ends what is sent, then reads on for a while.
    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let Self {
            stream,
            clock,
            lingering,
            ..
        } = &mut *self;
        let lingering = match lingering {
            Some(lingering) => lingering,
            None => {
                ready!(Pin::new(&mut *stream).poll_shutdown(context))?;
                if !clock.lingers() {
                    return Poll::Ready(Ok(()));
                }
                clock.note_lingering();
                let timeout = Box::pin(tokio::time::sleep(DRAIN_BODY_TIMEOUT));
                lingering.insert(Lingering { timeout, read: 0 })
            }
        };
        let mut sink = [0; 4 << 10];
        while lingering.read <= DRAIN_BODY_BYTES_MAX {
            let mut buffer = ReadBuf::new(&mut sink);
            match Pin::new(&mut *stream).poll_read(context, &mut buffer) {
                Poll::Ready(Ok(())) if !buffer.filled().is_empty() => {
                    lingering.read += buffer.filled().len();
                }
                Poll::Ready(_) => break,
                Poll::Pending => return lingering.timeout.as_mut().poll(context).map(Ok),
            }
        }
        Poll::Ready(Ok(()))
    }
}
