//! A key out of a path: everything after the prefix, percent-decoded once, never normalised.

use axum::http::Uri;
use dkvs_common::kv::Key;
use percent_encoding::percent_decode_str;

use super::problem::Problem;

/// The key that follows `prefix` in the path.
pub(super) fn key(uri: &Uri, prefix: &str) -> Result<Key, Problem> {
    let encoded = uri.path().strip_prefix(prefix).unwrap_or_default();
    if let Some(offset) = bad_escape(encoded.as_bytes()) {
        return Err(Problem::bad_escape(offset));
    }
    let bytes: Vec<u8> = percent_decode_str(encoded).collect();
    Ok(Key::new(bytes)?)
}

/// Whether a path is one of those that a pattern of the API stands for. `{key}` at its end is the
/// rest of the path, and any other name in braces a part of it without a slash.
pub(super) fn is_at(pattern: &str, path: &str) -> bool {
    let Some((prefix, rest)) = pattern.split_once('{') else {
        return pattern == path;
    };
    match (path.strip_prefix(prefix), rest.split_once('}')) {
        (Some(_), Some(("key", _))) => true,
        (Some(path), Some((_, suffix))) => {
            let part = path.strip_suffix(suffix);
            part.is_some_and(|part| !part.is_empty() && !part.contains('/'))
        }
        _ => false,
    }
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
    fn a_pattern_stands_for_the_paths_that_have_its_parts() {
        for (pattern, path, expected) in [
            ("/kv", "/kv", true),
            ("/kv", "/kv/", false),
            ("/kv/{key}", "/kv/", true),
            ("/kv/{key}", "/kv/a/b", true),
            ("/kv/{key}", "/kv", false),
            ("/a/{b}", "/a/c", true),
            ("/a/{b}", "/a/", false),
            ("/a/{b}", "/a/c/d", false),
            ("/a/{b}/c", "/a/x:1/c", true),
            ("/a/{b}/c", "/a//c", false),
            ("/a/{b}/c", "/a/x/y/c", false),
            ("/a/{b}/c", "/a/c", false),
        ] {
            assert_eq!(is_at(pattern, path), expected, "{pattern} {path}");
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
