//! Which addresses are those of one host.

use std::net::{IpAddr, Ipv6Addr};

/// The address that stands for all that one host may have: an address of IPv4 alone, an IPv4-mapped
/// one as that, and the first 64 bits of any other address of IPv6, since a host has as many addresses
/// in such a network as it likes.
pub fn host_of(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V4(address) => address.into(),
        IpAddr::V6(address) => Ipv6Addr::from_bits(address.to_bits() >> 64 << 64).into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_of_ipv4_is_a_host_and_a_network_of_ipv6_is_one() {
        for (address, host) in [
            ("192.0.2.1", "192.0.2.1"),
            ("::ffff:192.0.2.1", "192.0.2.1"),
            ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::"),
            ("2001:db8:1:2::", "2001:db8:1:2::"),
            ("::1", "::"),
        ] {
            let found = host_of(address.parse().unwrap());
            assert_eq!(found, host.parse::<IpAddr>().unwrap(), "{address}");
        }
    }
}
