//! The load over HTTP: connections that each send a request, wait for its response, and send the
//! next one.
//!
//! It is our own, so that nothing needs to be installed and it costs about as little as there is
//! to do: requests are bytes made beforehand, the system is called twice for each, and of a
//! response only status and length are looked at. Whatever is not as expected is counted, and
//! makes a figure invalid.

use std::io::{self, Read as _, Write as _};
use std::net::SocketAddr;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};
use dkvs_tests::random::Random;
use mio::net::TcpStream;
use mio::{Events, Interest, Poll, Token};

use crate::histogram::Histogram;
use crate::http::{Parser, Response};

/// Threads that the connections are spread over.
const THREADS: usize = 2;

/// A request that has waited for so long when the load ends has no answer.
const PATIENCE: Duration = Duration::from_secs(1);

/// How often the clock is looked at when nothing happens.
const TICK: Duration = Duration::from_millis(50);

/// Which requests, to which server, on how many connections.
pub struct Load<'a> {
    /// Whom.
    pub addr: SocketAddr,
    /// Requests, of which each turn takes one at random.
    pub requests: &'a [Vec<u8>],
    /// The length that a response's body has at least.
    pub body_bytes_min: u64,
    /// At a time.
    pub connections: usize,
    /// Whether 503 is no failure, but counted as refused.
    pub takes_refusals: bool,
    /// Before anything counts.
    pub warm_up: Duration,
    /// From the first to the last request that counts.
    pub duration: Duration,
}

/// What happened while it was measured.
#[derive(Debug, Clone, Default)]
pub struct Measured {
    /// Requests that got what they should.
    pub requests: u64,
    /// Requests that did not.
    pub failures: u64,
    /// What was wrong with the first of them.
    pub first_failure: Option<String>,
    /// How long it took.
    pub seconds: f64,
    /// How long each request took.
    pub latency: Histogram,
    /// How long each took that was refused, where that is no failure.
    pub refused: Histogram,
}

impl Measured {
    /// Requests in a second.
    pub fn per_second(&self) -> f64 {
        self.requests as f64 / self.seconds.max(f64::MIN_POSITIVE)
    }

    /// Counts a response, as a failure if it is not as it should be.
    fn record(&mut self, response: Response, body_bytes_min: u64, latency: Duration) {
        let Response { status, body_bytes } = response;
        if !(200..300).contains(&status) || body_bytes < body_bytes_min {
            return self.fail(1, || format!("status {status} with {body_bytes} bytes"));
        }
        self.requests += 1;
        self.latency.record(latency);
    }

    /// Counts failures.
    pub fn fail(&mut self, count: usize, what: impl FnOnce() -> String) {
        self.failures += count as u64;
        self.first_failure.get_or_insert_with(what);
    }

    fn add(&mut self, other: Self) {
        self.requests += other.requests;
        self.failures += other.failures;
        self.first_failure = self.first_failure.take().or(other.first_failure);
        self.seconds = self.seconds.max(other.seconds);
        self.latency.add(&other.latency);
        self.refused.add(&other.refused);
    }
}

impl Load<'_> {
    /// Makes the load.
    pub fn measure(&self) -> anyhow::Result<Measured> {
        let threads = THREADS.min(self.connections);
        let begin = Instant::now() + self.warm_up;
        let of_thread = |thread: usize| {
            let connections =
                self.connections / threads + usize::from(thread < self.connections % threads);
            Worker::new(self, begin, connections, thread as u64)?.run()
        };
        let results: Vec<_> = thread::scope(|scope| {
            let of_thread = &of_thread;
            let spawned: Vec<_> = (0..threads)
                .map(|thread| scope.spawn(move || of_thread(thread)))
                .collect();
            spawned
                .into_iter()
                .map(thread::ScopedJoinHandle::join)
                .collect()
        });
        let mut all = Measured::default();
        for result in results {
            match result {
                Ok(measured) => all.add(measured?),
                Err(_) => bail!("a thread of the load panicked"),
            }
        }
        Ok(all)
    }
}

/// One thread's connections.
struct Worker<'a> {
    load: &'a Load<'a>,
    begin: Instant,
    end: Instant,
    poll: Poll,
    connections: Vec<Connection>,
    buffer: Vec<u8>,
    random: Random,
    measured: Measured,
}

struct Connection {
    stream: TcpStream,
    parser: Parser,
    /// Which request is under way, and how much of it is written.
    request: usize,
    written: usize,
    begun: Instant,
}

impl<'a> Worker<'a> {
    fn new(load: &'a Load<'a>, begin: Instant, count: usize, seed: u64) -> anyhow::Result<Self> {
        let poll = Poll::new()?;
        let mut connections = Vec::with_capacity(count);
        for number in 0..count {
            connections.push(Connection::open(load.addr, &poll, Token(number))?);
        }
        Ok(Self {
            load,
            begin,
            end: begin + load.duration,
            poll,
            connections,
            buffer: vec![0; 256 << 10],
            random: Random::new(seed),
            measured: Measured {
                seconds: load.duration.as_secs_f64(),
                ..Measured::default()
            },
        })
    }

    fn run(mut self) -> anyhow::Result<Measured> {
        for number in 0..self.connections.len() {
            self.begin_request(number)?;
        }
        let mut events = Events::with_capacity(1_024);
        while Instant::now() < self.end {
            if let Err(error) = self.poll.poll(&mut events, Some(TICK))
                && error.kind() != io::ErrorKind::Interrupted
            {
                return Err(error.into());
            }
            for event in &events {
                self.go_on(event.token().0)?;
            }
        }
        let now = Instant::now();
        let waited = |connection: &&Connection| now - connection.begun > PATIENCE;
        let silent = self.connections.iter().filter(waited).count();
        if silent > 0 {
            let what = || format!("{silent} requests had no answer at the end");
            self.measured.fail(silent, what);
        }
        Ok(self.measured)
    }

    fn begin_request(&mut self, number: usize) -> anyhow::Result<()> {
        let request = self.random.below(self.load.requests.len());
        let connection = &mut self.connections[number];
        connection.request = request;
        connection.written = 0;
        connection.begun = Instant::now();
        connection.write(&self.load.requests[request])
    }

    /// Writes what is left of the request, reads what there is, and begins the next request if
    /// the response has come. Events report changes only, so all that can be done is done.
    ///
    /// A connection that cannot be used any more is a failure, and is replaced.
    fn go_on(&mut self, number: usize) -> anyhow::Result<()> {
        let begun = self.connections[number].begun;
        match self.exchange(number) {
            Ok(None) => return Ok(()),
            Ok(Some(response)) => self.record(begun, response),
            Err(error) => {
                self.measured.fail(1, || format!("{error:#}"));
                let token = Token(number);
                self.connections[number] = Connection::open(self.load.addr, &self.poll, token)?;
            }
        }
        // Nothing else can have come: what comes next answers a request to be made.
        self.begin_request(number)
    }

    fn exchange(&mut self, number: usize) -> anyhow::Result<Option<Response>> {
        let connection = &mut self.connections[number];
        connection.write(&self.load.requests[connection.request])?;
        loop {
            let length = match connection.stream.read(&mut self.buffer) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(None),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                length => length.context("reading a response")?,
            };
            ensure!(length > 0, "the connection was closed under load");
            let response = connection.parser.handle(&self.buffer[..length])?;
            if response.is_some() {
                return Ok(response);
            }
        }
    }

    fn record(&mut self, begun: Instant, response: Response) {
        let now = Instant::now();
        if begun < self.begin || now > self.end {
            return;
        }
        let latency = now - begun;
        if self.load.takes_refusals && response.status == 503 {
            return self.measured.refused.record(latency);
        }
        self.measured
            .record(response, self.load.body_bytes_min, latency);
    }
}

impl Connection {
    fn open(addr: SocketAddr, poll: &Poll, token: Token) -> anyhow::Result<Self> {
        // In the blocking way: the load begins when all are connected.
        let stream =
            std::net::TcpStream::connect(addr).with_context(|| format!("connecting to {addr}"))?;
        stream.set_nodelay(true)?;
        stream.set_nonblocking(true)?;
        let mut stream = TcpStream::from_std(stream);
        let interest = Interest::READABLE | Interest::WRITABLE;
        poll.registry().register(&mut stream, token, interest)?;
        Ok(Self {
            stream,
            parser: Parser::default(),
            request: 0,
            written: 0,
            begun: Instant::now(),
        })
    }

    fn write(&mut self, request: &[u8]) -> anyhow::Result<()> {
        while self.written < request.len() {
            match self.stream.write(&request[self.written..]) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                length => self.written += length.context("writing a request")?,
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::{Ipv4Addr, TcpListener};

    /// A server of one connection at a time that answers every request alike.
    fn server(answer: &'static [u8]) -> SocketAddr {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let addr = listener.local_addr().unwrap();
        thread::spawn(move || {
            for mut stream in listener.incoming().map_while(Result::ok) {
                let mut buffer = [0; 1_024];
                while stream.read(&mut buffer).is_ok_and(|length| length > 0) {
                    if stream.write_all(answer).is_err() {
                        break;
                    }
                }
            }
        });
        addr
    }

    fn measure(answer: &'static [u8]) -> anyhow::Result<Measured> {
        let load = Load {
            addr: server(answer),
            requests: &[crate::http::get("/")],
            takes_refusals: false,
            body_bytes_min: 2,
            connections: 1,
            warm_up: Duration::ZERO,
            duration: Duration::from_millis(100),
        };
        load.measure()
    }

    #[test]
    fn a_server_that_talks_nonsense_is_a_failure() {
        let good = measure(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok").unwrap();
        assert_eq!(good.first_failure, None);
        let bad = measure(b"nonsense\r\n\r\n").unwrap();
        let first = bad.first_failure;
        assert!(bad.requests == 0 && bad.failures > 0);
        assert_eq!(first.as_deref(), Some("there is no status"));
    }

    #[test]
    fn only_what_is_as_expected_counts() {
        let mut measured = Measured::default();
        for (status, body_bytes) in [(200, 2), (201, 3), (503, 2), (200, 1)] {
            let response = Response { status, body_bytes };
            measured.record(response, 2, Duration::from_micros(1));
        }
        assert_eq!((measured.requests, measured.failures), (2, 2));
        assert_eq!(measured.first_failure.unwrap(), "status 503 with 2 bytes");
    }
}
