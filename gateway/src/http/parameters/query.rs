//! Query parameters, parsed once by their declarations; every fault is reported at once.

use std::time::Duration;

use axum::http::{StatusCode, Uri};
use percent_encoding::percent_decode_str;
use serde::Serialize;
use serde_json::json;

use crate::http::operations::{Boolean, Choice, Integer, Location, NO_PARAMETERS, Parameter, Text};
use crate::http::problem::{Problem, ProblemType};

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
    /// Its name, as it was given.
    pub(in crate::http) name: String,
    /// What is wrong, with the allowed range.
    pub(in crate::http) reason: String,
}

/// The problem of a request with these faults in its parameters.
pub(in crate::http) fn invalid_parameters(invalid: Vec<InvalidParameter>) -> Problem {
    let reasons: Vec<_> = invalid
        .iter()
        .map(|i| format!("{}: {}", i.name, i.reason))
        .collect();
    Problem::new(&INVALID_PARAMETER, reasons.join("; "))
        .with(json!({ "invalid_parameters": invalid }))
}

/// For operations without query parameters: refuses any.
pub(in crate::http) fn none(uri: &Uri) -> Result<(), Problem> {
    Query::new(uri, NO_PARAMETERS).finish()
}

/// The query parameters of a request, taken out one by one.
pub(in crate::http) struct Query {
    given: Vec<(String, String)>,
    invalid: Vec<InvalidParameter>,
}

impl Query {
    /// The parameters in the query of `uri`. Refuses names that are not `declared` for the query, and
    /// names that stand twice.
    pub(in crate::http) fn new(uri: &Uri, declared: &[Parameter]) -> Self {
        let mut query = Self {
            given: Vec::new(),
            invalid: Vec::new(),
        };
        for (name, value) in form_urlencoded::parse(uri.query().unwrap_or_default().as_bytes()) {
            if !is_declared(declared, &name) {
                query.refuse_name(&name, unknown(declared));
            } else if query.given.iter().any(|(given, _)| *given == name) {
                query.refuse_name(&name, "it is given more than once");
            } else {
                query.given.push((name.into_owned(), value.into_owned()));
            }
        }
        query
    }

    /// Parameters that stand elsewhere than in a query, all of them declared.
    pub(in crate::http) fn of_values<const N: usize>(
        given: [(&str, Option<String>); N],
        declared: &[Parameter],
    ) -> Self {
        debug_assert!(
            given
                .iter()
                .all(|(name, value)| value.is_none() || is_declared(declared, name))
        );
        let given = given.into_iter();
        let given = given.filter_map(|(name, value)| Some((name.to_owned(), value?)));
        Self {
            given: given.collect(),
            invalid: Vec::new(),
        }
    }

    /// Fails if anything was refused.
    pub(in crate::http) fn finish(self) -> Result<(), Problem> {
        if self.invalid.is_empty() {
            Ok(())
        } else {
            Err(invalid_parameters(self.invalid))
        }
    }

    /// Whether nothing was refused so far.
    pub(super) fn is_valid(&self) -> bool {
        self.invalid.is_empty()
    }

    fn value(&self, name: &str) -> Option<&str> {
        let mut given = self.given.iter();
        given
            .find(|(given, _)| given == name)
            .map(|(_, value)| &**value)
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
        let (name, reason) = (name.to_owned(), reason.into());
        if !self.invalid.iter().any(|invalid| invalid.name == name) {
            self.invalid.push(InvalidParameter { name, reason });
        }
    }

    /// A text as it is.
    pub(in crate::http) fn text(&self, parameter: &Parameter<Text>) -> Option<&str> {
        self.value(parameter.name)
    }

    /// A value that need not be text, percent-decoded, no longer than a key may be.
    pub(in crate::http) fn bytes(
        &mut self,
        uri: &Uri,
        parameter: &Parameter<Text>,
    ) -> Option<Vec<u8>> {
        // `form_urlencoded` replaces what is no text, so this reads the query again.
        let pairs = uri.query().unwrap_or_default().split('&');
        let mut pairs = pairs.map(|pair| pair.split_once('=').unwrap_or((pair, "")));
        let is_named = |given: &str| percent_decode_str(given).eq(parameter.name.bytes());
        let (_, value) = pairs.find(|(given, _)| is_named(given))?;
        let bytes: Vec<u8> = percent_decode_str(&value.replace('+', " ")).collect();
        if let Some(max) = parameter.schema.bytes_max
            && bytes.len() > max
        {
            self.refuse(parameter, format!("it is longer than any key, {max} bytes"));
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
        let value = choices.value_of(choice);
        if value.is_none() {
            self.refuse(parameter, format!("it is {}", choices.names().join(" or ")));
        }
        value
    }

    /// `true` or `false`, or the default.
    pub(in crate::http) fn flag(&mut self, parameter: &Parameter<Boolean>) -> bool {
        match self.value(parameter.name) {
            None => parameter.schema.default,
            Some("false") => false,
            Some("true") => true,
            Some(_) => {
                self.refuse(parameter, "it is true or false");
                false
            }
        }
    }
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
