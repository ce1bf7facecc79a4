//! The trace that a request belongs to (W3C Trace Context): taken from `traceparent`, or begun
//! here.
//!
//! Nothing of it goes back to the caller: the recommendation has no header for that.

use std::fmt;

use axum::http::{HeaderMap, HeaderName};

const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");

/// A trace's name: 16 bytes, not all of them 0.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) struct TraceId([u8; 16]);

impl TraceId {
    /// The caller's, if there is one and one only that is well-formed; else another one. None if
    /// the system has no random bytes.
    pub(super) fn of(headers: &HeaderMap) -> Option<Self> {
        Self::callers(headers).or_else(Self::random)
    }

    fn callers(headers: &HeaderMap) -> Option<Self> {
        let mut values = headers.get_all(TRACEPARENT).iter();
        let value = values.next()?;
        match values.next() {
            None => Self::parse(value.as_bytes()),
            Some(_) => None,
        }
    }

    /// `version "-" trace-id "-" parent-id "-" flags`, all in lower-case hexadecimal digits. A
    /// later version than 0 may have more after that.
    fn parse(text: &[u8]) -> Option<Self> {
        const BYTES: usize = 55;
        let (known, rest) = text.split_at_checked(BYTES)?;
        let version = bytes_of::<1>(&known[..2])?;
        let trace_id = bytes_of::<16>(&known[3..35])?;
        let parent_id = bytes_of::<8>(&known[36..52])?;
        bytes_of::<1>(&known[53..])?;
        let has_dashes = [2, 35, 52].iter().all(|at| known[*at] == b'-');
        let is_as_long_as_it_may_be = match version {
            [0] => rest.is_empty(),
            [0xff] => false,
            _ => rest.is_empty() || rest[0] == b'-',
        };
        let is_valid = has_dashes
            && is_as_long_as_it_may_be
            && trace_id.iter().any(|byte| *byte != 0)
            && parent_id.iter().any(|byte| *byte != 0);
        is_valid.then_some(Self(trace_id))
    }

    fn random() -> Option<Self> {
        let mut bytes = [0; 16];
        getrandom::fill(&mut bytes).ok()?;
        bytes.iter().any(|byte| *byte != 0).then_some(Self(bytes))
    }
}

/// Of twice as many digits.
fn bytes_of<const N: usize>(digits: &[u8]) -> Option<[u8; N]> {
    let digit = |byte: u8| match byte {
        b'0'..=b'9' => Some(byte - b'0'),
        b'a'..=b'f' => Some(byte - b'a' + 10),
        _ => None,
    };
    let mut bytes = [0; N];
    for (byte, pair) in bytes.iter_mut().zip(digits.chunks_exact(2)) {
        *byte = digit(pair[0])? << 4 | digit(pair[1])?;
    }
    Some(bytes)
}

impl fmt::Display for TraceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for TraceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "TraceId({self})")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::http::HeaderValue;

    const GOOD: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
    const ID: &str = "0af7651916cd43dd8448eb211c80319c";

    fn parsed(text: &str) -> Option<String> {
        TraceId::parse(text.as_bytes()).map(|id| id.to_string())
    }

    #[test]
    fn a_well_formed_traceparent_is_taken() {
        assert_eq!(parsed(GOOD).as_deref(), Some(ID));
        assert_eq!(parsed(&GOOD.replace("-01", "-00")).as_deref(), Some(ID));
        let later = format!("cc{}", &GOOD[2..]);
        assert_eq!(parsed(&later).as_deref(), Some(ID));
        assert_eq!(parsed(&format!("{later}-more")).as_deref(), Some(ID));
    }

    #[test]
    fn a_malformed_traceparent_is_not() {
        let zeros = |digits| "0".repeat(digits);
        for text in [
            "",
            "00",
            &GOOD[..54],
            &format!("{GOOD}-"),
            &format!("{GOOD}0"),
            &format!("{GOOD}-more"),
            &format!("cc{}more", &GOOD[2..]),
            &format!("ff{}", &GOOD[2..]),
            &GOOD.replace('-', "_"),
            &GOOD.replace(ID, &zeros(32)),
            &GOOD.replace("b7ad6b7169203331", &zeros(16)),
            &GOOD.to_uppercase(),
            &GOOD.replace("0af7", "0ag7"),
            &GOOD.replace("-01", "-0x"),
            &GOOD.replacen("00-", "0x-", 1),
        ] {
            assert_eq!(parsed(text), None, "{text}");
        }
    }

    #[test]
    fn without_one_good_traceparent_a_trace_begins_here() {
        let of = |values: &[&'static str]| {
            let mut headers = HeaderMap::new();
            for value in values {
                headers.append(TRACEPARENT, HeaderValue::from_static(value));
            }
            TraceId::of(&headers).unwrap()
        };
        assert_eq!(of(&[GOOD]).to_string(), ID);
        for values in [&[][..], &["00-x"], &[GOOD, GOOD]] {
            assert_ne!(of(values).to_string(), ID);
            assert_ne!(of(values), of(values));
        }
    }
}
