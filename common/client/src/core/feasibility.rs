//! Whether a write can succeed at the servers of its key, as far as that is known.
//!
//! ```text
//!              w can take it, or nothing tells that they cannot
//!   write --> [ verdict ] --------------------------------------> asks for tags, or stores
//!               |     ^ \
//!      it turns on    |  \ fewer than w can take it
//!      who is unmet   |   +--> refused, with nobody asked
//!               v     |
//!             [ meets them ]
//! ```
//!
//! What cannot succeed is not begun: a write that too few servers can take would be stored on the
//! others all the same, and leave replicas that differ. It is looked at when a write begins, and
//! again before each round that stores. If it turns on servers that were never met, they are pinged
//! first, which has them greeted; those that were met and lost only if the content is such that some
//! servers cannot take it.
//!
//! A server that had no room for a value is taken to have none for another that is as long, under a
//! key of which no replica was found to hold anything, for [`FULL_REST`]; then it is asked again, since
//! it may have room by then. What takes the place of something else may fit, so it is asked. That a
//! server was busy tells nothing of the next write.

use std::time::{Duration, Instant};

use crate::transport::link::MESSAGE_BYTES_CERTAIN;
use crate::transport::peer::Speaks;
use crate::transport::put_key_bytes_max;
use dkvs_common::cluster::ServerId;
use dkvs_common::kv::Key;
use dkvs_common::quorum::Refusal;
use dkvs_common::quorum::tally::Word;
use dkvs_common::quorum::write::WriteReply;
use dkvs_common::record::Content;

use super::request::{Machine, Subject};
use super::words::{Asked, Heard, Question, RequestId, Token, v1_refusal};
use super::{Core, Now, Protocol};

/// For how long a server that had no room is not asked to store as much again.
const FULL_REST: Duration = Duration::from_secs(1);

/// A server that had no room.
#[derive(Debug, Clone, Copy)]
pub(super) struct Full {
    /// When it said so.
    at: Instant,
    /// For a key and a value of so many bytes, or more.
    bytes: usize,
}

/// What is known of a server before it is asked to store something.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Facts {
    /// It was never met.
    Unmet,
    /// It spoke DKVS/2 before its port was unreachable.
    Lost,
    /// It cannot be met: nothing is taken for granted of it.
    Unknown,
    /// Nothing listens there.
    Away,
    /// It is asked by DKVS/1.
    V1,
    /// It speaks DKVS/1 only, and is not to be asked by that.
    NotV2,
    /// It is asked by DKVS/2.
    V2 {
        message_bytes_max: usize,
        value_bytes_max: u32,
        /// It has no room for a key and a value of so many bytes.
        full_bytes: Option<usize>,
    },
}

/// How far a server is met for a write that turns on what it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Met {
    /// It was pinged.
    Pinged,
    /// It has answered, or could not be pinged.
    Done,
    /// Nothing listens there.
    Away,
}

/// What is to become of a write.
#[derive(Debug, PartialEq, Eq)]
enum Verdict {
    /// It goes on.
    Begin,
    /// These servers are to be met first.
    Meet(Vec<ServerId>),
    /// Of so many servers it is known what keeps them from it that too few are left.
    Withhold(Vec<(ServerId, Word<WriteReply>)>),
}

/// Whether a server can be asked to store content under a key, or why not.
fn can_take(server: Facts, key: &Key, content: &Content) -> Result<(), Refusal> {
    match server {
        Facts::Unmet | Facts::Lost | Facts::Unknown | Facts::Away => Ok(()),
        Facts::NotV2 => Err(Refusal::NotV2),
        Facts::V1 => match content {
            Content::Tombstone => Err(Refusal::NoDeletion),
            Content::Value { .. } if key.as_bytes().contains(&0) => Err(Refusal::HasNul),
            Content::Value { value, .. } => {
                let checked = dkvs_common::wire::v1::check_value(value);
                checked.map_err(v1_refusal)
            }
        },
        Facts::V2 {
            message_bytes_max,
            value_bytes_max,
            full_bytes,
        } => {
            let is_full = full_bytes.is_some_and(|bytes| pair_bytes(key, content) >= Some(bytes));
            let key_bytes_max = put_key_bytes_max(content, message_bytes_max);
            match content {
                _ if key.as_bytes().len() > key_bytes_max => {
                    let key_bytes_max = u32::try_from(key_bytes_max).unwrap_or(u32::MAX);
                    Err(Refusal::KeyTooLong { key_bytes_max })
                }
                Content::Value { value, .. } if value.len() > value_bytes_max as usize => {
                    Err(Refusal::TooLarge { value_bytes_max })
                }
                _ if is_full => Err(Refusal::Full),
                _ => Ok(()),
            }
        }
    }
}

/// What a key and its value take of a server's room; none of a tombstone, which full disks take.
fn pair_bytes(key: &Key, content: &Content) -> Option<usize> {
    match content {
        Content::Value { value, .. } => Some(key.as_bytes().len() + value.len()),
        Content::Tombstone => None,
    }
}

/// Whether there are servers, of those that may be met, that cannot take the content: those of
/// DKVS/1, where they are asked, or those with the shortest datagrams or values.
fn depends_on_server(is_v1_asked: bool, key: &Key, content: &Content) -> bool {
    let is_short = put_key_bytes_max(content, MESSAGE_BYTES_CERTAIN) >= key.as_bytes().len();
    let value_bytes = match content {
        Content::Value { value, .. } => value.len(),
        Content::Tombstone => 0,
    };
    !is_short
        || value_bytes > MESSAGE_BYTES_CERTAIN
        || (is_v1_asked && can_take(Facts::V1, key, content).is_err())
}

/// What is to become of a write of which `needed` servers have to confirm.
fn verdict(
    servers: impl Iterator<Item = (ServerId, Facts)> + Clone,
    needed: usize,
    is_v1_asked: bool,
    key: &Key,
    content: &Content,
) -> Verdict {
    let is_dependent = depends_on_server(is_v1_asked, key, content);
    let is_able = |(_, facts): &(ServerId, Facts)| match facts {
        Facts::Unmet => false,
        Facts::Lost | Facts::Away => !is_dependent,
        _ => can_take(*facts, key, content).is_ok(),
    };
    let able = servers.clone().filter(is_able).count();
    if able >= needed {
        return Verdict::Begin;
    }
    let (mut unmet, mut words) = (Vec::new(), Vec::new());
    for (server, facts) in servers {
        match (facts, can_take(facts, key, content)) {
            (_, Err(refusal)) => {
                words.push((server, Word::Answer(WriteReply::Refused(refusal))));
            }
            (Facts::Unmet, Ok(())) => unmet.push(server),
            (Facts::Lost, Ok(())) if is_dependent => unmet.push(server),
            (Facts::Away, Ok(())) if is_dependent => words.push((server, Word::Unreachable)),
            (_, Ok(())) => {}
        }
    }
    match able + unmet.len() < needed {
        true => Verdict::Withhold(words),
        false => Verdict::Meet(unmet),
    }
}

impl<W> Core<W> {
    /// Whether a request may go on. A write that too few of its servers can take ends here; one
    /// that turns on servers which were not met yet waits for them.
    pub(super) fn admit(&mut self, id: RequestId, now: Now) -> bool {
        loop {
            let Some(request) = self.requests.get(&id) else {
                return false;
            };
            let (Machine::Write(write), Subject::Put { key, content, .. }) =
                (&request.machine, &request.subject)
            else {
                return true;
            };
            // A gateway of DKVS/1 has looked at everything before, but for who is there.
            if self.protocol == Protocol::V1 || !write.is_before_asking() {
                return true;
            }
            let needs_tags = request.needs_tags();
            let replicas = write.replicas().iter().map(|replica| replica.server);
            let needs_room = write.is_of_new_key();
            let facts = |server| {
                let mut facts = self.facts(server, needs_tags, &request.met);
                if let Facts::V2 { full_bytes, .. } = &mut facts
                    && needs_room
                {
                    *full_bytes = self.full_bytes(server, now.at);
                }
                (server, facts)
            };
            let servers = replicas.map(facts);
            let needed = usize::from(write.quorum().needed());
            let is_v1_asked =
                self.protocol == Protocol::Auto && (!needs_tags || request.may_fall_back);
            match verdict(servers, needed, is_v1_asked, key, content) {
                Verdict::Begin => return true,
                // Who tells its tag is met by that.
                Verdict::Meet(_) if write.is_asking() => return true,
                Verdict::Meet(mut unmet) => {
                    let is_pinged = |server| request.met.iter().any(|(met, _)| *met == server);
                    unmet.retain(|server| !is_pinged(*server));
                    if unmet.is_empty() {
                        return false;
                    }
                    if let Some(request) = self.requests.get_mut(&id) {
                        let pinged = unmet.iter().map(|server| (*server, Met::Pinged));
                        request.met.extend(pinged);
                    }
                    self.ask(id, Asked::Ping, &Question::Ping, &unmet, now);
                }
                Verdict::Withhold(words) => {
                    // They may have been started anew as servers that can take it, and are not going
                    // to be asked.
                    for (server, _) in &words {
                        if let Some(link) = self.links.to(*server) {
                            link.greet_if_due(now.at);
                        }
                    }
                    if let Some(request) = self.requests.get_mut(&id)
                        && let Machine::Write(write) = &mut request.machine
                    {
                        write.withhold(words, now.at);
                    }
                    return true;
                }
            }
        }
    }

    /// A server has answered a put: notes whether it has room.
    pub(super) fn note_room(&mut self, token: Token, from: ServerId, heard: &Heard, now: Now) {
        let (Asked::Put { .. }, Heard::Write(reply)) = (token.asked, heard) else {
            return;
        };
        let request = self.requests.get(&token.id);
        let bytes = request.and_then(|request| match &request.subject {
            Subject::Put { key, content, .. } => pair_bytes(key, content),
            _ => None,
        });
        let full = &mut self.full[from.index()];
        match (reply, bytes) {
            (WriteReply::Refused(Refusal::Full), Some(bytes)) => {
                *full = Some(Full { at: now.at, bytes });
            }
            (WriteReply::Stored, _) => *full = None,
            _ => {}
        }
    }

    /// For how much a server had no room a moment ago, if it had not.
    fn full_bytes(&self, server: ServerId, now: Instant) -> Option<usize> {
        let full = self.full[server.index()]?;
        (now < full.at + FULL_REST).then_some(full.bytes)
    }

    fn facts(&self, server: ServerId, needs_tags: bool, met: &[(ServerId, Met)]) -> Facts {
        let met = met.iter().find(|(met, _)| *met == server);
        match (self.speaks(server), met) {
            (Speaks::V2(greeting), _) => Facts::V2 {
                message_bytes_max: self.message_bytes_max(server),
                value_bytes_max: greeting.value_bytes_max,
                full_bytes: None,
            },
            (Speaks::V1, _) if needs_tags || self.protocol == Protocol::V2 => Facts::NotV2,
            (Speaks::V1, _) => Facts::V1,
            (Speaks::Unknown, Some((_, Met::Away))) => Facts::Away,
            (Speaks::Unknown, Some((_, Met::Done))) => Facts::Unknown,
            (Speaks::Unknown, _) => match self.links.incarnation(server) {
                Some(_) => Facts::Lost,
                None => Facts::Unmet,
            },
        }
    }

    /// The longest message to a server.
    pub(super) fn message_bytes_max(&self, server: ServerId) -> usize {
        let message_bytes_max = self.links.message_bytes_max(server);
        message_bytes_max.unwrap_or(MESSAGE_BYTES_CERTAIN)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    use dkvs_common::kv::Value;
    use dkvs_common::record::ContentType;

    const V2: Facts = Facts::V2 {
        message_bytes_max: 1_184,
        value_bytes_max: 1 << 20,
        full_bytes: None,
    };
    const FULL_V2: Facts = Facts::V2 {
        message_bytes_max: 1_184,
        value_bytes_max: 1 << 20,
        full_bytes: Some(100),
    };
    const SMALL_V2: Facts = Facts::V2 {
        message_bytes_max: 496,
        value_bytes_max: 10_000,
        full_bytes: None,
    };

    fn key(bytes: usize) -> Key {
        Key::new(vec![b'k'; bytes]).unwrap()
    }

    fn value(bytes: impl Into<Vec<u8>>) -> Content {
        Content::Value {
            content_type: ContentType::default(),
            value: Value::new(bytes.into()).unwrap(),
        }
    }

    fn too_large(value_bytes_max: u32) -> Refusal {
        Refusal::TooLarge { value_bytes_max }
    }

    fn key_too_long(key_bytes_max: u32) -> Refusal {
        Refusal::KeyTooLong { key_bytes_max }
    }

    #[test]
    fn what_a_server_can_take_follows_from_its_protocol_and_its_limits() {
        let with_nul = Key::new("a\0b").unwrap();
        let nul = value(*b"a\0b");
        let (short, long) = (value(*b"v"), value(vec![b'v'; 32_753]));
        let longer = value(vec![b'v'; 32_754]);
        let huge = value(vec![0; (1 << 20) + 1]);
        for (server, key, content, expected) in [
            (Facts::V1, key(1), &short, Ok(())),
            (Facts::V1, key(32_753), &long, Ok(())),
            (Facts::V1, key(1), &longer, Err(too_large(32_753))),
            (Facts::V1, key(1), &nul, Err(Refusal::HasNul)),
            (Facts::V1, with_nul.clone(), &short, Err(Refusal::HasNul)),
            (
                Facts::V1,
                key(1),
                &Content::Tombstone,
                Err(Refusal::NoDeletion),
            ),
            (
                Facts::V1,
                with_nul.clone(),
                &Content::Tombstone,
                Err(Refusal::NoDeletion),
            ),
            (Facts::NotV2, key(1), &short, Err(Refusal::NotV2)),
            (
                Facts::NotV2,
                key(1),
                &Content::Tombstone,
                Err(Refusal::NotV2),
            ),
            (V2, with_nul, &nul, Ok(())),
            (V2, key(1), &Content::Tombstone, Ok(())),
            (V2, key(1), &longer, Ok(())),
            (V2, key(1), &huge, Err(too_large(1 << 20))),
            (V2, key(1_145), &short, Ok(())),
            (V2, key(1_146), &short, Err(key_too_long(1_145))),
            (V2, key(1_147), &Content::Tombstone, Ok(())),
            (
                V2,
                key(2_000),
                &Content::Tombstone,
                Err(key_too_long(1_147)),
            ),
            (V2, key(1_135), &long, Ok(())),
            (V2, key(1_136), &long, Err(key_too_long(1_135))),
            // The key is what it is about, whatever the value.
            (V2, key(1_136), &huge, Err(key_too_long(1_135))),
            (SMALL_V2, key(447), &long, Err(too_large(10_000))),
            (SMALL_V2, key(448), &long, Err(key_too_long(447))),
            (FULL_V2, key(1), &value([0; 99]), Err(Refusal::Full)),
            (FULL_V2, key(1), &value([0; 98]), Ok(())),
            (FULL_V2, key(99), &short, Err(Refusal::Full)),
            (FULL_V2, key(100), &Content::Tombstone, Ok(())),
            (FULL_V2, key(1), &huge, Err(too_large(1 << 20))),
            (Facts::Unmet, key(32_753), &huge, Ok(())),
            (Facts::Unknown, key(32_753), &huge, Ok(())),
        ] {
            let bytes = key.as_bytes().len();
            assert_eq!(
                can_take(server, &key, content),
                expected,
                "{server:?} {bytes}"
            );
        }
    }

    /// What becomes of a write of `content` to three servers.
    fn judge(servers: [Facts; 3], needed: usize, is_v1_asked: bool, content: &Content) -> Verdict {
        let servers = [ServerId(0), ServerId(1), ServerId(2)]
            .into_iter()
            .zip(servers);
        verdict(servers, needed, is_v1_asked, &key(1), content)
    }

    #[test]
    fn a_write_begins_where_enough_can_take_it_and_is_withheld_where_they_cannot() {
        use Facts::{Away, Lost, NotV2, Unknown, Unmet, V1};
        let refused = |refusal| Word::Answer(WriteReply::Refused(refusal));
        let cannot = refused(Refusal::NoDeletion);
        let not_v2 = refused(Refusal::NotV2);
        let gone = Word::Unreachable;
        let meet = |servers: &[u16]| {
            let servers = servers.iter().map(|number| ServerId(*number));
            Verdict::Meet(servers.collect())
        };
        let withhold = |words: &[(u16, Word<WriteReply>)]| {
            let words = words
                .iter()
                .map(|(number, word)| (ServerId(*number), *word));
            Verdict::Withhold(words.collect())
        };
        let deletion = Content::Tombstone;
        for (servers, needed, expected) in [
            ([V2, V2, V2], 3, Verdict::Begin),
            ([V2, V2, V1], 2, Verdict::Begin),
            ([V2, V2, V1], 3, withhold(&[(2, cannot)])),
            ([V2, V1, V1], 1, Verdict::Begin),
            ([V2, V1, V1], 2, withhold(&[(1, cannot), (2, cannot)])),
            (
                [V1, V1, V1],
                1,
                withhold(&[(0, cannot), (1, cannot), (2, cannot)]),
            ),
            ([V2, NotV2, V1], 2, withhold(&[(1, not_v2), (2, cannot)])),
            // It turns on who was not met.
            ([Unmet, Unmet, Unmet], 2, meet(&[0, 1, 2])),
            ([V2, Unmet, Unmet], 2, meet(&[1, 2])),
            ([V2, Unmet, V1], 2, meet(&[1])),
            ([V2, V2, Unmet], 3, meet(&[2])),
            ([V2, Lost, V1], 2, meet(&[1])),
            // It does not turn on them.
            ([V2, V2, Unmet], 2, Verdict::Begin),
            ([V1, V1, Unmet], 2, withhold(&[(0, cannot), (1, cannot)])),
            // Who cannot be met is taken to be able, but for who is not there.
            ([V2, Unknown, V1], 2, Verdict::Begin),
            ([V2, Away, V1], 2, withhold(&[(1, gone), (2, cannot)])),
            ([V2, Away, Unmet], 2, meet(&[2])),
            ([V2, Away, Away], 2, withhold(&[(1, gone), (2, gone)])),
        ] {
            let judged = judge(servers, needed, true, &deletion);
            assert_eq!(judged, expected, "{servers:?} {needed}");
        }
    }

    #[test]
    fn who_was_lost_is_met_only_for_content_that_not_all_servers_can_take() {
        let (unmet, lost) = ([Facts::Unmet; 3], [Facts::Lost; 3]);
        let all = Verdict::Meet(vec![ServerId(0), ServerId(1), ServerId(2)]);
        for (content, is_v1_asked, is_met) in [
            (value(*b"v"), true, false),
            (value(*b"v"), false, false),
            (value(*b"\0"), true, true),
            (value(*b"\0"), false, false),
            (Content::Tombstone, true, true),
            (Content::Tombstone, false, false),
            (value(vec![b'v'; 400]), true, false),
            (value(vec![b'v'; 500]), false, true),
            (value(vec![b'v'; 40_000]), true, true),
        ] {
            let expected = match is_met {
                true => &all,
                false => &Verdict::Begin,
            };
            assert_eq!(
                judge(lost, 2, is_v1_asked, &content),
                *expected,
                "{is_v1_asked}"
            );
            assert_eq!(judge(unmet, 2, is_v1_asked, &content), all, "never met");
        }
        let servers = lost.map(|facts| (ServerId(0), facts)).into_iter();
        let long_key = verdict(servers, 2, false, &key(500), &value(*b"v"));
        assert!(matches!(long_key, Verdict::Meet(_)));
    }
}
