//! The key in a path: everything after the prefix, percent-decoded once, never normalised.

use axum::http::Uri;
use dkvs_common::kv::Key;
use percent_encoding::percent_decode_str;

use super::key_value::invalid_key;
use super::problem::Problem;

/// The key that follows `prefix` in the path.
pub(super) fn key(uri: &Uri, prefix: &str) -> Result<Key, Problem> {
    let encoded = uri.path().strip_prefix(prefix).unwrap_or_default();
    if let Some(offset) = bad_escape(encoded.as_bytes()) {
        return Err(invalid_key(format!(
            "the % at byte {offset} of the encoded key is not followed by two hexadecimal digits; \
             a % in a key is written %25"
        )));
    }
    let bytes: Vec<u8> = percent_decode_str(encoded).collect();
    Ok(Key::new(bytes)?)
}

/// Where a `%` stands without two hexadecimal digits after it.
fn bad_escape(encoded: &[u8]) -> Option<usize> {
    let is_bad = |at: &usize| {
        encoded[*at] == b'%'
            && !matches!(encoded.get(at + 1..at + 3),
                         Some([a, b]) if a.is_ascii_hexdigit() && b.is_ascii_hexdigit())
    };
    (0..encoded.len()).find(is_bad)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn decoded(path: &'static str) -> Option<Vec<u8>> {
        let key = key(&Uri::from_static(path), "/kv/").ok()?;
        Some(key.as_bytes().to_vec())
    }

    #[test]
    fn a_key_is_decoded_once_and_never_normalised() {
        for (path, bytes) in [
            ("/kv/a", &b"a"[..]),
            ("/kv//", b"/"),
            ("/kv/a//b/", b"a//b/"),
            ("/kv/../x/./y", b"../x/./y"),
            ("/kv/a%2Fb", b"a/b"),
            ("/kv/%252F", b"%2F"),
            ("/kv/%00%ff%FE", b"\0\xff\xfe"),
            ("/kv/a+b", b"a+b"),
            ("/kv/%3F%23?n=1", b"?#"),
            ("/kv/%E6%97%A5", "日".as_bytes()),
        ] {
            assert_eq!(decoded(path).as_deref(), Some(bytes), "{path}");
        }
    }

    #[test]
    fn an_empty_key_and_a_broken_escape_are_refused() {
        for path in [
            "/kv/", "/kv/?n=1", "/kv/%", "/kv/a%2", "/kv/%zz", "/kv/%2/a",
        ] {
            assert_eq!(decoded(path), None, "{path}");
        }
    }
}
