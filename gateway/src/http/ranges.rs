//! Which bytes of a value a request wants (RFC 9110, section 14).

use std::ops::Range;

use axum::http::{HeaderMap, header};
use dkvs_common::tag::Tag;

use super::accept::Form;
use super::conditional::entity_tag;

/// Which bytes of a value the caller gets.
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
/// another unit or no valid range, and one for another version than `If-Range` names.
pub(super) fn part(headers: &HeaderMap, tag: Option<Tag>, size: usize) -> Part {
    let mut given = headers.get_all(header::RANGE).iter();
    let (Some(given), None) = (given.next(), given.next()) else {
        return Part::Whole;
    };
    if !is_of_version(headers, tag) {
        return Part::Whole;
    }
    let size = size as u64;
    let range = match given.to_str().ok().and_then(ByteRange::parse) {
        None => return Part::Whole,
        Some(ByteRange::Suffix(0)) => return Part::None,
        // The whole of nothing, which no Content-Range can name.
        Some(ByteRange::Suffix(_)) if size == 0 => return Part::Whole,
        Some(ByteRange::Suffix(length)) => size.saturating_sub(length)..size,
        Some(ByteRange::From(first, _)) if first >= size => return Part::None,
        Some(ByteRange::From(first, last)) => first..last.saturating_add(1).min(size),
    };
    Part::Bytes(range.start as usize..range.end as usize)
}

/// Whether `If-Range` names this version, or there is none. A date is none that the gateway gave, and
/// a weak entity tag is not of certain bytes.
fn is_of_version(headers: &HeaderMap, tag: Option<Tag>) -> bool {
    let mut given = headers.get_all(header::IF_RANGE).iter();
    match (given.next(), given.next()) {
        (None, _) => true,
        (Some(given), None) => {
            let current = tag.map(|tag| entity_tag(tag, Form::Raw));
            current.is_some_and(|current| *given == current)
        }
        (Some(_), Some(_)) => false,
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum ByteRange {
    /// From this byte to the other, which is included.
    From(u64, u64),
    /// So many bytes at the end.
    Suffix(u64),
}

impl ByteRange {
    /// The one range of bytes that a header has; none if that is anything else.
    fn parse(text: &str) -> Option<Self> {
        let (unit, set) = text.split_once('=')?;
        if !unit.eq_ignore_ascii_case("bytes") {
            return None;
        }
        let members = set.split(',').map(|one| one.trim_matches([' ', '\t']));
        let mut members = members.filter(|one| !one.is_empty());
        let (Some(one), None) = (members.next(), members.next()) else {
            return None;
        };
        match one.split_once('-')? {
            ("", length) => Some(Self::Suffix(number(length)?)),
            (first, "") => Some(Self::From(number(first)?, u64::MAX)),
            (first, last) => {
                let (first, last) = (number(first)?, number(last)?);
                (first <= last).then_some(Self::From(first, last))
            }
        }
    }
}

/// A number in decimal digits; the greatest one for any that is greater.
fn number(digits: &str) -> Option<u64> {
    let is_number = !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit());
    is_number.then(|| digits.parse().unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::http::{HeaderName, HeaderValue};

    const TAG: Tag = Tag { time: 1, op: 0xabc };
    const QUOTED: &str = "\"0000000000000001-0000000000000abc\"";

    fn headers(name: &HeaderName, values: &[&str]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for value in values {
            headers.append(name, value.parse().unwrap());
        }
        headers
    }

    #[test]
    fn one_range_of_bytes_is_given_and_anything_else_is_the_whole() {
        const LARGE: &str = "bytes=0-99999999999999999999999999";
        for (given, expected) in [
            (&["bytes=0-0"][..], Part::Bytes(0..1)),
            (&["bytes=2-5"], Part::Bytes(2..6)),
            (&["bytes=2-"], Part::Bytes(2..10)),
            (&["bytes=9-"], Part::Bytes(9..10)),
            (&["bytes=-3"], Part::Bytes(7..10)),
            (&["bytes=-10"], Part::Bytes(0..10)),
            (&["bytes=-11"], Part::Bytes(0..10)),
            (&["bytes=-99999999999999999999999999"], Part::Bytes(0..10)),
            (&["bytes=0-99"], Part::Bytes(0..10)),
            (&["bytes=00-01"], Part::Bytes(0..2)),
            (&[LARGE], Part::Bytes(0..10)),
            (&["BYTES=0-0"], Part::Bytes(0..1)),
            (&["bytes=, 0-0 ,,"], Part::Bytes(0..1)),
            (&["bytes=-0"], Part::None),
            (&["bytes=10-"], Part::None),
            (&["bytes=99-100"], Part::None),
            (&["bytes=99999999999999999999999999-"], Part::None),
            (&["bytes=5-2"], Part::Whole),
            (&["bytes=0-1, 3-4"], Part::Whole),
            (&["bytes=0-1,99-"], Part::Whole),
            (&["bytes=0-1", "bytes=3-4"], Part::Whole),
            (&["lines=0-1"], Part::Whole),
            (&["bytes = 0-1"], Part::Whole),
            (&["bytes 0-1"], Part::Whole),
            (&["bytes=0"], Part::Whole),
            (&["bytes=-"], Part::Whole),
            (&["bytes="], Part::Whole),
            (&["bytes=+1-2"], Part::Whole),
            (&["bytes=0x1-2"], Part::Whole),
            (&["bytes=1-2-3"], Part::Whole),
            (&["bytes=--3"], Part::Whole),
            (&["nonsense"], Part::Whole),
            (&[""], Part::Whole),
            (&[], Part::Whole),
        ] {
            let headers = headers(&header::RANGE, given);
            assert_eq!(part(&headers, Some(TAG), 10), expected, "{given:?}");
        }
    }

    #[test]
    fn of_nothing_the_last_bytes_are_all_there_is_and_no_other_are_there() {
        for (given, expected) in [
            ("bytes=-5", Part::Whole),
            ("bytes=-0", Part::None),
            ("bytes=0-", Part::None),
            ("bytes=0-0", Part::None),
            ("lines=1", Part::Whole),
        ] {
            let headers = headers(&header::RANGE, &[given]);
            assert_eq!(part(&headers, None, 0), expected, "{given}");
        }
    }

    #[test]
    fn a_range_of_another_version_is_not_given() {
        let weak = format!("W/{QUOTED}");
        for (versions, expected) in [
            (&[QUOTED][..], Part::Bytes(0..1)),
            (&[&*weak], Part::Whole),
            (&["\"a\""], Part::Whole),
            (&["*"], Part::Whole),
            (&["Sun, 09 Sep 2001 01:46:40 GMT"], Part::Whole),
            (&[QUOTED, QUOTED], Part::Whole),
        ] {
            let mut headers = headers(&header::IF_RANGE, versions);
            headers.insert(header::RANGE, HeaderValue::from_static("bytes=0-0"));
            assert_eq!(part(&headers, Some(TAG), 10), expected, "{versions:?}");
            // One for bytes that are not there is ignored as well.
            headers.insert(header::RANGE, HeaderValue::from_static("bytes=99-"));
            let of_this = expected != Part::Whole;
            let beyond = if of_this { Part::None } else { Part::Whole };
            assert_eq!(part(&headers, Some(TAG), 10), beyond, "{versions:?}");
        }
    }
}
