//! The form of a response that the caller prefers (RFC 9110, section 12.5.1).

use axum::http::{HeaderMap, StatusCode, header};

use super::problem::{Problem, ProblemType};

const NOT_ACCEPTABLE: ProblemType = ProblemType {
    status: StatusCode::NOT_ACCEPTABLE,
    name: "not-acceptable",
    title: "No acceptable form",
};

/// `Accept` refuses every form that there is.
pub(super) fn not_acceptable(detail: &'static str) -> Problem {
    Problem::new(&NOT_ACCEPTABLE, detail)
}

/// The forms of a value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Form {
    /// A JSON document with the report on the request.
    Json,
    /// The value's bytes.
    Raw,
}

/// The form of a value that the `Accept` headers rank highest, JSON among equals; none if both are
/// refused.
pub(super) fn form(headers: &HeaderMap) -> Option<Form> {
    let is_raw = ranks_over_json(headers, "octet-stream")?;
    Some(if is_raw { Form::Raw } else { Form::Json })
}

/// Whether lines are preferred to one JSON document; none if both are refused.
pub(super) fn lines(headers: &HeaderMap) -> Option<bool> {
    ranks_over_json(headers, "x-ndjson")
}

/// Whether `application/<subtype>` is ranked higher than JSON; none if both are refused.
fn ranks_over_json(headers: &HeaderMap, subtype: &str) -> Option<bool> {
    let ranges: Vec<Range<'_>> = headers
        .get_all(header::ACCEPT)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .filter_map(Range::parse)
        .collect();
    if ranges.is_empty() {
        return Some(false);
    }
    let quality = |subtype| {
        let matching = ranges
            .iter()
            .filter_map(|range| Some((range.specificity(subtype)?, range.quality)));
        matching
            .max_by_key(|(specificity, _)| *specificity)
            .map_or(0, |(_, quality)| quality)
    };
    match (quality("json"), quality(subtype)) {
        (0, 0) => None,
        (json, other) => Some(other > json),
    }
}

struct Range<'a> {
    kind: &'a str,
    subtype: &'a str,
    /// In thousandths.
    quality: u16,
}

impl<'a> Range<'a> {
    /// None for text that is no media range, which is ignored.
    fn parse(text: &'a str) -> Option<Self> {
        let mut parts = text.split(';').map(str::trim);
        let (kind, subtype) = parts.next()?.split_once('/')?;
        let quality = parts
            .filter_map(|parameter| parameter.split_once('='))
            .find(|(name, _)| name.trim().eq_ignore_ascii_case("q"))
            .map_or(Some(1.0), |(_, value)| value.trim().parse::<f32>().ok())
            .filter(|quality| (0.0..=1.0).contains(quality))?;
        let quality = (quality * 1_000.0).round() as u16;
        Some(Self {
            kind,
            subtype,
            quality,
        })
    }

    /// How closely this range names `application/<subtype>`; none if it does not.
    fn specificity(&self, subtype: &str) -> Option<u8> {
        match (self.kind, self.subtype) {
            ("*", "*") => Some(0),
            (kind, _) if !kind.eq_ignore_ascii_case("application") => None,
            (_, "*") => Some(1),
            (_, named) => named.eq_ignore_ascii_case(subtype).then_some(2),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_highest_ranked_form_wins_and_json_among_equals() {
        for (accept, expected) in [
            ("*/*", Some(Form::Json)),
            ("application/json", Some(Form::Json)),
            ("Application/JSON; charset=utf-8", Some(Form::Json)),
            ("application/octet-stream", Some(Form::Raw)),
            (
                "application/octet-stream, application/json",
                Some(Form::Json),
            ),
            ("application/octet-stream, */*;q=0.1", Some(Form::Raw)),
            ("application/*;q=0.5, application/json;q=0", Some(Form::Raw)),
            (
                "text/html, application/xhtml+xml, */*;q=0.8",
                Some(Form::Json),
            ),
            ("text/html", None),
            ("application/json;q=0", None),
            ("*/*;q=0", None),
            ("", Some(Form::Json)),
            ("nonsense", Some(Form::Json)),
        ] {
            let mut headers = HeaderMap::new();
            headers.insert(header::ACCEPT, accept.parse().unwrap());
            assert_eq!(form(&headers), expected, "{accept}");
        }
        assert_eq!(form(&HeaderMap::new()), Some(Form::Json));
    }
}
