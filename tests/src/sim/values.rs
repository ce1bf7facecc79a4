//! What is written: values that identify their operation, whole and to the last byte.

use dkvs_common::kv::Value;
use dkvs_common::record::{Content, ContentType};

use crate::history::Action;

/// How long the value is that an action writes, if it is to be about so long.
pub fn bytes(action: Action, about: usize) -> Option<usize> {
    match action {
        Action::Write(number) => Some(about.max(name(number).len())),
        Action::Read | Action::Delete => None,
    }
}

/// The content that the operation of this number writes, about so many bytes long.
pub fn content(number: u64, about: usize) -> Content {
    let name = name(number);
    let bytes = about.max(name.len());
    let value: Vec<u8> = name.bytes().cycle().take(bytes).collect();
    Content::Value {
        content_type: content_type(number),
        value: Value::new(value).expect("values here are short"),
    }
}

/// Which operation a value is from, by its first bytes.
pub fn number_at_start(value: &[u8]) -> Option<u64> {
    let end = value.iter().position(|byte| *byte == b' ')?;
    let digits = std::str::from_utf8(&value[..end]).ok()?;
    digits.strip_prefix('v')?.parse().ok()
}

/// Which operation a value is from, if it is what [`content`] makes for it. `may_be_untyped` where
/// it may have travelled by DKVS/1, which has no types.
pub fn number_of(value: &Value, held_type: &ContentType, may_be_untyped: bool) -> Option<u64> {
    let number = number_at_start(value.as_bytes())?;
    let Content::Value {
        content_type,
        value: whole,
    } = content(number, value.len())
    else {
        return None;
    };
    let is_untyped = may_be_untyped && *held_type == ContentType::default();
    (whole == *value && (content_type == *held_type || is_untyped)).then_some(number)
}

fn name(number: u64) -> String {
    format!("v{number} ")
}

fn content_type(number: u64) -> ContentType {
    ContentType::new(format!("t/{number}")).expect("a type here is short")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_shows_its_number_and_a_changed_one_does_not() {
        for (number, bytes) in [(0, 0), (7, 3), (17, 64), (123_456, 8_192)] {
            let Content::Value {
                content_type,
                value,
            } = content(number, bytes)
            else {
                panic!("it is a value");
            };
            assert_eq!(number_of(&value, &content_type, false), Some(number));
            assert_eq!(number_of(&value, &ContentType::default(), false), None);
            assert_eq!(
                number_of(&value, &ContentType::default(), true),
                Some(number)
            );
            let mut changed = value.as_bytes().to_vec();
            *changed.last_mut().unwrap() ^= 1;
            let changed = Value::new(changed).unwrap();
            assert_eq!(number_of(&changed, &content_type, true), None);
        }
    }
}
