//! A page of metrics over HTTP: on a thread of its own, off the path of requests.
//!
//! A connection gets one answer and has little time for it, and few are open at once, so that
//! unknown clients that reach the port cost the program little.

use std::convert::Infallible;
use std::io;
use std::net::TcpListener;
use std::sync::Arc;
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
use tokio::net::TcpStream;
use tokio::sync::Semaphore;

use super::page::Form;

/// Most connections at a time; further ones wait to be accepted.
const CONNECTIONS_MAX: usize = 16;

/// How long a connection may last.
const CONNECTION_TIMEOUT: Duration = Duration::from_secs(5);

/// After an error of the listener, so that a broken one does not spin.
const ERROR_PAUSE: Duration = Duration::from_millis(50);

/// What makes the text of a page, anew for each request.
type MakePage = dyn Fn(Form) -> String + Send + Sync;

/// Serves what `page` makes at `/metrics` on `listener`, for as long as the process lasts.
///
/// # Errors
///
/// If there can be no thread, or no runtime for it.
pub fn start(
    listener: TcpListener,
    page: impl Fn(Form) -> String + Send + Sync + 'static,
) -> io::Result<()> {
    listener.set_nonblocking(true)?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let page: Arc<MakePage> = Arc::new(page);
    let thread = thread::Builder::new().name("metrics".into());
    thread.spawn(move || runtime.block_on(run(listener, page)))?;
    Ok(())
}

async fn run(listener: TcpListener, page: Arc<MakePage>) {
    let listener = match tokio::net::TcpListener::from_std(listener) {
        Ok(listener) => listener,
        Err(error) => return tracing::error!(%error, "metrics cannot be served"),
    };
    let places = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    loop {
        let place = Arc::clone(&places).acquire_owned().await;
        match listener.accept().await {
            Ok((stream, _)) => {
                let page = Arc::clone(&page);
                tokio::spawn(async move {
                    // A client that is too slow is not answered.
                    let _ = tokio::time::timeout(CONNECTION_TIMEOUT, serve(stream, page)).await;
                    drop(place);
                });
            }
            Err(error) => {
                tracing::warn!(%error, "a connection for metrics could not be accepted");
                tokio::time::sleep(ERROR_PAUSE).await;
            }
        }
    }
}

async fn serve(stream: TcpStream, page: Arc<MakePage>) {
    let answer = service_fn(|request| {
        let response = answer(&request, &*page);
        async { Ok::<_, Infallible>(response) }
    });
    let connection = http1::Builder::new()
        .keep_alive(false)
        .serve_connection(TokioIo::new(stream), answer);
    if let Err(error) = connection.await {
        tracing::debug!(%error, "a connection for metrics ended with an error");
    }
}

fn answer(request: &Request<Incoming>, page: &MakePage) -> Response<Full<Bytes>> {
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
    respond(StatusCode::OK, form.content_type(), page(form))
}

fn refusal(status: StatusCode, text: &'static str) -> Response<Full<Bytes>> {
    respond(status, "text/plain; charset=utf-8", text)
}

fn respond(
    status: StatusCode,
    content_type: &'static str,
    body: impl Into<Bytes>,
) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(body.into()));
    *response.status_mut() = status;
    let content_type = HeaderValue::from_static(content_type);
    response.headers_mut().insert(CONTENT_TYPE, content_type);
    response
}
