//! Connections: accepted, limited, timed, drained; by TLS if there are certificates.
//!
//! hyper is driven directly rather than through `axum::serve`, which sets no time-out on the
//! head of a request and none on an idle connection.

use std::convert::Infallible;
use std::future::{Future, poll_fn, ready};
use std::io;
use std::net::SocketAddr;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use axum::Router;
use axum::body::Body;
use axum::http::{HeaderName, HeaderValue, Method, Request, Response, header};
use futures_util::future::Either;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use socket2::{Domain, Protocol, Socket, Type};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::Sleep;
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tower::Service as _;
use tracing::Instrument as _;

use super::body::linger_in;
use super::counts::{Begun, Connected};
use super::problem::Problem;
use super::report::micros;
use super::{App, router, trace};
use crate::tls::Tls;

/// How long the head of a request may take, and the handshake of TLS.
pub const HEAD_TIMEOUT: Duration = Duration::from_secs(10);

/// How long a connection may be idle between requests, or make no progress taking a response.
pub const IDLE_TIMEOUT: Duration = Duration::from_secs(60);

/// How long requests in flight are waited for at the end.
pub const DRAIN_TIMEOUT: Duration = Duration::from_secs(10);

/// Most header fields in a request, and most bytes in its head. The longest key that an HTTP
/// request line can carry fits.
const HEADERS_MAX: usize = 64;
const HEAD_BYTES_MAX: usize = 128 << 10;

/// Connections waiting to be accepted, per worker.
const BACKLOG: i32 = 1_024;

/// Most connections past the limit that are told so at a time; further ones are closed unheard.
const REFUSALS_MAX: usize = 64;

/// How long telling them may take.
const REFUSAL_TIMEOUT: Duration = Duration::from_secs(1);

/// How long a request waits for the word that the gateway is overloaded. Callers that ask again at
/// once would else take the time of those that are served.
const OVERLOAD_PAUSE: Duration = Duration::from_millis(20);

const REFUSAL_BODY: &str = concat!(
    r#"{"type":"urn:dkvs:problem:overloaded","title":"The gateway is overloaded","status":503,"#,
    r#""detail":"the gateway is overloaded: too many connections are open; nothing was sent to any server"}"#,
    "\n"
);

/// A listening socket, not yet part of a runtime.
pub struct Listener(std::net::TcpListener);

impl Listener {
    /// Where it listens.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        self.0.local_addr()
    }
}

/// `count` listeners on one address, over which the system spreads connections. An address that
/// anyone else listens on is refused, even by another gateway: the first is bound without
/// SO_REUSEPORT.
pub fn bind(addr: SocketAddr, count: usize) -> io::Result<Vec<Listener>> {
    let first = open(addr)?;
    first.bind(&addr.into())?;
    let mut sockets = Vec::with_capacity(count);
    if count > 1 {
        #[cfg(unix)]
        first.set_reuse_port(true)?;
        let addr = first.local_addr()?;
        for _ in 1..count {
            let socket = open(addr.as_socket().ok_or(io::ErrorKind::AddrNotAvailable)?)?;
            #[cfg(unix)]
            socket.set_reuse_port(true)?;
            socket.bind(&addr)?;
            sockets.push(socket);
        }
    }
    sockets.insert(0, first);
    sockets
        .into_iter()
        .map(|socket| socket.listen(BACKLOG).map(|()| Listener(socket.into())))
        .collect()
}

fn open(addr: SocketAddr) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(addr), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_nonblocking(true)?;
    // So that a restart need not wait for connections of the process before it.
    #[cfg(unix)]
    socket.set_reuse_address(true)?;
    Ok(socket)
}

/// Serves one worker's connections until `shutdown`, then drains them. With `tls` it speaks nothing
/// else.
pub async fn run(
    listener: Listener,
    app: App,
    connections_max: usize,
    tls: Option<Tls>,
    shutdown: CancellationToken,
) -> io::Result<()> {
    let listener = TcpListener::from_std(listener.0)?;
    let server = Server {
        router: router(app.clone()),
        app,
        started: Instant::now(),
        tls,
        shutdown: shutdown.clone(),
    };
    let counts = Arc::clone(&server.app.0.metrics.counts);
    let limit = u64::try_from(connections_max).unwrap_or(u64::MAX);
    counts.connections_max.store(limit, Ordering::Relaxed);
    let connections = TaskTracker::new();
    let refusals = TaskTracker::new();
    let place = |stream| {
        if connections.len() < connections_max {
            let connected = Connected::new(&counts);
            let serving = server.clone().serve(stream);
            connections.spawn(async move {
                serving.await;
                drop(connected);
            });
            return;
        }
        counts.connections_refused.fetch_add(1, Ordering::Relaxed);
        if server.tls.is_none() && refusals.len() < REFUSALS_MAX {
            refusals.spawn(tokio::time::timeout(REFUSAL_TIMEOUT, refuse(stream)));
        }
    };
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = shutdown.cancelled() => break,
        };
        match accepted {
            Ok((stream, _)) => place(stream),
            Err(error) => {
                // Often the limit on open files. The connection waits in the backlog meanwhile.
                tracing::warn!(%error, "a connection could not be accepted");
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        }
    }
    // Whoever connected before the end is served: closing would cut off what is in the backlog. The
    // system itself is asked, since the runtime knows only of what came before it last slept.
    let listener = listener.into_std()?;
    while let Ok((stream, _)) = listener.accept() {
        let accepted = stream.set_nonblocking(true);
        if let Ok(stream) = accepted.and_then(|()| TcpStream::from_std(stream)) {
            place(stream);
        }
    }
    drop(listener);
    connections.close();
    if tokio::time::timeout(DRAIN_TIMEOUT, connections.wait())
        .await
        .is_err()
    {
        let left = connections.len();
        tracing::warn!("{left} connections were still busy after {DRAIN_TIMEOUT:?} and are closed");
    }
    Ok(())
}

/// Says that there is no place, and reads on until the caller closes: closing with unread bytes
/// would take the answer back.
async fn refuse(mut stream: TcpStream) -> io::Result<()> {
    let refusal = format!(
        "HTTP/1.1 503 Service Unavailable\r\ncontent-type: application/problem+json\r\n\
         x-content-type-options: nosniff\r\ncontent-security-policy: default-src 'none'\r\n\
         retry-after: 1\r\nconnection: close\r\ncontent-length: {}\r\n\r\n{REFUSAL_BODY}",
        REFUSAL_BODY.len()
    );
    stream.write_all(refusal.as_bytes()).await?;
    stream.shutdown().await?;
    let mut sink = [0; 1_024];
    while stream.read(&mut sink).await? > 0 {}
    Ok(())
}

#[derive(Clone)]
struct Server {
    router: Router,
    app: App,
    started: Instant,
    tls: Option<Tls>,
    shutdown: CancellationToken,
}

impl Server {
    /// Serves one connection to its end.
    async fn serve(self, stream: TcpStream) {
        // Small answers go out at once. A socket that refuses this works all the same.
        let _ = stream.set_nodelay(true);
        match self.tls.as_ref().map(Tls::acceptor) {
            None => self.serve_stream(stream).await,
            // Apart, so that connections without TLS take no memory for it.
            Some(acceptor) => Box::pin(self.serve_tls(stream, acceptor)).await,
        }
    }

    async fn serve_tls(self, stream: TcpStream, acceptor: TlsAcceptor) {
        match tokio::time::timeout(HEAD_TIMEOUT, acceptor.accept(stream)).await {
            Ok(Ok(stream)) => self.serve_stream(stream).await,
            Ok(Err(error)) => tracing::debug!(%error, "a TLS handshake failed"),
            Err(_) => tracing::debug!("a TLS handshake took too long and is given up"),
        }
    }

    async fn serve_stream(self, stream: impl AsyncRead + AsyncWrite + Unpin) {
        let clock = Clock::new(self.started);
        let shutdown = self.shutdown.clone();
        let timed = TimedStream {
            stream,
            clock: clock.clone(),
        };
        let service = Handler {
            server: self,
            clock: clock.clone(),
        };
        let connection = http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(None)
            .max_headers(HEADERS_MAX)
            .max_buf_size(HEAD_BYTES_MAX)
            .serve_connection(TokioIo::new(timed), service);

        let mut connection = pin!(connection);
        let mut alarm = pin!(tokio::time::sleep_until(clock.deadline().into()));
        let mut cancelled = pin!(shutdown.cancelled());
        let mut draining = false;
        // The connection is polled before it is told to end, so that a request which has arrived
        // by then is still served.
        poll_fn(|context| {
            loop {
                if let Poll::Ready(ended) = connection.as_mut().poll(context) {
                    if let Err(error) = ended {
                        tracing::debug!(%error, "a connection ended with an error");
                    }
                    return Poll::Ready(());
                }
                if draining || cancelled.as_mut().poll(context).is_pending() {
                    return poll_alarm(&clock, alarm.as_mut(), context);
                }
                draining = true;
                connection.as_mut().graceful_shutdown();
            }
        })
        .await;
    }
}

/// Ready once the connection has outstayed its time. The timer is only ever moved when the
/// deadline came closer or when it has fired, so that a busy connection does not touch it.
fn poll_alarm(clock: &Clock, mut alarm: Pin<&mut Sleep>, context: &mut Context<'_>) -> Poll<()> {
    loop {
        let deadline = clock.deadline();
        if alarm.deadline().into_std() > deadline {
            alarm.as_mut().reset(deadline.into());
        }
        if alarm.as_mut().poll(context).is_pending() {
            return Poll::Pending;
        }
        if clock.deadline() <= Instant::now() {
            tracing::debug!("a connection was idle or slow for too long and is closed");
            return Poll::Ready(());
        }
        alarm.as_mut().reset(clock.deadline().into());
    }
}

/// When a connection has to have made progress: shared by its stream, its handler and its alarm.
#[derive(Clone)]
struct Clock {
    started: Instant,
    /// Milliseconds after `started`, above [`PHASE_BITS`] bits for the phase.
    state: Arc<AtomicU64>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Phase {
    /// Between requests, or while a response is being taken.
    Idle = 0,
    /// A request has begun to arrive.
    Head = 1,
    /// The handler has it; its own time-outs hold.
    Handling = 2,
}

const PHASE_BITS: u32 = 2;

/// A handler's alarm, far beyond its own time-outs: a safeguard only.
const HANDLING_TIMEOUT: Duration = Duration::from_secs(600);

impl Clock {
    fn new(started: Instant) -> Self {
        let clock = Self {
            started,
            state: Arc::default(),
        };
        clock.enter(Phase::Idle);
        clock
    }

    fn enter(&self, phase: Phase) {
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

    fn deadline(&self) -> Instant {
        let ms = self.state.load(Ordering::Relaxed) >> PHASE_BITS;
        self.started + Duration::from_millis(ms)
    }
}

/// A stream that tells the clock of its progress.
struct TimedStream<S> {
    stream: S,
    clock: Clock,
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

/// What hyper calls for each request of a connection.
struct Handler {
    server: Server,
    clock: Clock,
}

const X_REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

impl hyper::service::Service<Request<Incoming>> for Handler {
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Infallible>> + Send>>;

    fn call(&self, mut request: Request<Incoming>) -> Self::Future {
        self.clock.enter(Phase::Handling);
        let app = self.server.app.clone();
        let request_id = app.0.request_ids.name(request.headers().get(X_REQUEST_ID));
        let method = request.method().clone();
        let counts = &app.0.metrics.counts;
        let begun = Begun::new(counts, counts.place(&method, request.uri().path()));
        let (headers, name) = (request.headers(), text(&request_id));
        let (span, trace_id) = trace::begin(headers, name, &method, begun.route());
        let reader = app.0.gate.reader(headers);
        let response = match app.0.gate.stop(&mut request) {
            None => Either::Left(self.server.router.clone().call(request)),
            Some(stopped) => {
                linger_in(request);
                Either::Right(ready(Ok(stopped)))
            }
        };
        let response = response.instrument(span.clone());
        let clock = self.clock.clone();
        Box::pin(async move {
            let mut response = response.await?;
            if let Some(problem) = response.extensions_mut().remove::<Problem>() {
                if problem.is_overload() {
                    tokio::time::sleep(OVERLOAD_PAUSE).await;
                }
                // What the router itself has set stays: Allow, for one.
                let allow = response.headers_mut().remove(header::ALLOW);
                response = problem.into_named_response(&request_id);
                if let Some(allow) = allow {
                    response.headers_mut().insert(header::ALLOW, allow);
                }
                if method == Method::HEAD {
                    response = without_body(response);
                }
            }
            let status = response.status().as_u16();
            trace::end(&span, status);
            let route = begun.route();
            let elapsed_us = micros(begun.answered(status));
            tracing::debug!(
                request_id = text(&request_id),
                trace_id = trace_id.map(tracing::field::display),
                %method,
                route,
                status,
                elapsed_us,
                "answered"
            );
            response.headers_mut().insert(X_REQUEST_ID, request_id);
            app.0.gate.mark(response.headers_mut(), reader);
            clock.enter(Phase::Idle);
            Ok(response)
        })
    }
}

/// A request's name, which is plain text.
fn text(request_id: &HeaderValue) -> &str {
    request_id.to_str().unwrap_or_default()
}

/// The answer to a HEAD: the length of what a GET would give, and nothing of it.
fn without_body(mut response: Response<Body>) -> Response<Body> {
    if let Some(length) = http_body::Body::size_hint(response.body()).exact() {
        response
            .headers_mut()
            .insert(header::CONTENT_LENGTH, length.into());
    }
    *response.body_mut() = Body::empty();
    response
}
