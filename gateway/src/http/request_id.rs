//! The id of every request, in `X-Request-Id`, in problem documents and in the log.

use std::sync::atomic::{AtomicU32, Ordering};

use axum::http::HeaderValue;
use dkvs_common::hex::Digits;

/// Longest request id taken over from a caller, in bytes.
const CALLERS_BYTES_MAX: usize = 64;

pub(super) struct RequestIds {
    prefix: u32,
    next: AtomicU32,
}

impl RequestIds {
    pub(super) fn new() -> anyhow::Result<Self> {
        Ok(Self {
            prefix: getrandom::u32()?,
            next: AtomicU32::new(0),
        })
    }

    /// The caller's own id if it is a plain one, else a new one.
    pub(super) fn identify(&self, callers: Option<&HeaderValue>) -> HeaderValue {
        match callers {
            Some(callers) if is_plain(callers.as_bytes()) => callers.clone(),
            _ => {
                let number = self.next.fetch_add(1, Ordering::Relaxed);
                let id = u64::from(self.prefix) << 32 | u64::from(number);
                let id = Digits::<16>::new(&id.to_be_bytes());
                HeaderValue::from_str(id.as_str()).expect("digits are a header value")
            }
        }
    }
}

/// Whether an id may go into a header, a URN and a log line as it is.
fn is_plain(id: &[u8]) -> bool {
    let plain = |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
    (1..=CALLERS_BYTES_MAX).contains(&id.len()) && id.iter().all(plain)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_plain_id_is_kept_and_any_other_replaced() {
        let ids = RequestIds::new().unwrap();
        let kept = |id: &'static str| ids.identify(Some(&HeaderValue::from_static(id))) == id;
        assert!(kept("abc-123_4.5"));
        assert!(!kept(""));
        assert!(!kept("a b"));
        assert!(!kept("a\"b"));
        assert!(kept(concat!(
            "0123456789012345678901234567890123456789",
            "012345678901234567890123"
        )));
        assert!(!kept(concat!(
            "0123456789012345678901234567890123456789",
            "0123456789012345678901234"
        )));
        assert_ne!(ids.identify(None), ids.identify(None));
    }
}
