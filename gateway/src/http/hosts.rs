//! What requests may name: the hosts that they are sent to, as of any program here, and the origins
//! of pages that may read the replies.

use axum::http::{HeaderMap, HeaderValue, header};
use dkvs_runtime::hosts::{Hosts, parse_host, without_port};

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

/// Parses an origin as browsers send it; none if it is not one.
pub fn parse_origin(text: &str) -> Option<HeaderValue> {
    let scheme = ["http://", "https://"];
    let authority = scheme.iter().find_map(|scheme| text.strip_prefix(scheme))?;
    let host = without_port(authority)?;
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
