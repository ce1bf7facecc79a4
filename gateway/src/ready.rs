//! Asks another gateway whether it is ready, for places without an HTTP client, such as a container
//! image with nothing else in it.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use anyhow::{Context as _, ensure};

/// Longer than a gateway takes to probe its servers.
const TIMEOUT: Duration = Duration::from_secs(3);

/// The most bytes of a response that are read.
const REPLY_BYTES_MAX: u64 = 64 << 10;

/// Asks the gateway at `addr` for `/readyz`; an error says why it is not ready.
pub(crate) fn ask(addr: SocketAddr) -> anyhow::Result<()> {
    let reply = exchange(addr).with_context(|| format!("no answer from {addr}"))?;
    let reply = String::from_utf8_lossy(&reply);
    let body = reply
        .split_once("\r\n\r\n")
        .map_or(&*reply, |(_, body)| body);
    ensure!(reply.starts_with("HTTP/1.1 200 "), "{}", body.trim_end());
    Ok(())
}

fn exchange(addr: SocketAddr) -> std::io::Result<Vec<u8>> {
    let mut stream = TcpStream::connect_timeout(&addr, TIMEOUT)?;
    stream.set_read_timeout(Some(TIMEOUT))?;
    write!(
        stream,
        "GET /readyz HTTP/1.1\r\nhost: {addr}\r\nconnection: close\r\n\r\n"
    )?;
    let mut reply = Vec::new();
    stream.take(REPLY_BYTES_MAX).read_to_end(&mut reply)?;
    Ok(reply)
}
