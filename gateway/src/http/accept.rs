//! The form of a response that the caller prefers (RFC 9110, section 12.5.1).

use axum::http::{HeaderMap, StatusCode, header};

use super::problem::{Problem, ProblemType};

const NOT_ACCEPTABLE: ProblemType = ProblemType {
    status: StatusCode::NOT_ACCEPTABLE,
    name: "not-acceptable",
    title: "No acceptable form",
};

/// Most parameters of a media range, and of a value's type, that are compared.
const PARAMETERS_MAX: usize = 8;

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

/// The form of a value, stored with this content type, that the `Accept` headers rank highest: JSON
/// among equals, its bytes where these or its type are ranked higher; none if all are refused.
pub(super) fn form(headers: &HeaderMap, stored: &[u8]) -> Option<Form> {
    const BYTES: MediaType<'_> = MediaType::application("octet-stream");
    if !headers.contains_key(header::ACCEPT) {
        return Some(Form::Json);
    }
    let stored = MediaType::parse(stored);
    let is_raw = ranks_over_json(headers, [Some(BYTES), stored])?;
    Some(if is_raw { Form::Raw } else { Form::Json })
}

/// Whether lines are preferred to one JSON document; none if both are refused.
pub(super) fn lines(headers: &HeaderMap) -> Option<bool> {
    ranks_over_json(headers, [Some(MediaType::application("x-ndjson")), None])
}

/// Whether one of these types is ranked higher than JSON; none if all are refused.
fn ranks_over_json(headers: &HeaderMap, others: [Option<MediaType<'_>>; 2]) -> Option<bool> {
    const JSON: MediaType<'_> = MediaType::application("json");
    let mut ranks = [Rank::default(); 3];
    let [first, second] = others;
    let types = [Some(JSON), first, second];
    let mut is_any_given = false;
    for line in headers.get_all(header::ACCEPT) {
        let members = line
            .to_str()
            .into_iter()
            .flat_map(|line| Unquoted(line, b','));
        for range in members.filter_map(Range::parse) {
            is_any_given = true;
            for (rank, media_type) in ranks.iter_mut().zip(&types) {
                if let Some(media_type) = media_type {
                    rank.improve(&range, media_type);
                }
            }
        }
    }
    if !is_any_given {
        return Some(false);
    }
    let [json, first, second] = ranks.map(|rank| rank.quality);
    let other = first.max(second);
    (json > 0 || other > 0).then_some(other > json)
}

/// How highly a type is ranked, by the range that names it most closely.
#[derive(Clone, Copy, Default)]
struct Rank {
    specificity: u8,
    /// In thousandths.
    quality: u16,
}

impl Rank {
    fn improve(&mut self, range: &Range<'_>, media_type: &MediaType<'_>) {
        if let Some(specificity) = range.specificity(media_type)
            && specificity >= self.specificity
        {
            let quality = range.quality;
            *self = Self {
                specificity,
                quality,
            };
        }
    }
}

/// A type that a response can have.
#[derive(Clone, Copy)]
struct MediaType<'a> {
    kind: &'a str,
    subtype: &'a str,
    /// Their names and values; none of a form that the gateway makes, for which they do not matter.
    parameters: Option<[(&'a str, &'a str); PARAMETERS_MAX]>,
}

impl<'a> MediaType<'a> {
    const fn application(subtype: &'a str) -> Self {
        Self {
            kind: "application",
            subtype,
            parameters: None,
        }
    }

    /// The content type that a value is stored with; none if it is not one.
    fn parse(text: &'a [u8]) -> Option<Self> {
        let text = std::str::from_utf8(text).ok()?;
        let (essence, parameters) = text.split_once(';').unwrap_or((text, ""));
        let (kind, subtype) = essence.trim().split_once('/')?;
        let is_token = |text: &str| !text.is_empty() && !text.contains(['*', '/', ' ', ',']);
        // Read once, and no more than a range may name: they are compared with each range.
        let mut first = [("", ""); PARAMETERS_MAX];
        for (place, parameter) in first.iter_mut().zip(named(parameters)) {
            *place = parameter;
        }
        (is_token(kind) && is_token(subtype)).then_some(Self {
            kind,
            subtype,
            parameters: Some(first),
        })
    }

    fn has(&self, (name, value): (&str, &str)) -> bool {
        let Some(parameters) = &self.parameters else {
            return true;
        };
        parameters
            .iter()
            .filter(|(known, _)| !known.is_empty())
            .any(|(known, has)| known.eq_ignore_ascii_case(name) && has.eq_ignore_ascii_case(value))
    }
}

struct Range<'a> {
    kind: &'a str,
    subtype: &'a str,
    /// With the semicolon before each.
    parameters: &'a str,
    /// In thousandths.
    quality: u16,
}

impl<'a> Range<'a> {
    /// None for text that is no media range, which is ignored.
    fn parse(text: &'a str) -> Option<Self> {
        let (essence, parameters) = text.split_once(';').unwrap_or((text, ""));
        let (kind, subtype) = essence.trim().split_once('/')?;
        let mut weights = named(parameters).filter(|(name, _)| is_weight(name));
        let quality = match weights.next() {
            None => 1.0,
            // A weight has five characters.
            Some((_, value)) if value.len() > 16 => return None,
            Some((_, value)) => value.parse::<f32>().ok()?,
        };
        if !(0.0..=1.0).contains(&quality) {
            return None;
        }
        let quality = (quality * 1_000.0).round() as u16;
        Some(Self {
            kind,
            subtype,
            parameters,
            quality,
        })
    }

    /// How closely this range names a type; none if it does not.
    fn specificity(&self, media_type: &MediaType<'_>) -> Option<u8> {
        let MediaType { kind, subtype, .. } = media_type;
        match (self.kind, self.subtype) {
            ("*", "*") => Some(0),
            (named, _) if !named.eq_ignore_ascii_case(kind) => None,
            (_, "*") => Some(1),
            (_, named) if !named.eq_ignore_ascii_case(subtype) => None,
            _ => {
                let mut wanted = named(self.parameters).filter(|(name, _)| !is_weight(name));
                let is_as_wanted = |one| media_type.has(one);
                let has_all = wanted.by_ref().take(PARAMETERS_MAX).all(is_as_wanted);
                let has_none = named(self.parameters).all(|(name, _)| is_weight(name));
                let is_specific = media_type.parameters.is_some() && !has_none;
                (has_all && wanted.next().is_none()).then_some(2 + u8::from(is_specific))
            }
        }
    }
}

/// Parameters with their values.
fn named(parameters: &str) -> impl Iterator<Item = (&str, &str)> {
    let all = Unquoted(parameters, b';').filter_map(|one| one.split_once('='));
    all.map(|(name, value)| (name.trim(), unquote(value.trim())))
}

fn is_weight(name: &str) -> bool {
    name.eq_ignore_ascii_case("q")
}

fn unquote(value: &str) -> &str {
    let inner = value.strip_prefix('"').and_then(|it| it.strip_suffix('"'));
    inner.unwrap_or(value)
}

/// The parts of a text between delimiters that stand in no quoted string.
struct Unquoted<'a>(&'a str, u8);

impl<'a> Iterator for Unquoted<'a> {
    type Item = &'a str;

    fn next(&mut self) -> Option<&'a str> {
        if self.0.is_empty() {
            return None;
        }
        let (mut is_quoted, mut is_escaped) = (false, false);
        let end = self.0.bytes().position(|byte| {
            let is_end = byte == self.1 && !is_quoted;
            match byte {
                _ if is_escaped => is_escaped = false,
                b'\\' if is_quoted => is_escaped = true,
                b'"' => is_quoted = !is_quoted,
                _ => {}
            }
            is_end
        });
        let (part, rest) = match end {
            Some(end) => (&self.0[..end], &self.0[end + 1..]),
            None => (self.0, ""),
        };
        self.0 = rest;
        Some(part.trim())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BROWSER: &str = "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8";
    const IMAGES: &str = "image/avif,image/webp,image/png,image/*;q=0.8,*/*;q=0.5";

    fn accepting(accept: &str) -> HeaderMap {
        let mut headers = HeaderMap::new();
        headers.insert(header::ACCEPT, accept.parse().unwrap());
        headers
    }

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
            (BROWSER, Some(Form::Json)),
            (IMAGES, Some(Form::Json)),
            ("text/html", None),
            ("application/json;q=0", None),
            ("*/*;q=0", None),
            ("", Some(Form::Json)),
            ("nonsense", Some(Form::Json)),
            ("application/json;q=2", Some(Form::Json)),
            ("text/x;a=\"b, application/octet-stream, \\\", c\"", None),
        ] {
            assert_eq!(form(&accepting(accept), b""), expected, "{accept}");
        }
        assert_eq!(form(&HeaderMap::new(), b"text/plain"), Some(Form::Json));
    }

    #[test]
    fn a_value_is_given_as_the_type_that_it_was_stored_with_where_that_is_named() {
        const PLAIN: &str = "text/plain; charset=UTF-8; format=flowed";
        for (accept, stored, expected) in [
            ("text/plain", "text/plain", Some(Form::Raw)),
            ("text/*", "text/plain", Some(Form::Raw)),
            ("Text/PLAIN", "text/plain", Some(Form::Raw)),
            ("text/plain", PLAIN, Some(Form::Raw)),
            ("text/plain;charset=utf-8", PLAIN, Some(Form::Raw)),
            ("text/plain;format=\"flowed\";q=0.1", PLAIN, Some(Form::Raw)),
            ("text/plain;charset=latin1", PLAIN, None),
            ("text/plain;charset=utf-8", "text/plain", None),
            ("text/plain;q=0, text/*", PLAIN, None),
            (
                "text/plain;format=flowed, text/plain;q=0",
                PLAIN,
                Some(Form::Raw),
            ),
            ("text/plain", "text/html", None),
            ("text/plain, */*;q=0.5", "text/plain", Some(Form::Raw)),
            ("text/plain, */*", "text/plain", Some(Form::Json)),
            ("text/plain;q=0.5, */*", "text/plain", Some(Form::Json)),
            (
                "text/plain;q=0.5, application/json",
                "text/plain",
                Some(Form::Json),
            ),
            ("*/*", "text/plain", Some(Form::Json)),
            ("application/*", "application/pdf", Some(Form::Json)),
            ("application/json", "application/json", Some(Form::Json)),
            (BROWSER, "text/html", Some(Form::Raw)),
            (BROWSER, "text/plain", Some(Form::Json)),
            (IMAGES, "image/png", Some(Form::Raw)),
            ("image/png", "image/png", Some(Form::Raw)),
            ("text/plain", "text/plain, text/html", None),
            ("*/plain", "*/plain", None),
            ("text/plain", "\u{7f}\u{e9}", None),
            ("text/plain", "", None),
        ] {
            let found = form(&accepting(accept), stored.as_bytes());
            assert_eq!(found, expected, "{accept} of {stored}");
        }
        let many = "text/plain".to_owned() + &";format=flowed".repeat(PARAMETERS_MAX + 1);
        assert_eq!(form(&accepting(&many), PLAIN.as_bytes()), None);
    }
}
