//! What a client makes of a gateway's reply: what a register's history says of it.
//!
//! Nothing is taken for granted: a status, a problem or a level that a sound gateway does not give
//! to such a request is a [`Surprise`], which ends the run.

use serde_json::Value as Json;

use super::level::Level;
use crate::history::Reply;

/// What a gateway said to a write.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Written {
    pub reply: Reply,
    /// The write's own, by which it can be sent again.
    pub tag: Option<String>,
}

/// A reply that no sound gateway gives.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Surprise(pub String);

/// The reply to a GET.
pub(super) fn to_read(level: Level, status: u16, json: &Json) -> Result<Reply, Surprise> {
    match (status, problem(json)) {
        (200, None) => {
            demand_level(level, status, json)?;
            let value = json["value"].as_str().and_then(number_in);
            let value = value.ok_or_else(|| surprise("a value that nobody wrote", status, json))?;
            Ok(Reply::Holds(Some(value)))
        }
        (404, Some("key-not-found")) => {
            demand_level(level, status, json)?;
            Ok(Reply::Holds(None))
        }
        (503, Some("quorum-unreachable" | "overloaded")) | (504, Some("timeout")) => {
            Ok(Reply::Unknown)
        }
        (409, Some("replicas-disagree")) if level == Level::Agreement => Ok(Reply::Unknown),
        _ => Err(surprise("no reply to a read", status, json)),
    }
}

/// The reply to a PUT or DELETE; `has_tag` when it was sent under one, be it that of its caller, and
/// `is_repeated` when it was sent before. That the repetition was not applied says nothing of what it
/// repeats.
pub fn to_write(
    level: Level,
    (has_tag, is_repeated): (bool, bool),
    status: u16,
    json: &Json,
) -> Result<Written, Surprise> {
    let reply = match (status, problem(json), json["outcome"].as_str()) {
        (200, None, Some("committed")) => {
            demand_level(level, status, json)?;
            Reply::Done
        }
        (503, Some("overloaded"), None) => not_done(is_repeated),
        (503, Some("quorum-unreachable"), Some("not_applied")) => not_done(is_repeated),
        (504, Some("timeout"), Some("not_applied")) => not_done(is_repeated),
        (503, Some("quorum-unreachable"), Some("unknown")) => Reply::Unknown,
        (504, Some("timeout"), Some("unknown")) => Reply::Unknown,
        (409, Some("superseded"), Some("unknown")) if has_tag => Reply::Unknown,
        _ => return Err(surprise("no reply to a write", status, json)),
    };
    let tag = json["tag"].as_str().map(str::to_owned);
    Ok(Written { reply, tag })
}

/// What is said of a write that was certainly not done this time.
pub(super) fn not_done(is_repeated: bool) -> Reply {
    match is_repeated {
        true => Reply::Unknown,
        false => Reply::NotDone,
    }
}

/// The text that stands for a value: every other is padded to some hundred bytes, and some are as
/// long as several datagrams.
pub(super) fn text_of(value: u64) -> String {
    let padding = match value % 16 {
        0 => 1_000 * (1 + value / 16 % 12),
        1..8 => 0,
        _ => 300 + value % 100,
    };
    format!("{value} {}", "x".repeat(padding as usize))
}

/// The value that a text stands for, if it is the whole text of one.
fn number_in(text: &str) -> Option<u64> {
    let (digits, _) = text.split_once(' ')?;
    let value = digits.parse().ok()?;
    (text == text_of(value)).then_some(value)
}

/// The problem's name, where the reply is one.
fn problem(json: &Json) -> Option<&str> {
    json["type"].as_str()?.strip_prefix("urn:dkvs:problem:")
}

fn demand_level(level: Level, status: u16, json: &Json) -> Result<(), Surprise> {
    match json["consistency"] == level.name() {
        true => Ok(()),
        false => Err(surprise("another level than was asked for", status, json)),
    }
}

fn surprise(what: &str, status: u16, json: &Json) -> Surprise {
    let mut text = json.to_string();
    if let Some((cut, _)) = text.char_indices().nth(2_000) {
        text.truncate(cut);
    }
    Surprise(format!("{what}: {status} {text}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    use serde_json::json;

    const LEVEL: Level = Level::Linearizable;

    fn problem(name: &str, outcome: Option<&str>) -> Json {
        let mut json = json!({
            "type": format!("urn:dkvs:problem:{name}"),
            "consistency": "linearizable",
            "tag": "0192f0c4a1b20001-9f3c21d400000007",
        });
        if let Some(outcome) = outcome {
            json["outcome"] = outcome.into();
        }
        json
    }

    #[test]
    fn a_value_is_recognized_by_its_whole_text() {
        for value in [1, 16, 17, 160, 12_345_678] {
            let text = text_of(value);
            assert_eq!(number_in(&text), Some(value));
            assert_eq!(number_in(&text[..text.len() - 1]), None);
            assert_eq!(number_in(&(text + "x")), None);
        }
        for text in ["", "1", "x ", "-1 ", "16 "] {
            assert_eq!(number_in(text), None, "{text:?}");
        }
    }

    #[test]
    fn half_of_the_values_pass_a_strait_and_some_need_several_datagrams() {
        let of_bytes = |range: std::ops::Range<usize>| {
            let texts = (0..1_600).map(text_of);
            texts.filter(|text| range.contains(&text.len())).count()
        };
        assert_eq!(of_bytes(0..20), 700);
        assert_eq!(of_bytes(300..500), 800);
        assert_eq!(of_bytes(1_000..13_000), 100);
    }

    #[test]
    fn a_read_returns_a_value_or_none_or_has_no_result() {
        let found = json!({"value": text_of(3), "consistency": "linearizable"});
        assert_eq!(to_read(LEVEL, 200, &found), Ok(Reply::Holds(Some(3))));
        let none = problem("key-not-found", None);
        assert_eq!(to_read(LEVEL, 404, &none), Ok(Reply::Holds(None)));
        for (status, name) in [
            (503, "quorum-unreachable"),
            (503, "overloaded"),
            (504, "timeout"),
        ] {
            let nothing = problem(name, None);
            assert_eq!(to_read(LEVEL, status, &nothing), Ok(Reply::Unknown));
        }
        let disagree = problem("replicas-disagree", None);
        let at_agreement = to_read(Level::Agreement, 409, &disagree);
        assert_eq!(at_agreement, Ok(Reply::Unknown));
    }

    #[test]
    fn a_write_is_done_or_not_or_may_be() {
        let done = json!({"outcome": "committed", "consistency": "linearizable"});
        let reply = |is_repeated, status, json: &Json| {
            let written = to_write(LEVEL, (is_repeated, is_repeated), status, json);
            written.map(|written| written.reply)
        };
        for is_repeated in [false, true] {
            assert_eq!(reply(is_repeated, 200, &done), Ok(Reply::Done));
            let unknown = problem("timeout", Some("unknown"));
            assert_eq!(reply(is_repeated, 504, &unknown), Ok(Reply::Unknown));
            let unknown = problem("quorum-unreachable", Some("unknown"));
            assert_eq!(reply(is_repeated, 503, &unknown), Ok(Reply::Unknown));
        }
        let superseded = problem("superseded", Some("unknown"));
        assert_eq!(reply(true, 409, &superseded), Ok(Reply::Unknown));
        assert!(reply(false, 409, &superseded).is_err());
        for (status, name, outcome) in [
            (503, "overloaded", None),
            (503, "quorum-unreachable", Some("not_applied")),
            (504, "timeout", Some("not_applied")),
        ] {
            let not_applied = problem(name, outcome);
            assert_eq!(reply(false, status, &not_applied), Ok(Reply::NotDone));
            assert_eq!(reply(true, status, &not_applied), Ok(Reply::Unknown));
        }
    }

    #[test]
    fn a_write_returns_the_tag_by_which_it_can_be_repeated() {
        let unknown = problem("timeout", Some("unknown"));
        let written = to_write(LEVEL, (false, false), 504, &unknown).unwrap();
        let tag = "0192f0c4a1b20001-9f3c21d400000007";
        assert_eq!(written.tag.as_deref(), Some(tag));
        let json = json!({"type": "urn:dkvs:problem:overloaded", "tag": null});
        assert_eq!(
            to_write(LEVEL, (false, false), 503, &json).unwrap().tag,
            None
        );
        // A tag that its sender made up may be that of something older, too.
        let json = problem("superseded", Some("unknown"));
        assert!(to_write(LEVEL, (false, false), 409, &json).is_err());
        assert_eq!(
            to_write(LEVEL, (true, false), 409, &json).unwrap().reply,
            Reply::Unknown
        );
    }

    #[test]
    fn what_no_sound_gateway_says_is_a_surprise() {
        let value = |text: &str| json!({"value": text, "consistency": "linearizable"});
        for (status, json) in [
            (200, value("made up")),
            (200, value("16 xxx")),
            (
                200,
                json!({"value": text_of(3), "consistency": "agreement"}),
            ),
            (200, json!({"value": text_of(3)})),
            (200, Json::Null),
            (404, json!({"type": "urn:dkvs:problem:key-not-found"})),
            (404, problem("no-such-path", None)),
            (409, problem("replicas-disagree", None)),
            (500, Json::Null),
            (400, problem("invalid-parameter", None)),
        ] {
            let surprise = to_read(LEVEL, status, &json).unwrap_err();
            assert!(surprise.0.contains(&status.to_string()), "{surprise:?}");
        }
        let done = |level: &str| json!({"outcome": "committed", "consistency": level});
        for (status, json) in [
            (200, done("agreement")),
            (
                200,
                json!({"outcome": "unknown", "consistency": "linearizable"}),
            ),
            (504, problem("timeout", None)),
            (504, problem("timeout", Some("committed"))),
            (507, problem("storage-full", Some("not_applied"))),
            (400, problem("invalid-parameter", None)),
            (500, Json::Null),
        ] {
            assert!(
                to_write(LEVEL, (false, false), status, &json).is_err(),
                "{status} {json}"
            );
        }
    }
}
