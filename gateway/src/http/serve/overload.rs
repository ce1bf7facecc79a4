//! The response of a gateway that has no room for a connection, or for a request's head.

use std::io;

use dkvs_runtime::browsers::browser_header_lines;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};

pub(super) const CONNECTIONS: &str = "too many connections are open";
pub(super) const LONG_HEADS: &str = "too many long heads of requests are on their way";

/// Responds that there is too much of `what`, and reads on until the caller closes: closing with unread
/// bytes would discard the response.
pub(super) async fn respond_overloaded(
    mut stream: impl AsyncRead + AsyncWrite + Unpin,
    what: &'static str,
) -> io::Result<()> {
    let body = format!(
        r#"{{"type":"urn:dkvs:problem:overloaded","title":"The gateway is overloaded","status":503,"detail":"the gateway is overloaded: {what}; nothing was sent to any server"}}"#
    );
    let response = format!(
        "HTTP/1.1 503 Service Unavailable\r\ncontent-type: application/problem+json\r\n{}\
         retry-after: 1\r\nconnection: close\r\ncontent-length: {}\r\n\r\n{body}\n",
        browser_header_lines(),
        body.len() + 1
    );
    stream.write_all(response.as_bytes()).await?;
    stream.shutdown().await?;
    let mut sink = [0; 1_024];
    while stream.read(&mut sink).await? > 0 {}
    Ok(())
}
