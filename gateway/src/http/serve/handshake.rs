//! Handshakes of TLS: few at a time, in turns by peer, and off the thread of the worker.
//!
//! ```text
//!   bytes arrive --> [ waits for its turn ] --> a step, on another thread --> done, or more bytes
//! ```
//!
//! A step signs with the private key, which takes as long as many requests do, a millisecond with RSA. It
//! runs on a thread beside the worker, one at a time, so the system shares the processor between them and
//! requests do not wait for it. Whoever begins many handshakes waits for its own, and not everybody else.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Wake, Waker};

use dkvs_client::CallerId;
use tokio::net::TcpStream;
use tokio::sync::Notify;
use tokio_rustls::server::TlsStream;
use tokio_rustls::{Accept, TlsAcceptor};

use crate::http::fair::{FairSemaphore, FairSlot, FairSlots, NoSlot};

/// Steps of handshakes at a time, per worker.
const STEPS_MAX: usize = 1;

/// Handshakes that have begun to arrive and are not done, per worker.
const HANDSHAKES_MAX: usize = 1_024;

/// The handshakes of one worker.
pub(super) struct Handshakes {
    turns: Arc<FairSemaphore>,
    slots: Arc<FairSlots>,
}

/// Why there is no connection by TLS.
pub(super) enum HandshakeError {
    /// Too many are under way, and no peer has more of them.
    TooMany,
    /// It failed.
    Failed(io::Error),
}

impl Default for Handshakes {
    fn default() -> Self {
        Self {
            turns: Arc::new(FairSemaphore::new(STEPS_MAX)),
            slots: Arc::new(FairSlots::new(HANDSHAKES_MAX, HANDSHAKES_MAX)),
        }
    }
}

impl Handshakes {
    /// Shakes hands with a peer. May be dropped at any time.
    pub(super) async fn accept(
        &self,
        acceptor: TlsAcceptor,
        stream: TcpStream,
        peer: CallerId,
    ) -> Result<TlsStream<TcpStream>, HandshakeError> {
        // Whoever says nothing takes no turn.
        stream.readable().await.map_err(HandshakeError::Failed)?;
        let slot: FairSlot = match self.slots.take(peer) {
            Ok(slot) => slot,
            Err(NoSlot::Full | NoSlot::OfCaller) => return Err(HandshakeError::TooMany),
        };
        tokio::select! {
            accepted = self.steps(acceptor.accept(stream), peer) => {
                accepted.map_err(HandshakeError::Failed)
            }
            () = slot.displaced() => Err(HandshakeError::TooMany),
        }
    }

    async fn steps(
        &self,
        accept: Accept<TcpStream>,
        peer: CallerId,
    ) -> io::Result<TlsStream<TcpStream>> {
        let mut accept = Box::pin(accept);
        let progress = Arc::new(Progress::default());
        loop {
            let turn = self.turns.acquire(peer, 1).await;
            let waker = Waker::from(Arc::clone(&progress));
            let step = tokio::task::spawn_blocking(move || {
                let polled = step(accept.as_mut(), &waker);
                // Also where nobody waits for the end of the step any more.
                drop(turn);
                (accept, polled)
            });
            let (returned, polled) = step.await.map_err(io::Error::other)?;
            if let Poll::Ready(accepted) = polled {
                return accepted;
            }
            accept = returned;
            progress.0.notified().await;
        }
    }
}

fn step(
    accept: Pin<&mut Accept<TcpStream>>,
    waker: &Waker,
) -> Poll<io::Result<TlsStream<TcpStream>>> {
    accept.poll(&mut Context::from_waker(waker))
}

/// Woken once another step may be made.
#[derive(Default)]
struct Progress(Notify);

impl Wake for Progress {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.0.notify_one();
    }
}
