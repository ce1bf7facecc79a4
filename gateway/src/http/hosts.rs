//! What requests may name: the hosts that they are sent to, as of any program here, and the origins
//! of pages that may read the replies.

use axum::http::{HeaderMap, HeaderValue, header};
use dkvs_runtime::hosts::{Authority, Hosts, parse_host};

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

    /// Whether a page of this origin, as a browser sends it, is the gateway's own, which is reached by
    /// this scheme at `own`.
    pub(super) fn is_own_origin(self, own: Authority<'_>, origin: &str) -> bool {
        let port = |authority: Authority<'_>| authority.port().unwrap_or(self.default_port());
        let Some((scheme, page)) = origin.split_once("://") else {
            return false;
        };
        scheme.eq_ignore_ascii_case(self.name())
            && Authority::parse(page).is_some_and(|page| {
                page.host.eq_ignore_ascii_case(own.host) && port(page) == port(own)
            })
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
    parse_host(host).ok().filter(|_| is_lower && ends_well)?;
    HeaderValue::from_str(text).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

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
            let found = scheme.is_own_origin(own, origin);
            assert_eq!(found, is_own, "{authority} {origin}");
        }
    }

    #[test]
    fn what_is_no_origin_is_refused() {
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
