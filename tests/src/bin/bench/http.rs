//! As much of HTTP/1.1 as a load needs: requests as bytes, and how a response ends.
//!
//! Nothing is pipelined, so a byte after the end of a response is an error.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use anyhow::{Context, ensure};

/// Longest head of a response.
const HEAD_BYTES_MAX: usize = 64 << 10;

/// How long a single answer may take.
const PATIENCE: Duration = Duration::from_secs(30);

/// The bytes of a GET.
pub fn get(path: &str) -> Vec<u8> {
    format!("GET {path} HTTP/1.1\r\nhost: localhost\r\n\r\n").into_bytes()
}

/// The bytes of a request with a body.
pub fn with_body(method: &str, path: &str, body: &[u8]) -> Vec<u8> {
    let length = body.len();
    let head =
        format!("{method} {path} HTTP/1.1\r\nhost: localhost\r\ncontent-length: {length}\r\n\r\n");
    [head.as_bytes(), body].concat()
}

/// What came back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Response {
    /// Its status.
    pub status: u16,
    /// The length of its body.
    pub body_bytes: u64,
}

/// Reads responses, one after the other, from bytes that come in pieces.
#[derive(Debug, Default)]
pub struct Parser {
    /// A head that is not whole yet.
    head: Vec<u8>,
    /// The response whose head was read, and how many bytes of its body are still to come.
    body: Option<(Response, u64)>,
}

impl Parser {
    /// Takes the next bytes; the response, if they end one.
    pub fn handle(&mut self, bytes: &[u8]) -> anyhow::Result<Option<Response>> {
        let (response, left, more) = match self.body.take() {
            Some((response, left)) => (response, left, bytes.len()),
            None => {
                self.head.extend_from_slice(bytes);
                let Some((head_bytes, response)) = parse(&self.head)? else {
                    ensure!(self.head.len() < HEAD_BYTES_MAX, "the head has no end");
                    return Ok(None);
                };
                let more = self.head.len() - head_bytes;
                self.head.clear();
                (response, response.body_bytes, more)
            }
        };
        let left = left
            .checked_sub(more as u64)
            .context("bytes came after the end of a response")?;
        if left > 0 {
            self.body = Some((response, left));
            return Ok(None);
        }
        Ok(Some(response))
    }
}

/// The length of the head and what it says; none if it has not come to its end.
fn parse(bytes: &[u8]) -> anyhow::Result<Option<(usize, Response)>> {
    let (mut status, mut body_bytes) = (None, None);
    let mut at = 0;
    while let Some(length) = bytes[at..].iter().position(|byte| *byte == b'\n') {
        let line = bytes[at..at + length].trim_ascii();
        at += length + 1;
        if status.is_none() {
            let digits = line
                .strip_prefix(b"HTTP/1.1 ")
                .and_then(|rest| rest.get(..3));
            status = Some(number(digits).context("there is no status")? as u16);
        } else if line.is_empty() {
            let status = status.context("there is no status")?;
            // What has no body by its status need not say so.
            let body_bytes = body_bytes.or((status == 204).then_some(0));
            let body_bytes = body_bytes.context("there is no content-length")?;
            return Ok(Some((at, Response { status, body_bytes })));
        } else if let Some((name, value)) = line.split_at_checked(NAME.len())
            && name.eq_ignore_ascii_case(NAME)
        {
            body_bytes = Some(number(Some(value.trim_ascii())).context("content-length")?);
        }
    }
    Ok(None)
}

const NAME: &[u8] = b"content-length:";

fn number(digits: Option<&[u8]>) -> Option<u64> {
    let digits = digits.filter(|digits| digits.iter().all(u8::is_ascii_digit))?;
    std::str::from_utf8(digits).ok()?.parse().ok()
}

/// A connection for one request at a time, beside the load: to fill and to probe.
pub struct Client {
    stream: TcpStream,
    buffer: Vec<u8>,
}

impl Client {
    /// Connects.
    pub fn new(addr: SocketAddr) -> anyhow::Result<Self> {
        let stream = TcpStream::connect(addr).with_context(|| format!("connecting to {addr}"))?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.set_write_timeout(Some(PATIENCE))?;
        Ok(Self {
            stream,
            buffer: vec![0; 64 << 10],
        })
    }

    /// Sends a request and waits for its response.
    pub fn ask(&mut self, request: &[u8]) -> anyhow::Result<Response> {
        self.stream.write_all(request)?;
        let mut parser = Parser::default();
        loop {
            let length = self.stream.read(&mut self.buffer)?;
            ensure!(length > 0, "the connection was closed");
            if let Some(response) = parser.handle(&self.buffer[..length])? {
                return Ok(response);
            }
        }
    }

    /// Sends a request that has to succeed.
    pub fn demand(&mut self, request: &[u8]) -> anyhow::Result<()> {
        let status = self.ask(request)?.status;
        ensure!((200..300).contains(&status), "status {status}");
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RESPONSE: &[u8] = b"HTTP/1.1 200 OK\r\nDate: x\r\nContent-Length: 5\r\na: b\r\n\r\nhello";
    const PARSED: Response = Response {
        status: 200,
        body_bytes: 5,
    };

    #[test]
    fn a_response_is_the_same_wherever_it_is_cut() {
        for cut in 1..RESPONSE.len() {
            let mut parser = Parser::default();
            let (first, second) = RESPONSE.split_at(cut);
            // Twice over one connection: nothing is left of the first.
            for _ in 0..2 {
                assert_eq!(parser.handle(first).unwrap(), None, "cut at {cut}");
                assert_eq!(parser.handle(second).unwrap(), Some(PARSED), "cut at {cut}");
            }
        }
        let mut parser = Parser::default();
        let (last, all) = RESPONSE.split_last().unwrap();
        for byte in all {
            assert_eq!(parser.handle(&[*byte]).unwrap(), None);
        }
        assert_eq!(parser.handle(&[*last]).unwrap(), Some(PARSED));
    }

    #[test]
    fn a_response_without_a_body_ends_with_its_head() {
        for (head, status) in [
            (&b"HTTP/1.1 204 No Content\r\n\r\n"[..], 204),
            (b"HTTP/1.1 507 Full\r\ncontent-length:0\r\n\r\n", 507),
        ] {
            let response = Parser::default().handle(head).unwrap().unwrap();
            assert_eq!((response.status, response.body_bytes), (status, 0));
        }
    }

    #[test]
    fn what_is_no_response_is_refused() {
        for bytes in [
            &b"HTTP/1.0 200 OK\r\ncontent-length: 0\r\n\r\n"[..],
            b"HTTP/1.1 2x0 OK\r\ncontent-length: 0\r\n\r\n",
            b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n",
            b"HTTP/1.1 200 OK\r\ncontent-length: +5\r\n\r\n",
            b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\nmore",
            b"\r\n\r\n",
        ] {
            assert!(Parser::default().handle(bytes).is_err(), "{bytes:?}");
        }
        let endless = vec![b'x'; HEAD_BYTES_MAX];
        assert!(Parser::default().handle(&endless).is_err());
    }
}
