//! The quorum decisions: one state machine per request, without sockets and without a clock.
//!
//! ```text
//!               new(replicas, quorum, now, deadline)
//!                            |
//!                            v          poll_transmit: whom to ask what
//!                    +---------------+  poll_timeout:  when to wake up
//!   handle_reply --->|     open      |
//!   handle_unreach.->|               |--- enough said ----> outcome (never changes again)
//!   handle_timeout ->+---------------+--- cannot be met --> outcome
//!                            |
//!                            +----------- deadline -------> outcome
//! ```
//!
//! * [`params`]: n, w and r, checked
//! * [`tally`]: who was asked and what each has said; each replica counts once, strangers never
//! * [`level`]: what a request promises, and when it can
//! * [`mod@read`]: [`read::agreement`], the original system's rule, and [`read::linearizable`]
//! * [`mod@write`]: both levels; the linearizable one asks for tags before it stores
//! * [`list`]: the keys of all servers, page by page
//!
//! After the outcome a machine still takes replies, for the report on each replica. Nothing here
//! knows HTTP or a wire format. The division of labour follows riak_kv's get and put cores.

pub mod level;
pub mod list;
pub mod params;
pub mod read;
pub mod tally;
pub mod write;

use crate::cluster::ServerId;
pub use crate::model::Refusal;
use crate::record::Digest;
pub use level::Level;

use crate::record::ContentType;
use crate::tag::Tag;

/// What a replica tells of a value beside its bytes. DKVS/1 tells nothing.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Version {
    /// Which version.
    pub tag: Option<Tag>,
    /// The value's media type.
    pub content_type: ContentType,
}

impl From<&Digest> for Version {
    fn from(digest: &Digest) -> Self {
        Self {
            tag: Some(digest.tag),
            content_type: digest.content_type.clone(),
        }
    }
}

/// What a machine wants sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Transmit {
    /// To whom.
    pub to: ServerId,
    /// What.
    pub ask: Ask,
}

/// What a replica is asked. Key and record are the request's own; a machine holds neither.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ask {
    /// The record it holds.
    Get,
    /// The tag of the record it holds.
    Tag,
    /// To store the record.
    Put,
    /// To vouch for the record with this tag, which it was given.
    Vouch {
        /// Which version.
        tag: Tag,
    },
}

#[cfg(test)]
mod exhaustive;
