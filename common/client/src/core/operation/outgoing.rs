//! What an operation sends: a command, or one that depends on the room in a datagram.

use bytes::Bytes;
use dkvs_common::kv::Key;
use dkvs_common::model::ReplicaCommand;
use dkvs_common::quorum::list::{ListPosition, PageRequest};

use crate::transport::{list_key_bytes_max, list_prefix_bytes_max};

/// A command before its server is known. Cheap to clone.
#[derive(Debug, Clone)]
pub enum Outgoing {
    /// A command.
    Command(ReplicaCommand),
    /// The command for a page, which depends on how long a message to the server may be.
    Page(PageRequest, Bytes),
}

impl Outgoing {
    /// The command, to a server that takes messages of at most `message_bytes_max`.
    pub fn command(&self, message_bytes_max: usize) -> ReplicaCommand {
        match self {
            Self::Command(command) => command.clone(),
            Self::Page(page, prefix) => page_command(page, prefix, message_bytes_max),
        }
    }
}

/// The command for a page, in a message of at most `message_bytes_max`.
///
/// A key that is too long to be named, though not too long to be returned, is passed over by its
/// position: no two keys are known that have the same. Of a prefix, the server gets what there is
/// room for: it only saves work by it, and the prefix is compared again here.
fn page_command(page: &PageRequest, prefix: &Bytes, message_bytes_max: usize) -> ReplicaCommand {
    let ListPosition { mut from, after } = page.start.clone();
    let is_short = |key: &Key| list_key_bytes_max(message_bytes_max) >= key.as_bytes().len();
    let named = after.as_ref().filter(|key| is_short(key)).cloned();
    if after.is_some() && named.is_none() {
        from = from.next().unwrap_or(from);
    }
    let room = list_prefix_bytes_max(message_bytes_max, named.as_ref());
    ReplicaCommand::List {
        from,
        after: named,
        prefix: prefix.slice(..prefix.len().min(room)),
        limit: u16::try_from(page.keys_max).unwrap_or(ReplicaCommand::LIST_LIMIT_MAX),
        accepts_left_out: true,
    }
}
