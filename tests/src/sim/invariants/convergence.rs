//! Once the world has healed, every key can be read at every gateway, and after such a read of a
//! linearizable key all its replicas hold the same record.
//!
//! Where servers pull from each other, that holds before anybody has read: a while after the world has
//! healed, all replicas of a key that nobody wrote by DKVS/1 hold the same.
//!
//! At the agreement level replicas may differ for ever, and a read may find that they do. A gateway
//! that was made to take a server for one of DKVS/1 may refuse to read a key there once, and finds
//! out by that: such a read is asked for a second time.

use std::time::Duration;

use dkvs_common::cluster::ServerId;
use dkvs_common::kv::Key;
use dkvs_common::quorum::level::Level;
use dkvs_common::quorum::read::ReadOutcome;
use dkvs_common::ring::{PreferenceList, RingPoint};
use dkvs_common::tag::Tag;
use dkvs_storage_node::store::RecordStore as _;

use super::Violation;
use super::v1_records::is_by_v1;
use crate::sim::datagram::tag_words;
use crate::sim::request::Response;
use crate::sim::server::Server;

const NAME: &str = "convergence";

/// How long a read may take where nothing goes wrong any more. A server that was started anew is
/// greeted within half a second, and asked after that.
pub const READ_WITHIN: Duration = Duration::from_secs(2);

/// For how long nothing is asked before that, so that a server which was not greeted lately is.
pub const REST: Duration = Duration::from_secs(1);

/// How long after the world has healed a put may still arrive.
pub const LATEST: Duration = Duration::from_secs(10);

/// After so many intervals of comparison more, replicas have pulled what they lacked.
pub const INTERVALS: u32 = 6;

/// Checks the response to a read in a healed world.
pub fn check_read(key: &Key, level: Level, response: &Response) -> Result<(), Violation> {
    let Response::Read(read) = response else {
        let what = format!("{key:?} could not be asked for in a healed world");
        return Err(Violation::new(NAME, what));
    };
    match (read.outcome(), level) {
        (Some(ReadOutcome::Found(..) | ReadOutcome::Absent), _) => Ok(()),
        (Some(ReadOutcome::Disagree), Level::Agreement) => Ok(()),
        (outcome, _) => {
            let what = format!("{key:?} cannot be read in a healed world: {outcome:?}");
            Err(Violation::new(NAME, what))
        }
    }
}

/// The replicas of a key before any read, where they pull from each other.
pub fn check_unread(key: &Key, list: &PreferenceList, servers: &[Server]) -> Result<(), Violation> {
    let held = |server: ServerId| servers[usize::from(server.0)].store().peek(key);
    let is_by_v1 = |point: &RingPoint| held(point.server).is_some_and(|it| is_by_v1(it.tag));
    // What a server cannot read, or does not answer for, it gives to nobody.
    let is_silent = |point: &RingPoint| !servers[usize::from(point.server.0)].answers_for(key);
    if list.iter().any(|point| is_by_v1(point) || is_silent(point)) {
        return Ok(());
    }
    check_replicas(key, list, servers).map_err(|violation| {
        let what = format!("{}, though nobody has read it yet", violation.what);
        Violation::new("convergence unread", what)
    })
}

/// Servers that lost records, where they can find out by their peers what they have to hold.
pub fn check_complete(servers: &[Server]) -> Result<(), Violation> {
    for (number, server) in servers.iter().enumerate() {
        let incomplete = server.incomplete_leaves();
        if incomplete > 0 {
            let what = format!(
                "s{number} does not answer for {incomplete} leaves though all its peers have been there for long"
            );
            return Err(Violation::new("completion", what));
        }
    }
    Ok(())
}

/// The replicas of a linearizable key after such a read.
pub fn check_replicas(
    key: &Key,
    list: &PreferenceList,
    servers: &[Server],
) -> Result<(), Violation> {
    let tag = |server: ServerId| {
        let held = servers[usize::from(server.0)].store().peek(key);
        held.map_or(Tag::ZERO, |held| held.tag)
    };
    // A server that does not answer for a key shows nobody what it holds.
    let answers_for = |server: &ServerId| servers[usize::from(server.0)].answers_for(key);
    let list = list.iter().map(|point| point.server).filter(answers_for);
    let mut tags = list.map(|server| (server, tag(server)));
    let first = tags.next();
    let other = tags.find(|(_, tag)| first.is_some_and(|(_, first)| first != *tag));
    match (first, other) {
        (Some((one, tag)), Some((other, other_tag))) => {
            let (tag, other_tag) = (tag_words(tag), tag_words(other_tag));
            let (one, other) = (one.0, other.0);
            let what = format!(
                "after a read in a healed world s{one} holds {key:?} at {tag} and s{other} at {other_tag}"
            );
            Err(Violation::new(NAME, what))
        }
        _ => Ok(()),
    }
}
