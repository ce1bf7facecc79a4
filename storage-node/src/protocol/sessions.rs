//! The sessions that a worker's clients use, so that no datagram is taken twice.
//!
//! ```text
//!   greeting ---> issued: nothing is stored, the session itself proves its address
//!                   | first datagram under it
//!                   v
//!                 current <--------- later ones
//!                   | first datagram under a newer session of the same address
//!                   v
//!                 previous: for datagrams that are late; replaced by the next
//! ```
//!
//! The table holds a bounded number of clients. When it is full, the least recently used client is
//! forgotten, with its windows. So that none of its datagrams is taken again, the server then
//! rejects every session that is as old as its newest, unless its client is in the table. A client
//! that is rejected greets again. Invariant: of every session, used or forgotten, each sequence
//! number is taken at most once.

use std::collections::HashMap;
use std::net::SocketAddrV4;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use dkvs_common::wire::v2::session::{ReplayWindow, SessionSecret};

/// Most clients whose sessions a worker holds.
pub const PEERS_MAX: usize = 4_096;

/// Issues the sessions of a server, for all its workers.
#[derive(Debug)]
pub struct Issuer {
    secret: SessionSecret,
    newest: AtomicU64,
}

impl Issuer {
    /// An issuer of sessions that this secret proves.
    pub fn new(secret: SessionSecret) -> Self {
        Self {
            secret,
            newest: AtomicU64::new(0),
        }
    }

    fn issue(&self, client: SocketAddrV4) -> u64 {
        loop {
            let serial = self.newest.fetch_add(1, Ordering::Relaxed) + 1;
            let session = self.secret.session(serial, client);
            // Zero is the session of a greeting.
            if session != 0 {
                return session;
            }
        }
    }

    fn serial(&self, session: u64, client: SocketAddrV4) -> Option<u64> {
        let newest = self.newest.load(Ordering::Relaxed);
        self.secret.serial(session, newest, client)
    }
}

/// The clients of one worker that have used a session.
#[derive(Debug)]
pub(super) struct Sessions {
    issuer: Arc<Issuer>,
    peers: HashMap<SocketAddrV4, ClientSessions>,
    peers_max: usize,
    /// The greatest serial of a client that was forgotten.
    forgotten: u64,
    /// How many datagrams were looked at: the time by which the least recent is found.
    looks: u64,
}

#[derive(Debug)]
struct ClientSessions {
    current: Session,
    previous: Option<Session>,
    last_look: u64,
}

#[derive(Debug)]
struct Session {
    id: u64,
    serial: u64,
    window: ReplayWindow,
}

/// Why an authentic datagram is not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Rejection {
    /// Its session is another's, or older than what is remembered.
    Session,
    /// It was taken before, or is too old to know.
    Replayed,
}

impl Sessions {
    pub(super) fn new(issuer: Arc<Issuer>) -> Self {
        Self::of_size(issuer, PEERS_MAX)
    }

    fn of_size(issuer: Arc<Issuer>, peers_max: usize) -> Self {
        Self {
            issuer,
            peers: HashMap::new(),
            peers_max,
            forgotten: 0,
            looks: 0,
        }
    }

    /// A new session for a client. Nothing of it is stored.
    pub(super) fn issue(&self, client: SocketAddrV4) -> u64 {
        self.issuer.issue(client)
    }

    /// Takes a datagram of a client by its session and sequence number, at most once.
    pub(super) fn take(
        &mut self,
        client: SocketAddrV4,
        id: u64,
        sequence: u64,
    ) -> Result<(), Rejection> {
        self.looks += 1;
        let Some(peer) = self.peers.get_mut(&client) else {
            let session = self.begin(client, id, sequence, self.forgotten)?;
            self.insert(client, session);
            return Ok(());
        };
        // A session in the table was proved when it came there.
        let held = std::iter::once(&mut peer.current).chain(&mut peer.previous);
        for session in held {
            if session.id == id {
                peer.last_look = self.looks;
                let is_new = session.window.take(sequence);
                return is_new.then_some(()).ok_or(Rejection::Replayed);
            }
        }
        let older = peer.current.serial;
        let session = self.begin(client, id, sequence, older)?;
        let looks = self.looks;
        if let Some(peer) = self.peers.get_mut(&client) {
            peer.previous = Some(std::mem::replace(&mut peer.current, session));
            peer.last_look = looks;
        }
        Ok(())
    }

    /// A session that was not in use, if it is the client's and newer than `older`.
    fn begin(
        &self,
        client: SocketAddrV4,
        id: u64,
        sequence: u64,
        older: u64,
    ) -> Result<Session, Rejection> {
        let serial = self.issuer.serial(id, client);
        let serial = serial.filter(|serial| *serial > older);
        Ok(Session {
            id,
            serial: serial.ok_or(Rejection::Session)?,
            window: ReplayWindow::new(sequence),
        })
    }

    fn insert(&mut self, client: SocketAddrV4, current: Session) {
        if self.peers.len() >= self.peers_max {
            self.forget_least_recent();
        }
        let peer = ClientSessions {
            current,
            previous: None,
            last_look: self.looks,
        };
        self.peers.insert(client, peer);
    }

    /// Looks at the whole table, which is small, and only when a client comes that was not there.
    fn forget_least_recent(&mut self) {
        let least_recent = self.peers.iter().min_by_key(|(_, peer)| peer.last_look);
        let Some((&client, peer)) = least_recent else {
            return;
        };
        self.forgotten = self.forgotten.max(peer.current.serial);
        self.peers.remove(&client);
    }

    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.peers.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::HashSet;
    use std::net::Ipv4Addr;

    fn client(port: u16) -> SocketAddrV4 {
        SocketAddrV4::new(Ipv4Addr::LOCALHOST, port)
    }

    fn sessions(peers_max: usize) -> Sessions {
        let issuer = Arc::new(Issuer::new(SessionSecret::new(&[1; 32])));
        Sessions::of_size(issuer, peers_max)
    }

    #[test]
    fn issuing_stores_nothing_and_every_session_is_another() {
        let sessions = sessions(2);
        let issued: HashSet<u64> = (0..1_000).map(|_| sessions.issue(client(1))).collect();
        assert_eq!((issued.len(), sessions.len()), (1_000, 0));
        assert!(!issued.contains(&0));
    }

    #[test]
    fn a_datagram_is_taken_once() {
        let mut sessions = sessions(2);
        let id = sessions.issue(client(1));
        for sequence in [5, 4, 6, 9_000] {
            assert_eq!(sessions.take(client(1), id, sequence), Ok(()));
            assert_eq!(
                sessions.take(client(1), id, sequence),
                Err(Rejection::Replayed)
            );
        }
        assert_eq!(sessions.take(client(1), id, 7), Err(Rejection::Replayed));
    }

    #[test]
    fn a_session_of_another_address_or_server_is_refused_and_leaves_nothing() {
        let mut ours = sessions(2);
        let id = ours.issue(client(1));
        assert_eq!(ours.take(client(2), id, 1), Err(Rejection::Session));
        assert_eq!(ours.take(client(1), id ^ 1, 1), Err(Rejection::Session));
        assert_eq!(ours.take(client(1), 0, 1), Err(Rejection::Session));
        let secret = SessionSecret::new(&[2; 32]);
        let mut restarted = Sessions::of_size(Arc::new(Issuer::new(secret)), 2);
        restarted.issue(client(1));
        assert_eq!(restarted.take(client(1), id, 1), Err(Rejection::Session));
        assert_eq!((ours.len(), restarted.len()), (0, 0));
    }

    #[test]
    fn late_datagrams_pass_the_window_of_the_previous_session_and_of_none_before() {
        let mut sessions = sessions(2);
        let ids: Vec<u64> = (0..4).map(|_| sessions.issue(client(1))).collect();
        assert_eq!(sessions.take(client(1), ids[0], 1), Ok(()));
        assert_eq!(sessions.take(client(1), ids[1], 1), Ok(()));
        assert_eq!(
            sessions.take(client(1), ids[0], 1),
            Err(Rejection::Replayed)
        );
        assert_eq!(sessions.take(client(1), ids[0], 2), Ok(()));
        assert_eq!(sessions.take(client(1), ids[3], 1), Ok(()));
        assert_eq!(
            sessions.take(client(1), ids[1], 1),
            Err(Rejection::Replayed)
        );
        assert_eq!(sessions.take(client(1), ids[1], 2), Ok(()));
        // The third was never used, and the fourth is.
        assert_eq!(sessions.take(client(1), ids[2], 1), Err(Rejection::Session));
        assert_eq!(sessions.take(client(1), ids[0], 3), Err(Rejection::Session));
    }

    #[test]
    fn the_least_recent_makes_room_and_its_age_is_refused_from_then_on() {
        let mut sessions = sessions(2);
        let ids: Vec<u64> = (0..4).map(|port| sessions.issue(client(port))).collect();
        let ask = |sessions: &mut Sessions, port: u16, sequence| {
            sessions.take(client(port), ids[usize::from(port)], sequence)
        };
        assert_eq!(ask(&mut sessions, 1, 1), Ok(()));
        assert_eq!(ask(&mut sessions, 2, 1), Ok(()));
        assert_eq!(ask(&mut sessions, 1, 2), Ok(()));
        assert_eq!(ask(&mut sessions, 3, 1), Ok(()), "the second makes room");
        assert_eq!(sessions.len(), 2);
        for sequence in [1, 2] {
            assert_eq!(ask(&mut sessions, 2, sequence), Err(Rejection::Session));
        }
        assert_eq!(ask(&mut sessions, 0, 1), Err(Rejection::Session), "as old");
        assert_eq!(ask(&mut sessions, 1, 3), Ok(()), "old, and in the table");
        let again = sessions.issue(client(2));
        assert_eq!(sessions.take(client(2), again, 1), Ok(()));
    }

    proptest! {
        /// Whatever is evicted and greeted anew: nothing is taken twice.
        #[test]
        fn nothing_is_ever_taken_twice(
            script in prop::collection::vec((0..4u16, 0..6usize, 0..6u64), 0..300),
        ) {
            let mut sessions = sessions(2);
            let mut issued: Vec<Vec<u64>> = vec![Vec::new(); 4];
            let mut taken = HashSet::new();
            for (port, which, sequence) in script {
                let of_client = &mut issued[usize::from(port)];
                if of_client.len() <= which {
                    of_client.push(sessions.issue(client(port)));
                }
                let id = of_client[which.min(of_client.len() - 1)];
                if sessions.take(client(port), id, sequence).is_ok() {
                    prop_assert!(taken.insert((port, id, sequence)));
                }
                prop_assert!(sessions.len() <= 2);
            }
        }
    }
}
