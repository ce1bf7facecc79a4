//! The body of a reply that the gateway is still making when its head is sent.
//!
//! Until such a body has ended it may be the gateway that the connection waits for, and not its peer.

use std::pin::Pin;
use std::task::{Context, Poll};

use axum::body::Body;
use bytes::Bytes;
use http_body::{Body as _, Frame, SizeHint};

use super::clock::Clock;

/// A body that says when it has ended.
struct ReplyBody {
    body: Body,
    clock: Clock,
}

/// The body of a reply. One whose length is known is there already, and stays as it is.
pub(super) fn reply_body(body: Body, clock: &Clock) -> Body {
    if body.is_end_stream() || body.size_hint().exact().is_some() {
        return body;
    }
    clock.note_unfinished();
    Body::new(ReplyBody {
        body,
        clock: clock.clone(),
    })
}

impl http_body::Body for ReplyBody {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        Pin::new(&mut self.body).poll_frame(context)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

impl Drop for ReplyBody {
    fn drop(&mut self) {
        self.clock.note_finished();
    }
}
