//! On whose behalf a request is made.

use std::net::IpAddr;

use dkvs_common::host::host_of;

use crate::transport::link::Party;

/// Who makes a request: what it takes of the client is counted as theirs, so that no one of them can
/// take all.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum CallerId {
    /// This program itself.
    Internal,
    /// Whoever has the access token that this number stands for, wherever they are.
    Token(u64),
    /// Whoever sends from this address of IPv4.
    AddressV4(u32),
    /// Whoever sends from this network of IPv6, by its first 64 bits: one host has as many addresses
    /// in it as it likes.
    NetworkV6(u64),
}

impl CallerId {
    /// Whoever sends from this address, by its [host](host_of).
    pub fn of_address(address: IpAddr) -> Self {
        match host_of(address) {
            IpAddr::V4(address) => Self::AddressV4(address.to_bits()),
            IpAddr::V6(address) => Self::NetworkV6((address.to_bits() >> 64) as u64),
        }
    }

    /// For whom its long values are on their way.
    pub(super) fn party(self) -> Party {
        match self {
            Self::Internal => Party(0, 0),
            Self::Token(number) => Party(1, number),
            Self::AddressV4(address) => Party(2, address.into()),
            Self::NetworkV6(network) => Party(3, network),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_one_caller_and_a_network_of_ipv6_is_one() {
        for (one, other, same) in [
            ("192.0.2.1", "192.0.2.1", true),
            ("192.0.2.1", "::ffff:192.0.2.1", true),
            ("192.0.2.1", "192.0.2.2", false),
            ("2001:db8::1", "2001:db8::2", true),
            ("2001:db8::1", "2001:db8::ffff:ffff:ffff:ffff", true),
            ("2001:db8::1", "2001:db8:0:1::1", false),
            ("::1", "127.0.0.1", false),
            ("::", "0.0.0.0", false),
        ] {
            let [one, other] = [one, other].map(|it| CallerId::of_address(it.parse().unwrap()));
            assert_eq!(one == other, same, "{one:?} {other:?}");
        }
    }
}
