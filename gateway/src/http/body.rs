//! Bodies of requests: read with limits in length, time and memory.

use std::time::Duration;

use axum::body::Body;
use axum::http::{HeaderMap, Request, header};
use bytes::{Bytes, BytesMut};
use dkvs_client::MemoryPermit;
use http_body_util::BodyExt as _;

use super::error::Problem;
use dkvs_client::Client;

/// How long the body of a request may make no progress.
const BODY_PROGRESS: Duration = Duration::from_secs(10);

/// For how long, and for how many bytes, a body is read on after it was refused.
const LINGER: Duration = Duration::from_secs(2);
const LINGER_BYTES_MAX: usize = 16 << 20;

/// The body, refused as soon as it is known to be longer than `bytes_max`, or when there is no
/// memory for it. The permit stands for that memory.
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
        let Some(frame) = frame.map_err(|_| Problem::body_timeout(BODY_PROGRESS.as_secs()))? else {
            break;
        };
        let frame: Bytes = frame
            .map_err(|_| Problem::body_broken())?
            .into_data()
            .unwrap_or_default();
        if bytes.len() + frame.len() > bytes_max {
            return Err(too_large());
        }
        if bytes.is_empty() && frame.len() as u64 == announced {
            // All of it, as it is.
            let memory = take_memory(client, frame.len(), 0, memory);
            let memory = memory.map_err(|Full| Problem::no_memory())?;
            return Ok((frame, memory));
        }
        if bytes.capacity() < bytes.len() + frame.len() {
            let wanted = (announced as usize)
                .max(2 * bytes.capacity())
                .max(frame.len())
                .min(bytes_max);
            memory = match take_memory(client, wanted, bytes.capacity(), memory) {
                Ok(memory) => memory,
                Err(Full) => return Err(Problem::no_memory()),
            };
            bytes.reserve(wanted - bytes.len());
        }
        bytes.extend_from_slice(&frame);
    }
    Ok((bytes.freeze(), memory))
}

/// Values that are longer than this, in bytes, count against the memory for long ones.
const LONG: usize = 32 << 10;

struct Full;

/// Makes the permit one for `wanted` bytes, `held` of which it stands for already.
fn take_memory(
    client: &Client,
    wanted: usize,
    held: usize,
    memory: Option<MemoryPermit>,
) -> Result<Option<MemoryPermit>, Full> {
    if wanted <= LONG {
        return Ok(memory);
    }
    let more = if memory.is_some() {
        wanted - held
    } else {
        wanted
    };
    let more = client.take_memory(more).ok_or(Full)?;
    Ok(Some(match memory {
        Some(mut memory) => {
            memory.merge(more);
            memory
        }
        None => more,
    }))
}

/// Reads on in a body that was refused, for a while, so that the caller gets to read the answer:
/// closing a connection with unread bytes would take the answer back. A caller who waits to be
/// asked for the body is not asked for it any more.
pub(super) fn linger(headers: &HeaderMap, mut body: Body) {
    if http_body::Body::is_end_stream(&body) || headers.contains_key(header::EXPECT) {
        return;
    }
    let reading = async move {
        let mut read = 0;
        while let Some(Ok(frame)) = body.frame().await {
            read += frame.into_data().map_or(0, |data| data.len());
            if read > LINGER_BYTES_MAX {
                break;
            }
        }
    };
    // Past it the connection is closed.
    drop(tokio::spawn(tokio::time::timeout(LINGER, reading)));
}

/// The same of a whole request.
pub(super) fn linger_in<B>(request: Request<B>)
where
    B: http_body::Body<Data = Bytes, Error: Into<axum::BoxError>> + Send + 'static,
{
    let (head, body) = request.into_parts();
    linger(&head.headers, Body::new(body));
}
