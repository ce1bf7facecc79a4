//! Which paths the path of an operation stands for.

/// Whether a path is one of those that a pattern of the API stands for. `{key}` at its end is the
/// rest of the path, and any other name in braces a part of it without a slash.
pub(in crate::http) fn matches(pattern: &str, path: &str) -> bool {
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

#[cfg(test)]
mod tests {
    use super::*;

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
            assert_eq!(matches(pattern, path), expected, "{pattern} {path}");
        }
    }
}
