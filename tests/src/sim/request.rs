//! What a client asks a gateway, and what the gateway answers.

use std::time::Duration;

use dkvs_client::core::{AdmissionError, CallerId, ConditionalResult};
use dkvs_common::kv::Key;
use dkvs_common::quorum::conditional::{Attempt, Condition};
use dkvs_common::quorum::level::Level;
use dkvs_common::quorum::params::Quorum;
use dkvs_common::quorum::read::Read;
use dkvs_common::quorum::write::Write;
use dkvs_common::record::{Attributes, Content};
use dkvs_common::tag::Tag;

use super::moment::Moment;

/// What a client requests.
#[derive(Debug, Clone)]
pub struct Request {
    /// The operation's number, and the number of the attempt, from 1.
    pub operation: usize,
    pub attempt: u32,
    /// On whose behalf.
    pub caller: CallerId,
    pub key: Key,
    pub kind: RequestKind,
    pub quorum: Quorum,
    pub level: Level,
    pub may_fall_back: bool,
    pub timeout: Duration,
    pub waits_for_all: bool,
}

/// A read, or a write of some content.
#[derive(Debug, Clone)]
pub enum RequestKind {
    Read,
    /// A write of this content, whatever is there.
    Write {
        content: Content,
        attributes: Attributes,
        /// That of an earlier attempt, to be used again.
        tag: Option<Tag>,
    },
    /// A write of this content where something is there that meets a condition.
    WriteIf {
        content: Content,
        attributes: Attributes,
        condition: Condition,
        /// An earlier attempt, of which it is not known what became of it.
        attempt: Option<Attempt>,
    },
}

/// The end of a request.
pub struct Answer {
    pub operation: usize,
    pub attempt: u32,
    /// When it was to come at the latest; the time that the request lay waiting does not count.
    pub deadline: Moment,
    pub response: Response,
    /// Why it was not begun, if the gateway did not begin it.
    pub refused: Option<Refused>,
}

/// Why a gateway did not begin a request, and what it had begun and not ended by then.
#[derive(Debug, Clone)]
pub struct Refused {
    pub error: AdmissionError,
    /// Requests of the same caller.
    pub own: usize,
    /// Requests of all callers.
    pub all: usize,
    /// How many may be undecided.
    pub places: usize,
}

/// What the client receives.
pub enum Response {
    Read(Read),
    Write(Write, Option<Tag>),
    WriteIf(ConditionalResult),
    /// The request was not even begun.
    NotBegun,
}
