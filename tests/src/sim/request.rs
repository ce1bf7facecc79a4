//! What a client asks a gateway, and what the gateway answers.

use std::time::Duration;

use dkvs_common::kv::Key;
use dkvs_common::quorum::level::Level;
use dkvs_common::quorum::params::Quorum;
use dkvs_common::quorum::read::Read;
use dkvs_common::quorum::write::Write;
use dkvs_common::record::Content;
use dkvs_common::tag::Tag;

use super::moment::Moment;

/// What a client asks.
#[derive(Debug, Clone)]
pub struct Request {
    /// The operation's number, and for the how manieth time it is asked.
    pub operation: usize,
    pub attempt: u32,
    pub key: Key,
    pub asked: Asked,
    pub quorum: Quorum,
    pub level: Level,
    pub may_fall_back: bool,
    pub timeout: Duration,
    pub waits_for_all: bool,
}

/// To read, or what to write.
#[derive(Debug, Clone)]
pub enum Asked {
    Read,
    Write {
        content: Content,
        /// That of an earlier attempt, to be used again.
        tag: Option<Tag>,
    },
}

/// What came of a request.
pub struct Answer {
    pub operation: usize,
    pub attempt: u32,
    /// When it was to come at the latest; the time that the request lay waiting does not count.
    pub deadline: Moment,
    pub told: Told,
}

/// What a client is told.
pub enum Told {
    Read(Read),
    Write(Write, Option<Tag>),
    /// The request was not even begun.
    Nothing,
}
