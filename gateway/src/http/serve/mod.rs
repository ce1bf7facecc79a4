//! Connections: accepted, limited, timed, drained; by TLS if there are certificates.
//!
//! * `listener`: where they come from
//! * `handshake`: the handshakes of TLS, in turns
//! * `clock`: how long they may be idle or slow
//! * `slots`: how many there are, and which make room for others; `occupant`: one of them, as these see it
//! * `heads`: the memory that long heads of requests take
//! * `stream`: what arrives, timed and counted; `targets`: those of requests that the library would correct
//! * `peer`: how they end; `request_body`: what is left of a request by then; `reply_body`: a reply that the
//!   gateway is still making
//! * `connection`: one of them, until its end
//! * `overload`: the response to those past the limit
//!
//! This drives hyper directly rather than through `axum::serve`, which sets no time-out on the head
//! of a request and none on an idle connection.

mod clock;
mod connection;
mod handshake;
mod heads;
mod listener;
mod occupant;
mod overload;
mod peer;
mod reply_body;
mod request_body;
mod slots;
mod stream;
mod targets;

use std::convert::Infallible;
use std::future::{Future, ready};
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use axum::Router;
use axum::body::Body;
use axum::http::{HeaderName, HeaderValue, Method, Request, Response, header};
use dkvs_client::CallerId;
use futures_util::future::Either;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tower::Service as _;
use tracing::Instrument as _;

use super::access::Caller;
use super::app::App;
use super::conditional::Preconditions;
use super::counts::{CountedConnection, CountedRequest};
use super::document::{CONNECTION_BUFFER_BYTES, Endless};
use super::problem::{Problem, excerpt};
use super::report::micros;
pub use super::router::Routes;
use super::router::router;
use super::trace;
use crate::tls::Tls;
pub use clock::HEAD_TIMEOUT;
use clock::{Clock, Phase};
use connection::{End, drive};
use handshake::{HandshakeError, Handshakes};
pub use heads::LONG_HEADS_BYTES_MAX;
use heads::{HeadMemory, LongHeads};
pub use listener::{Listener, bind};
use overload::respond_overloaded;
use peer::{Peer, PeerStream};
use reply_body::reply_body;
pub(super) use request_body::ShortChunks;
use request_body::request_body;
use slots::{ConnectionSlot, ConnectionSlots};
use stream::TimedStream;

/// How long the end waits for requests in flight.
pub const DRAIN_TIMEOUT: Duration = Duration::from_secs(10);

/// Most header fields in a request, and most bytes in its head. The longest key that an HTTP
/// request line can carry fits.
const HEADERS_MAX: usize = 64;
const HEAD_BYTES_MAX: usize = 128 << 10;

/// Replies take memory for what is buffered of them.
const _: () = assert!(HEAD_BYTES_MAX <= CONNECTION_BUFFER_BYTES);

/// Most connections past the limit that get a response at a time; further ones are just closed.
const OVERLOAD_RESPONSES_MAX: usize = 64;

/// How long that response may take.
const OVERLOAD_RESPONSE_TIMEOUT: Duration = Duration::from_secs(1);

/// How long the response waits that the gateway is overloaded. Callers that retry at once would
/// otherwise take the time of those that are served.
const OVERLOAD_PAUSE: Duration = Duration::from_millis(20);

/// How much of connections a worker takes, and for how long.
#[derive(Clone, Copy, Debug)]
pub struct ConnectionLimits {
    /// Most connections at a time.
    pub connections_max: usize,
    /// How long a connection may be idle between requests, or make no progress taking a response.
    pub idle_timeout: Duration,
    /// Memory for what is long of the heads of requests, in bytes.
    pub long_heads_bytes_max: usize,
    /// Whether a connection serves more than one request.
    pub keep_alive: bool,
}

/// Serves one worker's connections until `shutdown`, then drains them. With `tls` it speaks only
/// that.
pub async fn run(
    listener: Listener,
    app: App,
    routes: Routes,
    limits: ConnectionLimits,
    tls: Option<Tls>,
    shutdown: CancellationToken,
) -> io::Result<()> {
    let listener = TcpListener::from_std(listener.0)?;
    let counts = Arc::clone(&app.counts);
    let connections_max = u64::try_from(limits.connections_max).unwrap_or(u64::MAX);
    counts
        .connections_max
        .store(connections_max, Ordering::Relaxed);
    let heads = LongHeads::new(limits.long_heads_bytes_max, Arc::clone(&counts));
    tokio::spawn(async move { counts.heart.beat().await });
    let pace = Arc::clone(&app.pace);
    tokio::spawn(async move { pace.run().await });
    let door = Door {
        server: Arc::new(Server {
            router: router(app.clone(), routes),
            app,
            heads: Arc::new(heads),
            keep_alive: limits.keep_alive,
            tls,
            handshakes: Handshakes::default(),
        }),
        started: Instant::now(),
        idle_timeout: limits.idle_timeout,
        slots: Arc::new(ConnectionSlots::new(limits.connections_max)),
        connections: TaskTracker::new(),
        refusals: TaskTracker::new(),
    };
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = shutdown.cancelled() => break,
        };
        match accepted {
            Ok((stream, from)) => {
                let slot = door
                    .slots
                    .take(CallerId::of_address(from.ip()), door.clock())
                    .await;
                door.admit(stream, slot);
            }
            Err(error) => {
                // Often the limit on open files. The connection waits in the backlog meanwhile.
                tracing::warn!(%error, "a connection could not be accepted");
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        }
    }
    // Connections from before the end are served: closing would cut off those in the backlog. This
    // asks the system itself, since the runtime knows only those from before it last slept.
    let listener = listener.into_std()?;
    while let Ok((stream, from)) = listener.accept() {
        let accepted = stream.set_nonblocking(true);
        if let Ok(stream) = accepted.and_then(|()| TcpStream::from_std(stream)) {
            let slot = door
                .slots
                .try_take(CallerId::of_address(from.ip()), door.clock());
            door.admit(stream, slot);
        }
    }
    drop(listener);
    door.slots.drain();
    door.connections.close();
    if tokio::time::timeout(DRAIN_TIMEOUT, door.connections.wait())
        .await
        .is_err()
    {
        let left = door.connections.len();
        tracing::warn!("{left} connections were still busy after {DRAIN_TIMEOUT:?} and are closed");
    }
    Ok(())
}

/// What becomes of connections that are accepted.
struct Door {
    server: Arc<Server>,
    started: Instant,
    idle_timeout: Duration,
    slots: Arc<ConnectionSlots>,
    connections: TaskTracker,
    /// Those that are told that there is no slot for them.
    refusals: TaskTracker,
}

impl Door {
    fn clock(&self) -> Clock {
        Clock::new(self.started, self.idle_timeout)
    }

    /// Serves a connection that has a slot, and refuses one that has none.
    fn admit(&self, stream: TcpStream, slot: Option<ConnectionSlot>) {
        let counts = &self.server.app.counts;
        if let Some(slot) = slot {
            let counted = CountedConnection::new(counts);
            let server = Arc::clone(&self.server);
            self.connections.spawn(async move {
                server.serve(stream, &slot).await;
                // The slot is free once the stream is closed.
                drop((slot, counted));
            });
            return;
        }
        counts.connections_refused.fetch_add(1, Ordering::Relaxed);
        if self.server.tls.is_none() && self.refusals.len() < OVERLOAD_RESPONSES_MAX {
            self.refusals.spawn(tokio::time::timeout(
                OVERLOAD_RESPONSE_TIMEOUT,
                respond_overloaded(stream, overload::CONNECTIONS),
            ));
        }
    }
}

struct Server {
    router: Router,
    app: App,
    heads: Arc<LongHeads>,
    keep_alive: bool,
    tls: Option<Tls>,
    handshakes: Handshakes,
}

impl Server {
    /// Serves one connection to its end.
    async fn serve(self: Arc<Self>, stream: TcpStream, slot: &ConnectionSlot) {
        // Small responses go out at once. A socket that refuses this works all the same.
        let _ = stream.set_nodelay(true);
        match self.tls.as_ref().map(Tls::acceptor) {
            None => self.serve_stream(stream, slot).await,
            // Apart, so that connections without TLS take no memory for it.
            Some(acceptor) => Box::pin(self.serve_tls(stream, slot, acceptor)).await,
        }
    }

    async fn serve_tls(
        self: Arc<Self>,
        stream: TcpStream,
        slot: &ConnectionSlot,
        acceptor: TlsAcceptor,
    ) {
        let peer = slot.occupant().peer();
        let handshake = self.handshakes.accept(acceptor, stream, peer);
        let accepted = tokio::select! {
            accepted = tokio::time::timeout(HEAD_TIMEOUT, handshake) => accepted,
            () = slot.until_evicted() => return self.note_end(End::Evicted),
        };
        match accepted {
            Ok(Ok(stream)) => self.serve_stream(stream, slot).await,
            Ok(Err(HandshakeError::Failed(error))) => {
                tracing::debug!(%error, "a TLS handshake failed");
            }
            Ok(Err(HandshakeError::TooMany)) => {
                let refused = &self.app.counts.handshakes_refused;
                refused.fetch_add(1, Ordering::Relaxed);
                tracing::debug!("too many TLS handshakes are under way; one is given up");
            }
            Err(_) => tracing::debug!("a TLS handshake took too long and is given up"),
        }
    }

    async fn serve_stream(
        self: Arc<Self>,
        stream: impl AsyncRead + AsyncWrite + Peer + Unpin + 'static,
        slot: &ConnectionSlot,
    ) {
        let clock = slot.occupant().clock();
        let head = HeadMemory::new(Arc::clone(&self.heads), Arc::clone(slot.occupant()));
        let stream = PeerStream::new(stream, clock.clone());
        let timed = TimedStream::new(stream, clock.clone(), head);
        let service = Handler {
            server: Arc::clone(&self),
            address: slot.occupant().peer(),
            clock: clock.clone(),
        };
        let mut connection = http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(None)
            .half_close(true)
            .keep_alive(self.keep_alive)
            .max_headers(HEADERS_MAX)
            .max_buf_size(HEAD_BYTES_MAX)
            .serve_connection(TokioIo::new(timed), service);
        self.note_end(drive(Pin::new(&mut connection), slot).await);
        let refused = connection.into_parts().io.into_inner().refused();
        // After a response, hyper may not have written all of it: it would have this one in its midst.
        let Some(stream) = refused.filter(|_| !slot.occupant().reading().has_served) else {
            return;
        };
        tokio::select! {
            // It has a slot for as long.
            _ = tokio::time::timeout(
                HEAD_TIMEOUT,
                respond_overloaded(stream, overload::LONG_HEADS),
            ) => {}
            () = slot.until_evicted() => {}
        }
    }

    fn note_end(&self, end: End) {
        match end {
            End::Closed => {}
            End::TooSlow => {
                tracing::debug!("a connection was idle or slow for too long and is closed");
            }
            End::Evicted => {
                let evicted = &self.app.counts.connections_evicted;
                evicted.fetch_add(1, Ordering::Relaxed);
            }
        }
    }
}

/// What hyper calls for each request of a connection.
struct Handler {
    server: Arc<Server>,
    /// Where the connection comes from.
    address: CallerId,
    clock: Clock,
}

const X_REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

impl hyper::service::Service<Request<Incoming>> for Handler {
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Infallible>> + Send>>;

    fn call(&self, request: Request<Incoming>) -> Self::Future {
        // Nothing has arrived since the last response: the head came with the one before.
        let is_pipelined = self.clock.phase() == Phase::Idle;
        self.clock.enter(Phase::Handling);
        let (head, body) = request.into_parts();
        let app = self.server.app.clone();
        let (body, left_body) = request_body(&head.headers, body, &self.clock, &app.counts);
        let mut request = Request::from_parts(head, body);
        let request_id = app
            .request_ids
            .identify(request.headers().get(X_REQUEST_ID));
        let method = request.method().clone();
        let counts = &app.counts;
        let counted = CountedRequest::new(counts, counts.series(&method, request.uri().path()));
        let (headers, id_text) = (request.headers(), text(&request_id));
        let (span, trace_id) = trace::begin(headers, id_text, &method, counted.route());
        let allowed_origin = app.gate.allowed_origin(headers);
        let preconditions = Preconditions::of(&request, counted.route());
        let rejection = app.gate.reject(&mut request, self.address);
        let caller = Caller::of(request.extensions()).map_or(self.address, Caller::id);
        let response = match rejection {
            None => Either::Left(self.server.router.clone().call(request)),
            Some(rejection) => Either::Right(ready(Ok(rejection))),
        };
        let response = response.instrument(span.clone());
        let clock = self.clock.clone();
        Box::pin(async move {
            if is_pipelined {
                // Others have their turn, and what has arrived for them is read, before this goes on.
                tokio::task::yield_now().await;
            }
            app.pace.request(caller).await;
            let mut response = response.await?;
            if let Some(preconditions) = preconditions {
                response = preconditions.apply(response);
            }
            if let Some(problem) = response.extensions_mut().remove::<Problem>() {
                if problem.is_overload() {
                    tokio::time::sleep(OVERLOAD_PAUSE).await;
                }
                // The router has set this one already.
                let allow = response.headers_mut().remove(header::ALLOW);
                response = problem.into_identified_response(&request_id);
                if let Some(allow) = allow {
                    response.headers_mut().insert(header::ALLOW, allow);
                }
                if method == Method::HEAD {
                    response = without_body(response);
                }
            }
            let status = response.status().as_u16();
            trace::end(&span, status);
            let route = counted.route();
            let elapsed_us = micros(counted.answered(status));
            tracing::debug!(
                request_id = text(&request_id),
                trace_id = trace_id.map(tracing::field::display),
                method = %excerpt(method.as_str()),
                route,
                status,
                elapsed_us,
                "answered"
            );
            let headers = response.headers_mut();
            if left_body.is_left() {
                headers.insert(header::CONNECTION, HeaderValue::from_static("close"));
            }
            headers.insert(X_REQUEST_ID, request_id);
            app.gate.decorate(headers, allowed_origin);
            if response.extensions_mut().remove::<Endless>().is_some() {
                clock.note_endless();
            }
            clock.enter(Phase::Idle);
            Ok(response.map(|body| reply_body(body, &clock)))
        })
    }
}

/// A request's id, which is plain text.
fn text(request_id: &HeaderValue) -> &str {
    request_id.to_str().unwrap_or_default()
}

/// The response to a HEAD: the headers of a GET, and its length, without its body.
fn without_body(mut response: Response<Body>) -> Response<Body> {
    if let Some(length) = http_body::Body::size_hint(response.body()).exact() {
        response
            .headers_mut()
            .insert(header::CONTENT_LENGTH, length.into());
    }
    *response.body_mut() = Body::empty();
    response
}
