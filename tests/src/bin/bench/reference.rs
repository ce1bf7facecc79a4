//! The points of reference: the least that an HTTP answer, or a datagram, costs on this machine.

use std::io::Write as _;
use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::thread;

use anyhow::{Context, bail};
use axum::Router;
use axum::body::Bytes;
use axum::extract::DefaultBodyLimit;
use axum::routing::get;
use hyper::server::conn::http1;
use hyper_util::rt::TokioIo;
use hyper_util::service::TowerToHyperService;
use socket2::{Domain, Protocol, Socket, Type};

use crate::cluster::{LARGE_BYTES, SMALL};
use crate::udp::Batch;

/// Connections that wait to be accepted.
const BACKLOG: i32 = 1_024;

/// Serves handlers that answer at once with bytes that are there, one worker per core, each with
/// a listener of its own, as the gateway does. Tells where on standard output.
pub fn serve_bare_handler() -> anyhow::Result<()> {
    let cores = thread::available_parallelism().map_or(1, |cores| cores.get());
    let first = listener(SocketAddr::from((Ipv4Addr::LOCALHOST, 0)))?;
    let addr = first.local_addr()?;
    let mut listeners = vec![first];
    for _ in 1..cores {
        listeners.push(listener(addr)?);
    }
    println!("bare handlers on http://{addr}");
    std::io::stdout().flush()?;
    let threads = listeners.into_iter().map(|listener| {
        thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()?;
            runtime.block_on(accept(listener))
        })
    });
    for thread in threads.collect::<Vec<_>>() {
        match thread.join() {
            Ok(result) => result?,
            Err(_) => bail!("a worker panicked"),
        }
    }
    Ok(())
}

fn listener(addr: SocketAddr) -> anyhow::Result<std::net::TcpListener> {
    let socket = Socket::new(Domain::for_address(addr), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_nonblocking(true)?;
    #[cfg(unix)]
    socket.set_reuse_port(true)?;
    socket.bind(&addr.into())?;
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}

fn router() -> Router {
    let large = Bytes::from(vec![b'v'; LARGE_BYTES]);
    let small = get(async || SMALL).put(async |_: Bytes| "stored");
    Router::new()
        .route("/kv/{key}", small)
        .route(
            "/large",
            get(async move || large).put(async |_: Bytes| "stored"),
        )
        .layer(DefaultBodyLimit::disable())
}

async fn accept(listener: std::net::TcpListener) -> anyhow::Result<()> {
    let listener = tokio::net::TcpListener::from_std(listener)?;
    let router = router();
    let tasks = tokio::task::LocalSet::new();
    let accepting = async {
        loop {
            let (stream, _) = listener.accept().await?;
            stream.set_nodelay(true)?;
            let service = TowerToHyperService::new(router.clone());
            let connection = http1::Builder::new().serve_connection(TokioIo::new(stream), service);
            tokio::task::spawn_local(connection);
        }
    };
    tasks.run_until(accepting).await
}

/// Sends every datagram back, as many with one call of the system as it can. Tells where on
/// standard output.
pub fn serve_udp_echo() -> anyhow::Result<()> {
    let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0))?;
    println!("echo on udp://{}", socket.local_addr()?);
    std::io::stdout().flush()?;
    let mut batch = Batch::new(socket).context("the socket takes no batches")?;
    loop {
        batch.receive(None)?;
        batch.send_back()?;
    }
}
