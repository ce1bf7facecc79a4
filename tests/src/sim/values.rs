//! What is written: values that identify their operation, whole and to the last byte, and attributes
//! that do, where there are any.

use dkvs_common::kv::Value;
use dkvs_common::record::{Attributes, Content, ContentType, OperationId};

use crate::history::Action;

/// How long the value is that an action writes, if it is to be about so long.
pub fn bytes(action: Action, about: usize) -> Option<usize> {
    match action {
        Action::Write(number)
        | Action::Conditional {
            then: Some(number), ..
        } => Some(about.max(name(number).len())),
        Action::Read | Action::Delete | Action::Conditional { then: None, .. } => None,
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

/// What the operation of this number writes beside the content, asked for the so manyth time: of eight
/// operations in a row each has another choice of attributes. The age may grow by each attempt.
pub fn attributes(number: u64, attempt: u32) -> Attributes {
    let is_set = |bit: u32| number >> bit & 1 == 1;
    let ages = (number as u32 + 1) * AGES_PER_OPERATION;
    let attempt = attempt.min(AGES_PER_OPERATION - 1);
    let mut operation = [0; 16];
    operation[8..].copy_from_slice(&number.to_be_bytes());
    Attributes {
        born: match (is_set(0), is_set(3)) {
            (true, true) => ages + attempt,
            (true, false) => ages,
            (false, true) if attempt > 1 => ages + attempt,
            (false, _) => 0,
        },
        expires_ms: is_set(1).then_some(1_000 + number),
        operation: is_set(2).then_some(OperationId(operation)),
    }
}

/// Which operation attributes are from, if age or operation are among them.
pub fn number_in(attributes: &Attributes) -> Option<u64> {
    let Attributes {
        born, operation, ..
    } = attributes;
    let by_operation = operation.map(|OperationId(bytes)| {
        let [.., a, b, c, d, e, f, g, h] = bytes;
        u64::from_be_bytes([a, b, c, d, e, f, g, h])
    });
    let by_age = (*born / AGES_PER_OPERATION).checked_sub(1);
    by_operation.or(by_age.map(u64::from))
}

const AGES_PER_OPERATION: u32 = 16;

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
    fn attributes_show_their_number_if_they_have_an_age_or_an_operation() {
        for number in 0..64 {
            for attempt in 1..5 {
                let attributes = attributes(number, attempt);
                let is_shown = attributes.born != 0 || attributes.operation.is_some();
                assert_eq!(number_in(&attributes), is_shown.then_some(number));
            }
        }
        assert!(attributes(0, 9).is_none());
    }

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
