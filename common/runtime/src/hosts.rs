//! The hosts that requests may name.
//!
//! DNS rebinding: a page can make its own name resolve to a program's address, and the browser then
//! takes both for one origin. The Host header still has the page's name, so the programs refuse every
//! name but their own. An address as the Host cannot be rebound.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use hyper::{Request, Version, header};

/// The hosts that requests may be sent to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hosts {
    names: Vec<String>,
    addresses: Vec<IpAddr>,
    /// Whether every address is allowed, since the system may have several.
    any_address: bool,
}

impl Hosts {
    /// The hosts of a program that listens on an address: that address, the names of loopback, and
    /// `more`; beyond loopback every address.
    pub fn new(listen: SocketAddr, more: &[Host]) -> Self {
        let mut hosts = Self {
            names: vec!["localhost".to_owned()],
            addresses: vec![
                IpAddr::V4(Ipv4Addr::LOCALHOST),
                IpAddr::V6(Ipv6Addr::LOCALHOST),
                listen.ip(),
            ],
            any_address: !listen.ip().is_loopback(),
        };
        for host in more {
            match host {
                Host::Name(name) => hosts.names.push(name.clone()),
                Host::Address(address) => hosts.addresses.push(*address),
            }
        }
        hosts
    }

    /// Whether a request may be sent to this host.
    pub fn allow(&self, host: &str) -> bool {
        let is_name = |name: &String| name.eq_ignore_ascii_case(host);
        match parse_address(host) {
            Some(address) => self.any_address || self.addresses.contains(&address),
            None => self.names.iter().any(is_name),
        }
    }
}

/// A host that the operator allows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Host {
    /// By name.
    Name(String),
    /// By address.
    Address(IpAddr),
}

/// Parses a host as it stands in a URL, without a port.
///
/// # Errors
///
/// If it is none; the text says so.
pub fn parse_host(text: &str) -> Result<Host, &'static str> {
    if let Some(address) = parse_address(text) {
        return Ok(Host::Address(address));
    }
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_');
    let is_name = !text.is_empty() && text.bytes().all(plain);
    match is_name {
        true => Ok(Host::Name(text.to_owned())),
        false => Err("it is no host name or address; leave out scheme, port and path"),
    }
}

fn parse_address(host: &str) -> Option<IpAddr> {
    match host.strip_prefix('[') {
        Some(rest) => Some(IpAddr::V6(rest.strip_suffix(']')?.parse().ok()?)),
        // Addresses begin with a digit, so one byte rules out most names.
        None if host.starts_with(|first: char| first.is_ascii_digit()) => {
            Some(IpAddr::V4(host.parse().ok()?))
        }
        None => None,
    }
}

/// The host that a request is for: that of its target if it is a URL, else of its one Host header,
/// which only HTTP/1.0 may leave out, and which has to be valid in any case (RFC 9112, section 3.2).
///
/// # Errors
///
/// If there is no such header, more than one, or one that is no host; what is wrong is returned.
pub fn authority<B>(request: &Request<B>) -> Result<Option<Authority<'_>>, &'static str> {
    let mut hosts = request.headers().get_all(header::HOST).iter();
    let host = hosts.next();
    if hosts.next().is_some() {
        return Err("there is more than one Host header");
    }
    let host = match host {
        Some(host) => {
            let host = host.to_str().ok().and_then(Authority::parse);
            Some(host.ok_or("the Host header is no host, with or without a port")?)
        }
        None if request.version() >= Version::HTTP_11 => return Err("there is no Host header"),
        None => None,
    };
    match request.uri().authority() {
        Some(target) => match Authority::parse(target.as_str()) {
            None => Err("the host in the request target is no host"),
            target => Ok(target),
        },
        None => Ok(host),
    }
}

/// The host, and the port if there is one, to which a request is sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Authority<'a> {
    /// The host, without a port.
    pub host: &'a str,
    port: Option<u16>,
}

impl<'a> Authority<'a> {
    /// Parses `host` or `host:port` as RFC 3986 has it (sections 3.2.2 and 3.2.3). A host is not
    /// empty, as both schemes demand. None if it is not that.
    pub fn parse(text: &'a str) -> Option<Self> {
        let end = match text.strip_prefix('[') {
            Some(rest) => rest.find(']')? + 2,
            None => text.find(':').unwrap_or(text.len()),
        };
        let (host, port) = text.split_at(end);
        let port = match port.strip_prefix(':') {
            None if port.is_empty() => None,
            Some("") => None,
            Some(digits) if digits.bytes().all(|byte| byte.is_ascii_digit()) => {
                Some(digits.parse().ok()?)
            }
            _ => return None,
        };
        is_uri_host(host).then_some(Self { host, port })
    }

    /// The port, if it has one.
    pub fn port(self) -> Option<u16> {
        self.port
    }
}

/// Whether a text is a host: a name, an IPv4 address, or another address in brackets.
fn is_uri_host(host: &str) -> bool {
    let is_plain = |byte: u8| {
        byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~')
            // The delimiters within parts of a URI.
            || matches!(byte, b'!' | b'$' | b'&' | b'\'' | b'(' | b')' | b'*' | b'+' | b',' | b';' | b'=')
    };
    if let Some(literal) = host.strip_prefix('[') {
        let Some(literal) = literal.strip_suffix(']') else {
            return false;
        };
        let future = literal.strip_prefix(['v', 'V']);
        let future = future.and_then(|future| future.split_once('.'));
        return match future {
            Some((version, address)) => {
                let is_address = |byte: u8| is_plain(byte) || byte == b':';
                !version.is_empty()
                    && version.bytes().all(|byte| byte.is_ascii_hexdigit())
                    && !address.is_empty()
                    && address.bytes().all(is_address)
            }
            None => literal.parse::<Ipv6Addr>().is_ok(),
        };
    }
    let mut escaped = 0;
    let is_allowed = |byte: u8| {
        match (escaped, byte) {
            (0, b'%') => escaped = 2,
            (0, byte) => return is_plain(byte),
            (_, byte) if byte.is_ascii_hexdigit() => escaped -= 1,
            _ => return false,
        }
        true
    };
    !host.is_empty() && host.bytes().all(is_allowed) && escaped == 0
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hosts(listen: &str, more: &[&str]) -> Hosts {
        let more: Vec<_> = more.iter().map(|host| parse_host(host).unwrap()).collect();
        Hosts::new(listen.parse().unwrap(), &more)
    }

    fn allow(hosts: &Hosts, authority: &str) -> bool {
        hosts.allow(Authority::parse(authority).unwrap().host)
    }

    #[test]
    fn what_is_no_host_with_or_without_a_port_is_known() {
        for (text, host, port) in [
            ("kv", "kv", None),
            ("kv:", "kv", None),
            ("KV.example:080", "KV.example", Some(80)),
            ("kv:65535", "kv", Some(65_535)),
            ("a%20b", "a%20b", None),
            ("a,b;c=1", "a,b;c=1", None),
            ("127.0.0.1:1", "127.0.0.1", Some(1)),
            ("[::1]", "[::1]", None),
            ("[::ffff:1.2.3.4]:8", "[::ffff:1.2.3.4]", Some(8)),
            ("[v1f.a:b]", "[v1f.a:b]", None),
        ] {
            let found = Authority::parse(text);
            assert_eq!(found, Some(Authority { host, port }), "{text}");
        }
        for text in [
            "",
            ":80",
            "kv:65536",
            "kv:99999999999",
            "kv:80x",
            "kv:-1",
            "kv:+1",
            "kv: 80",
            "kv:80:80",
            "a b",
            "user@kv",
            "@kv",
            "kv/",
            "kv?",
            "kv#",
            "http://kv",
            "a\\b",
            "a<b",
            "a\"b",
            "a|b",
            "caf\u{e9}",
            "%",
            "%2",
            "%zz",
            "::1",
            "[::1",
            "::1]",
            "[::1]x",
            "[::1]]",
            "[kv]",
            "[]",
            "[127.0.0.1]",
            "[::1%25eth0]",
            "[v.a]",
            "[v1.]",
            "[vx.a]",
            "[v1]",
        ] {
            assert_eq!(Authority::parse(text), None, "{text}");
        }
    }

    #[test]
    fn on_loopback_its_names_and_those_that_were_added_are_allowed() {
        let hosts = hosts("127.0.0.5:80", &["kv.example.org", "192.0.2.7"]);
        for host in [
            "localhost",
            "LocalHost:8080",
            "127.0.0.1:1",
            "127.0.0.5",
            "[::1]:8080",
            "[0:0::1]",
            "KV.example.org:443",
            "192.0.2.7:80",
        ] {
            assert!(allow(&hosts, host), "{host}");
        }
        for host in [
            "evil.example",
            "localhost.evil.example",
            "127.0.0.1.evil.example",
            "127.0.0.6:80",
            "192.0.2.8",
            "[::2]",
            "[v1.localhost]",
            "2130706433",
            "xkv.example.org",
            "localhost%2e",
            "localhost,localhost",
        ] {
            assert!(!allow(&hosts, host), "{host}");
        }
    }

    #[test]
    fn beyond_loopback_every_address_is_allowed_and_no_other_name() {
        let hosts = hosts("0.0.0.0:80", &[]);
        for host in ["10.0.0.9:8080", "[2001:db8::1]", "127.0.0.1", "localhost"] {
            assert!(allow(&hosts, host), "{host}");
        }
        for host in ["gateway", "10.0.0.9.example", "10.0.0", "010.0.0.1"] {
            assert!(!allow(&hosts, host), "{host}");
        }
    }

    #[test]
    fn what_is_no_host_is_refused() {
        for text in [
            "",
            "a b",
            "kv:80",
            "http://kv",
            "kv/",
            "[::1]:80",
            "*",
            "*.a",
        ] {
            assert!(parse_host(text).is_err(), "{text}");
        }
    }

    #[test]
    fn the_host_of_the_target_counts_and_that_of_the_header_is_checked_all_the_same() {
        let of = |target: &str, hosts: &[&str]| {
            let mut request = Request::builder().uri(target);
            for host in hosts {
                request = request.header(header::HOST, *host);
            }
            let request = request.body(()).unwrap();
            let authority = authority(&request);
            authority.map_or("invalid".to_owned(), |it| it.unwrap().host.to_owned())
        };
        assert_eq!(of("/", &["kv:80"]), "kv");
        assert_eq!(of("http://other/", &["kv"]), "other");
        assert_eq!(of("http://user@other/", &["kv"]), "invalid");
        for hosts in [
            &[][..],
            &["kv", "kv"],
            &[""],
            &["a b"],
            &["user@kv"],
            &["caf\u{e9}"],
        ] {
            assert_eq!(of("/", hosts), "invalid", "{hosts:?}");
            assert_eq!(of("http://kv/", hosts), "invalid", "{hosts:?}");
        }
        let old = Request::builder().version(Version::HTTP_10);
        let old = old.uri("/livez").body(()).unwrap();
        assert_eq!(authority(&old), Ok(None));
    }
}
