//! Connections: accepted, limited, timed, drained; by TLS if there are certificates.
//!
//! * `listener`: where they come from
//! * `clock`: how long they may be idle or slow
//! * `overload`: the response to those past the limit
//!
//! This drives hyper directly rather than through `axum::serve`, which sets no time-out on the head
//! of a request and none on an idle connection.

mod clock;
mod listener;
mod overload;

use std::convert::Infallible;
use std::future::{Future, poll_fn, ready};
use std::io;
use std::net::SocketAddr;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::Poll;
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

use super::app::App;
use super::body::drain_request;
use super::conditional::Preconditions;
use super::counts::{CountedConnection, CountedRequest};
use super::problem::Problem;
use super::report::micros;
use super::router::router;
use super::trace;
use crate::tls::Tls;
use clock::{Clock, Phase, TimedStream, poll_alarm};
pub use clock::{HEAD_TIMEOUT, IDLE_TIMEOUT};
pub use listener::{Listener, bind};
use overload::respond_overloaded;

/// How long the end waits for requests in flight.
pub const DRAIN_TIMEOUT: Duration = Duration::from_secs(10);

/// Most header fields in a request, and most bytes in its head. The longest key that an HTTP
/// request line can carry fits.
const HEADERS_MAX: usize = 64;
const HEAD_BYTES_MAX: usize = 128 << 10;

/// Most connections past the limit that get a response at a time; further ones are just closed.
const OVERLOAD_RESPONSES_MAX: usize = 64;

/// How long that response may take.
const OVERLOAD_RESPONSE_TIMEOUT: Duration = Duration::from_secs(1);

/// How long the response waits that the gateway is overloaded. Callers that retry at once would
/// otherwise take the time of those that are served.
const OVERLOAD_PAUSE: Duration = Duration::from_millis(20);

/// Serves one worker's connections until `shutdown`, then drains them. With `tls` it speaks only
/// that.
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
    let counts = Arc::clone(&server.app.counts);
    let limit = u64::try_from(connections_max).unwrap_or(u64::MAX);
    counts.connections_max.store(limit, Ordering::Relaxed);
    let connections = TaskTracker::new();
    let responses = TaskTracker::new();
    let place = |stream, peer: SocketAddr| {
        if connections.len() < connections_max {
            let counted = CountedConnection::new(&counts);
            let serving = server
                .clone()
                .serve(stream, CallerId::of_address(peer.ip()));
            connections.spawn(async move {
                serving.await;
                drop(counted);
            });
            return;
        }
        counts.connections_refused.fetch_add(1, Ordering::Relaxed);
        if server.tls.is_none() && responses.len() < OVERLOAD_RESPONSES_MAX {
            responses.spawn(tokio::time::timeout(
                OVERLOAD_RESPONSE_TIMEOUT,
                respond_overloaded(stream),
            ));
        }
    };
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = shutdown.cancelled() => break,
        };
        match accepted {
            Ok((stream, peer)) => place(stream, peer),
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
    while let Ok((stream, peer)) = listener.accept() {
        let accepted = stream.set_nonblocking(true);
        if let Ok(stream) = accepted.and_then(|()| TcpStream::from_std(stream)) {
            place(stream, peer);
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

#[derive(Clone)]
struct Server {
    router: Router,
    app: App,
    started: Instant,
    tls: Option<Tls>,
    shutdown: CancellationToken,
}

impl Server {
    /// Serves one connection, which is from `address`, to its end.
    async fn serve(self, stream: TcpStream, address: CallerId) {
        // Small responses go out at once. A socket that refuses this works all the same.
        let _ = stream.set_nodelay(true);
        match self.tls.as_ref().map(Tls::acceptor) {
            None => self.serve_stream(stream, address).await,
            // Apart, so that connections without TLS take no memory for it.
            Some(acceptor) => Box::pin(self.serve_tls(stream, address, acceptor)).await,
        }
    }

    async fn serve_tls(self, stream: TcpStream, address: CallerId, acceptor: TlsAcceptor) {
        match tokio::time::timeout(HEAD_TIMEOUT, acceptor.accept(stream)).await {
            Ok(Ok(stream)) => self.serve_stream(stream, address).await,
            Ok(Err(error)) => tracing::debug!(%error, "a TLS handshake failed"),
            Err(_) => tracing::debug!("a TLS handshake took too long and is given up"),
        }
    }

    async fn serve_stream(self, stream: impl AsyncRead + AsyncWrite + Unpin, address: CallerId) {
        let clock = Clock::new(self.started);
        let shutdown = self.shutdown.clone();
        let timed = TimedStream {
            stream,
            clock: clock.clone(),
        };
        let service = Handler {
            server: self,
            address,
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
        // Polls the connection before it ends it, so that a request which has arrived by then is
        // still served.
        poll_fn(|context| {
            loop {
                if let Poll::Ready(ended) = connection.as_mut().poll(context) {
                    if let Err(error) = ended {
                        tracing::debug!(%error, "a connection ended with an error");
                    }
                    return Poll::Ready(());
                }
                if draining || cancelled.as_mut().poll(context).is_pending() {
                    let alarm = poll_alarm(&clock, alarm.as_mut(), context);
                    return alarm.map(|()| {
                        tracing::debug!("a connection was idle or slow for too long and is closed");
                    });
                }
                draining = true;
                connection.as_mut().graceful_shutdown();
            }
        })
        .await;
    }
}

/// What hyper calls for each request of a connection.
struct Handler {
    server: Server,
    /// Where the connection comes from.
    address: CallerId,
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
        let response = match app.gate.reject(&mut request, self.address) {
            None => Either::Left(self.server.router.clone().call(request)),
            Some(rejection) => {
                drain_request(request);
                Either::Right(ready(Ok(rejection)))
            }
        };
        let response = response.instrument(span.clone());
        let clock = self.clock.clone();
        Box::pin(async move {
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
                %method,
                route,
                status,
                elapsed_us,
                "answered"
            );
            response.headers_mut().insert(X_REQUEST_ID, request_id);
            app.gate.decorate(response.headers_mut(), allowed_origin);
            clock.enter(Phase::Idle);
            Ok(response)
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
