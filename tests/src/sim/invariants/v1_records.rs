//! A read leaves records that came by DKVS/1 as they are: when nothing is written any more, no server
//! changes one, however often its key is read. And where a key has no other records, all reads that
//! need a majority and find anything find the same. (A record with a tag that only some replicas hold
//! may come to the others by a read: it is of a write of which nobody knows whether it is done.)

use std::collections::{BTreeMap, BTreeSet};
use std::ops::ControlFlow;

use dkvs_common::kv::Key;
use dkvs_common::ring::Position;
use dkvs_common::tag::Tag;
use dkvs_storage_node::store::RecordStore as _;

use super::Violation;
use crate::history::Reply;
use crate::sim::datagram::tag_words;
use crate::sim::server::Server;

const NAME: &str = "v1 records";

/// What there is when nothing is written any more.
#[derive(Debug, Default)]
pub struct V1Records {
    /// By server and key.
    held: BTreeMap<(usize, Box<[u8]>), Tag>,
    /// Keys of which a server holds a record that came otherwise.
    otherwise: BTreeSet<Box<[u8]>>,
    /// By key: what the first read found that found anything.
    found: BTreeMap<usize, Reply>,
}

impl V1Records {
    /// Nothing is written from now on.
    pub fn begin(&mut self, servers: &[Server]) {
        for (number, server) in servers.iter().enumerate() {
            let mut records = Vec::new();
            server.store().scan(Position([0; 20]), None, |held| {
                records.push((held.key().to_vec(), held.tag()));
                ControlFlow::Continue(())
            });
            for (key, tag) in records {
                if !is_by_v1(tag) {
                    self.otherwise.insert(key.into());
                } else if Key::new(key.clone()).is_ok_and(|key| server.answers_for(&key)) {
                    self.held.insert((number, key.into()), tag);
                }
                // What is quarantined may be older than what was confirmed: reads replace it.
            }
        }
    }

    /// Whether a server holds such a record of a key.
    pub fn is_held(&self, key: &[u8]) -> bool {
        self.held.keys().any(|(_, held)| **held == *key)
    }

    /// Looks at what is left of them.
    pub fn check(&self, servers: &[Server]) -> Result<(), Violation> {
        for ((server, key), tag) in &self.held {
            let mut holds = None;
            let position = Position::of_key_bytes(key);
            servers[*server].store().scan(position, None, |held| {
                let is_it = *held.key() == **key;
                holds = is_it.then(|| held.tag());
                match is_it || Position::of_key_bytes(held.key()) != position {
                    true => ControlFlow::Break(()),
                    false => ControlFlow::Continue(()),
                }
            });
            if holds != Some(*tag) {
                let key = String::from_utf8_lossy(key);
                let (tag, holds) = (tag_words(*tag), holds.map(tag_words));
                let what = format!(
                    "s{server} held {key} at {tag}, which came by DKVS/1, and holds it at {holds:?} \
                     after reads alone"
                );
                return Err(Violation::new(NAME, what));
            }
        }
        Ok(())
    }

    /// A read of a key that needs a majority of its replicas returned this.
    pub fn check_read(&mut self, key: usize, name: &[u8], reply: Reply) -> Result<(), Violation> {
        let is_first = !self.found.contains_key(&key);
        if self.otherwise.contains(name) || (is_first && reply == Reply::Unknown) {
            return Ok(());
        }
        let first = *self.found.entry(key).or_insert(reply);
        if first == reply {
            return Ok(());
        }
        let what = format!(
            "a read of key {key} finds {reply:?}, and one before it {first:?}, with nothing written \
             in between"
        );
        Err(Violation::new(NAME, what))
    }
}

/// Whether a server minted a tag for a put by DKVS/1. Looks at the bits, so that a mutant cannot hide
/// them.
pub fn is_by_v1(tag: Tag) -> bool {
    tag.op >> 48 == 0xffff
}
