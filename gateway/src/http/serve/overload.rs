//! The response to connections past the limit.

use std::io;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

const BODY: &str = concat!(
    r#"{"type":"urn:dkvs:problem:overloaded","title":"The gateway is overloaded","status":503,"#,
    r#""detail":"the gateway is overloaded: too many connections are open; nothing was sent to any server"}"#,
    "\n"
);

/// Responds that there are too many connections, and reads on until the caller closes: closing with
/// unread bytes would discard the response.
pub(super) async fn respond_overloaded(mut stream: TcpStream) -> io::Result<()> {
    let response = format!(
        "HTTP/1.1 503 Service Unavailable\r\ncontent-type: application/problem+json\r\n\
         x-content-type-options: nosniff\r\ncontent-security-policy: default-src 'none'\r\n\
         cache-control: no-store\r\nreferrer-policy: no-referrer\r\n\
         cross-origin-resource-policy: same-origin\r\n\
         retry-after: 1\r\nconnection: close\r\ncontent-length: {}\r\n\r\n{BODY}",
        BODY.len()
    );
    stream.write_all(response.as_bytes()).await?;
    stream.shutdown().await?;
    let mut sink = [0; 1_024];
    while stream.read(&mut sink).await? > 0 {}
    Ok(())
}
