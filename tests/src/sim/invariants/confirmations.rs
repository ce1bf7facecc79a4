//! What a server confirms, it holds: and what a gateway says that a server confirmed, that server
//! did confirm. A server that lost something answers for no key of which it confirmed more than it
//! holds, until it is told what is newest.
//!
//! The truth is taken from the store itself, each time a server has answered a datagram.

use dkvs_common::model::{ReplicaCommand, ReplicaResponse};
use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddrV4;

use bytes::Bytes;
use dkvs_common::kv::Key;
use dkvs_common::quorum::tally::ReplicaState;
use dkvs_common::quorum::write::{Applied, Write, WriteResponse};
use dkvs_common::tag::Tag;
use dkvs_common::wire::v2::reply::Reply;
use dkvs_common::wire::v2::request::Request;
use dkvs_storage_node::store::RecordStore;

use super::Violation;
use super::v1_records::is_by_v1;
use crate::sim::datagram::{self, tag_words};
use crate::sim::server::Server;

const NAME: &str = "confirmations";

/// What every server has confirmed so far.
#[derive(Debug, Default)]
pub struct Confirmations {
    /// By server and key: the greatest tag that it was seen to hold, and the age of that record.
    held: BTreeMap<(usize, Key), Held>,
    /// The same, whatever was lost since. Where the server was asked to attest an older one, that: a
    /// read had found that none was newer.
    ever_held: BTreeMap<(usize, Key), Tag>,
    /// Each put that a server answered when it held the record or a newer one.
    answered: BTreeSet<(usize, Key, Tag)>,
    /// Puts whose answer is still to come. Of one number there are several if a gateway was
    /// started anew, or a datagram was damaged: one of them is what is answered.
    open: BTreeMap<(usize, SocketAddrV4, u64), Vec<(Key, Held)>>,
}

/// A tag, and the age of the record: of one tag, the greater age counts as more.
type Held = (Tag, u32);

impl Confirmations {
    /// A server has taken a datagram and answered it.
    pub fn look_at(
        &mut self,
        server: usize,
        peer: SocketAddrV4,
        asked: &Bytes,
        answered: &[Bytes],
        store: &impl RecordStore,
    ) -> Result<(), Violation> {
        if !datagram::asks_to_store(asked) {
            return Ok(());
        }
        for message in datagram::requests(asked) {
            if let Request::Command(ReplicaCommand::Attest { key, tag, .. }) = message.request
                && let Some(ever) = self.ever_held.get_mut(&(server, key))
            {
                *ever = tag.min(*ever);
            }
        }
        let put = |request| match request {
            Request::Command(ReplicaCommand::Put { key, record }) => {
                Some((key, (record.tag, record.attributes.born)))
            }
            Request::Command(ReplicaCommand::PutStaged {
                key,
                tag,
                attributes,
                ..
            }) => Some((key, (tag, attributes.born))),
            Request::Command(ReplicaCommand::Commit { key, tag, .. }) => Some((key, (tag, 0))),
            _ => None,
        };
        let requests = datagram::requests(asked).into_iter();
        let puts: BTreeMap<u64, (Key, Held)> = requests
            .filter_map(|message| Some((message.id.0, put(message.request)?)))
            .collect();
        let mut waiting = puts.clone();
        for reply in answered.iter().flat_map(datagram::replies) {
            if let Some((key, put)) = puts.get(&reply.id.0) {
                self.look_at_reply(server, key, *put, &reply.reply, store)?;
                waiting.remove(&reply.id.0);
            }
        }
        for (id, put) in waiting {
            self.open.entry((server, peer, id)).or_default().push(put);
        }
        Ok(())
    }

    /// A server has answered what it took earlier.
    pub fn look_at_late(
        &mut self,
        server: usize,
        peer: SocketAddrV4,
        answered: &Bytes,
        store: &impl RecordStore,
    ) -> Result<(), Violation> {
        for reply in datagram::replies(answered) {
            let puts = self.open.get(&(server, peer, reply.id.0)).cloned();
            let mut found = Ok(());
            let mut is_any = false;
            for (key, put) in puts.unwrap_or_default() {
                match self.look_at_reply(server, &key, put, &reply.reply, store) {
                    Ok(()) => is_any = true,
                    Err(violation) => found = Err(violation),
                }
            }
            if !is_any {
                found?;
            }
        }
        Ok(())
    }

    fn look_at_reply(
        &mut self,
        server: usize,
        key: &Key,
        (tag, born): Held,
        reply: &Reply,
        store: &impl RecordStore,
    ) -> Result<(), Violation> {
        let put = match reply {
            Reply::Response(ReplicaResponse::Done) => (tag, born),
            Reply::Response(ReplicaResponse::Superseded { .. }) => (tag, 0),
            _ => return Ok(()),
        };
        let before = self.held.get(&(server, key.clone())).copied();
        let least = before.map_or(put, |before| before.max(put));
        let holds = store.peek(key).map(|held| (held.tag, held.born));
        let holds = holds.unwrap_or((Tag::ZERO, 0));
        if holds < least {
            let words = |(tag, born)| format!("{} of age {born}", tag_words(tag));
            let (least, holds) = (words(least), words(holds));
            let what = format!("s{server} confirmed {key:?} at {least} and holds {holds}");
            return Err(Violation::new(NAME, what));
        }
        self.held.insert((server, key.clone()), holds);
        let ever = self
            .ever_held
            .entry((server, key.clone()))
            .or_insert(Tag::ZERO);
        *ever = holds.0.max(*ever);
        self.answered.insert((server, key.clone(), tag));
        Ok(())
    }

    /// A server has lost some of what it held, and knows.
    pub fn forget(&mut self, server: usize) {
        self.held.retain(|(held_by, _), _| *held_by != server);
    }

    /// A server has forgotten what it held, and does not know.
    pub fn forget_all(&mut self, server: usize) {
        self.forget(server);
        self.ever_held.retain(|(held_by, _), _| *held_by != server);
    }

    /// A server found out by itself what it has to hold: whatever it held beyond that was confirmed by
    /// nobody else, and so is not missed.
    pub fn note_completed(&mut self, number: usize, server: &Server) {
        for ((held_by, key), ever) in &mut self.ever_held {
            if *held_by == number && server.answers_for(key) {
                let held = server.store().peek(key);
                *ever = held.map_or(Tag::ZERO, |held| held.tag).min(*ever);
            }
        }
    }

    /// A server has stored something: what it held is not replaced by less, by whatever that came.
    pub fn look_at_commit(&self, number: usize, server: &Server) -> Result<(), Violation> {
        for ((held_by, key), (tag, _)) in &self.held {
            let holds = |key| server.store().peek(key).map_or(Tag::ZERO, |held| held.tag);
            if *held_by == number && holds(key) < *tag {
                let (tag, holds) = (tag_words(*tag), tag_words(holds(key)));
                let what = format!("s{number} held {key:?} at {tag} and holds {holds} now");
                return Err(Violation::new(NAME, what));
            }
        }
        Ok(())
    }

    /// A server was started, after whatever happened to its disk.
    pub fn look_at_start(&self, number: usize, server: &Server) -> Result<(), Violation> {
        for ((held_by, key), ever) in &self.ever_held {
            if *held_by != number || !server.answers_for(key) {
                continue;
            }
            let held = server.store().peek(key);
            let holds = held.map_or(Tag::ZERO, |held| held.tag);
            if holds < *ever {
                let (ever, holds) = (tag_words(*ever), tag_words(holds));
                let what = format!(
                    "s{number} confirmed {key:?} at {ever}, and answers for it with {holds} after its start"
                );
                return Err(Violation::new(NAME, what));
            }
        }
        Ok(())
    }

    /// A gateway has answered a write. Servers that speak DKVS/1 only (`is_v1`) have their own
    /// tags for what they hold, and are not checked.
    pub fn check(
        &self,
        key: &Key,
        write: &Write,
        tag: Option<Tag>,
        is_v1: impl Fn(usize) -> bool,
    ) -> Result<(), Violation> {
        let mut confirmed = 0;
        for replica in write.replicas() {
            let ReplicaState::Responded(
                answer @ (WriteResponse::Stored | WriteResponse::Superseded(_)),
            ) = replica.state
            else {
                continue;
            };
            let server = usize::from(replica.server.0);
            let did = tag.is_some_and(|tag| self.answered.contains(&(server, key.clone(), tag)));
            if !did && !is_v1(server) {
                let tag = tag.map_or("no tag".into(), tag_words);
                let what = format!(
                    "s{server} is said to have answered the put of {key:?} at {tag} with {answer:?}, and did not"
                );
                return Err(Violation::new(NAME, what));
            }
            // What came by DKVS/1 may be older, and confirms nothing.
            let is_confirmed = match answer {
                WriteResponse::Superseded(held) => !is_by_v1(held),
                _ => true,
            };
            confirmed += usize::from(is_confirmed);
        }
        let needed = usize::from(write.quorum().required());
        if write.applied() == Applied::Committed && confirmed < needed {
            let what = format!("a write of {key:?} is done with {confirmed} of {needed} servers");
            return Err(Violation::new(NAME, what));
        }
        Ok(())
    }
}
