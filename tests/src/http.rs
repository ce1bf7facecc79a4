//! HTTP as a user's client does it, and by hand.
//!
//! A client library normalises paths and knows only good requests; a [`Connection`] sends the
//! bytes it is given.

use std::fmt;
use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use reqwest::header::{HeaderMap, HeaderName, HeaderValue};
use reqwest::{Client, Method, StatusCode};
use serde_json::Value;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::{TcpSocket, TcpStream};

use crate::waiting::{PATIENCE, patiently};

/// What came back, as JSON where it is any.
pub struct Reply {
    pub status: StatusCode,
    pub headers: HeaderMap,
    pub body: Vec<u8>,
    /// The body, or null where it is no JSON.
    pub json: Value,
}

impl Reply {
    fn new(status: StatusCode, headers: HeaderMap, body: Vec<u8>) -> Self {
        let json = serde_json::from_slice(&body).unwrap_or_default();
        Self {
            status,
            headers,
            body,
            json,
        }
    }

    /// The name of the problem's type, without its prefix.
    pub fn problem(&self) -> &str {
        assert_eq!(
            self.header("content-type"),
            "application/problem+json",
            "{self:?}"
        );
        assert_eq!(self.json["status"], self.status.as_u16(), "{self:?}");
        for member in ["title", "detail"] {
            assert!(self.json[member].is_string(), "{self:?}");
        }
        let name = self.json["type"]
            .as_str()
            .and_then(|name| name.strip_prefix("urn:dkvs:problem:"));
        name.unwrap_or_else(|| panic!("no problem in {self:?}"))
    }

    pub fn header(&self, name: &str) -> &str {
        self.headers
            .get(name)
            .map_or("", |value| value.to_str().unwrap())
    }

    /// The statuses of the replicas, in their order.
    pub fn statuses(&self) -> Vec<&str> {
        let replicas = self.json["replicas"].as_array().expect("replicas");
        replicas
            .iter()
            .map(|replica| replica["status"].as_str().unwrap())
            .collect()
    }

    /// How many replicas have a status.
    pub fn count(&self, status: &str) -> usize {
        self.statuses().iter().filter(|is| **is == status).count()
    }

    /// The replicas' addresses, in preference order.
    pub fn servers(&self) -> Vec<SocketAddr> {
        let replicas = self.json["replicas"].as_array().expect("replicas");
        let addr = |replica: &Value| replica["server"].as_str().unwrap().parse().unwrap();
        replicas.iter().map(addr).collect()
    }
}

impl fmt::Debug for Reply {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let shown = &self.body[..self.body.len().min(4_000)];
        let (status, headers) = (&self.status, &self.headers);
        write!(f, "{status} {headers:?} {}", String::from_utf8_lossy(shown))
    }
}

/// A client that uses no proxy and follows nothing.
pub fn client() -> Client {
    Client::builder()
        .no_proxy()
        .redirect(reqwest::redirect::Policy::none())
        .timeout(PATIENCE)
        .build()
        .expect("a client")
}

/// Sends a request and takes the whole reply; of a stream of events, which has no end, its head.
pub async fn send(request: reqwest::RequestBuilder) -> Reply {
    let response = request.send().await.expect("a reply");
    let (status, headers) = (response.status(), response.headers().clone());
    let is_endless = headers
        .get("content-type")
        .is_some_and(|it| it == EVENT_STREAM);
    let body = match is_endless {
        true => Vec::new(),
        false => response.bytes().await.expect("a whole body").to_vec(),
    };
    Reply::new(status, headers, body)
}

const EVENT_STREAM: &str = "text/event-stream";

/// A stream of events that is listened to.
pub struct Events {
    response: reqwest::Response,
    arrived: Vec<u8>,
}

impl Events {
    /// Sends a request that is answered with one.
    pub async fn open(request: reqwest::RequestBuilder) -> Self {
        let response = request.send().await.expect("a reply");
        assert_eq!(response.status(), 200);
        assert_eq!(response.headers()["content-type"], EVENT_STREAM);
        Self {
            response,
            arrived: Vec::new(),
        }
    }

    /// The data of the next snapshot; none once the other side has ended the stream.
    pub async fn next(&mut self) -> Option<Value> {
        loop {
            while let Some(end) = self.arrived.windows(2).position(|two| two == b"\n\n") {
                let event: Vec<u8> = self.arrived.drain(..end + 2).collect();
                let event = String::from_utf8(event).expect("text");
                if let Some(data) = event.strip_prefix("event: snapshot\ndata: ") {
                    return Some(serde_json::from_str(data).expect("JSON on one line"));
                }
                assert_eq!(event, "retry: 1000\n\n");
            }
            let more = patiently(self.response.chunk()).await;
            self.arrived.extend(more.expect("a whole event")?);
        }
    }
}

/// An existing path, of those that a pattern of the API stands for. The server is one that no
/// cluster has, unless another is put in its place.
pub fn target_of(pattern: &str) -> String {
    pattern
        .replace("{key}", "k")
        .replace("{file}", "main.js")
        .replace("{server}", "127.0.0.1:1")
}

pub async fn get(client: &Client, url: String) -> Reply {
    send(client.get(url)).await
}

pub async fn put(client: &Client, url: String, value: impl Into<reqwest::Body>) -> Reply {
    send(client.request(Method::PUT, url).body(value)).await
}

/// The path of a key, every byte escaped that could be anything but itself.
pub fn path_of(key: impl AsRef<[u8]>) -> String {
    let byte = |byte: &u8| match byte {
        b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' | b'~' => char::from(*byte).into(),
        _ => format!("%{byte:02X}"),
    };
    let escaped = key.as_ref().iter().map(byte);
    std::iter::once("/kv/".to_owned()).chain(escaped).collect()
}

/// The bytes of a request with a body of known length, or with none.
pub fn request(method: &str, target: impl AsRef<[u8]>, body: Option<&[u8]>) -> Vec<u8> {
    let mut bytes = [method.as_bytes(), b" ", target.as_ref()].concat();
    bytes.extend_from_slice(b" HTTP/1.1\r\nhost: localhost\r\n");
    if let Some(body) = body {
        bytes.extend_from_slice(format!("content-length: {}\r\n", body.len()).as_bytes());
    }
    bytes.extend_from_slice(b"\r\n");
    bytes.extend_from_slice(body.unwrap_or_default());
    bytes
}

/// A connection with a request under way: the gateway waits for the value of a PUT, of one byte.
pub async fn busy_connection(addr: SocketAddr) -> Connection {
    let mut connection = Connection::open(addr).await;
    let head = "PUT /kv/k HTTP/1.1\r\nhost: localhost\r\nexpect: 100-continue\r\n";
    connection
        .send(format!("{head}content-length: 1\r\n\r\n"))
        .await;
    assert_eq!(connection.reply().await.status, 100);
    connection
}

/// Sends one request of so many bytes on a connection of its own.
pub async fn exchange(addr: SocketAddr, request: impl AsRef<[u8]>) -> Reply {
    let mut connection = Connection::open(addr).await;
    connection.send(request).await;
    connection.reply().await
}

/// A connection on which a test writes the bytes itself.
pub struct Connection<S = TcpStream> {
    stream: S,
    /// What has arrived and belongs to no reply yet.
    arrived: Vec<u8>,
}

impl Connection {
    pub async fn open(addr: SocketAddr) -> Self {
        let stream = patiently(TcpStream::connect(addr)).await;
        Self::over(stream.expect("a connection"))
    }

    /// A connection from one of the loopback's addresses, where the system has more than one.
    pub async fn open_from(source: Ipv4Addr, addr: SocketAddr) -> Self {
        let socket = TcpSocket::new_v4().expect("a socket");
        if cfg!(target_os = "linux") {
            socket
                .bind((source, 0).into())
                .expect("an address of the loopback");
        }
        let stream = patiently(socket.connect(addr)).await;
        Self::over(stream.expect("a connection"))
    }

    /// Ends as if the caller had crashed: by a reset.
    pub fn reset(self) {
        let socket = socket2::SockRef::from(&self.stream);
        socket
            .set_linger(Some(Duration::ZERO))
            .expect("a socket takes it");
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> Connection<S> {
    /// HTTP over a stream of any kind.
    pub fn over(stream: S) -> Self {
        Self {
            stream,
            arrived: Vec::new(),
        }
    }

    /// Sends bytes. That the other side wants no more of them is not a failure: it may have
    /// answered already.
    pub async fn send(&mut self, bytes: impl AsRef<[u8]>) {
        let _ = patiently(self.stream.write_all(bytes.as_ref())).await;
    }

    /// Sends bytes; whether the other side has let them come.
    pub async fn try_send(&mut self, bytes: impl AsRef<[u8]>) -> bool {
        patiently(self.stream.write_all(bytes.as_ref()))
            .await
            .is_ok()
    }

    /// Says that nothing more will be sent.
    pub async fn finish(&mut self) {
        let _ = patiently(self.stream.shutdown()).await;
    }

    /// The next reply, whole; with a status of 100 to 199, an interim one.
    pub async fn reply(&mut self) -> Reply {
        self.reply_to("GET").await
    }

    /// The next reply, where one to HEAD has no body whatever its head says.
    pub async fn reply_to(&mut self, method: &str) -> Reply {
        let (status, headers) = self.head().await;
        let length = headers.get("content-length").map(|length| {
            let length = length.to_str().unwrap();
            length.parse().unwrap_or_else(|_| panic!("{length}"))
        });
        let is_empty = status.is_informational() || status == 204 || status == 304;
        let body = if method == "HEAD" || is_empty {
            Vec::new()
        } else if let Some(length) = length {
            self.take(length).await
        } else {
            assert!(!headers.contains_key("transfer-encoding"), "{headers:?}");
            self.rest().await
        };
        Reply::new(status, headers, body)
    }

    /// What comes next, without what came before; none once the other side closes.
    pub async fn piece(&mut self) -> Option<Vec<u8>> {
        self.receive()
            .await
            .then(|| std::mem::take(&mut self.arrived))
    }

    /// What still comes, until the other side closes.
    pub async fn rest(&mut self) -> Vec<u8> {
        while self.receive().await {}
        std::mem::take(&mut self.arrived)
    }

    /// So many of the bytes that come next, or fewer if the other side closes or breaks off first.
    pub async fn first_bytes(&mut self, length: usize) -> Vec<u8> {
        while self.arrived.len() < length && self.receive().await {}
        self.arrived[..length.min(self.arrived.len())].to_vec()
    }

    async fn head(&mut self) -> (StatusCode, HeaderMap) {
        let end = loop {
            let end = self.arrived.windows(4).position(|four| four == b"\r\n\r\n");
            if let Some(end) = end {
                break end;
            }
            let shown = self.arrived.escape_ascii().to_string();
            assert!(self.receive().await, "closed after {shown:?}");
        };
        let head = self.take(end + 4).await;
        let head = String::from_utf8(head).expect("a head of text");
        let mut lines = head.trim_end().split("\r\n");
        let status = lines.next().unwrap();
        let status = status
            .strip_prefix("HTTP/1.1 ")
            .or_else(|| status.strip_prefix("HTTP/1.0 "));
        let status = status.unwrap_or_else(|| panic!("{head}"))[..3].parse();
        let header = |line: &str| {
            let (name, value) = line.split_once(": ").unwrap_or_else(|| panic!("{line}"));
            let name: HeaderName = name.parse().unwrap();
            (name, value.parse::<HeaderValue>().unwrap())
        };
        (status.expect("a status"), lines.map(header).collect())
    }

    async fn take(&mut self, length: usize) -> Vec<u8> {
        while self.arrived.len() < length {
            assert!(self.receive().await, "closed in the middle of a reply");
        }
        let rest = self.arrived.split_off(length);
        std::mem::replace(&mut self.arrived, rest)
    }

    /// Whether anything more has come; not after the other side has closed.
    async fn receive(&mut self) -> bool {
        let received = patiently(self.stream.read_buf(&mut self.arrived)).await;
        received.is_ok_and(|length| length > 0)
    }
}
