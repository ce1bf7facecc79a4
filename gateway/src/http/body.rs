//! Bodies of requests: read with limits in length, time and memory.

use std::time::Duration;

use axum::body::Body;
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use bytes::{Bytes, BytesMut};
use http_body_util::BodyExt as _;

use super::problem::{Problem, ProblemType};
use super::serve::ShortChunks;
use dkvs_client::{MemoryAccount, MemoryError, MemoryPermit, UNCOUNTED_BYTES_MAX};
use tokio::time::Instant;

const REQUEST_TIMEOUT: ProblemType = ProblemType {
    status: StatusCode::REQUEST_TIMEOUT,
    name: "request-timeout",
    title: "The body did not arrive in time",
};

const INVALID_BODY: ProblemType = ProblemType {
    status: StatusCode::BAD_REQUEST,
    name: "invalid-body",
    title: "The body could not be read",
};

const CONTENT_CODING: ProblemType = ProblemType {
    status: StatusCode::UNSUPPORTED_MEDIA_TYPE,
    name: "content-coding",
    title: "The body is compressed or coded otherwise",
};

const PARTIAL_PUT: ProblemType = ProblemType {
    status: StatusCode::BAD_REQUEST,
    name: "partial-put",
    title: "A part of a value cannot be written",
};

/// How long the body of a request may make no progress.
const BODY_PROGRESS: Duration = Duration::from_secs(10);

/// The least mean rate at which a body arrives, in bytes a second, once it has had
/// [`BODY_GRACE`].
const BODY_BYTES_PER_SECOND_MIN: u64 = 2 << 10;
const BODY_GRACE: Duration = Duration::from_secs(10);

/// The first buffer of a body that does not arrive at once, in bytes. Later ones are twice as long each.
const FIRST_BUFFER_BYTES: usize = 4 << 10;

/// Reads the whole body. Long bytes hold the memory that was taken for them: as much as had arrived, and
/// as much again, however much was announced.
///
/// # Errors
///
/// As soon as the body is known to be longer than `bytes_max`, if there is no memory for it, and if
/// it stalls, is too slow, or breaks off.
pub(super) async fn read(
    memory: &MemoryAccount,
    body: &mut Body,
    bytes_max: usize,
    too_large: impl Fn() -> Problem,
) -> Result<Bytes, Problem> {
    let announced = http_body::Body::size_hint(body).lower();
    if announced > bytes_max as u64 {
        return Err(too_large());
    }
    let announced = announced as usize;
    let mut pace = Pace::begin();
    let mut buffer = Buffer::default();
    loop {
        let frame = tokio::time::timeout_at(pace.deadline(), body.frame()).await;
        let Some(frame) = frame.map_err(|_| too_slow())? else {
            break;
        };
        let frame: Bytes = frame.map_err(broken)?.into_data().unwrap_or_default();
        let arrived = buffer.bytes.len() + frame.len();
        if arrived > bytes_max {
            return Err(too_large());
        }
        if buffer.bytes.is_empty() && frame.len() == announced {
            // The whole body in one frame: no copy.
            return Ok(memory.hold(frame)?);
        }
        pace.note(arrived);
        buffer.make_room(arrived, announced, bytes_max, memory)?;
        buffer.bytes.extend_from_slice(&frame);
    }
    Ok(buffer.finish())
}

/// What has arrived of a body.
#[derive(Default)]
struct Buffer {
    bytes: BytesMut,
    permit: Option<MemoryPermit>,
}

impl Buffer {
    /// Makes room for `bytes` in all. Where that takes another buffer, it is twice as long as the one
    /// before, but no longer than the body can become.
    fn make_room(
        &mut self,
        bytes: usize,
        announced: usize,
        bytes_max: usize,
        memory: &MemoryAccount,
    ) -> Result<(), MemoryError> {
        let before = self.bytes.capacity();
        if bytes <= before {
            return Ok(());
        }
        let longest = if announced >= bytes {
            announced
        } else {
            bytes_max
        };
        let wanted = (2 * before).max(FIRST_BUFFER_BYTES).min(longest).max(bytes);
        if wanted > UNCOUNTED_BYTES_MAX {
            // Both buffers are there while one is copied to the other.
            let both = before + wanted;
            match &mut self.permit {
                Some(permit) => permit.grow_to(both)?,
                None => self.permit = Some(memory.take(both)?),
            }
        }
        self.bytes.reserve(wanted - self.bytes.len());
        if let Some(permit) = &mut self.permit {
            permit.shrink_to(self.bytes.capacity());
        }
        Ok(())
    }

    fn finish(self) -> Bytes {
        let bytes = self.bytes.freeze();
        match self.permit {
            Some(permit) => permit.hold(bytes),
            None => bytes,
        }
    }
}

/// How fast a body arrives.
struct Pace {
    begun: Instant,
    progress: Instant,
    arrived: usize,
}

impl Pace {
    fn begin() -> Self {
        let now = Instant::now();
        Self {
            begun: now,
            progress: now,
            arrived: 0,
        }
    }

    /// So many bytes have arrived by now.
    fn note(&mut self, arrived: usize) {
        self.progress = Instant::now();
        self.arrived = arrived;
    }

    /// When more has to have arrived.
    fn deadline(&self) -> Instant {
        let ms = self.arrived as u64 * 1_000 / BODY_BYTES_PER_SECOND_MIN;
        let in_mean = self.begun + BODY_GRACE + Duration::from_millis(ms);
        in_mean.min(self.progress + BODY_PROGRESS)
    }
}

/// Refuses a body that is coded, such as by gzip: the coding would not be kept with it, and a reader
/// would take it for what it is not (RFC 9110, section 8.4).
pub(super) fn check_coding(headers: &HeaderMap) -> Result<(), Problem> {
    let lines = headers.get_all(header::CONTENT_ENCODING).iter();
    let mut codings = lines.flat_map(|line| line.as_bytes().split(|byte| *byte == b','));
    let is_none = |coding: &[u8]| coding.is_empty() || coding.eq_ignore_ascii_case(b"identity");
    if codings.all(|coding| is_none(coding.trim_ascii())) {
        return Ok(());
    }
    let detail = "the gateway takes a body as it is, without a Content-Encoding; to store what is \
                  compressed already, leave the header out and say so in Content-Type";
    let accepted = HeaderValue::from_static("identity");
    Err(Problem::new(&CONTENT_CODING, detail).with_header(header::ACCEPT_ENCODING, accepted))
}

/// Refuses a part of a value, which would take the place of the whole (RFC 9110, section 14.5).
pub(super) fn check_whole(headers: &HeaderMap) -> Result<(), Problem> {
    if !headers.contains_key(header::CONTENT_RANGE) {
        return Ok(());
    }
    let detail = "the body is part of a value by its Content-Range, and a PUT replaces the whole";
    Err(Problem::new(&PARTIAL_PUT, detail))
}

fn too_slow() -> Problem {
    let seconds = BODY_PROGRESS.as_secs();
    let detail = format!(
        "no more of the request's body arrived for {seconds} seconds, or less than \
         {BODY_BYTES_PER_SECOND_MIN} bytes a second on the average; nothing was stored"
    );
    let close = HeaderValue::from_static("close");
    Problem::new(&REQUEST_TIMEOUT, detail).with_header(header::CONNECTION, close)
}

fn broken(error: axum::Error) -> Problem {
    let error = error.into_inner();
    let Some(short) = error.downcast_ref::<ShortChunks>() else {
        let detail = "the request's body ended early or was not well-formed; nothing was stored";
        return Problem::new(&INVALID_BODY, detail);
    };
    let detail = format!("the request's body is not taken: {short}; nothing was stored");
    let close = HeaderValue::from_static("close");
    Problem::new(&INVALID_BODY, detail).with_header(header::CONNECTION, close)
}

/// The body was read, and is not what the operation takes.
pub(super) fn invalid_body(detail: String) -> Problem {
    Problem::new(&INVALID_BODY, detail)
}
