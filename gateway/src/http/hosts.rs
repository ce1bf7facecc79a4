//! The hosts that requests may name, and the origins of pages that may read the replies.
//!
//! DNS rebinding: a page can make its own name resolve to the gateway's address, and the browser
//! then takes both for one origin. The Host header still has the page's name, so the gateway refuses
//! every name but its own. An address as the Host cannot be rebound.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use axum::http::{HeaderMap, HeaderValue, header};

/// What requests may name: the hosts that they are sent to, and the origins that they come from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BrowserPolicy {
    /// The hosts that requests may be sent to.
    pub hosts: Hosts,
    /// The origins of pages that may read and write.
    pub origins: Vec<HeaderValue>,
}

impl BrowserPolicy {
    /// The origin of a request, if its pages may read and write.
    pub(super) fn allowed_origin(&self, headers: &HeaderMap) -> Option<&HeaderValue> {
        if self.origins.is_empty() {
            return None;
        }
        let origin = headers.get(header::ORIGIN)?;
        self.origins.iter().find(|allowed| *allowed == origin)
    }
}

/// The hosts that requests may be sent to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hosts {
    names: Vec<String>,
    addresses: Vec<IpAddr>,
    /// Whether every address is allowed, since the system may have several.
    any_address: bool,
}

impl Hosts {
    /// The hosts of a gateway that listens on an address: that address, the names of loopback, and
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
    pub(super) fn allow(&self, host: &str) -> bool {
        let is_name = |name: &String| name.eq_ignore_ascii_case(host);
        match parse_address(host) {
            Some(address) => self.any_address || self.addresses.contains(&address),
            None => self.names.iter().any(is_name),
        }
    }
}

/// How requests come to the gateway, as URLs name it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scheme {
    /// In the clear.
    Http,
    /// By TLS.
    Https,
}

impl Scheme {
    /// Its name.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Http => "http",
            Self::Https => "https",
        }
    }

    fn default_port(self) -> u16 {
        match self {
            Self::Http => 80,
            Self::Https => 443,
        }
    }
}

/// The host, and the port if there is one, to which a request is sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Authority<'a> {
    pub(super) host: &'a str,
    port: Option<u16>,
}

impl<'a> Authority<'a> {
    /// Parses `host` or `host:port` as RFC 3986 has it (sections 3.2.2 and 3.2.3). A host is not
    /// empty, as both schemes demand. None if it is not that.
    pub(super) fn parse(text: &'a str) -> Option<Self> {
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

    /// Whether a page of this origin, as a browser sends it, is the gateway's own, which is reached by
    /// this scheme.
    pub(super) fn is_origin(self, scheme: Scheme, origin: &str) -> bool {
        let port = |authority: Authority<'_>| authority.port.unwrap_or(scheme.default_port());
        let Some((scheme_of, authority)) = origin.split_once("://") else {
            return false;
        };
        scheme_of.eq_ignore_ascii_case(scheme.name())
            && Authority::parse(authority).is_some_and(|page| {
                page.host.eq_ignore_ascii_case(self.host) && port(page) == port(self)
            })
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

/// A host that the operator allows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Host {
    /// By name.
    Name(String),
    /// By address.
    Address(IpAddr),
}

/// Parses a host as it stands in a URL, without a port; none if it is not one.
pub fn parse_host(text: &str) -> Option<Host> {
    if let Some(address) = parse_address(text) {
        return Some(Host::Address(address));
    }
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_');
    let is_name = !text.is_empty() && text.bytes().all(plain);
    is_name.then(|| Host::Name(text.to_owned()))
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

/// Parses an origin as browsers send it; none if it is not one.
pub fn parse_origin(text: &str) -> Option<HeaderValue> {
    let scheme = ["http://", "https://"];
    let authority = scheme.iter().find_map(|scheme| text.strip_prefix(scheme))?;
    let host = Authority::parse(authority)?.host;
    // Browsers send names in lower case.
    let is_lower = !text.bytes().any(|byte| byte.is_ascii_uppercase());
    let ends_well = !authority.ends_with(':');
    parse_host(host).filter(|_| is_lower && ends_well)?;
    HeaderValue::from_str(text).ok()
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
    fn an_origin_is_the_gateways_own_by_scheme_host_and_port() {
        use Scheme::{Http, Https};
        for (scheme, authority, origin, is_own) in [
            (Http, "kv:80", "http://kv:80", true),
            (Http, "kv:80", "http://kv", true),
            (Http, "kv", "http://kv:80", true),
            (Http, "KV:8080", "http://kv:8080", true),
            (Http, "[::1]:8080", "http://[::1]:8080", true),
            (Http, "kv:80", "https://kv:80", false),
            (Http, "kv", "https://kv", false),
            (Http, "kv", "http://kv:443", false),
            (Http, "kv:8080", "http://kv", false),
            (Http, "kv", "http://other", false),
            (Https, "kv", "https://kv", true),
            (Https, "kv:443", "https://kv", true),
            (Https, "kv:8443", "https://kv:8443", true),
            (Https, "kv", "http://kv", false),
            (Https, "kv:80", "http://kv", false),
            (Https, "kv", "https://kv:80", false),
            (Http, "kv", "null", false),
            (Http, "kv", "", false),
            (Http, "kv", "kv", false),
            (Http, "kv", "http://", false),
            (Http, "kv", "http://kv/", false),
            (Http, "kv", "http://user@kv", false),
            (Http, "kv", "ftp://kv", false),
        ] {
            let own = Authority::parse(authority).unwrap();
            let found = own.is_origin(scheme, origin);
            assert_eq!(found, is_own, "{authority} {origin}");
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
    fn what_is_no_host_or_no_origin_is_refused() {
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
            assert_eq!(parse_host(text), None, "{text}");
        }
        for text in [
            "http://a",
            "https://a.example:8443",
            "http://[::1]:3000",
            "http://127.0.0.1",
        ] {
            assert_eq!(parse_origin(text).unwrap(), text);
        }
        for text in [
            "",
            "*",
            "null",
            "a",
            "http://",
            "ftp://a",
            "http://a/",
            "http://A",
            "http://a:",
        ] {
            assert_eq!(parse_origin(text), None, "{text}");
        }
    }
}
