//! When which peer is compared with, and what is pulled from it.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::SocketAddrV4;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use dkvs_common::cluster::ServerId;
use dkvs_common::kv::{Key, Value};
use dkvs_common::model::{LeafEntry, LeafScope, Refusal, ReplicaCommand, ReplicaResponse};
use dkvs_common::record::{Content, Record};
use dkvs_common::ring::Position;
use dkvs_common::tag::Tag;

use super::allowance::Allowance;
use super::comparison::{Comparison, Next};
use crate::leaves::{LeafSums, SharedLeaves, is_compared};
use crate::service::Service;
use crate::store::{GivenBy, PutOutcome, PutResult, RecordHead, RecordStore as _};

/// Most peers that are compared with at a time.
const SESSIONS_MAX: usize = 4;

/// Most records that are pulled at a time.
const PULLS_MAX: usize = 64;

/// What a record counts beside its key and value, in bytes: what it costs to ask for it and to store it, so
/// that many short records take no more of the machine than few long ones.
const RECORD_BYTES: usize = 512;

/// How long things take.
#[derive(Debug, Clone, Copy)]
pub struct Timing {
    /// A peer that is in step is compared with again after so long.
    pub interval: Duration,
    /// What differs is looked at again after so long, before it counts.
    pub pause: Duration,
    /// One that did not answer is asked again after so long.
    pub retry: Duration,
    /// How long a peer has to answer.
    pub answer: Duration,
}

impl Default for Timing {
    fn default() -> Self {
        Self {
            interval: Duration::from_secs(60),
            pause: Duration::from_secs(2),
            retry: Duration::from_secs(5),
            answer: Duration::from_secs(5),
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
    service: Arc<Service>,
    leaf_sums: Arc<LeafSums>,
    /// Where this server is, as its peers know it.
    addr: SocketAddrV4,
    timing: Timing,
    allowance: Allowance,
    /// When each peer is compared with next.
    peers: BTreeMap<ServerId, Instant>,
    /// From which leaf on the next comparison begins, where the last one has not found all that differ.
    resume: BTreeMap<ServerId, u32>,
    /// Those that held the same when they were compared with last.
    in_step: BTreeSet<ServerId>,
    sessions: BTreeMap<ServerId, Session>,
    asks: VecDeque<Ask>,
    /// By number: what was asked, and has no answer.
    asked: BTreeMap<u64, (ServerId, Asked)>,
    numbers: u64,
    /// The keys of what is being pulled.
    pulling: BTreeSet<Vec<u8>>,
    stored: Arc<Mutex<Vec<(Pull, PutResult)>>>,
    wake: Arc<dyn Fn() + Send + Sync>,
}

/// What is under way with one peer.
struct Session {
    /// The leaves that both have, by which they are compared.
    shared: SharedLeaves,
    comparison: Comparison,
    waits: Waits,
    /// Once the comparison has ended: the leaves that differ, the next last.
    leaves: Option<Vec<u32>>,
    /// How far the first of them is read.
    after: Option<Key>,
    /// What is newer at the peer, and still to be pulled.
    newer: VecDeque<LeafEntry>,
    pulls: usize,
    /// Whether anything was pulled and stored, or could not be.
    has_pulled: bool,
    has_failed: bool,
    /// Whether any leaf did differ.
    differs: bool,
    /// The leaf behind the last that was found.
    behind: u32,
}

/// What a session waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Waits {
    /// Nothing.
    Not,
    /// Sums or entries.
    Answer,
    /// This time.
    Until(Instant),
    /// What it pulls, or others do.
    Pulls,
}

#[derive(Debug)]
enum Asked {
    Sums,
    Entries { leaf: u32 },
    Record(Pull),
}

/// A record that is being pulled.
#[derive(Debug)]
struct Pull {
    from: ServerId,
    key: Key,
    bytes: usize,
}

impl AntiEntropy {
    /// The anti-entropy of a server that knows its cluster; none of another. It pulls at most so many
    /// bytes a second, which are not 0. `wake` is called when [`Self::handle_stored`] is to be.
    pub fn new(
        service: Arc<Service>,
        timing: Timing,
        bytes_per_second: u64,
        now: Instant,
        wake: impl Fn() + Send + Sync + 'static,
    ) -> Option<Self> {
        let leaf_sums = Arc::clone(service.leaf_sums()?);
        let membership = leaf_sums.membership();
        let addr = membership.view.cluster().addr(membership.own)?;
        let peers = leaf_sums.peers();
        service.counters.peers.set(peers.len() as u64);
        Some(Self {
            service,
            leaf_sums,
            addr,
            timing,
            allowance: Allowance::new(bytes_per_second),
            peers: peers.into_iter().map(|peer| (peer, now)).collect(),
            resume: BTreeMap::new(),
            in_step: BTreeSet::new(),
            sessions: BTreeMap::new(),
            asks: VecDeque::new(),
            asked: BTreeMap::new(),
            numbers: 0,
            pulling: BTreeSet::new(),
            stored: Arc::default(),
            wake: Arc::new(wake),
        })
    }

    /// The next thing to ask a peer.
    pub fn poll_ask(&mut self) -> Option<Ask> {
        self.asks.pop_front()
    }

    /// When [`Self::handle_timeout`] is to be called next.
    pub fn poll_timeout(&self) -> Option<Instant> {
        let has_place = self.sessions.len() < SESSIONS_MAX;
        let idle = self.peers.iter().filter(|_| has_place);
        let idle = idle.filter(|(peer, _)| !self.sessions.contains_key(peer));
        let sessions = self.sessions.values();
        let waiting = sessions.filter_map(|session| match session.waits {
            Waits::Until(at) => Some(at),
            Waits::Not | Waits::Answer | Waits::Pulls => None,
        });
        waiting.chain(idle.map(|(_, at)| *at)).min()
    }

    /// Does what is due.
    pub fn handle_timeout(&mut self, now: Instant) {
        let due = self.peers.iter().filter(|(_, at)| **at <= now);
        let due = due.map(|(peer, _)| *peer);
        let idle: Vec<ServerId> = due.filter(|it| !self.sessions.contains_key(it)).collect();
        for peer in idle {
            if self.sessions.len() < SESSIONS_MAX {
                self.begin(peer, self.leaf_sums.depth());
            }
        }
        self.advance_all(now);
    }

    /// A peer has answered, or has not in time.
    pub fn handle_answer(&mut self, id: u64, answer: Option<ReplicaResponse>, now: Instant) {
        let Some((peer, asked)) = self.asked.remove(&id) else {
            return;
        };
        match asked {
            Asked::Sums => self.handle_sums(peer, answer, now),
            Asked::Entries { leaf } => self.handle_entries(peer, leaf, answer, now),
            Asked::Record(pull) => self.handle_record(pull, answer),
        }
        self.advance_all(now);
    }

    /// Takes note of what has been stored of what was pulled.
    pub fn handle_stored(&mut self, now: Instant) {
        let stored =
            std::mem::take(&mut *self.stored.lock().unwrap_or_else(PoisonError::into_inner));
        for (pull, result) in stored {
            self.end_pull(&pull, Some(result));
        }
        self.advance_all(now);
    }

    fn begin(&mut self, peer: ServerId, depth: u8) {
        let shared = self.leaf_sums.shared_with(peer, depth);
        let from = self.resume.get(&peer).copied().unwrap_or(0);
        let session = Session {
            comparison: Comparison::new(shared.count(), from),
            shared,
            waits: Waits::Not,
            leaves: None,
            after: None,
            newer: VecDeque::new(),
            pulls: 0,
            has_pulled: false,
            has_failed: false,
            differs: false,
            behind: 0,
        };
        self.sessions.insert(peer, session);
    }

    fn advance_all(&mut self, now: Instant) {
        let peers: Vec<ServerId> = self.sessions.keys().copied().collect();
        for peer in peers {
            self.advance(peer, now);
        }
    }

    /// Goes on with a peer, until there is something to wait for.
    fn advance(&mut self, peer: ServerId, now: Instant) {
        loop {
            let allowed_at = self.allowance.ready_at(now);
            let has_place = self.asked.len() < PULLS_MAX + SESSIONS_MAX;
            let Some(session) = self.sessions.get_mut(&peer) else {
                return;
            };
            match session.waits {
                Waits::Answer => return,
                Waits::Not | Waits::Until(_) | Waits::Pulls => {}
            }
            let scope_depth = session.shared.depth();
            let Some(leaves) = &session.leaves else {
                match session.comparison.next(now, self.timing.pause) {
                    Next::Ask(question) => {
                        session.waits = Waits::Answer;
                        let command = ReplicaCommand::GetLeafSums {
                            scope: self.scope(scope_depth),
                            first: question.first,
                            leaves_per_sum: question.leaves_per_sum,
                            sums_max: question.sums_max,
                        };
                        self.ask(peer, command, Asked::Sums);
                    }
                    Next::Wait(at) => {
                        session.waits = Waits::Until(at);
                        return;
                    }
                    Next::Differ(mut leaves) => {
                        let counters = &self.service.counters;
                        counters.leaves_differing.add(leaves.len() as u64);
                        session.differs = !leaves.is_empty() || session.comparison.is_ahead();
                        session.behind = session.comparison.behind();
                        leaves.reverse();
                        session.leaves = Some(leaves);
                    }
                }
                continue;
            };
            let leaf = leaves.last().copied();
            if allowed_at > now {
                session.waits = Waits::Until(allowed_at);
                return;
            }
            if !session.newer.is_empty() && !has_place {
                session.waits = Waits::Pulls;
                return;
            }
            if let Some(entry) = session.newer.pop_front() {
                self.pull(peer, entry);
                continue;
            }
            if session.pulls > 0 {
                session.waits = Waits::Pulls;
                return;
            }
            let Some(leaf) = leaf else {
                return self.end(peer, now);
            };
            session.waits = Waits::Answer;
            let after = session.after.clone();
            let command = ReplicaCommand::GetLeafEntries {
                scope: self.scope(scope_depth),
                leaf,
                after,
            };
            self.ask(peer, command, Asked::Entries { leaf });
        }
    }

    fn scope(&self, depth: u8) -> LeafScope {
        LeafScope {
            asker: self.addr,
            replication: self.leaf_sums.membership().replication,
            depth,
        }
    }

    fn ask(&mut self, to: ServerId, command: ReplicaCommand, asked: Asked) {
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

    fn handle_sums(&mut self, peer: ServerId, answer: Option<ReplicaResponse>, now: Instant) {
        let Some(mut session) = self.sessions.remove(&peer) else {
            return;
        };
        session.waits = Waits::Not;
        let Some(ReplicaResponse::LeafSums { depth, sums }) = answer else {
            let is_other = matches!(answer, Some(ReplicaResponse::Refused(Refusal::Unsupported)));
            return self.put_off(peer, is_other, now);
        };
        if depth < session.shared.depth() {
            // Its leaves are coarser: once more, by those.
            return self.begin(peer, depth);
        }
        let own = |first, count| self.leaf_sums.sum(&session.shared, first, count);
        match session.comparison.handle_sums(&sums, own) {
            true => drop(self.sessions.insert(peer, session)),
            false => self.put_off(peer, false, now),
        }
    }

    fn handle_entries(
        &mut self,
        peer: ServerId,
        leaf: u32,
        answer: Option<ReplicaResponse>,
        now: Instant,
    ) {
        let Some(ReplicaResponse::LeafEntries { has_more, entries }) = answer else {
            self.sessions.remove(&peer);
            return self.put_off(peer, false, now);
        };
        let Some(session) = self.sessions.get_mut(&peer) else {
            return;
        };
        let positions = session.shared.positions(leaf);
        let is_of_leaf = |entry: &LeafEntry| {
            let position = Position::of_key(&entry.key);
            positions.is_some_and(|(first, last)| (first..=last).contains(&position))
        };
        let after = entries.last().map(|entry| entry.key.clone());
        let is_wanted = |entry: &LeafEntry| {
            is_of_leaf(entry) && is_newer(self.service.store().peek(&entry.key), entry)
        };
        session.waits = Waits::Not;
        session.newer.extend(entries.into_iter().filter(is_wanted));
        match has_more {
            true => session.after = after,
            false => {
                session.after = None;
                if let Some(leaves) = &mut session.leaves {
                    leaves.pop();
                }
            }
        }
    }

    /// Asks for a record, unless it is on its way already, or has come meanwhile.
    fn pull(&mut self, peer: ServerId, entry: LeafEntry) {
        let key = entry.key.clone();
        let held = self.service.store().peek(&key);
        let is_due = is_newer(held, &entry) && self.pulling.insert(key.as_bytes().to_vec());
        if let Some(session) = self.sessions.get_mut(&peer) {
            session.pulls += usize::from(is_due);
            // Others pull it, or have: the peer may well be in step by that, and is compared with again.
            session.has_pulled |= !is_due;
        }
        if !is_due {
            return;
        }
        let pull = Pull {
            from: peer,
            key: key.clone(),
            bytes: 0,
        };
        self.ask(peer, ReplicaCommand::Get { key }, Asked::Record(pull));
    }

    fn handle_record(&mut self, mut pull: Pull, answer: Option<ReplicaResponse>) {
        let Some(record) = answer.and_then(|answer| record_of(&pull.key, answer)) else {
            return self.end_pull(&pull, None);
        };
        pull.bytes = pull.key.as_bytes().len();
        if let Content::Value { value, .. } = &record.content {
            pull.bytes += value.len();
            if value.len() > self.service.config().value_bytes_max {
                return self.end_pull(&pull, None);
            }
        }
        self.allowance.spend(pull.bytes + RECORD_BYTES);
        if !is_compared(record.tag) || !record.is_sound(&pull.key) {
            return self.end_pull(&pull, None);
        }
        let key = pull.key.clone();
        let (stored, wake) = (Arc::clone(&self.stored), Arc::clone(&self.wake));
        let mut pull = Some(pull);
        let store = self.service.store();
        let result = store.apply_given(&key, &record, GivenBy::Replica, || {
            let pull = pull.take();
            Box::new(move |result| {
                if let Some(pull) = pull {
                    let mut stored = stored.lock().unwrap_or_else(PoisonError::into_inner);
                    stored.push((pull, result));
                }
                wake();
            })
        });
        if let (Some(pull), Some(result)) = (pull, result) {
            self.end_pull(&pull, Some(result));
        }
        self.service.wake_disk();
    }

    fn end_pull(&mut self, pull: &Pull, result: Option<PutResult>) {
        self.pulling.remove(pull.key.as_bytes());
        let counters = &self.service.counters;
        let (mut has_pulled, mut has_failed) = (false, false);
        match result {
            Some(Ok(PutOutcome::Stored)) => {
                counters.records_pulled.add(1);
                counters.pulled_bytes.add(pull.bytes as u64);
                has_pulled = true;
            }
            // Something newer has come meanwhile.
            Some(Ok(PutOutcome::Superseded(_))) => {}
            Some(Err(_)) | None => {
                counters.pulls_failed.add(1);
                has_failed = true;
            }
        }
        if let Some(session) = self.sessions.get_mut(&pull.from) {
            session.pulls = session.pulls.saturating_sub(1);
            session.has_pulled |= has_pulled;
            session.has_failed |= has_failed;
        }
    }

    /// A session has ended.
    fn end(&mut self, peer: ServerId, now: Instant) {
        let Some(session) = self.sessions.remove(&peer) else {
            return;
        };
        self.service.counters.comparisons.add(1);
        self.note_in_step(peer, !session.differs);
        let timing = self.timing;
        let is_cut = session.comparison.is_cut();
        match is_cut {
            true => self.resume.insert(peer, session.behind),
            false => self.resume.remove(&peer),
        };
        let after = match session {
            _ if session.has_failed => timing.retry,
            // Perhaps there is more, and what was pulled is looked at once more.
            _ if session.has_pulled => Duration::ZERO,
            // There is more, but what was found is for the peer to pull.
            _ if is_cut => timing.retry,
            _ => timing.interval,
        };
        self.peers.insert(peer, now + after);
    }

    /// A peer did not answer; or it is one that does not compare itself, by its version or its settings.
    fn put_off(&mut self, peer: ServerId, is_other: bool, now: Instant) {
        self.sessions.remove(&peer);
        self.note_in_step(peer, false);
        let after = match is_other {
            true => self.timing.interval,
            false => self.timing.retry,
        };
        self.peers.insert(peer, now + after);
    }

    fn note_in_step(&mut self, peer: ServerId, is_in_step: bool) {
        match is_in_step {
            true => self.in_step.insert(peer),
            false => self.in_step.remove(&peer),
        };
        let count = self.in_step.len() as u64;
        self.service.counters.peers_in_step.set(count);
    }
}

/// Whether what a peer lists is newer than what is held, or sound where that is damaged.
fn is_newer(held: Option<RecordHead>, entry: &LeafEntry) -> bool {
    let version = entry.version;
    if !is_compared(version.tag) {
        return false;
    }
    match held {
        None => true,
        // Which of the two is newer means nothing.
        Some(held) if !is_compared(held.tag) => false,
        Some(held) if held.tag == version.tag => {
            held.is_damaged || (held.checksum == version.checksum && held.born < version.born)
        }
        Some(held) => held.tag < version.tag,
    }
}

/// The record of a response to a get, if it is one.
fn record_of(key: &Key, response: ReplicaResponse) -> Option<Record> {
    match response {
        ReplicaResponse::Record { digest, block } => Some(Record {
            tag: digest.tag,
            attributes: digest.attributes,
            content: Content::Value {
                content_type: digest.content_type,
                value: Value::new(block).ok()?,
            },
            checksum: digest.checksum,
        }),
        ReplicaResponse::Absent { tag, attributes } if tag != Tag::ZERO => Some(
            Record::with_attributes(key, tag, attributes, Content::Tombstone),
        ),
        _ => None,
    }
}
