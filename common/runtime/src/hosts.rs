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

    /// Whether a request may be sent to this host, whatever the port.
    pub fn allow(&self, authority: &str) -> bool {
        let Some(host) = without_port(authority) else {
            return false;
        };
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

/// The host of `host` or `host:port`; none if it is neither.
pub fn without_port(authority: &str) -> Option<&str> {
    let end = match authority.find(']') {
        Some(bracket) => bracket + 1,
        None => authority.find(':').unwrap_or(authority.len()),
    };
    let (host, port) = authority.split_at(end);
    let port = port.strip_prefix(':').or(port.is_empty().then_some(port))?;
    port.bytes()
        .all(|byte| byte.is_ascii_digit())
        .then_some(host)
}

/// The host that a request is for: that of its target if it is a URL, else of its one Host header,
/// which only HTTP/1.0 may leave out (RFC 9112, section 3.2).
///
/// # Errors
///
/// If there is no such header, more than one, or one that is no text; what is wrong is returned.
pub fn authority<B>(request: &Request<B>) -> Result<Option<&str>, &'static str> {
    let mut hosts = request.headers().get_all(header::HOST).iter();
    let host = hosts.next();
    if hosts.next().is_some() {
        return Err("there is more than one Host header");
    }
    let host = match host {
        Some(host) => Some(host.to_str().map_err(|_| "the Host header is no host")?),
        None if request.version() >= Version::HTTP_11 => return Err("there is no Host header"),
        None => None,
    };
    let target = request.uri().authority();
    Ok(target.map(|authority| authority.as_str()).or(host))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hosts(listen: &str, more: &[&str]) -> Hosts {
        let more: Vec<_> = more.iter().map(|host| parse_host(host).unwrap()).collect();
        Hosts::new(listen.parse().unwrap(), &more)
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
            assert!(hosts.allow(host), "{host}");
        }
        for host in [
            "",
            ":80",
            "evil.example",
            "localhost.evil.example",
            "127.0.0.1.evil.example",
            "127.0.0.6",
            "192.0.2.8",
            "[::2]",
            "[::1",
            "[::1]x",
            "[localhost]",
            "localhost:80x",
            "localhost:80:80",
            "user@localhost",
            "localhost/",
            "2130706433",
            "xkv.example.org",
        ] {
            assert!(!hosts.allow(host), "{host}");
        }
    }

    #[test]
    fn beyond_loopback_every_address_is_allowed_and_no_other_name() {
        let hosts = hosts("0.0.0.0:80", &[]);
        for host in ["10.0.0.9:8080", "[2001:db8::1]", "127.0.0.1", "localhost"] {
            assert!(hosts.allow(host), "{host}");
        }
        for host in ["gateway", "10.0.0.9.example", "10.0.0", "010.0.0.1"] {
            assert!(!hosts.allow(host), "{host}");
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
}
