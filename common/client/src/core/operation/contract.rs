//! What an operation is to the core: steps out, responses in, and at the end an outcome, of a type of
//! its own, for the caller that it was given.

use std::time::Instant;

use dkvs_common::cluster::ServerId;
use dkvs_common::kv::{Key, Value};
use dkvs_common::model::{ReplicaCommand, ReplicaResponse};
use dkvs_common::quorum::{FetchFailure, Level, Transmit};
use dkvs_common::tag::Tag;

use super::candidate::{Admission, Candidate};
use super::outgoing::Outgoing;
use crate::core::counts::{RequestKind, RequestOutcome};
use crate::transport::assembly::Assembly;

pub use dkvs_common::quorum::{CommandId, Purpose};

/// What an operation asks the core to do next.
#[derive(Debug)]
pub enum Step {
    /// Send a command to a server.
    Send {
        /// The server.
        to: ServerId,
        /// Identifies the command to [`Operation::handle_response`].
        id: CommandId,
        /// The command.
        outgoing: Outgoing,
    },
    /// Fetch a long value.
    Fetch {
        /// The server.
        from: ServerId,
        /// Of which key.
        key: Key,
        /// What is there of it.
        assembly: Assembly,
        /// How often that server has stalled with it before.
        stalls: u32,
    },
    /// Have a server attest a key, if its incarnation allows it.
    Attest {
        /// Which server.
        server: ServerId,
        /// The operation's round.
        round: u32,
        /// Which key.
        key: Key,
        /// What it was given.
        tag: Tag,
    },
    /// Mint a tag greater than this one; [`Operation::handle_minted`] is called with it.
    MintTag {
        /// What it has to exceed.
        above: Tag,
    },
    /// Call [`Operation::handle_soft_deadline`] then.
    Wake {
        /// When.
        at: Instant,
    },
}

impl From<Transmit> for Step {
    fn from(Transmit { to, id, command }: Transmit) -> Self {
        Self::Send {
            to,
            id,
            outgoing: Outgoing::Command(command),
        }
    }
}

/// What follows a write-back that was not confirmed before its read ended: the server is to attest
/// the key.
#[derive(Debug)]
pub struct FollowUp {
    /// Which server.
    pub server: ServerId,
    /// Of which key.
    pub key: Key,
    /// What it is given.
    pub tag: Tag,
}

/// A write has stored a record at a replica, and perhaps not at others.
#[derive(Debug)]
pub struct Missed {
    /// One that has it.
    pub ahead: ServerId,
    /// Those that may lack it, each with whether its put is still under way.
    pub behind: Vec<(ServerId, bool)>,
}

/// One kind of request, from its first command to its outcome. It neither sends nor waits: the core
/// calls [`Self::poll_step`] until there is no step, and again whenever a step has ended.
pub trait Operation: Send {
    /// The next thing to be done; none while it waits, or when nothing is left to do.
    fn poll_step(&mut self) -> Option<Step>;

    /// `from` answered a command.
    fn handle_response(
        &mut self,
        from: ServerId,
        id: CommandId,
        response: ReplicaResponse,
        now: Instant,
    );

    /// A command cannot reach `to`; `was_sent`: it may have been carried out.
    fn handle_unreachable(&mut self, to: ServerId, id: CommandId, was_sent: bool, now: Instant);

    /// Whether its outcome is resolved.
    fn is_decided(&self) -> bool;

    /// Whether every server has responded, or is not waited for any more.
    fn is_complete(&self) -> bool {
        self.is_decided()
    }

    /// The deadline has passed: it is decided by the responses so far.
    fn handle_deadline(&mut self, now: Instant);

    /// Whether servers without tags cannot be used.
    fn requires_tags(&self) -> bool;

    /// The longest key, in bytes, that a message of `message_bytes_max` with this command has room
    /// for.
    fn key_bytes_max(&self, _id: CommandId, _message_bytes_max: usize) -> usize {
        0
    }

    /// A command as it would be sent now; none if it is of no use any more.
    fn command(&self, _id: CommandId) -> Option<ReplicaCommand> {
        None
    }

    /// Whether the response to a command changes nothing once the operation has ended.
    fn is_abandoned_at_end(&self, server: ServerId, id: CommandId) -> bool;

    /// Whether it continues when its caller has gone.
    fn outlives_caller(&self) -> bool {
        false
    }

    /// The part of its time after which servers that are silent are left out, if they can be.
    fn soft_deadline(&self) -> Option<Instant> {
        None
    }

    /// That time has passed.
    fn handle_soft_deadline(&mut self) {}

    /// What is to be stored where, before a round of a write sends anything; none for operations, and
    /// in states, that any server may be asked.
    fn candidate(&self) -> Option<Candidate<'_>> {
        None
    }

    /// The core admits, delays or ends the round that [`Self::candidate`] described.
    fn handle_admission(&mut self, _admission: Admission, _now: Instant) {}

    /// What a key and its value take of a server's room, of an operation that stores.
    fn put_bytes(&self) -> Option<usize> {
        None
    }

    /// A put was refused of which an earlier copy may have been stored.
    fn handle_repeated_refusal(&mut self, _id: CommandId) {}

    /// A tag was minted, or there is none that is great enough.
    fn handle_minted(&mut self, _tag: Option<Tag>) {}

    /// A long value has arrived.
    fn handle_fetched(&mut self, _from: ServerId, _value: Value) {}

    /// A long value will not arrive from this server; perhaps a part of it has.
    fn handle_fetch_failed(
        &mut self,
        _from: ServerId,
        _failure: FetchFailure,
        _assembly: Option<Assembly>,
    ) {
    }

    /// Whether it met something that only the agreement level can answer for, and may fall back to
    /// that.
    fn wants_to_fall_back(&self) -> bool {
        false
    }

    /// Begins anew at the agreement level, if it may and has changed nothing yet.
    fn fall_back(&mut self, _now: Instant) -> bool {
        false
    }

    /// Continues at the agreement level though it stores already, if it may.
    fn fall_back_midway(&mut self) -> bool {
        false
    }

    /// Whether the round is over and another one follows.
    fn wants_another_round(&self) -> bool {
        false
    }

    /// What follows after its end.
    fn follow_ups(&self) -> Vec<FollowUp> {
        Vec::new()
    }

    /// What it has stored at some replicas and perhaps not at others, when it ends.
    fn missed(&self) -> Option<Missed> {
        None
    }

    /// How it is counted in the metrics, once it has ended; none if it is not.
    fn counted(&self) -> Option<(Level, RequestKind, RequestOutcome)> {
        None
    }

    /// How it is counted when its caller has gone before the end; none if it is not.
    fn counted_as_cancelled(&self) -> Option<(Level, RequestKind, RequestOutcome)> {
        None
    }

    /// It has ended: hands its outcome to its caller. `puts_by_v2`: a put was sent by DKVS/2.
    fn complete(self: Box<Self>, puts_by_v2: bool);
}
