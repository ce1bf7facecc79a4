//! What waits for its turn, by whom it is done for.
//!
//! ```text
//!   push --> [ account: [ peer: item, item ] [ peer: item ] ] [ account: ... ] --> a turn, and the
//!                 ^                                                      |         next account
//!                 '------------------------------------------------------'
//! ```
//!
//! The accounts take turns, and within an account its peers do. So an item waits for as many turns as
//! others have something here, however much each of them has.

use std::collections::VecDeque;

use crate::peer::{Account, Holding, Peer, who_gives_way};

/// Items that wait for their turns.
pub(crate) struct Turns<T> {
    /// The first has the next turn. None of them is empty.
    accounts: VecDeque<OfAccount<T>>,
    waiting: usize,
}

struct OfAccount<T> {
    account: Account,
    /// The first has the account's next turn. None of them is empty.
    peers: VecDeque<OfPeer<T>>,
}

struct OfPeer<T> {
    peer: Peer,
    /// In the order in which they came.
    items: VecDeque<T>,
}

impl<T> Default for Turns<T> {
    fn default() -> Self {
        Self {
            accounts: VecDeque::new(),
            waiting: 0,
        }
    }
}

impl<T> Turns<T> {
    /// How many items wait.
    pub(crate) fn len(&self) -> usize {
        self.waiting
    }

    /// Whether none waits.
    pub(crate) fn is_empty(&self) -> bool {
        self.waiting == 0
    }

    /// The oldest item of the peer that has the next turn.
    pub(crate) fn first(&self) -> Option<&T> {
        self.accounts.front()?.peers.front()?.items.front()
    }

    /// The items of a peer, in the order in which they came.
    pub(crate) fn of(&self, account: Account, peer: Peer) -> impl Iterator<Item = &T> {
        let of_account = self.accounts.iter().find(|it| it.account == account);
        let of_peer = of_account.and_then(|it| it.peers.iter().find(|it| it.peer == peer));
        of_peer.into_iter().flat_map(|it| &it.items)
    }

    /// All items.
    #[cfg(feature = "mutants")]
    pub(crate) fn iter(&self) -> impl Iterator<Item = &T> {
        let peers = self.accounts.iter().flat_map(|it| &it.peers);
        peers.flat_map(|it| &it.items)
    }

    /// Adds an item behind those of the same peer.
    pub(crate) fn push(&mut self, account: Account, peer: Peer, item: T) {
        let of_account = self.accounts.iter_mut().find(|it| it.account == account);
        let of_account = match of_account {
            Some(of_account) => of_account,
            None => self.accounts.push_back_mut(OfAccount {
                account,
                peers: VecDeque::new(),
            }),
        };
        let of_peer = of_account.peers.iter_mut().find(|it| it.peer == peer);
        let of_peer = match of_peer {
            Some(of_peer) => of_peer,
            None => of_account.peers.push_back_mut(OfPeer {
                peer,
                items: VecDeque::new(),
            }),
        };
        of_peer.items.push_back(item);
        self.waiting += 1;
    }

    /// Gives the next peer its turn with its items, of which there is one at least: `turn` may take
    /// some, and put them back. None if nobody has any.
    pub(crate) fn take_turn<R>(&mut self, turn: impl FnOnce(&mut VecDeque<T>) -> R) -> Option<R> {
        let mut of_account = self.accounts.pop_front()?;
        let mut of_peer = of_account.peers.pop_front()?;
        let before = of_peer.items.len();
        let result = turn(&mut of_peer.items);
        self.waiting = self.waiting - before + of_peer.items.len();
        if !of_peer.items.is_empty() {
            of_account.peers.push_back(of_peer);
        }
        if !of_account.peers.is_empty() {
            self.accounts.push_back(of_account);
        }
        Some(result)
    }

    /// Who has to give way to another item of this peer ([`who_gives_way`]). None if all have as little
    /// as the peer would then.
    pub(crate) fn who_gives_way(&self, account: Account, peer: Peer) -> Option<(Account, Peer)> {
        let holdings = self.accounts.iter().flat_map(|of_account| {
            of_account.peers.iter().map(|of_peer| Holding {
                account: of_account.account,
                peer: of_peer.peer,
                amount: of_peer.items.len(),
            })
        });
        who_gives_way(&holdings.collect::<Vec<_>>(), (account, peer), 1)
    }

    /// Takes an item of a peer out of its turn, which `pick` chooses.
    pub(crate) fn remove(
        &mut self,
        (account, peer): (Account, Peer),
        pick: impl FnOnce(&mut VecDeque<T>) -> Option<T>,
    ) -> Option<T> {
        let at = self.accounts.iter().position(|it| it.account == account)?;
        let of_account = &mut self.accounts[at];
        let place = of_account.peers.iter().position(|it| it.peer == peer)?;
        let item = pick(&mut of_account.peers[place].items)?;
        self.waiting -= 1;
        if of_account.peers[place].items.is_empty() {
            of_account.peers.remove(place);
        }
        if of_account.peers.is_empty() {
            self.accounts.remove(at);
        }
        Some(item)
    }
}
