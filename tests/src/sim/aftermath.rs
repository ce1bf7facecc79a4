//! What comes after the chaos: checks what is left, and the answers of the whole run.

use dkvs_client::core::CallerId;
use dkvs_common::cluster::ServerId;
use dkvs_common::quorum::level::Level;
use dkvs_common::ring::Position;
use dkvs_storage_node::store::Store;

use super::invariants::{convergence, deadlines, mending, registers};
use super::plan::{FaultKind, FaultPlan, KeyPlan};
use super::request::{Request, RequestKind};
use super::statistics::Count;
use super::v1_plan::Dialect;
use super::world::{Event, Phase, World};
use crate::history::{Action, Reply};

impl World {
    /// Nothing is left to happen: goes on to what comes next. Gives false if that was all.
    pub(super) fn come_to_rest(&mut self) -> bool {
        let entries = self.ledger.entries().iter().enumerate();
        let mut waiting = entries.filter(|(_, entry)| entry.is_open());
        if let Some((number, entry)) = waiting.next() {
            let violation = deadlines::never_ended(number, entry);
            self.report(Err(violation));
            return false;
        }
        let next_key = match self.phase {
            Phase::Chaos | Phase::Healed => Some(0),
            Phase::FinalWrite { key } => Some(key + 1),
            Phase::Reading { .. } => None,
        };
        if next_key.is_some_and(|from| self.begin_final_write_from(from)) {
            return true;
        }
        let all = (0..self.plan.keys.len()).collect();
        let (gateway, keys, is_last) = match self.phase {
            Phase::Chaos | Phase::Healed | Phase::FinalWrite { .. } => {
                self.invariants.v1_records.begin(&self.servers);
                (0, all, false)
            }
            Phase::Reading {
                gateway,
                keys,
                is_last,
            } => {
                let unread = std::mem::take(&mut self.unread);
                if unread.is_empty() {
                    let again = self.check_replicas(is_last);
                    match again.is_empty() {
                        true => (gateway + 1, all, false),
                        false => (gateway, again, true),
                    }
                } else {
                    // Where these are fewer than before, it may have been for want of places.
                    let is_last = unread.len() >= keys;
                    (gateway, unread, is_last)
                }
            }
        };
        if gateway == self.plan.gateways.len() {
            self.conclude();
            return false;
        }
        self.phase = Phase::Reading {
            gateway,
            keys: keys.len(),
            is_last,
        };
        self.now = self.now + convergence::REST;
        self.read_all(gateway, keys);
        true
    }

    /// Everything has healed: when servers must have pulled what they lacked is known now.
    pub(super) fn expect_convergence(&mut self) {
        let Some(timing) = self.plan.pulls else {
            return;
        };
        let at = self.now + convergence::LATEST + timing.interval * convergence::INTERVALS;
        self.queue.enter(at, Event::PullingEnds);
    }

    /// By now, servers have pulled what they lacked, though nobody has read it.
    pub(super) fn end_pulling(&mut self) {
        for server in 0..self.servers.len() {
            let client = self.client_of(server);
            self.gateways[client].end_pulling();
            self.servers[server].end_scrub();
            self.count_mended(server);
        }
        let is_member = |server: usize| {
            self.plan.servers[server].knows_ring && self.plan.dialect(server) == Dialect::Both
        };
        if self.promises_less || !(0..self.servers.len()).all(is_member) {
            return;
        }
        let mut checked = Ok(());
        for plan in &self.plan.keys {
            let replication = usize::from(self.plan.replication);
            let ring = self.view.ring();
            let list = ring.preference_list(Position::of_key(&plan.key), replication);
            checked = checked.and(convergence::check_unread(&plan.key, &list, &self.servers));
            if self.plan.disks.is_some_and(|disks| disks.scrub.is_some()) {
                checked = checked.and(mending::check(&plan.key, &list, &self.servers));
            }
            self.statistics.count(Count::KeysPulled);
        }
        // What is damaged is given to nobody, and what came by DKVS/1 is compared with nobody.
        let is_damaged = |fault: &FaultPlan| fault.kind == FaultKind::DiskDamage;
        if self.plan.v1.is_none() && !self.plan.faults.iter().any(is_damaged) {
            checked = checked.and(convergence::check_complete(&self.servers));
        }
        self.report(checked);
    }

    /// Counts what a server has read again, and what of it was damaged and is so no more.
    pub(super) fn count_mended(&mut self, server: usize) {
        if let Store::Disk(store) = self.servers[server].store() {
            let status = store.status();
            self.statistics
                .add(Count::Scrubbed, status.scrubbed_records);
            self.statistics.add(Count::Mended, status.mended);
        }
    }

    /// Has a client that speaks DKVS/1 write the next key that such clients use, from this one on, if
    /// they are to write once more; false if there is none.
    fn begin_final_write_from(&mut self, from: usize) -> bool {
        let has_final_write = self.plan.v1.as_ref().is_some_and(|v1| v1.has_final_write);
        let mut keys = from..self.plan.keys.len();
        let Some(key) = keys.find(|key| has_final_write && self.plan.is_shared(*key)) else {
            return false;
        };
        self.phase = Phase::FinalWrite { key };
        self.begin_final_write(key);
        true
    }

    /// Reads keys at a gateway, from all replicas.
    fn read_all(&mut self, gateway: usize, keys: Vec<usize>) {
        for key in keys {
            let plan = self.plan.keys[key].clone();
            let name = self.names;
            self.names += 1;
            let level = plan.level;
            let ledger = &mut self.ledger;
            let operation = ledger.enter(name, key, Action::Read, level, 0, self.now);
            let entry = ledger.entry_mut(operation);
            entry.deadline = self.now + convergence::READ_WITHIN;
            entry.may_fall_back = true;
            entry.waits_for_all = true;
            let request = Request {
                operation,
                attempt: 1,
                caller: CallerId::Internal,
                key: plan.key,
                kind: RequestKind::Read,
                quorum: plan.read,
                level,
                may_fall_back: true,
                timeout: convergence::READ_WITHIN,
                waits_for_all: true,
            };
            self.ask(gateway, request);
        }
    }

    /// Whether as many replicas answer for a key as a read of it requires. Where a read needs more than
    /// a majority, a lost disk may leave fewer, and no such read can change that.
    pub(super) fn can_be_read(&self, key: &KeyPlan) -> bool {
        let n = usize::from(key.read.n());
        let list = self
            .view
            .ring()
            .preference_list(Position::of_key(&key.key), n);
        let answers_for =
            |server: ServerId| self.servers[usize::from(server.0)].answers_for(&key.key);
        let answering = list
            .iter()
            .filter(|point| answers_for(point.server))
            .count();
        answering >= usize::from(key.read.required())
    }

    /// Gives the keys that are to be read once more: a replica that lost its disk may have held
    /// something newer than it was given, and shows it only now that it answers for the key.
    fn check_replicas(&mut self, is_last: bool) -> Vec<usize> {
        let mut again = Vec::new();
        if self.promises_less {
            return again;
        }
        for key in 0..self.plan.keys.len() {
            let plan = &self.plan.keys[key];
            let is_by_v1 =
                self.has_v1_servers(key) || self.invariants.v1_records.is_held(plan.key.as_bytes());
            if plan.level == Level::Agreement || is_by_v1 || !self.can_be_read(plan) {
                continue;
            }
            let ring = self.view.ring();
            let n = usize::from(plan.read.n());
            let list = ring.preference_list(Position::of_key(&plan.key), n);
            let checked = convergence::check_replicas(&plan.key, &list, &self.servers);
            if checked.is_err() && self.plan.disks.is_some() && !is_last {
                again.push(key);
            } else {
                self.report(checked);
            }
        }
        again
    }

    /// Checks everything that is left, and every answer of the run.
    fn conclude(&mut self) {
        for server in 0..self.servers.len() {
            self.look_at_store(server);
        }
        if self.violation.is_some() || self.promises_less {
            return;
        }
        let checked = self.invariants.v1_records.check(&self.servers);
        self.report(checked);
        let has_v1_servers = |key| self.has_v1_servers(key);
        match registers::check(&self.ledger, &self.plan.keys, has_v1_servers) {
            Ok(reads) => self.statistics.add(Count::ReadsChecked, reads),
            Err(violation) => self.report(Err(violation)),
        }
    }

    /// Counts the outcome of every operation.
    pub(super) fn count_outcomes(&mut self) {
        for entry in self.ledger.entries() {
            if entry.c_quorum.is_some() {
                continue;
            }
            let count = match (entry.operation.action, entry.operation.reply) {
                (Action::Read, Reply::Holds(_)) => Count::ReadsAnswered,
                (Action::Read, _) => continue,
                (_, Reply::Done) => Count::WritesDone,
                (_, Reply::NotDone | Reply::Failed(_)) => Count::WritesNotDone,
                _ => Count::WritesUnknown,
            };
            self.statistics.count(count);
        }
    }
}
