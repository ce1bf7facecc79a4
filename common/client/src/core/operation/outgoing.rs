//! What an operation sends: a command, or one that depends on the room in a datagram.

use bytes::Bytes;
use dkvs_common::model::{KeyPosition, ReplicaCommand};
use dkvs_common::quorum::list::PageRequest;

use crate::transport::list_bytes_max;

/// A command before its server is known.
#[derive(Debug)]
pub enum Outgoing {
    /// A command.
    Command(ReplicaCommand),
    /// The command for a page, which depends on how long a message to the server may be.
    Page(PageRequest, Bytes),
}

impl Outgoing {
    /// The command, to a server that takes messages of at most `message_bytes_max`.
    pub fn into_command(self, message_bytes_max: usize) -> ReplicaCommand {
        match self {
            Self::Command(command) => command,
            Self::Page(page, prefix) => page_command(&page, &prefix, message_bytes_max),
        }
    }
}

/// The command for a page, in a message of at most `message_bytes_max`.
///
/// Of a prefix, the server gets what there is room for: it only saves work by it, and the prefix is
/// compared again here. A place that is too long to be named is rounded to one before it. That can only
/// be where a caller begins a list: keys that are listed are short enough.
fn page_command(page: &PageRequest, prefix: &Bytes, message_bytes_max: usize) -> ReplicaCommand {
    let room = list_bytes_max(message_bytes_max);
    let prefix = prefix.slice(..prefix.len().min(room));
    let direction = page.direction;
    let start = match &page.start {
        KeyPosition::Before(bytes) | KeyPosition::After(bytes) => {
            let is_same = |(one, other): &(&u8, &u8)| one == other;
            let shared = bytes.iter().zip(&prefix).take_while(is_same).count();
            let named = shared + room - prefix.len();
            match bytes.len() > named {
                true => KeyPosition::first_of(&bytes.slice(..named), direction),
                false => page.start.clone(),
            }
        }
        KeyPosition::End => KeyPosition::End,
    };
    ReplicaCommand::List {
        prefix,
        start,
        direction,
        limit: u16::try_from(page.keys_max).unwrap_or(u16::MAX),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use dkvs_common::model::Direction;

    fn sent(
        prefix: &str,
        start: KeyPosition,
        direction: Direction,
        room: usize,
    ) -> (Bytes, KeyPosition) {
        let page = PageRequest {
            start,
            direction,
            keys_max: 100_000,
        };
        let prefix = Bytes::copy_from_slice(prefix.as_bytes());
        let message_bytes_max = room + 1_000 - list_bytes_max(1_000);
        match page_command(&page, &prefix, message_bytes_max) {
            ReplicaCommand::List {
                prefix,
                start,
                limit: u16::MAX,
                ..
            } => (prefix, start),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn what_a_message_has_no_room_for_is_cut_to_what_comes_before() {
        let at = |text: &'static str| Bytes::from_static(text.as_bytes());
        let (up, down) = (Direction::Ascending, Direction::Descending);
        let (before, after) = (KeyPosition::Before, KeyPosition::After);
        for (prefix, start, direction, room, expected) in [
            ("a/", after(at("a/bc")), up, 4, ("a/", after(at("a/bc")))),
            ("a/", after(at("a/bcd")), up, 4, ("a/", before(at("a/bc")))),
            (
                "a/",
                before(at("a/bcd")),
                down,
                4,
                ("a/", before(at("a/bd"))),
            ),
            ("a/", before(at("bcd")), up, 4, ("a/", before(at("bc")))),
            (
                "abcd",
                before(at("abcd")),
                up,
                3,
                ("abc", before(at("abc"))),
            ),
            (
                "abcd",
                before(at("abce")),
                down,
                3,
                ("abc", before(at("abd"))),
            ),
            ("abcd", KeyPosition::End, down, 3, ("abc", KeyPosition::End)),
        ] {
            let (cut, place) = sent(prefix, start.clone(), direction, room);
            assert_eq!(
                (&*cut, place),
                (expected.0.as_bytes(), expected.1),
                "{start:?}"
            );
        }
    }
}
