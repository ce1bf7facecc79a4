//! What a machine wants sent, and the name by which the response comes back.

use crate::cluster::ServerId;
use crate::model::ReplicaCommand;
use crate::tag::Tag;

/// What a command is for, so that its response finds its way back. Those from [`Self::Page`] to [`Self::GetDigest`]
/// are of operations that need no quorum.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Purpose {
    /// A read's get.
    Get,
    /// A write's query for the tag that a replica holds.
    GetTag,
    /// A write's put.
    Put,
    /// A read's put of the newest record to a replica that lacks it.
    WriteBack,
    /// A read's request that a quarantined server attest what it was given.
    Attest,
    /// A list's request for a page.
    Page,
    /// A long value, fetched block by block.
    Fetch,
    /// A server's statistics.
    Statistics,
    /// To have a server greeted, and known by that.
    Ping,
    /// What one server asks another.
    Ask,
    /// What a replica holds of a key, without the value.
    GetDigest,
    /// A conditional write's request for a promise.
    Prepare,
    /// A conditional write's request to accept its record.
    Accept,
    /// That the record is agreed on, and to be stored.
    Commit,
    /// That a replica may lack what a write has stored at others.
    Nudge,
}

/// Names a command of one machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct CommandId {
    /// The machine's round, from 0. Responses to an earlier round change nothing.
    pub round: u32,
    /// What the command is for.
    pub purpose: Purpose,
}

/// A command to be sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Transmit {
    /// The server it goes to.
    pub to: ServerId,
    /// The name that its response is handed in with.
    pub id: CommandId,
    /// The command.
    pub command: ReplicaCommand,
}

/// A server that should attest: return what it holds of the key again, now that it was given the
/// newest record. The caller sends the command, as it depends on the server's boot id; or hands in
/// that the server is unreachable.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Attestation {
    /// The server.
    pub server: ServerId,
    /// The round of the [`CommandId`], whose purpose is [`Purpose::Attest`].
    pub round: u32,
    /// The tag of the record that the server was given.
    pub tag: Tag,
}
