//! The body of a request, which is read to its end even if its handler drops it.
//!
//! A caller may send the whole body before it reads the response. The connection could not be used
//! further, or would be reset and the response lost, if the body stayed where it is. So no handler has
//! to take care of a body that it refuses.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use axum::BoxError;
use axum::body::Body;
use axum::http::{HeaderMap, header};
use bytes::Bytes;
use http_body::{Body as _, Frame, SizeHint};
use http_body_util::BodyExt as _;
use hyper::body::Incoming;
use thiserror::Error;
use tokio::runtime::Handle;

use super::clock::Clock;
use crate::http::counts::Counts;

/// For how long, and for how many bytes, a body is read on after it was dropped.
pub(super) const DRAIN_BODY_TIMEOUT: Duration = Duration::from_secs(2);
pub(super) const DRAIN_BODY_BYTES_MAX: usize = 16 << 20;

/// Frames of a body that may be as short as they like: pieces of it, as they arrive, or its chunks.
const FRAMES_FREE: usize = 1_024;

/// The least mean length of the chunks of a body after [`FRAMES_FREE`] frames, in bytes. Each costs as much
/// work as kilobytes in one piece.
const CHUNK_BYTES_MIN: usize = 16;

/// The body has more chunks than it may for its length.
#[derive(Debug, Error)]
#[error("its chunks are shorter than {CHUNK_BYTES_MIN} bytes on the average")]
pub(in crate::http) struct ShortChunks;

/// What has arrived of a body.
#[derive(Clone)]
struct Frames {
    counts: Arc<Counts>,
    /// Whether its length is unknown, so that it comes in chunks.
    is_chunked: bool,
    frames: usize,
    bytes: usize,
}

impl Frames {
    fn of(body: &Incoming, counts: &Arc<Counts>) -> Self {
        Self {
            counts: Arc::clone(counts),
            is_chunked: body.size_hint().exact().is_none(),
            frames: 0,
            bytes: 0,
        }
    }

    /// Counts a frame.
    ///
    /// # Errors
    ///
    /// If it is one too many.
    fn note(&mut self, frame: &Frame<Bytes>) -> Result<(), ShortChunks> {
        self.frames += 1;
        self.bytes += frame.data_ref().map_or(0, Bytes::len);
        let is_short = self.bytes < CHUNK_BYTES_MIN * self.frames;
        if self.is_chunked && self.frames > FRAMES_FREE && is_short {
            let refused = &self.counts.short_chunks_refused;
            refused.fetch_add(1, Ordering::Relaxed);
            return Err(ShortChunks);
        }
        Ok(())
    }
}

/// A body that its handler reads, or does not.
struct RequestBody {
    /// None once it is at its end.
    incoming: Option<Incoming>,
    frames: Frames,
    clock: Clock,
    /// Whether it is left where it is when it is dropped, and the connection ends with the response;
    /// then it is noted here.
    is_left: Option<Arc<AtomicBool>>,
}

/// Whether the connection ends with the response because the body was not read.
pub(super) struct LeftBody(Option<Arc<AtomicBool>>);

impl LeftBody {
    pub(super) fn is_left(&self) -> bool {
        let is_left = self.0.as_ref();
        is_left.is_some_and(|is_left| is_left.load(Ordering::Relaxed))
    }
}

/// The body for a handler. One whose caller waits for `100 Continue`, and one that is too long to be
/// read on, is left if the handler drops it: the caller need not send it.
pub(super) fn request_body(
    headers: &HeaderMap,
    incoming: Incoming,
    clock: &Clock,
    counts: &Arc<Counts>,
) -> (Body, LeftBody) {
    if incoming.is_end_stream() {
        return (Body::empty(), LeftBody(None));
    }
    clock.note_body();
    let is_too_long = incoming.size_hint().lower() > DRAIN_BODY_BYTES_MAX as u64;
    let is_left = (is_too_long || headers.contains_key(header::EXPECT)).then(Arc::default);
    let body = RequestBody {
        frames: Frames::of(&incoming, counts),
        incoming: Some(incoming),
        clock: clock.clone(),
        is_left: is_left.clone(),
    };
    (Body::new(body), LeftBody(is_left))
}

impl http_body::Body for RequestBody {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let this = &mut *self;
        let Some(incoming) = &mut this.incoming else {
            return Poll::Ready(None);
        };
        let frame = Pin::new(incoming).poll_frame(context);
        if let Poll::Ready(Some(Ok(frame))) = &frame
            && let Err(error) = this.frames.note(frame)
        {
            // It is not read on, either.
            this.incoming = None;
            this.clock.note_unread();
            return Poll::Ready(Some(Err(error.into())));
        }
        if matches!(frame, Poll::Ready(None | Some(Err(_)))) {
            self.incoming = None;
            self.clock.note_body_end();
        }
        // Once it was asked for, it comes.
        self.is_left = None;
        frame.map_err(BoxError::from)
    }

    fn is_end_stream(&self) -> bool {
        self.incoming.as_ref().is_none_or(Incoming::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        let incoming = self.incoming.as_ref();
        incoming.map_or_else(|| SizeHint::with_exact(0), Incoming::size_hint)
    }
}

impl Drop for RequestBody {
    fn drop(&mut self) {
        let Some(incoming) = self.incoming.take() else {
            return;
        };
        if incoming.is_end_stream() {
            return self.clock.note_body_end();
        }
        let clock = self.clock.clone();
        if let Some(is_left) = &self.is_left {
            is_left.store(true, Ordering::Relaxed);
            clock.note_unread();
        } else if let Ok(runtime) = Handle::try_current() {
            drop(runtime.spawn(drain(incoming, self.frames.clone(), clock)));
        }
    }
}

/// Reads a body to its end, or gives it up, which ends the connection.
async fn drain(mut body: Incoming, mut frames: Frames, clock: Clock) {
    let reading = async {
        while let Some(Ok(frame)) = body.frame().await {
            if frames.note(&frame).is_err() || frames.bytes > DRAIN_BODY_BYTES_MAX {
                return false;
            }
        }
        true
    };
    let is_read = tokio::time::timeout(DRAIN_BODY_TIMEOUT, reading).await;
    match is_read {
        Ok(true) => clock.note_body_end(),
        Ok(false) | Err(_) => clock.note_unread(),
    }
}
