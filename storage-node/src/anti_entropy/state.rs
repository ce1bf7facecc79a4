//! What the anti-entropy of a server knows, and what it asks.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::SocketAddrV4;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use dkvs_common::cluster::ServerId;
use dkvs_common::kv::Key;
use dkvs_common::model::ReplicaCommand;
use dkvs_common::quorum::params::REQUEST_TIMEOUT_MAX;
use dkvs_common::tag::Tag;

use super::completing::Completing;
use super::finishing::Finishing;
use super::mending::{Mend, Mending};
use super::session::Session;
use crate::allowance::Allowance;
use crate::leaves::LeafSums;
use crate::service::Service;
use crate::store::PutResult;

/// A nudge is passed on after so long: gateways send one for all that is missed in half of that, so what was
/// missed by then is stored here, and is found.
const PASS_ON: Duration = Duration::from_secs(1);

/// How long things take.
#[derive(Debug, Clone, Copy)]
pub struct Timing {
    /// A peer that is in step is compared with again after so long.
    pub interval: Duration,
    /// What differs is looked at again after so long, before it counts.
    pub pause: Duration,
    /// For how long a server asks its peers at its start whether it is set back, before it answers anybody.
    pub start: Duration,
    /// A nudge is passed on after so long, and followed after so long.
    pub nudge: Duration,
    /// One that did not answer is asked again after so long.
    pub retry: Duration,
    /// What was accepted, and of which nothing has come for so long, is finished.
    pub finish: Duration,
    /// How long a peer has to answer.
    pub answer: Duration,
    /// After so long nothing is under way any more that counts what the server said before it was started:
    /// what the longest request takes, and a quarter for clocks that do not run alike.
    pub settling: Duration,
}

impl Default for Timing {
    fn default() -> Self {
        Self {
            interval: Duration::from_secs(60),
            pause: Duration::from_secs(2),
            start: Duration::from_millis(500),
            nudge: PASS_ON,
            retry: Duration::from_secs(5),
            finish: Duration::from_secs(5),
            answer: Duration::from_secs(5),
            settling: REQUEST_TIMEOUT_MAX * 5 / 4,
        }
    }
}

/// Something to ask a peer.
#[derive(Debug)]
pub struct Ask {
    /// Names it to [`AntiEntropy::handle_answer`].
    pub id: u64,
    /// Whom.
    pub to: ServerId,
    /// What.
    pub command: ReplicaCommand,
    /// How long the peer has.
    pub timeout: Duration,
}

/// The anti-entropy of a server.
pub struct AntiEntropy {
    pub(super) service: Arc<Service>,
    pub(super) leaf_sums: Arc<LeafSums>,
    /// Where this server is, as its peers know it.
    pub(super) addr: SocketAddrV4,
    pub(super) timing: Timing,
    pub(super) allowance: Allowance,
    /// When each peer is compared with next.
    pub(super) peers: BTreeMap<ServerId, Instant>,
    /// After how long each was compared with again that keeps differing.
    pub(super) patience: BTreeMap<ServerId, Duration>,
    /// From which leaf on the next comparison begins, where the last one has not found all that differ.
    pub(super) resume: BTreeMap<ServerId, u32>,
    /// Those that held the same when they were compared with last.
    pub(super) in_step: BTreeSet<ServerId>,
    pub(super) sessions: BTreeMap<ServerId, Session>,
    /// How it finds out whether it is set back.
    pub(super) marking: Marking,
    /// Those that may lack what this server holds, and when each is to be told so next.
    pub(super) behind: BTreeMap<ServerId, Instant>,
    /// Those that said so of this server while they were compared with it: they are once more.
    pub(super) nudged: BTreeSet<ServerId>,
    /// How far the server is, if it may have lost records.
    pub(super) completing: Option<Completing>,
    pub(super) asks: VecDeque<Ask>,
    /// By number: what was asked, and has no answer.
    pub(super) asked: BTreeMap<u64, (ServerId, Asked)>,
    pub(super) numbers: u64,
    /// The keys of what is being pulled.
    pub(super) pulling: BTreeSet<Vec<u8>>,
    pub(super) mending: Mending,
    pub(super) finishing: Finishing,
    pub(super) stored: Arc<Mutex<Vec<(Pull, PutResult)>>>,
    pub(super) wake: Arc<dyn Fn() + Send + Sync>,
}

/// What is under way while a server finds out whether it is set back.
#[derive(Debug, Default)]
pub(super) struct Marking {
    /// Those that are being told. A peer is told one thing at a time, so that nothing overtakes it.
    pub(super) told: BTreeSet<ServerId>,
    /// At a start: until when peers are waited for, and when each is to be told that has not answered.
    pub(super) start: Option<(Instant, BTreeMap<ServerId, Instant>)>,
    /// Whether this process was set back. It has another lineage since.
    pub(super) is_set_back: bool,
}

#[derive(Debug)]
pub(super) enum Asked {
    Sums,
    Entries {
        leaf: u32,
    },
    Record(Pull),
    Mend(Mend),
    /// How far this server is.
    HighWater,
    /// By when it would be said again.
    Nudge {
        again: Instant,
    },
}

/// A record that is being pulled.
#[derive(Debug)]
pub(super) struct Pull {
    pub(super) from: ServerId,
    /// The session that pulls it.
    pub(super) session: u64,
    pub(super) leaf: u32,
    pub(super) key: Key,
    /// The tag that the peer has listed.
    pub(super) tag: Tag,
    pub(super) bytes: usize,
}

impl AntiEntropy {
    pub(super) fn ask(&mut self, to: ServerId, command: ReplicaCommand, asked: Asked) {
        let id = self.numbers;
        self.numbers += 1;
        self.asked.insert(id, (to, asked));
        let timeout = self.timing.answer;
        self.asks.push_back(Ask {
            id,
            to,
            command,
            timeout,
        });
    }
}
