//! Conditional requests and ranges (RFC 9110, sections 13 and 14).
//!
//! A version's tag is its entity tag: strong for the value's bytes, weak for the JSON about it, which
//! differs from read to read.

use std::ops::Range;

use axum::http::{HeaderMap, HeaderName, HeaderValue, header};
use dkvs_common::tag::Tag;

use super::accept::Form;

/// The entity tag of a version in a form.
pub(super) fn entity_tag(tag: Tag, form: Form) -> HeaderValue {
    let weak = match form {
        Form::Json => "W/",
        Form::Raw => "",
    };
    let text = [weak, "\"", tag.text().as_str(), "\""].concat();
    HeaderValue::try_from(text).expect("a tag is hexadecimal digits and a dash")
}

/// Whether the caller has this version already: `If-None-Match` names it.
pub(super) fn is_held(headers: &HeaderMap, tag: Tag) -> bool {
    headers.contains_key(header::IF_NONE_MATCH) && is_named(headers, &format!("\"{tag}\""))
}

/// Whether `If-None-Match` has this entity tag, given in quotes.
pub(super) fn is_named(headers: &HeaderMap, quoted: &str) -> bool {
    let mut given = texts(headers, header::IF_NONE_MATCH).flat_map(|text| text.split(','));
    given.any(|one| {
        let one = one.trim();
        one == "*" || one.strip_prefix("W/").unwrap_or(one) == quoted
    })
}

/// Which bytes of a value the caller wants.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Part {
    /// All of them.
    Whole,
    /// These.
    Bytes(Range<usize>),
    /// Bytes that it does not have.
    None,
}

/// What `Range` asks for, of a value of `size` bytes. Ignores a header with more than one range,
/// another unit or no range at all, and one for another version than `If-Range` names.
pub(super) fn part(headers: &HeaderMap, tag: Option<Tag>, size: usize) -> Part {
    let mut ranges = texts(headers, header::RANGE);
    let (Some(range), None) = (ranges.next(), ranges.next()) else {
        return Part::Whole;
    };
    if let Some(version) = headers.get(header::IF_RANGE) {
        let strong = tag.map(|tag| entity_tag(tag, Form::Raw));
        if strong.as_ref() != Some(version) {
            return Part::Whole;
        }
    }
    let Ok(parsed) = http_range_header::parse_range_header(range) else {
        return Part::Whole;
    };
    if parsed.ranges.len() > 1 {
        return Part::Whole;
    }
    match parsed.validate(size as u64).as_deref() {
        // An empty value has no part.
        Ok(_) if size == 0 => Part::None,
        Ok([range]) => Part::Bytes(*range.start() as usize..size.min(*range.end() as usize + 1)),
        Ok(_) => Part::Whole,
        Err(_) => Part::None,
    }
}

fn texts(headers: &HeaderMap, name: HeaderName) -> impl Iterator<Item = &str> {
    let values = headers.get_all(name).into_iter();
    values.filter_map(|value| value.to_str().ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    const TAG: Tag = Tag { time: 1, op: 0xabc };
    const QUOTED: &str = "\"0000000000000001-0000000000000abc\"";

    fn headers(name: HeaderName, values: &[&str]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for value in values {
            headers.append(&name, value.parse().unwrap());
        }
        headers
    }

    #[test]
    fn a_version_is_held_where_any_entity_tag_names_it() {
        for (given, expected) in [
            (&[QUOTED][..], true),
            (&[&format!("W/{QUOTED}")], true),
            (&[&format!("\"a\", {QUOTED}")], true),
            (&["\"a\"", QUOTED], true),
            (&["*"], true),
            (&["\"a\""], false),
            (&["0000000000000001-0000000000000abc"], false),
            (&[], false),
        ] {
            let headers = headers(header::IF_NONE_MATCH, given);
            assert_eq!(is_held(&headers, TAG), expected, "{given:?}");
        }
    }

    #[test]
    fn one_range_of_bytes_is_given_and_anything_else_is_the_whole() {
        for (given, expected) in [
            (&["bytes=0-0"][..], Part::Bytes(0..1)),
            (&["bytes=2-5"], Part::Bytes(2..6)),
            (&["bytes=2-"], Part::Bytes(2..10)),
            (&["bytes=-3"], Part::Bytes(7..10)),
            (&["bytes=0-99"], Part::Bytes(0..10)),
            (&["bytes=10-"], Part::None),
            (&["bytes=99-100"], Part::None),
            (&["bytes=5-2"], Part::None),
            (&["bytes=0-1, 3-4"], Part::Whole),
            (&["bytes=0-1", "bytes=3-4"], Part::Whole),
            (&["lines=0-1"], Part::Whole),
            (&["nonsense"], Part::Whole),
            (&[], Part::Whole),
        ] {
            let headers = headers(header::RANGE, given);
            assert_eq!(part(&headers, Some(TAG), 10), expected, "{given:?}");
        }
        assert_eq!(
            part(&headers(header::RANGE, &["bytes=0-"]), None, 0),
            Part::None
        );
    }

    #[test]
    fn a_range_of_another_version_is_not_given() {
        let weak = format!("W/{QUOTED}");
        for (version, expected) in [
            (QUOTED, Part::Bytes(0..1)),
            (&*weak, Part::Whole),
            ("\"a\"", Part::Whole),
        ] {
            let mut headers = headers(header::RANGE, &["bytes=0-0"]);
            headers.insert(header::IF_RANGE, version.parse().unwrap());
            assert_eq!(part(&headers, Some(TAG), 10), expected, "{version}");
        }
    }
}
