//! Whether a write can succeed at the servers of its key, as far as that is known.
//!
//! ```text
//!              w can take it, or are not known not to          
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
//! server was busy says nothing about the next write.

use std::time::{Duration, Instant};

use crate::transport::link::MESSAGE_BYTES_GUARANTEED;
use crate::transport::peer::PeerVersion;
use crate::transport::put_key_bytes_max;
use dkvs_common::cluster::ServerId;
use dkvs_common::kv::Key;
use dkvs_common::quorum::Refusal;
use dkvs_common::quorum::write::WriteResponse;
use dkvs_common::record::{Attributes, Content};

use super::config::{Now, Protocol};
use super::operation::{Admission, CommandId, Met, Outgoing, Purpose, pair_bytes};
use super::request::RequestId;
use super::state::{Core, FullServer};
use crate::transport::v1::{self, v1_refusal};
use dkvs_common::model::{ReplicaCommand, ReplicaResponse};
use dkvs_common::quorum::tally::{Replica, ReplicaState};

/// For how long a server that had no room is not asked to store as much again.
const FULL_REST: Duration = Duration::from_secs(1);

const PING: CommandId = CommandId {
    round: 0,
    purpose: Purpose::Ping,
};

/// What is known of a server before it is asked to store something.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum ServerCapability {
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

/// Whether a write goes out.
#[derive(Debug, PartialEq, Eq)]
enum Verdict {
    /// It does.
    Begin,
    /// These servers are to be met first.
    Meet(Vec<ServerId>),
    /// Of so many servers it is known what keeps them from it that too few are left.
    Withhold(Vec<(ServerId, ReplicaState<WriteResponse>)>),
}

/// What a write is to store, and under which key.
#[derive(Clone, Copy)]
struct Pair<'a> {
    key: &'a Key,
    content: &'a Content,
    attributes: &'a Attributes,
}

/// Whether a server can be asked to store a pair, or why not.
fn can_take(server: ServerCapability, pair: Pair<'_>) -> Result<(), Refusal> {
    let Pair {
        key,
        content,
        attributes,
    } = pair;
    match server {
        ServerCapability::Unmet
        | ServerCapability::Lost
        | ServerCapability::Unknown
        | ServerCapability::Away => Ok(()),
        ServerCapability::NotV2 => Err(Refusal::NotV2),
        ServerCapability::V1 => match content {
            Content::Tombstone => Err(Refusal::NoDeletion),
            Content::Value { .. } if key.as_bytes().contains(&0) => Err(Refusal::HasNul),
            Content::Value { value, .. } => {
                let checked = v1::check_value(value);
                checked.map_err(v1_refusal)
            }
        },
        ServerCapability::V2 {
            message_bytes_max,
            value_bytes_max,
            full_bytes,
        } => {
            let is_full = full_bytes.is_some_and(|bytes| pair_bytes(key, content) >= Some(bytes));
            let key_bytes_max = put_key_bytes_max(content, attributes, message_bytes_max);
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

/// Whether there are servers, of those that may be met, that cannot take the pair: those of
/// DKVS/1, where they are asked, or those with the shortest datagrams or values.
fn depends_on_server(falls_back_to_v1: bool, pair: Pair<'_>) -> bool {
    let bytes_max = put_key_bytes_max(pair.content, pair.attributes, MESSAGE_BYTES_GUARANTEED);
    let is_short = bytes_max >= pair.key.as_bytes().len();
    let value_bytes = match pair.content {
        Content::Value { value, .. } => value.len(),
        Content::Tombstone => 0,
    };
    !is_short
        || value_bytes > MESSAGE_BYTES_GUARANTEED
        || (falls_back_to_v1 && can_take(ServerCapability::V1, pair).is_err())
}

/// What is to become of a write of which `required` servers have to confirm.
fn verdict(
    servers: impl Iterator<Item = (ServerId, ServerCapability)> + Clone,
    required: usize,
    falls_back_to_v1: bool,
    pair: Pair<'_>,
) -> Verdict {
    // Asked of servers that are not met alone: it takes a look at every byte of the pair.
    let is_dependent = || depends_on_server(falls_back_to_v1, pair);
    let is_able = |(_, capability): &(ServerId, ServerCapability)| match capability {
        ServerCapability::Unmet => false,
        ServerCapability::Lost | ServerCapability::Away => !is_dependent(),
        _ => can_take(*capability, pair).is_ok(),
    };
    let able = servers.clone().filter(is_able).count();
    if able >= required {
        return Verdict::Begin;
    }
    let (mut unmet, mut states) = (Vec::new(), Vec::new());
    for (server, capability) in servers {
        match (capability, can_take(capability, pair)) {
            (_, Err(refusal)) => {
                states.push((
                    server,
                    ReplicaState::Responded(WriteResponse::Refused(refusal)),
                ));
            }
            (ServerCapability::Unmet, Ok(())) => unmet.push(server),
            (ServerCapability::Lost, Ok(())) if is_dependent() => unmet.push(server),
            (ServerCapability::Away, Ok(())) if is_dependent() => {
                states.push((server, ReplicaState::Unreachable));
            }
            (_, Ok(())) => {}
        }
    }
    match able + unmet.len() < required {
        true => Verdict::Withhold(states),
        false => Verdict::Meet(unmet),
    }
}

impl Core {
    /// Whether a request may go on. A write that too few of its servers can take ends here; one
    /// that turns on servers which were not met yet waits for them.
    pub(super) fn admit(&mut self, id: RequestId, now: Now) -> bool {
        loop {
            let Some(request) = self.requests.get(id) else {
                return false;
            };
            // A client of DKVS/1 has looked at everything before, but for who is there.
            let Some(candidate) = request.operation.candidate() else {
                return true;
            };
            if self.config.protocol == Protocol::V1 {
                return true;
            }
            let requires_tags = request.operation.requires_tags();
            let capability = |replica: &Replica<WriteResponse>| {
                let server = replica.server;
                let mut capability = self.capability(server, requires_tags, candidate.met);
                if let ServerCapability::V2 { full_bytes, .. } = &mut capability
                    && candidate.has_seen_no_record
                {
                    *full_bytes = self.full_bytes(server, now.at);
                }
                (server, capability)
            };
            let servers = candidate.replicas.iter().map(capability);
            let falls_back_to_v1 = self.config.protocol == Protocol::Auto
                && (!requires_tags || candidate.may_fall_back);
            let pair = Pair {
                key: candidate.key,
                content: candidate.content,
                attributes: candidate.attributes,
            };
            let verdict = verdict(servers, candidate.required, falls_back_to_v1, pair);
            match verdict {
                Verdict::Begin => return true,
                // A server that returns its tag is met by that.
                Verdict::Meet(_) if candidate.is_querying_tags => return true,
                Verdict::Meet(mut unmet) => {
                    let met = candidate.met;
                    unmet.retain(|server| !met.iter().any(|(met, _)| met == server));
                    if unmet.is_empty() {
                        return false;
                    }
                    self.handle_admission(id, Admission::Meet(unmet.clone()), now);
                    for server in unmet {
                        let ping = Outgoing::Command(ReplicaCommand::Ping);
                        self.send(id, server, PING, ping, now);
                    }
                }
                Verdict::Withhold(states) => {
                    // They may have been started anew as servers that can take it, and are not going
                    // to be asked.
                    for (server, _) in &states {
                        self.servers.greet_if_due(*server, now.at);
                    }
                    self.handle_admission(id, Admission::Withhold(states), now);
                    return true;
                }
            }
        }
    }

    fn handle_admission(&mut self, id: RequestId, admission: Admission, now: Now) {
        if let Some(request) = self.requests.get_mut(id) {
            request.operation.handle_admission(admission, now.at);
        }
    }

    /// A server has answered a put of this request: notes whether it has room.
    pub(super) fn note_room(
        &mut self,
        from: ServerId,
        id: RequestId,
        response: &ReplicaResponse,
        now: Now,
    ) {
        match response {
            ReplicaResponse::Refused(Refusal::Full) => {
                let request = self.requests.get(id);
                let bytes = request.and_then(|request| request.operation.put_bytes());
                if let Some(bytes) = bytes {
                    self.full.insert(from, FullServer { at: now.at, bytes });
                }
            }
            ReplicaResponse::Done => drop(self.full.remove(from)),
            _ => {}
        }
    }

    /// For how much a server had no room a moment ago, if it had not.
    fn full_bytes(&self, server: ServerId, now: Instant) -> Option<usize> {
        let full = self.full.get(server)?;
        (now < full.at + FULL_REST).then_some(full.bytes)
    }

    fn capability(
        &self,
        server: ServerId,
        requires_tags: bool,
        met: &[(ServerId, Met)],
    ) -> ServerCapability {
        let met = met.iter().find(|(met, _)| *met == server);
        match (self.speaks(server), met) {
            (PeerVersion::V2(greeting), _) => ServerCapability::V2 {
                message_bytes_max: self.message_bytes_max(server),
                value_bytes_max: greeting.value_bytes_max,
                full_bytes: None,
            },
            (PeerVersion::V1, _) if requires_tags || self.config.protocol == Protocol::V2 => {
                ServerCapability::NotV2
            }
            (PeerVersion::V1, _) => ServerCapability::V1,
            (PeerVersion::Unknown, Some((_, Met::Away))) => ServerCapability::Away,
            (PeerVersion::Unknown, Some((_, Met::Done))) => ServerCapability::Unknown,
            (PeerVersion::Unknown, _) => match self.servers.incarnation(server) {
                Some(_) => ServerCapability::Lost,
                None => ServerCapability::Unmet,
            },
        }
    }

    /// The longest message to a server.
    pub(super) fn message_bytes_max(&self, server: ServerId) -> usize {
        let message_bytes_max = self.servers.message_bytes_max(server);
        message_bytes_max.unwrap_or(MESSAGE_BYTES_GUARANTEED)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    use dkvs_common::kv::Value;
    use dkvs_common::record::ContentType;

    const V2: ServerCapability = ServerCapability::V2 {
        message_bytes_max: 1_184,
        value_bytes_max: 1 << 20,
        full_bytes: None,
    };
    const FULL_V2: ServerCapability = ServerCapability::V2 {
        message_bytes_max: 1_184,
        value_bytes_max: 1 << 20,
        full_bytes: Some(100),
    };
    const SMALL_V2: ServerCapability = ServerCapability::V2 {
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

    fn pair<'a>(key: &'a Key, content: &'a Content) -> Pair<'a> {
        Pair {
            key,
            content,
            attributes: &Attributes::NONE,
        }
    }

    #[test]
    fn attributes_leave_less_room_for_the_key() {
        let attributes = Attributes {
            born: 1,
            ..Attributes::NONE
        };
        let content = value(*b"v");
        for (bytes, expected) in [(1_139, Ok(())), (1_140, Err(key_too_long(1_139)))] {
            let key = key(bytes);
            let pair = Pair {
                attributes: &attributes,
                ..pair(&key, &content)
            };
            assert_eq!(can_take(V2, pair), expected);
        }
        let (long, short) = (key(MESSAGE_BYTES_GUARANTEED - 39), key(1));
        let longest = pair(&long, &content);
        assert!(!depends_on_server(false, longest));
        let with_attributes = Pair {
            attributes: &attributes,
            ..longest
        };
        assert!(depends_on_server(false, with_attributes));
        let short = Pair {
            key: &short,
            ..with_attributes
        };
        assert!(!depends_on_server(false, short));
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
            (ServerCapability::V1, key(1), &short, Ok(())),
            (ServerCapability::V1, key(32_753), &long, Ok(())),
            (
                ServerCapability::V1,
                key(1),
                &longer,
                Err(too_large(32_753)),
            ),
            (ServerCapability::V1, key(1), &nul, Err(Refusal::HasNul)),
            (
                ServerCapability::V1,
                with_nul.clone(),
                &short,
                Err(Refusal::HasNul),
            ),
            (
                ServerCapability::V1,
                key(1),
                &Content::Tombstone,
                Err(Refusal::NoDeletion),
            ),
            (
                ServerCapability::V1,
                with_nul.clone(),
                &Content::Tombstone,
                Err(Refusal::NoDeletion),
            ),
            (ServerCapability::NotV2, key(1), &short, Err(Refusal::NotV2)),
            (
                ServerCapability::NotV2,
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
            (ServerCapability::Unmet, key(32_753), &huge, Ok(())),
            (ServerCapability::Unknown, key(32_753), &huge, Ok(())),
        ] {
            let bytes = key.as_bytes().len();
            let pair = pair(&key, content);
            assert_eq!(can_take(server, pair), expected, "{server:?} {bytes}");
        }
    }

    /// What becomes of a write of `content` to three servers.
    fn judge(
        servers: [ServerCapability; 3],
        required: usize,
        falls_back_to_v1: bool,
        content: &Content,
    ) -> Verdict {
        let servers = [ServerId(0), ServerId(1), ServerId(2)]
            .into_iter()
            .zip(servers);
        verdict(servers, required, falls_back_to_v1, pair(&key(1), content))
    }

    #[test]
    fn a_write_begins_where_enough_can_take_it_and_is_withheld_where_they_cannot() {
        use ServerCapability::{Away, Lost, NotV2, Unknown, Unmet, V1};
        let refused = |refusal| ReplicaState::Responded(WriteResponse::Refused(refusal));
        let cannot = refused(Refusal::NoDeletion);
        let not_v2 = refused(Refusal::NotV2);
        let gone = ReplicaState::Unreachable;
        let meet = |servers: &[u16]| {
            let servers = servers.iter().map(|number| ServerId(*number));
            Verdict::Meet(servers.collect())
        };
        let withhold = |states: &[(u16, ReplicaState<WriteResponse>)]| {
            let states = states
                .iter()
                .map(|(number, capability)| (ServerId(*number), *capability));
            Verdict::Withhold(states.collect())
        };
        let deletion = Content::Tombstone;
        for (servers, required, expected) in [
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
            let judged = judge(servers, required, true, &deletion);
            assert_eq!(judged, expected, "{servers:?} {required}");
        }
    }

    #[test]
    fn who_was_lost_is_met_only_for_content_that_not_all_servers_can_take() {
        let (unmet, lost) = ([ServerCapability::Unmet; 3], [ServerCapability::Lost; 3]);
        let all = Verdict::Meet(vec![ServerId(0), ServerId(1), ServerId(2)]);
        for (content, falls_back_to_v1, is_met) in [
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
                judge(lost, 2, falls_back_to_v1, &content),
                *expected,
                "{falls_back_to_v1}"
            );
            assert_eq!(
                judge(unmet, 2, falls_back_to_v1, &content),
                all,
                "never met"
            );
        }
        let servers = lost.map(|capability| (ServerId(0), capability)).into_iter();
        let long_key = verdict(servers, 2, false, pair(&key(500), &value(*b"v")));
        assert!(matches!(long_key, Verdict::Meet(_)));
    }
}
