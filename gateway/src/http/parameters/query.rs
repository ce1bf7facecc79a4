//! Query parameters, parsed once by their declarations; every fault is reported at once.

use std::borrow::Cow;
use std::iter::once;
use std::time::Duration;

use axum::http::{StatusCode, Uri};
use dkvs_common::kv::KEY_BYTES_MAX;
use percent_encoding::percent_decode_str;
use serde::Serialize;
use serde_json::json;

use crate::http::operations::{Boolean, Choice, Integer, Location, NO_PARAMETERS, Parameter, Text};
use crate::http::problem::{Problem, ProblemType, excerpt};

const INVALID_PARAMETER: ProblemType = ProblemType {
    status: StatusCode::BAD_REQUEST,
    name: "invalid-parameter",
    title: "A parameter is not valid",
};

/// What holds for a request that does not say otherwise.
#[derive(Debug, Clone, Copy)]
pub(in crate::http) struct RequestDefaults {
    /// The servers of the cluster, which limit every quorum.
    pub(in crate::http) servers: usize,
    /// Copies of each key.
    pub(in crate::http) replication: u8,
    /// How long a request may take.
    pub(in crate::http) timeout: Duration,
}

/// A parameter that is refused, and what would be right.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(in crate::http) struct InvalidParameter {
    /// Its name, as it was given; the beginning of a long one.
    pub(in crate::http) name: String,
    /// What is wrong, with the allowed range.
    pub(in crate::http) reason: String,
}

/// More bytes of a name than a problem shows of it.
const NAME_BYTES_MAX: usize = 512;

/// Most faults that a problem names. Of further ones it has the number.
const FAULTS_MAX: usize = 8;

/// The problem of a request with these faults in its parameters.
pub(in crate::http) fn invalid_parameters(invalid: Vec<InvalidParameter>) -> Problem {
    problem_of(&invalid, 0)
}

/// The problem of a request with these faults, and so many more.
fn problem_of(invalid: &[InvalidParameter], more: usize) -> Problem {
    let faults = invalid.iter().map(|i| format!("{}: {}", i.name, i.reason));
    let more = (more > 0).then(|| format!("and {more} more"));
    let faults: Vec<_> = faults.chain(more).collect();
    Problem::new(&INVALID_PARAMETER, faults.join("; "))
        .with(json!({ "invalid_parameters": invalid }))
}

/// For operations without query parameters: refuses any.
pub(in crate::http) fn none(uri: &Uri) -> Result<(), Problem> {
    Query::new(uri, NO_PARAMETERS).finish()
}

/// The query parameters of a request, taken out one by one.
///
/// Whatever the query, there are at most as many as are declared, and [`FAULTS_MAX`] faults: a name
/// costs no more than its bytes, however many others there are.
pub(in crate::http) struct Query {
    /// Values are decoded, and need not be text.
    given: Vec<(&'static str, Vec<u8>)>,
    invalid: Vec<InvalidParameter>,
    /// Faults beyond those.
    more: usize,
}

impl Query {
    /// The parameters in the query of `uri`. Refuses names that are not `declared` for the query, and
    /// names that stand twice.
    pub(in crate::http) fn new(uri: &Uri, declared: &[Parameter]) -> Self {
        let mut query = Self {
            given: Vec::new(),
            invalid: Vec::new(),
            more: 0,
        };
        let pairs = uri.query().unwrap_or_default().split('&');
        for pair in pairs.filter(|pair| !pair.is_empty()) {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            match in_query(declared).find(|known| decoded(name).eq(known.bytes())) {
                None => query.refuse_unknown(name, declared),
                Some(name) if query.given.iter().any(|(given, _)| *given == name) => {
                    query.refuse_name(name, "it is given more than once");
                }
                Some(name) => query.given.push((name, decoded(value).collect())),
            }
        }
        query
    }

    /// Parameters that stand elsewhere than in a query, all of them declared.
    pub(in crate::http) fn of_values<const N: usize>(
        given: [(&'static str, Option<String>); N],
        declared: &[Parameter],
    ) -> Self {
        debug_assert!(
            given
                .iter()
                .all(|(name, value)| value.is_none() || is_declared(declared, name))
        );
        let given = given.into_iter();
        let given = given.filter_map(|(name, value)| Some((name, value?.into_bytes())));
        Self {
            given: given.collect(),
            invalid: Vec::new(),
            more: 0,
        }
    }

    /// Fails if anything was refused.
    pub(in crate::http) fn finish(self) -> Result<(), Problem> {
        if self.invalid.is_empty() {
            Ok(())
        } else {
            Err(problem_of(&self.invalid, self.more))
        }
    }

    /// Whether nothing was refused so far.
    pub(super) fn is_valid(&self) -> bool {
        self.invalid.is_empty()
    }

    fn bytes_of(&self, name: &str) -> Option<&[u8]> {
        let mut given = self.given.iter();
        given
            .find(|(given, _)| *given == name)
            .map(|(_, value)| &**value)
    }

    fn value(&self, name: &str) -> Option<Cow<'_, str>> {
        self.bytes_of(name).map(String::from_utf8_lossy)
    }

    /// Refuses a parameter, once: a repeated one may be wrong as well.
    pub(in crate::http) fn refuse<S>(
        &mut self,
        parameter: &Parameter<S>,
        reason: impl Into<String>,
    ) {
        self.refuse_name(parameter.name, reason);
    }

    fn refuse_name(&mut self, name: &str, reason: impl Into<String>) {
        if self.invalid.iter().any(|invalid| invalid.name == name) {
            return;
        }
        if self.invalid.len() == FAULTS_MAX {
            self.more += 1;
            return;
        }
        let (name, reason) = (name.to_owned(), reason.into());
        self.invalid.push(InvalidParameter { name, reason });
    }

    /// Refuses a name as it stands in the query.
    fn refuse_unknown(&mut self, name: &str, declared: &[Parameter]) {
        if self.invalid.len() == FAULTS_MAX {
            self.more += 1;
            return;
        }
        let beginning: Vec<u8> = decoded(name).take(NAME_BYTES_MAX).collect();
        let name = excerpt(&String::from_utf8_lossy(&beginning));
        self.refuse_name(&name, unknown(declared));
    }

    /// A text as it is.
    pub(in crate::http) fn text(&self, parameter: &Parameter<Text>) -> Option<Cow<'_, str>> {
        self.value(parameter.name)
    }

    /// A value that need not be text, no longer than it may be.
    pub(in crate::http) fn bytes(&mut self, parameter: &Parameter<Text>) -> Option<Vec<u8>> {
        let bytes = self.bytes_of(parameter.name)?.to_vec();
        if let Some(max) = parameter.schema.bytes_max
            && bytes.len() > max
        {
            let than = match max {
                KEY_BYTES_MAX => "any key, ",
                _ => "",
            };
            self.refuse(parameter, format!("it is longer than {than}{max} bytes"));
        }
        Some(bytes)
    }

    /// A whole number within its range, or its default. `str::parse` alone would accept a `+`.
    pub(in crate::http) fn number(&mut self, parameter: &Parameter<Integer>) -> Option<u64> {
        let Integer { min, max, default } = parameter.schema;
        let Some(text) = self.value(parameter.name) else {
            return default;
        };
        let number = text.parse::<u64>().ok().filter(|number| {
            text.bytes().all(|byte| byte.is_ascii_digit()) && (min..=max).contains(number)
        });
        if number.is_none() {
            self.refuse(
                parameter,
                format!("it is a whole number from {min} to {max}"),
            );
        }
        number
    }

    /// What a choice stands for, or the default.
    pub(in crate::http) fn choice<T: Copy>(
        &mut self,
        parameter: &Parameter<Choice<T>>,
    ) -> Option<T> {
        let choices = parameter.schema;
        let Some(choice) = self.value(parameter.name) else {
            return choices.default_value();
        };
        let value = choices.value_of(&choice);
        if value.is_none() {
            self.refuse(parameter, format!("it is {}", choices.names().join(" or ")));
        }
        value
    }

    /// `true` or `false`, or the default.
    pub(in crate::http) fn flag(&mut self, parameter: &Parameter<Boolean>) -> bool {
        match self.bytes_of(parameter.name) {
            None => parameter.schema.default,
            Some(b"false") => false,
            Some(b"true") => true,
            Some(_) => {
                self.refuse(parameter, "it is true or false");
                false
            }
        }
    }
}

/// What a name or value of a query stands for, byte by byte.
fn decoded(text: &str) -> impl Iterator<Item = u8> {
    // A `+` is a space, and an escaped one is a `+`.
    let mut parts = text.split('+').map(percent_decode_str);
    let first = parts.next().into_iter().flatten();
    first.chain(parts.flat_map(|part| once(b' ').chain(part)))
}

fn in_query(declared: &[Parameter]) -> impl Iterator<Item = &'static str> {
    let in_query = declared.iter().filter(|it| it.location == Location::Query);
    in_query.map(|it| it.name)
}

fn is_declared(declared: &[Parameter], name: &str) -> bool {
    in_query(declared).any(|known| known == name)
}

fn unknown(declared: &[Parameter]) -> String {
    match &*in_query(declared).collect::<Vec<_>>() {
        [] => "there is no such parameter; this path takes none".to_owned(),
        names => format!(
            "there is no such parameter; this path takes {}",
            names.join(", ")
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::operations::LIST_PARAMETERS;
    use crate::http::operations::parameter::{LIMIT, PREFIX, RAW};

    fn query(text: &str) -> Query {
        let uri: Uri = format!("/kv?{text}").parse().unwrap();
        Query::new(&uri, LIST_PARAMETERS)
    }

    #[test]
    fn a_value_is_decoded_once_and_need_not_be_text() {
        for (text, bytes) in [
            ("prefix=a", &b"a"[..]),
            ("prefix=a%2Fb%ff", b"a/b\xff"),
            ("prefix=a+b%2B", b"a b+"),
            ("prefix=+%20+", b"   "),
            ("prefix==&", b"="),
            ("&&%70refix=x", b"x"),
            ("prefix", b""),
            ("limit=7&prefix=%%2", b"%%2"),
        ] {
            let mut query = query(text);
            assert_eq!(query.bytes(&PREFIX).as_deref(), Some(bytes), "{text}");
            query.finish().unwrap();
        }
        assert_eq!(query("limit=%37").number(&LIMIT), Some(7));
        assert_eq!(query("").bytes(&PREFIX), None);
    }

    #[test]
    fn faults_are_few_whatever_the_query() {
        let distinct = |count| (0..count).map(|n| format!("x{n}&")).collect::<String>();
        for (text, more) in [
            (distinct(FAULTS_MAX), 0),
            (distinct(FAULTS_MAX + 1), 1),
            (distinct(9_000), 9_000 - FAULTS_MAX),
            (distinct(FAULTS_MAX) + &"limit=1&".repeat(5_000), 4_999),
        ] {
            let mut query = query(&text);
            assert_eq!(query.invalid.len(), FAULTS_MAX);
            assert!(query.given.len() <= 1);
            query.refuse(&RAW, "it is true or false");
            assert_eq!(query.more, more + 1);
            let problem = query.finish().unwrap_err();
            let named = problem.member("invalid_parameters").as_array().unwrap();
            assert_eq!(named.len(), FAULTS_MAX);
            let document = problem.document().to_string();
            assert!(document.contains(&format!("; and {} more\"", more + 1)));
        }
        let again = query(&"colour&".repeat(9_000));
        assert_eq!((again.invalid.len(), again.more), (1, 0));
    }

    #[test]
    fn a_document_is_short_whatever_the_names() {
        for name in ["n", "%00", "%22", "%5C", "%F0%9F%98%80", "%FF", "+"] {
            let long = name.repeat(60_000 / name.len());
            let many = |length: usize| {
                let names = (0..9).map(|n| format!("{}{n}&", name.repeat(length)));
                names.collect::<String>()
            };
            for text in [long, many(70), many(600)] {
                let problem = query(&text).finish().unwrap_err();
                let document = problem.document().to_string();
                assert!(document.len() < 6_000, "{name}: {}", document.len());
            }
        }
    }
}
