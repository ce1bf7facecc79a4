//! The senders of commands, as those who carry them out know them, and whom their work is charged
//! to.

use std::collections::HashMap;
use std::fmt;
use std::hash::Hash;
use std::net::{IpAddr, SocketAddr};

use dkvs_common::host::host_of;

/// The sender of a command. It distinguishes uploads, and is shown in the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Peer(SocketAddr);

impl From<SocketAddr> for Peer {
    fn from(addr: SocketAddr) -> Self {
        Self(addr)
    }
}

impl fmt::Display for Peer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Whom work and memory are charged to: the key that proved a command, and the host that it came
/// from. All ports of a host are one account, and so are all [addresses that it may have](host_of).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Account {
    /// 0 where commands are not proved.
    key_id: u8,
    host: IpAddr,
}

impl Account {
    /// That of a peer that proved itself by a key.
    pub(crate) fn of(peer: Peer, key_id: u8) -> Self {
        let host = host_of(peer.0.ip());
        Self { key_id, host }
    }
}

/// What somebody holds of something that is shared.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Holding {
    pub(crate) account: Account,
    pub(crate) peer: Peer,
    pub(crate) amount: usize,
}

/// Who gives up some of what they hold so that another can have `more`, when nothing is left; none
/// if all hold as little as the other would then.
///
/// This is max-min fairness: whoever holds most gives way to whoever would hold less. It is decided
/// among keys first, then among the hosts of a key, then among the ports of a host. So one account
/// may hold everything while nobody else asks for it, and whoever holds less than an equal part
/// always gets it.
pub(crate) fn who_gives_way(
    holdings: &[Holding],
    (account, peer): (Account, Peer),
    more: usize,
) -> Option<(Account, Peer)> {
    let key = |holding: &Holding| holding.account.key_id;
    let host = |holding: &Holding| holding.account.host;
    let of_key = most(holdings, key, account.key_id, more);
    let in_key: Vec<Holding> = only(holdings, key, of_key);
    let of_host = match of_key == account.key_id {
        true => most(&in_key, host, account.host, more),
        false => greatest(&in_key, host)?,
    };
    let in_host: Vec<Holding> = only(&in_key, host, of_host);
    let is_own = of_key == account.key_id && of_host == account.host;
    let port = |holding: &Holding| holding.peer;
    let of_port = match is_own {
        true => Some(most(&in_host, port, peer, more)).filter(|most| *most != peer),
        false => greatest(&in_host, port),
    };
    let account = Account {
        key_id: of_key,
        host: of_host,
    };
    of_port.map(|peer| (account, peer))
}

fn only<T: Eq>(holdings: &[Holding], by: impl Fn(&Holding) -> T, one: T) -> Vec<Holding> {
    let of_it = holdings.iter().filter(|holding| by(holding) == one);
    of_it.copied().collect()
}

/// The one that holds most, if that is more than `own` would hold; else `own`.
fn most<T: Ord + Hash + Copy>(
    holdings: &[Holding],
    by: impl Fn(&Holding) -> T,
    own: T,
    more: usize,
) -> T {
    let mut sums = sums(holdings, by);
    let wanted = sums.remove(&own).unwrap_or(0) + more;
    let greedier = sums.into_iter().filter(|(_, sum)| *sum > wanted);
    greatest_of(greedier).unwrap_or(own)
}

fn greatest<T: Ord + Hash + Copy>(holdings: &[Holding], by: impl Fn(&Holding) -> T) -> Option<T> {
    greatest_of(sums(holdings, by).into_iter())
}

/// Of several with as much, the same each time, however they are hashed.
fn greatest_of<T: Ord + Copy>(sums: impl Iterator<Item = (T, usize)>) -> Option<T> {
    let greatest = sums.max_by_key(|(each, sum)| (*sum, *each));
    greatest.map(|(each, _)| each)
}

fn sums<T: Eq + Hash>(holdings: &[Holding], by: impl Fn(&Holding) -> T) -> HashMap<T, usize> {
    let mut sums = HashMap::new();
    for holding in holdings {
        *sums.entry(by(holding)).or_insert(0) += holding.amount;
    }
    sums
}

#[cfg(test)]
impl Peer {
    /// The peer at this port of the machine itself.
    pub(crate) fn at_port(port: u16) -> Self {
        Self(([127, 0, 0, 1], port).into())
    }

    /// The peer at this port of a host.
    pub(crate) fn at(host: u8, port: u16) -> Self {
        Self(([10, 0, 0, host], port).into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn holding((key_id, host, port): (u8, u8, u16), amount: usize) -> Holding {
        let peer = Peer::at(host, port);
        Holding {
            account: Account::of(peer, key_id),
            peer,
            amount,
        }
    }

    #[test]
    fn all_ports_of_a_host_and_all_addresses_of_a_network_are_one_account() {
        let account = |addr: &str, key_id| Account::of(Peer(addr.parse().unwrap()), key_id);
        for (one, other, is_same) in [
            ("10.0.0.1:1", "10.0.0.1:2", true),
            ("10.0.0.1:1", "10.0.0.2:1", false),
            ("10.0.0.1:1", "[::ffff:10.0.0.1]:1", true),
            ("[::ffff:10.0.0.1]:1", "[::ffff:10.0.0.2]:1", false),
            ("[2001:db8::1]:1", "[2001:db8::ffff:0:0:2]:9", true),
            ("[2001:db8:0:1::1]:1", "[2001:db8:0:2::1]:1", false),
        ] {
            assert_eq!(
                account(one, 1) == account(other, 1),
                is_same,
                "{one} {other}"
            );
            assert_ne!(account(one, 1), account(other, 2));
        }
    }

    #[test]
    fn whoever_holds_most_gives_way_to_whoever_would_hold_less() {
        type Who = (u8, u8, u16);
        type Case<'a> = (&'a [(Who, usize)], Who, usize, Option<Who>);
        let (a, b, c) = ((1, 1, 1), (1, 1, 2), (1, 2, 1));
        let cases: &[Case<'_>] = &[
            (&[], a, 1, None),
            // Whoever is alone holds all, and more there is not.
            (&[(a, 9)], a, 1, None),
            (&[(a, 9)], c, 1, Some(a)),
            (&[(a, 9)], c, 8, Some(a)),
            (&[(a, 9)], c, 9, None),
            // The ports of a host count together.
            (&[(a, 3), (b, 4), (c, 5)], (1, 3, 1), 5, Some(b)),
            (&[(a, 3), (b, 4), (c, 5)], c, 1, Some(b)),
            (&[(a, 3), (b, 4), (c, 5)], c, 2, None),
            // Among themselves, they share what the host has.
            (&[(a, 3), (b, 6)], (1, 1, 3), 4, Some(b)),
            (&[(a, 3), (b, 6)], a, 2, Some(b)),
            (&[(a, 3), (b, 6)], a, 3, None),
            // The hosts of a key count together.
            (&[(a, 5), (c, 5), ((2, 3, 1), 6)], (2, 3, 1), 3, Some(c)),
            (&[(a, 5), (c, 5), ((2, 3, 1), 6)], (2, 3, 1), 4, None),
            (&[(a, 5), (c, 6), ((2, 1, 1), 3)], (2, 1, 1), 7, Some(c)),
        ];
        for (holdings, (key_id, host, port), more, expected) in cases {
            let holdings = holdings.iter().map(|(who, amount)| holding(*who, *amount));
            let holdings: Vec<Holding> = holdings.collect();
            let peer = Peer::at(*host, *port);
            let gives = who_gives_way(&holdings, (Account::of(peer, *key_id), peer), *more);
            let expected = expected.map(|(key_id, host, port)| {
                let peer = Peer::at(host, port);
                (Account::of(peer, key_id), peer)
            });
            assert_eq!(gives, expected, "{holdings:?} {peer} {more}");
        }
    }
}
