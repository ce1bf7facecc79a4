//! Nobody passes for less than it is: no server that speaks DKVS/2 is asked by DKVS/1, and none
//! answers a gateway's datagram of DKVS/2 by DKVS/1, whatever happened to it on its way.

use std::net::SocketAddrV4;

use bytes::Bytes;
use dkvs_common::wire::v2::{DatagramKind, kind_of};

use super::Violation;
use crate::sim::v1_plan::Dialect;

const NAME: &str = "downgrade";

/// A gateway asks a server by DKVS/1.
pub fn check_asked(gateway: usize, server: usize, dialect: Dialect) -> Result<(), Violation> {
    match dialect {
        Dialect::V1 => Ok(()),
        Dialect::Both | Dialect::Lenient => {
            let what = format!("gw{gateway} asks s{server} by DKVS/1, which speaks DKVS/2");
            Err(Violation::new(NAME, what))
        }
    }
}

/// A server has answered a datagram.
pub fn check_answered(
    server: usize,
    dialect: Dialect,
    peer: SocketAddrV4,
    replies: &[Bytes],
) -> Result<(), Violation> {
    // Gateways have one address for each server by DKVS/2, and others for all else.
    let is_by_v2 = matches!(peer.ip().octets(), [10, 1, ..]);
    let other = |reply: &&Bytes| kind_of(reply) != DatagramKind::V2;
    match replies.iter().find(other) {
        Some(reply) if is_by_v2 && dialect == Dialect::Both => {
            let bytes = reply.len();
            let what = format!("s{server} answers {peer} by DKVS/1, in {bytes} bytes");
            Err(Violation::new(NAME, what))
        }
        _ => Ok(()),
    }
}
