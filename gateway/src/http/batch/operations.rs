//! The operations of a batch, as its body has them.
//!
//! What is parsed takes no more memory than its text: unknown members end it at once, and operations
//! past the most are counted without being kept.

use std::fmt;

use serde::de::{Error as _, IgnoredAny, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer};
use serde_json::Number;

use crate::http::problem::excerpt;

/// Most operations in a batch.
const OPERATIONS_MAX: usize = 128;

/// Most characters of an error of the JSON that are shown.
const ERROR_CHARS_MAX: usize = 400;

/// Parses the body of a batch.
///
/// # Errors
///
/// What is wrong with it.
pub(super) fn parse(text: &[u8]) -> Result<Vec<Operation>, String> {
    let body: BatchBody = serde_json::from_slice(text).map_err(|error| shown(&error))?;
    let Operations { listed, count } = body.operations;
    if !(1..=OPERATIONS_MAX).contains(&count) {
        return Err(format!(
            "it has {count} operations, and may have 1 to {OPERATIONS_MAX}"
        ));
    }
    Ok(listed)
}

/// What is wrong with a text, and where. It may have names from that text, as long as the text is.
fn shown(error: &serde_json::Error) -> String {
    let text = error.to_string();
    let place = format!(" at line {} column {}", error.line(), error.column());
    let what = text.strip_suffix(&place).unwrap_or(&text);
    let parts = what.split_inclusive('`').map(excerpt);
    let parts: String = parts.take(ERROR_CHARS_MAX).collect();
    parts.chars().take(ERROR_CHARS_MAX).collect::<String>() + &place
}

/// An operation.
#[derive(Debug)]
pub(super) enum Operation {
    Get(Get),
    Put(BatchPut),
    Delete(Delete),
}

#[derive(Debug)]
pub(super) struct Get {
    pub(super) key: Option<String>,
    pub(super) key_base64: Option<String>,
    pub(super) n: Option<Number>,
    pub(super) r: Option<Number>,
    pub(super) consistency: Option<String>,
    pub(super) timeout_ms: Option<Number>,
    pub(super) wait: Option<String>,
}

#[derive(Debug)]
pub(super) struct BatchPut {
    pub(super) value: String,
    pub(super) encoding: Encoding,
    pub(super) content_type: Option<String>,
    pub(super) change: Delete,
}

/// The members of a delete, which a put has beside its own.
#[derive(Debug)]
pub(super) struct Delete {
    pub(super) key: Option<String>,
    pub(super) key_base64: Option<String>,
    pub(super) n: Option<Number>,
    pub(super) w: Option<Number>,
    pub(super) consistency: Option<String>,
    pub(super) timeout_ms: Option<Number>,
    pub(super) wait: Option<String>,
    pub(super) tag: Option<String>,
}

// serde names these members in its errors, which callers see.

#[derive(Debug, Clone, Copy, Deserialize, Default)]
#[serde(rename_all = "lowercase")]
pub(super) enum Encoding {
    #[default]
    #[serde(rename = "utf-8")]
    Utf8,
    Base64,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct BatchBody {
    operations: Operations,
}

struct Operations {
    /// The first of them.
    listed: Vec<Operation>,
    count: usize,
}

#[derive(Clone, Copy, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Kind {
    Get,
    Put,
    Delete,
}

/// The members of any operation. One type for all kinds: serde keeps what it reads before it knows the
/// kind, in many times the bytes of its text.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Members {
    op: Kind,
    key: Option<String>,
    key_base64: Option<String>,
    value: Option<String>,
    encoding: Option<Encoding>,
    content_type: Option<String>,
    n: Option<Number>,
    r: Option<Number>,
    w: Option<Number>,
    consistency: Option<String>,
    timeout_ms: Option<Number>,
    wait: Option<String>,
    tag: Option<String>,
}

impl Members {
    fn into_operation(self) -> Result<Operation, String> {
        let Self {
            op,
            key,
            key_base64,
            value,
            encoding,
            content_type,
            n,
            r,
            w,
            consistency,
            timeout_ms,
            wait,
            tag,
        } = self;
        let is_get = matches!(op, Kind::Get);
        let is_put = matches!(op, Kind::Put);
        let (name, others) = match op {
            Kind::Get => (
                "get",
                "key, key_base64, n, r, consistency, timeout_ms, wait",
            ),
            Kind::Put => (
                "put",
                "key, key_base64, value, encoding, content_type, n, w, consistency, timeout_ms, \
                 wait, tag",
            ),
            Kind::Delete => (
                "delete",
                "key, key_base64, n, w, consistency, timeout_ms, wait, tag",
            ),
        };
        for (member, is_there, is_taken) in [
            ("value", value.is_some(), is_put),
            ("encoding", encoding.is_some(), is_put),
            ("content_type", content_type.is_some(), is_put),
            ("r", r.is_some(), is_get),
            ("w", w.is_some(), !is_get),
            ("tag", tag.is_some(), !is_get),
        ] {
            if is_there && !is_taken {
                return Err(format!(
                    "unknown field `{member}` of a {name}, which has: {others}"
                ));
            }
        }
        if is_get {
            return Ok(Operation::Get(Get {
                key,
                key_base64,
                n,
                r,
                consistency,
                timeout_ms,
                wait,
            }));
        }
        let change = Delete {
            key,
            key_base64,
            n,
            w,
            consistency,
            timeout_ms,
            wait,
            tag,
        };
        if !is_put {
            return Ok(Operation::Delete(change));
        }
        Ok(Operation::Put(BatchPut {
            value: value.ok_or("missing field `value`")?,
            encoding: encoding.unwrap_or_default(),
            content_type,
            change,
        }))
    }
}

impl<'de> Deserialize<'de> for Operations {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_seq(OperationsVisitor)
    }
}

struct OperationsVisitor;

impl<'de> Visitor<'de> for OperationsVisitor {
    type Value = Operations;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("a list of operations")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Operations, A::Error> {
        let mut listed = Vec::new();
        while listed.len() < OPERATIONS_MAX
            && let Some(members) = list.next_element::<Members>()?
        {
            listed.push(members.into_operation().map_err(A::Error::custom)?);
        }
        let mut count = listed.len();
        while list.next_element::<IgnoredAny>()?.is_some() {
            count += 1;
        }
        Ok(Operations { listed, count })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(operation: &str) -> String {
        let text = format!("{{\"operations\":[{operation}]}}");
        parse(text.as_bytes()).unwrap_err()
    }

    #[test]
    fn an_operation_has_the_members_of_its_kind_and_no_other() {
        for (operation, reason) in [
            (r#"{"key":"k"}"#, "missing field `op`"),
            (r#"{"op":"post","key":"k"}"#, "unknown variant `post`"),
            (r#"{"op":"put","key":"k"}"#, "missing field `value`"),
            (r#"{"op":"get","key":"k","x":[0,0,0]}"#, "unknown field `x`"),
            (
                r#"{"op":"get","key":"k","value":""}"#,
                "unknown field `value`",
            ),
            (
                r#"{"op":"get","key":"k","w":1}"#,
                "unknown field `w` of a get",
            ),
            (
                r#"{"op":"delete","key":"k","r":1}"#,
                "unknown field `r` of a delete",
            ),
            (
                r#"{"op":"put","value":"","encoding":"x"}"#,
                "unknown variant `x`",
            ),
            (r#"{"op":"get","n":"3"}"#, "invalid type: string"),
            (
                r#"{"op":"get","key":"k","key":"l"}"#,
                "duplicate field `key`",
            ),
            ("[]", "invalid length 0"),
            ("7", "invalid type: integer `7`"),
        ] {
            let error = refused(operation);
            assert!(error.contains(reason), "{operation}: {error}");
            assert!(error.contains("line 1 column"), "{operation}: {error}");
        }
    }

    #[test]
    fn operations_past_the_most_are_counted_and_not_kept() {
        let operations = |count| vec![r#"{"op":"get","key":"k"}"#; count].join(",");
        for (count, is_taken) in [(1, true), (128, true), (129, false), (50_000, false)] {
            let text = format!("{{\"operations\":[{}]}}", operations(count));
            let parsed = parse(text.as_bytes());
            match is_taken {
                true => assert_eq!(parsed.unwrap().len(), count),
                false => assert!(parsed.unwrap_err().starts_with(&format!("it has {count} "))),
            }
        }
        assert!(refused("").starts_with("it has 0 operations"));
    }
}
