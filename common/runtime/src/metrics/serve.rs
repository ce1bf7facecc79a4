//! A page of metrics over HTTP: on a thread of its own, off the path of requests.
//!
//! A connection gets one answer and has little time for it, and few are open at once, so that
//! unknown clients that reach the port cost the program little. When all places are taken, a new
//! connection takes that of the oldest: whoever opens many and says nothing keeps nobody else away.
//! Nor does whoever opens them again and again: each has its place for some time, and those that wait
//! to be accepted get theirs in turn.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::future::{poll_fn, ready};
use std::io;
use std::net::TcpListener;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::header::{ACCEPT, ALLOW, CONTENT_TYPE, HeaderValue};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::sync::oneshot;
use tokio::time::Instant;

use super::page::Form;
use crate::browsers::{BROWSER_HEADERS, browser_header_lines};
use crate::hosts::{Hosts, authority};

/// Most connections at a time; a further one takes the place of the oldest.
const CONNECTIONS_MAX: usize = 32;

/// How long a connection has its place for certain, so that a client in no hurry has sent its request
/// before it has to go.
const PLACE_TIME: Duration = Duration::from_millis(500);

/// How long a connection may last.
const CONNECTION_TIMEOUT: Duration = Duration::from_secs(5);

/// Most header fields in a request, and most bytes in its head.
const HEADERS_MAX: usize = 64;
const HEAD_BYTES_MAX: usize = 16 << 10;

/// After an error of the listener, so that a broken one does not spin.
const ERROR_PAUSE: Duration = Duration::from_millis(50);

static CONNECTIONS_DISPLACED: AtomicU64 = AtomicU64::new(0);

/// The help text of the metric with the number of [`connections_displaced`].
pub const CONNECTIONS_DISPLACED_HELP: &str =
    "Connections for metrics that were closed since newer ones took their places";

/// How many connections of this process lost their places to newer ones.
pub fn connections_displaced() -> u64 {
    CONNECTIONS_DISPLACED.load(Ordering::Relaxed)
}

/// What is served, and to requests for which hosts.
struct Site<P> {
    hosts: Hosts,
    /// Makes the text of the page, anew for each request.
    page: P,
}

/// Serves what `page` makes at `/metrics` on `listener`, to requests for one of `hosts`, for as long
/// as the process lasts.
///
/// # Errors
///
/// If there can be no thread, or no runtime for it.
pub fn start(
    listener: TcpListener,
    hosts: Hosts,
    page: impl Fn(Form) -> String + Send + Sync + 'static,
) -> io::Result<()> {
    listener.set_nonblocking(true)?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let site = Arc::new(Site { hosts, page });
    let thread = thread::Builder::new().name("metrics".into());
    thread.spawn(move || runtime.block_on(run(listener, site)))?;
    Ok(())
}

async fn run<P>(listener: TcpListener, site: Arc<Site<P>>)
where
    P: Fn(Form) -> String + Send + Sync + 'static,
{
    let listener = match tokio::net::TcpListener::from_std(listener) {
        Ok(listener) => listener,
        Err(error) => return tracing::error!(%error, "metrics cannot be served"),
    };
    let mut open = Open::default();
    loop {
        match listener.accept().await {
            Ok((stream, _)) => {
                let displaced = open.admit().await;
                tokio::spawn(serve(stream, Arc::clone(&site), displaced));
                // Before more are accepted, so that what has arrived of this one is read.
                tokio::task::yield_now().await;
            }
            Err(error) => {
                tracing::warn!(%error, "a connection for metrics could not be accepted");
                tokio::time::sleep(ERROR_PAUSE).await;
            }
        }
    }
}

/// The connections that are open, the oldest first.
#[derive(Default)]
struct Open(VecDeque<(Instant, oneshot::Sender<()>)>);

impl Open {
    /// Takes in a connection, in place of the oldest if all places are taken. What is returned is
    /// ready once the new one has to go.
    async fn admit(&mut self) -> oneshot::Receiver<()> {
        self.0.retain(|(_, connection)| !connection.is_closed());
        if self.0.len() == CONNECTIONS_MAX
            && let Some((since, mut oldest)) = self.0.pop_front()
        {
            tokio::select! {
                () = oldest.closed() => {}
                () = tokio::time::sleep_until(since + PLACE_TIME) => {}
            }
            if oldest.send(()).is_ok() {
                CONNECTIONS_DISPLACED.fetch_add(1, Ordering::Relaxed);
            }
        }
        let (displace, displaced) = oneshot::channel();
        self.0.push_back((Instant::now(), displace));
        displaced
    }
}

/// Answers one request. Ends once the client has closed, or its time or its place is lost.
async fn serve<P>(stream: TcpStream, site: Arc<Site<P>>, displaced: oneshot::Receiver<()>)
where
    P: Fn(Form) -> String,
{
    let is_answered = AtomicBool::new(false);
    let service = service_fn(|request| {
        is_answered.store(true, Ordering::Relaxed);
        ready(Ok::<_, Infallible>(answer(&request, &site)))
    });
    let mut connection = http1::Builder::new()
        .keep_alive(false)
        .max_headers(HEADERS_MAX)
        .max_buf_size(HEAD_BYTES_MAX)
        .serve_connection(TokioIo::new(stream), service);
    let mut lost = pin!(async {
        tokio::select! {
            _ = displaced => ("503 Service Unavailable", "newer connections need this place\n"),
            () = tokio::time::sleep(CONNECTION_TIMEOUT) => {
                ("408 Request Timeout", "the request took too long\n")
            }
        }
    });
    let reason = tokio::select! {
        ended = poll_fn(|context| connection.poll_without_shutdown(context)) => {
            if let Err(error) = ended {
                tracing::debug!(%error, "a connection for metrics ended with an error");
            }
            None
        }
        reason = &mut lost => Some(reason),
    };
    let stream = connection.into_parts().io.into_inner();
    match reason {
        None => {
            tokio::select! {
                _ = linger(stream) => {}
                _ = lost => {}
            }
        }
        Some((status, text)) if !is_answered.load(Ordering::Relaxed) => {
            say(&stream, status, text);
        }
        Some(_) => {}
    }
}

/// Reads on until the client closes: closing with unread bytes would discard the answer.
async fn linger(mut stream: TcpStream) -> io::Result<()> {
    stream.shutdown().await?;
    let mut sink = [0; 1_024];
    while stream.read(&mut sink).await? > 0 {}
    Ok(())
}

/// Tells a client whose request has not arrived that it will not be answered, if it takes that at
/// once.
fn say(stream: &TcpStream, status: &str, text: &str) {
    // What has arrived would discard the answer as well.
    let mut sink = [0; HEAD_BYTES_MAX];
    let _ = stream.try_read(&mut sink);
    let length = text.len();
    let headers = browser_header_lines();
    let answer = format!(
        "HTTP/1.1 {status}\r\ncontent-type: text/plain; charset=utf-8\r\nconnection: close\r\n\
         content-length: {length}\r\n{headers}\r\n{text}"
    );
    let _ = stream.try_write(answer.as_bytes());
}

fn answer<P>(request: &Request<Incoming>, site: &Site<P>) -> Response<Full<Bytes>>
where
    P: Fn(Form) -> String,
{
    match authority(request) {
        Err(wrong) => return refusal(StatusCode::BAD_REQUEST, format!("{wrong}\n")),
        Ok(Some(host)) if !site.hosts.allow(host.host) => {
            let text = "the request is for a host that this server does not go by; if it should, \
                        start it with --allowed-host and that name\n";
            return refusal(StatusCode::MISDIRECTED_REQUEST, text);
        }
        Ok(_) => {}
    }
    if request.uri().path() != "/metrics" {
        return refusal(
            StatusCode::NOT_FOUND,
            "there is nothing here but /metrics\n",
        );
    }
    if request.method() != Method::GET && request.method() != Method::HEAD {
        let text = "/metrics takes GET and HEAD\n";
        let mut response = refusal(StatusCode::METHOD_NOT_ALLOWED, text);
        let allow = HeaderValue::from_static("GET,HEAD");
        response.headers_mut().insert(ALLOW, allow);
        return response;
    }
    let accept = request.headers().get_all(ACCEPT).iter();
    let form = Form::accepted(accept.filter_map(|accept| accept.to_str().ok()));
    respond(StatusCode::OK, form.content_type(), (site.page)(form))
}

fn refusal(status: StatusCode, text: impl Into<Bytes>) -> Response<Full<Bytes>> {
    respond(status, "text/plain; charset=utf-8", text)
}

fn respond(
    status: StatusCode,
    content_type: &'static str,
    body: impl Into<Bytes>,
) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(body.into()));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    headers.extend(BROWSER_HEADERS);
    response
}
