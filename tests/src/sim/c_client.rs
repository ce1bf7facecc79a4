//! Clients of the original system: they ask servers by DKVS/1, without a gateway, as its C client
//! does. All N servers of a key are asked at once; a put is done when W of them confirmed, a get
//! when R of them agree, and after a while it has failed.
//!
//! Each is on the host of a gateway: its datagrams go over the same links.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddrV4};

use bytes::Bytes;
use dkvs_common::kv::Value;
use dkvs_common::quorum::params::Quorum;
use dkvs_common::record::ContentType;
use dkvs_common::ring::PreferenceList;
use dkvs_common::wire::v1::{GetReply, PutReply};

use super::values;
use crate::history::agreement::{Replica, ReplicaAnswer};
use crate::history::{Action, Reply};
use crate::random::Random;

/// One client.
pub struct CClient {
    /// On whose host it is.
    pub(super) gateway: usize,
    pub(super) random: Random,
    pub(super) state: State,
    /// How many sockets it has opened.
    sockets: u32,
    number: usize,
}

pub(super) enum State {
    Idle,
    Waits(Waiting),
}

/// An operation that is under way.
pub(super) struct Waiting {
    pub(super) operation: usize,
    /// The socket that asks.
    pub(super) socket: SocketAddrV4,
    pub(super) list: PreferenceList,
    pub(super) quorum: Quorum,
    /// The reply of each server.
    pub(super) replies: BTreeMap<usize, Bytes>,
}

impl CClient {
    pub fn new(seed: u64, number: usize, gateways: usize) -> Self {
        Self {
            gateway: number % gateways,
            random: Random::of(seed, &format!("C client {number}")),
            state: State::Idle,
            sockets: 0,
            number,
        }
    }

    /// Whether this is the address of a socket of a client of this kind.
    pub fn owner(address: SocketAddrV4) -> Option<usize> {
        let [10, 4, _, number] = address.ip().octets() else {
            return None;
        };
        Some(number.into())
    }

    pub(super) fn open_socket(&mut self) -> SocketAddrV4 {
        self.sockets += 1;
        let [.., high, low_high, low] = self.sockets.to_be_bytes();
        let ip = Ipv4Addr::new(10, 4, high, self.number as u8);
        SocketAddrV4::new(ip, u16::from_be_bytes([low_high, low]))
    }
}

impl Waiting {
    /// What the replies come to: the first that enough servers gave, or nothing yet.
    pub(super) fn outcome(&self, action: Action) -> (Reply, Vec<Replica>) {
        let needed = usize::from(self.quorum.required());
        let replicas = |answer, servers: &[usize]| {
            let replica = |server: &usize| Replica {
                server: *server as u32,
                answer,
            };
            servers.iter().map(replica).collect()
        };
        let mut same: BTreeMap<&Bytes, Vec<usize>> = BTreeMap::new();
        for (server, reply) in &self.replies {
            same.entry(reply).or_default().push(*server);
        }
        for (reply, servers) in same {
            if servers.len() < needed {
                continue;
            }
            let is_write = matches!(action, Action::Write(_));
            match (is_write, GetReply::decode(reply.clone())) {
                (true, _) if PutReply::decode(reply) == Ok(PutReply::Stored) => {
                    return (Reply::Done, replicas(ReplicaAnswer::Stored, &servers));
                }
                (false, Ok(GetReply::Unknown)) => {
                    return (
                        Reply::Holds(None),
                        replicas(ReplicaAnswer::Absent, &servers),
                    );
                }
                (false, Ok(GetReply::Value(value))) => {
                    if let Some(number) = written(&value) {
                        let number = Some(number);
                        return (
                            Reply::Holds(number),
                            replicas(ReplicaAnswer::Match, &servers),
                        );
                    }
                }
                _ => {}
            }
        }
        (Reply::Unknown, Vec::new())
    }
}

/// Which operation wrote a value, whole. DKVS/1 has no type, and a bit that flips on its way may
/// have made another value of it.
fn written(value: &Value) -> Option<u64> {
    values::number_of(value, &ContentType::default(), true)
}
