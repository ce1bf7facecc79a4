//! The servers file: which servers there are, and how many ring points each has.
//!
//! One line per server, `<IPv4> <port> <ring points>`, as the original C system reads it, and
//! lines that begin with `#` as comments. Whatever else a line holds is refused with file, line
//! and reason; a cluster is never half configured.

use std::collections::BTreeMap;
use std::fmt;
use std::net::{Ipv4Addr, SocketAddrV4};

use thiserror::Error;

use crate::lines;

/// Most servers in one cluster.
pub const SERVERS_MAX: usize = 4_096;

/// Most ring points in one cluster, over all its servers.
pub const RING_POINTS_MAX: u32 = 1 << 20;

/// Names a server in this process, in one view of the cluster after the other
/// ([`crate::view::ClusterView`]). It is no place in any list: in the first view ids follow the
/// servers file, and later ones give new servers ids that none had before.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ServerId(pub u16);

impl ServerId {
    /// The place as an index into per-server tables.
    pub fn index(self) -> usize {
        usize::from(self.0)
    }
}

/// A process has named so many servers in its views of the cluster that it has no id left for
/// another.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("65,535 servers have been in the cluster since this process started; start it anew")]
pub struct OutOfServerIds;

/// One storage process, known by its address.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Server {
    /// Where it takes datagrams.
    pub addr: SocketAddrV4,
    /// How many positions it has on the ring, at least 1.
    pub ring_points: u32,
}

/// As its line in a servers file.
impl std::fmt::Display for Server {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { addr, ring_points } = self;
        write!(f, "{} {} {ring_points}", addr.ip(), addr.port())
    }
}

/// A validated list of distinct servers, never empty.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cluster {
    servers: Vec<Server>,
    /// In the same order.
    ids: Vec<ServerId>,
    /// No server of this cluster, nor of one that it took ids from, had this id or a greater one.
    next_id: u16,
}

/// Why a servers file was refused: `<file>:<line>: <reason>`.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("{file}:{line}: {reason}")]
pub struct ClusterError {
    /// The file's name as it was given.
    pub file: String,
    /// The offending line, from 1.
    pub line: usize,
    /// What is wrong with it, and what would be right.
    pub reason: Reason,
}

/// What is wrong with a servers file.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[expect(missing_docs, reason = "each variant's message is its documentation")]
pub enum Reason {
    #[error("expected three fields, <IPv4> <port> <ring points>, and found {found}")]
    FieldCount { found: usize },
    #[error("{field:?} is not an IPv4 address, such as 127.0.0.1")]
    Address { field: String },
    #[error("{field:?} is not a port; a port is a whole number from 1 to 65535")]
    Port { field: String },
    #[error(
        "{field:?} is not a number of ring points; it is a whole number from 1 to {RING_POINTS_MAX}"
    )]
    RingPoints { field: String },
    #[error("server {addr} is listed already, on line {first_line}")]
    Duplicate {
        addr: SocketAddrV4,
        first_line: usize,
    },
    #[error("a cluster has at most {SERVERS_MAX} servers")]
    TooManyServers,
    #[error("a cluster has at most {RING_POINTS_MAX} ring points over all its servers")]
    TooManyRingPoints,
    #[error("no server is listed; each takes one line, <IPv4> <port> <ring points>")]
    NoServer,
}

impl Cluster {
    /// Reads a servers file. `file` is its name, used in errors alone.
    pub fn parse(file: &str, text: &[u8]) -> Result<Self, ClusterError> {
        let refuse = |line: usize, reason| ClusterError {
            file: file.to_owned(),
            line,
            reason,
        };
        let mut listing = Listing::default();
        for (number, line) in (1..).zip(text.split(|byte| *byte == b'\n')) {
            let line = line.strip_suffix(b"\r").unwrap_or(line);
            if line.starts_with(b"#") {
                continue;
            }
            let fields = lines::fields(line);
            if fields.is_empty() {
                continue;
            }
            parse_server(&fields)
                .and_then(|server| listing.add(server, number))
                .map_err(|reason| refuse(number, reason))?;
        }
        if listing.servers.is_empty() {
            return Err(refuse(lines::last(text), Reason::NoServer));
        }
        Ok(Self::new(listing.servers))
    }

    /// Takes a list of servers that did not come from a file; the same rules hold.
    pub fn from_servers(servers: &[Server]) -> Result<Self, Reason> {
        let mut listing = Listing::default();
        for (index, server) in servers.iter().enumerate() {
            listing.add(*server, index + 1)?;
        }
        if listing.servers.is_empty() {
            return Err(Reason::NoServer);
        }
        Ok(Self::new(listing.servers))
    }

    fn new(servers: Vec<Server>) -> Self {
        // At most [`SERVERS_MAX`].
        let next_id = servers.len() as u16;
        Self {
            servers,
            ids: (0..next_id).map(ServerId).collect(),
            next_id,
        }
    }

    /// The same servers, of which those that are in `before` have the ids that they have there, and
    /// the others ids that none had. Fails once all ids were given away.
    pub(crate) fn with_ids_of(mut self, before: &Self) -> Result<Self, OutOfServerIds> {
        let known: BTreeMap<SocketAddrV4, ServerId> = before
            .iter()
            .map(|(id, server)| (server.addr, id))
            .collect();
        self.next_id = before.next_id;
        for (id, server) in self.ids.iter_mut().zip(&self.servers) {
            *id = match known.get(&server.addr) {
                Some(known) => *known,
                None => {
                    let next = self.next_id.checked_add(1).ok_or(OutOfServerIds)?;
                    ServerId(std::mem::replace(&mut self.next_id, next))
                }
            };
        }
        Ok(self)
    }

    /// The servers, in the file's order.
    pub fn servers(&self) -> &[Server] {
        &self.servers
    }

    /// Their ids, in the same order.
    pub fn ids(&self) -> &[ServerId] {
        &self.ids
    }

    /// Every server with its id, in the file's order.
    pub fn iter(&self) -> impl Iterator<Item = (ServerId, Server)> + '_ {
        self.ids.iter().copied().zip(self.servers.iter().copied())
    }

    /// The server with this address; none if it is not in this cluster.
    pub fn find(&self, addr: SocketAddrV4) -> Option<ServerId> {
        let found = self.iter().find(|(_, server)| server.addr == addr);
        found.map(|(id, _)| id)
    }

    /// A server's address; none if it is not in this cluster.
    pub fn addr(&self, server: ServerId) -> Option<SocketAddrV4> {
        // In clusters as they are started, ids follow the file.
        let place = usize::from(server.0);
        let place = match self.ids.get(place) {
            Some(id) if *id == server => place,
            _ => self.ids.iter().position(|id| *id == server)?,
        };
        self.servers.get(place).map(|server| server.addr)
    }
}

impl fmt::Display for Cluster {
    /// As a servers file.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.servers.iter().try_for_each(|server| {
            let (ip, port) = (server.addr.ip(), server.addr.port());
            writeln!(f, "{ip} {port} {}", server.ring_points)
        })
    }
}

/// A cluster in the making: refuses duplicates and what exceeds the limits.
#[derive(Default)]
struct Listing {
    servers: Vec<Server>,
    first_lines: BTreeMap<SocketAddrV4, usize>,
    ring_points: u32,
}

impl Listing {
    fn add(&mut self, server: Server, line: usize) -> Result<(), Reason> {
        if let Some(&first_line) = self.first_lines.get(&server.addr) {
            let addr = server.addr;
            return Err(Reason::Duplicate { addr, first_line });
        }
        if self.servers.len() == SERVERS_MAX {
            return Err(Reason::TooManyServers);
        }
        self.ring_points = self.ring_points.saturating_add(server.ring_points);
        if self.ring_points > RING_POINTS_MAX {
            return Err(Reason::TooManyRingPoints);
        }
        self.first_lines.insert(server.addr, line);
        self.servers.push(server);
        Ok(())
    }
}

fn parse_server(fields: &[&[u8]]) -> Result<Server, Reason> {
    let &[ip, port, ring_points] = fields else {
        let found = fields.len();
        return Err(Reason::FieldCount { found });
    };
    let ip: Ipv4Addr = std::str::from_utf8(ip)
        .ok()
        .and_then(|ip| ip.parse().ok())
        .ok_or_else(|| Reason::Address { field: show(ip) })?;
    let port = whole_number(port)
        .and_then(|port| u16::try_from(port).ok())
        .filter(|&port| port > 0)
        .ok_or_else(|| Reason::Port { field: show(port) })?;
    let ring_points = whole_number(ring_points)
        .filter(|points| (1..=RING_POINTS_MAX).contains(points))
        .ok_or_else(|| Reason::RingPoints {
            field: show(ring_points),
        })?;
    Ok(Server {
        addr: SocketAddrV4::new(ip, port),
        ring_points,
    })
}

/// Decimal digits and nothing else: no sign, no blank. `str::parse` alone would let a `+` pass.
fn whole_number(field: &[u8]) -> Option<u32> {
    if !field.iter().all(u8::is_ascii_digit) {
        return None;
    }
    std::str::from_utf8(field).ok()?.parse().ok()
}

fn show(field: &[u8]) -> String {
    String::from_utf8_lossy(field).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refusal(text: &str) -> String {
        Cluster::parse("servers.txt", text.as_bytes())
            .unwrap_err()
            .to_string()
    }

    #[test]
    fn blanks_tabs_comments_and_line_ends_are_understood() {
        let text =
            b"# three servers\r\n127.0.0.1 1234 1\r\n\n  \t\n10.0.0.1\t\t80  2\n8.8.8.8 \t65535 3";
        let cluster = Cluster::parse("servers.txt", text).unwrap();
        assert_eq!(
            cluster.to_string(),
            "127.0.0.1 1234 1\n10.0.0.1 80 2\n8.8.8.8 65535 3\n"
        );
        assert_eq!(
            Cluster::parse("again", cluster.to_string().as_bytes()).as_ref(),
            Ok(&cluster)
        );
        assert_eq!(Cluster::from_servers(cluster.servers()), Ok(cluster));
    }

    #[test]
    fn every_malformed_line_is_refused_with_file_line_and_reason() {
        for (line, reason) in [
            ("127.0.001 1 1", r#""127.0.001" is not an IPv4 address"#),
            ("256.0.0.1 1 1", r#""256.0.0.1" is not an IPv4 address"#),
            ("127.0.0.01 1 1", r#""127.0.0.01" is not an IPv4 address"#),
            ("localhost 1 1", r#""localhost" is not an IPv4 address"#),
            ("::1 1 1", r#""::1" is not an IPv4 address"#),
            ("127.0.0.1 1aa4 1", r#""1aa4" is not a port"#),
            ("127.0.0.1 -1236 1", r#""-1236" is not a port"#),
            ("127.0.0.1 +1236 1", r#""+1236" is not a port"#),
            ("127.0.0.1 0 1", r#""0" is not a port"#),
            ("127.0.0.1 65536 1", r#""65536" is not a port"#),
            ("127.0.0.1 99999999999999 1", "is not a port"),
            ("127.0.0.1 1236 0", r#""0" is not a number of ring points"#),
            (
                "127.0.0.1 1236 1.5",
                r#""1.5" is not a number of ring points"#,
            ),
            ("127.0.0.1 1236 1048577", "is not a number of ring points"),
            (
                "127.0.0.1 1236",
                "expected three fields, <IPv4> <port> <ring points>, and found 2",
            ),
            ("127.0.0.1", "and found 1"),
            ("127.0.0.1 1236 1 1", "and found 4"),
            ("127.0.0.1 1236 1 # no trailing comment", "and found 7"),
            ("127.0.0.1\u{b}1236 1", "and found 2"),
            (
                "9.9.9.9 9 9",
                "server 9.9.9.9:9 is listed already, on line 2",
            ),
        ] {
            let refusal = refusal(&format!("# one\n9.9.9.9 9 1\n{line}\n1.1.1.1 1 1\n"));
            assert!(
                refusal.starts_with("servers.txt:3: ") && refusal.contains(reason),
                "{line:?} was refused with {refusal:?}"
            );
        }
    }

    #[test]
    fn bytes_that_are_not_text_are_refused_and_shown_safely() {
        let error = Cluster::parse("f", b"127.0.0.\xff 1 1").unwrap_err();
        assert_eq!(error.line, 1);
        assert!(error.to_string().contains("is not an IPv4 address"));
    }

    #[test]
    fn a_file_without_a_server_is_refused() {
        for empty in ["", "\n", "# nobody\n\n"] {
            assert!(refusal(empty).contains("no server is listed"), "{empty:?}");
        }
        assert_eq!(Cluster::from_servers(&[]), Err(Reason::NoServer));
    }

    #[test]
    fn limits_on_servers_and_ring_points_hold() {
        let half = RING_POINTS_MAX / 2;
        let full = format!("1.1.1.1 1 {half}\n1.1.1.1 2 {half}\n");
        assert!(Cluster::parse("f", full.as_bytes()).is_ok());
        assert!(
            refusal(&format!("{full}1.1.1.1 3 1\n"))
                .starts_with("servers.txt:3: a cluster has at most 1048576 ring points")
        );

        let server = |port: u32| format!("1.1.1.1 {port} 1\n");
        let most: String = (1..=SERVERS_MAX as u32).map(server).collect();
        assert!(Cluster::parse("f", most.as_bytes()).is_ok());
        assert!(
            refusal(&(most + "2.2.2.2 1 1"))
                .contains("servers.txt:4097: a cluster has at most 4096 servers")
        );
    }

    #[test]
    fn no_id_is_given_twice_even_when_there_are_none_left() {
        let cluster = |text: &str| Cluster::parse("test", text.as_bytes()).unwrap();
        let mut before = cluster("10.0.0.1 1 1\n");
        before.next_id = u16::MAX - 1;
        let last = cluster("10.0.0.2 1 1\n").with_ids_of(&before).unwrap();
        assert_eq!(last.ids(), [ServerId(u16::MAX - 1)]);
        let refused = cluster("10.0.0.3 1 1\n").with_ids_of(&last);
        assert_eq!(refused, Err(OutOfServerIds));
        let same = cluster("10.0.0.2 1 1\n").with_ids_of(&last);
        assert_eq!(same.unwrap().ids(), last.ids(), "nobody is new");
    }
}
