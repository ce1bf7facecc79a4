//! Bodies of requests: read with limits in length, time and memory.

use std::time::Duration;

use axum::body::Body;
use axum::http::{HeaderMap, HeaderValue, Request, StatusCode, header};
use bytes::{Bytes, BytesMut};
use http_body_util::BodyExt as _;

use super::client_error::overloaded;
use super::problem::{Problem, ProblemType};
use dkvs_client::{Client, MemoryPermit};

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

/// For how long, and for how many bytes, a body is read on after it was refused.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(2);
const DRAIN_BYTES_MAX: usize = 16 << 20;

/// Reads the whole body, and takes memory for a long one; the permit stands for that memory.
///
/// # Errors
///
/// As soon as the body is known to be longer than `bytes_max`, if there is no memory for it, and if
/// it stalls or breaks off.
pub(super) async fn read(
    client: &Client,
    body: &mut Body,
    bytes_max: usize,
    too_large: impl Fn() -> Problem,
) -> Result<(Bytes, Option<MemoryPermit>), Problem> {
    let announced = http_body::Body::size_hint(body).lower();
    if announced > bytes_max as u64 {
        return Err(too_large());
    }
    let mut memory: Option<MemoryPermit> = None;
    let mut bytes = BytesMut::new();
    loop {
        let frame = tokio::time::timeout(BODY_PROGRESS, body.frame()).await;
        let Some(frame) = frame.map_err(|_| too_slow())? else {
            break;
        };
        let frame: Bytes = frame.map_err(|_| broken())?.into_data().unwrap_or_default();
        if bytes.len() + frame.len() > bytes_max {
            return Err(too_large());
        }
        if bytes.is_empty() && frame.len() as u64 == announced {
            // The whole body in one frame: no copy.
            let memory = take_memory(client, frame.len(), 0, memory);
            let memory = memory.map_err(|NoMemory| no_memory())?;
            return Ok((frame, memory));
        }
        if bytes.capacity() < bytes.len() + frame.len() {
            let wanted = (announced as usize)
                .max(2 * bytes.capacity())
                .max(frame.len())
                .min(bytes_max);
            memory = match take_memory(client, wanted, bytes.capacity(), memory) {
                Ok(memory) => memory,
                Err(NoMemory) => return Err(no_memory()),
            };
            bytes.reserve(wanted - bytes.len());
        }
        bytes.extend_from_slice(&frame);
    }
    Ok((bytes.freeze(), memory))
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
    let detail =
        format!("no more of the request's body arrived for {seconds} seconds; nothing was stored");
    let close = HeaderValue::from_static("close");
    Problem::new(&REQUEST_TIMEOUT, detail).with_header(header::CONNECTION, close)
}

fn broken() -> Problem {
    Problem::new(
        &INVALID_BODY,
        "the request's body ended early or was not well-formed; nothing was stored",
    )
}

/// The body was read, and is not what the operation takes.
pub(super) fn invalid_body(detail: String) -> Problem {
    Problem::new(&INVALID_BODY, detail)
}

fn no_memory() -> Problem {
    overloaded("too many long values are on their way")
}

/// Values that are longer than this, in bytes, count against the memory for long ones.
const LONG: usize = 32 << 10;

struct NoMemory;

/// Makes the permit one for `wanted` bytes, `held` of which it stands for already.
fn take_memory(
    client: &Client,
    wanted: usize,
    held: usize,
    memory: Option<MemoryPermit>,
) -> Result<Option<MemoryPermit>, NoMemory> {
    if wanted <= LONG {
        return Ok(memory);
    }
    let more = if memory.is_some() {
        wanted - held
    } else {
        wanted
    };
    let more = client.take_memory(more).ok_or(NoMemory)?;
    Ok(Some(match memory {
        Some(mut memory) => {
            memory.merge(more);
            memory
        }
        None => more,
    }))
}

/// Reads on in a body that was refused, for a while, so that the caller can read the response:
/// closing a connection with unread bytes would discard the response. A caller who waits for
/// `100 Continue` gets none.
pub(super) fn drain_body(headers: &HeaderMap, mut body: Body) {
    if http_body::Body::is_end_stream(&body) || headers.contains_key(header::EXPECT) {
        return;
    }
    let reading = async move {
        let mut read = 0;
        while let Some(Ok(frame)) = body.frame().await {
            read += frame.into_data().map_or(0, |data| data.len());
            if read > DRAIN_BYTES_MAX {
                break;
            }
        }
    };
    // After the time-out the connection closes.
    drop(tokio::spawn(tokio::time::timeout(DRAIN_TIMEOUT, reading)));
}

/// Drains the body of a whole request.
pub(super) fn drain_request<B>(request: Request<B>)
where
    B: http_body::Body<Data = Bytes, Error: Into<axum::BoxError>> + Send + 'static,
{
    let (head, body) = request.into_parts();
    drain_body(&head.headers, Body::new(body));
}
