//! A value on its way to a server, in blocks.
//!
//! ```text
//!   blocks: unsent --poll_request--> sent --a reply that has it--> there
//!   all there --> put staged --> the reply to it is the upload's
//!                      |
//!                      +--> absent: the server has forgotten the blocks; from the start
//! ```
//!
//! Blocks are sent again one by one, as requests of the peer. What a reply says of other blocks
//! than its own counts as well, so that a lost reply costs nothing.

use dkvs_common::kv::Key;
use dkvs_common::model::{Refusal, ReplicaCommand, ReplicaResponse};
use dkvs_common::record::{Content, Record};
use dkvs_common::wire::v2::message::RequestId;
use dkvs_common::wire::v2::reply::Reply;
use dkvs_common::wire::v2::request::Request;

/// How often an upload is begun anew because the server has forgotten it.
const RESTARTS_MAX: u32 = 3;

/// One upload.
#[derive(Debug)]
pub(super) struct Upload {
    number: u64,
    key: Key,
    record: Record,
    /// None before it was decided, 0 if the record travels in one message.
    block_bytes: Option<u16>,
    blocks: Vec<Block>,
    /// Blocks before this one were sent.
    next: usize,
    /// Blocks before this one are there.
    base: usize,
    missing: usize,
    is_committing: bool,
    restarts: u32,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Block {
    Unsent,
    Sent(RequestId),
    There,
}

/// What follows from a reply.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Progress {
    /// These requests need no answer any more.
    Abandon(Vec<RequestId>),
    /// It is over, with this reply.
    Ended(Reply),
}

/// The record fits no datagram, not even without its value.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct TooLong;

/// What a staged put says of its value, beyond what a put takes: upload and length, but no kind.
const PUT_STAGED_EXTRA_BYTES: usize = 8 + 4 - 1;

/// The longest key under which content can be put to a server that takes messages of at most
/// `message_bytes_max`: as a whole, or, if that holds more, with its value in blocks.
pub fn put_key_bytes_max(content: &Content, message_bytes_max: usize) -> usize {
    let (rest, value_bytes) = match content {
        Content::Value {
            content_type,
            value,
        } => (1 + content_type.as_bytes().len(), value.len()),
        Content::Tombstone => (0, 0),
    };
    let in_blocks = value_bytes.min(PUT_STAGED_EXTRA_BYTES);
    message_bytes_max.saturating_sub(Request::PUT_KEY_OVERHEAD_BYTES + rest + in_blocks)
}

/// The fields of a stage request beside its block.
const STAGE_BYTES: usize = 14 + 8 + 4 + 4 + 2;

impl Upload {
    /// An upload of a record, whose blocks are cut by [`Self::cut`].
    pub(super) fn new(number: u64, key: Key, record: Record) -> Self {
        Self {
            number,
            key,
            record,
            block_bytes: None,
            blocks: Vec::new(),
            next: 0,
            base: 0,
            missing: 0,
            is_committing: false,
            restarts: 0,
        }
    }

    /// Decides, the first time, how the record travels in messages of at most
    /// `message_bytes_max`. Fails if it does not.
    pub(super) fn cut(&mut self, message_bytes_max: usize) -> Result<(), TooLong> {
        if self.block_bytes.is_some() {
            return Ok(());
        }
        let value = match &self.record.content {
            Content::Value { value, .. } => value.len(),
            Content::Tombstone => 0,
        };
        if Request::put_bytes(&self.key, &self.record) <= message_bytes_max {
            self.block_bytes = Some(0);
            return Ok(());
        }
        let head = Request::put_bytes(&self.key, &self.record) - value;
        let block_bytes = message_bytes_max.saturating_sub(STAGE_BYTES);
        let block_bytes = u16::try_from(block_bytes).unwrap_or(u16::MAX);
        if head + PUT_STAGED_EXTRA_BYTES > message_bytes_max || block_bytes == 0 {
            return Err(TooLong);
        }
        self.block_bytes = Some(block_bytes);
        self.missing = value.div_ceil(block_bytes.into());
        self.blocks = vec![Block::Unsent; self.missing];
        Ok(())
    }

    /// The most that a block's request takes of the window.
    pub(super) fn window_bytes(&self) -> usize {
        STAGE_BYTES + usize::from(self.block_bytes.unwrap_or(0))
    }

    /// The next thing to ask; the caller tells its id by [`Self::sent`].
    pub(super) fn poll_request(&self) -> Option<Request> {
        let block_bytes = self.block_bytes?;
        let Content::Value {
            content_type,
            value,
        } = &self.record.content
        else {
            return self.put();
        };
        if block_bytes == 0 {
            return self.put();
        }
        let value_bytes = value.len() as u32;
        if self.next < self.blocks.len() {
            let start = self.next * usize::from(block_bytes);
            let end = value.len().min(start + usize::from(block_bytes));
            return Some(Request::Command(ReplicaCommand::Stage {
                upload: self.number,
                value_bytes,
                offset: start as u32,
                block_bytes,
                block: value.clone().into_bytes().slice(start..end),
            }));
        }
        (self.missing == 0 && !self.is_committing).then(|| {
            Request::Command(ReplicaCommand::PutStaged {
                key: self.key.clone(),
                tag: self.record.tag,
                content_type: content_type.clone(),
                upload: self.number,
                value_bytes,
                checksum: self.record.checksum,
            })
        })
    }

    fn put(&self) -> Option<Request> {
        let (key, record) = (&self.key, &self.record);
        (!self.is_committing).then(|| {
            Request::Command(ReplicaCommand::Put {
                key: key.clone(),
                record: record.clone(),
            })
        })
    }

    /// The number of the block that [`Self::poll_request`] gives; none for the put.
    pub(super) fn next_block(&self) -> Option<u32> {
        (self.next < self.blocks.len()).then_some(self.next as u32)
    }

    /// What [`Self::poll_request`] gave is under way, as `id`.
    pub(super) fn sent(&mut self, id: RequestId) {
        match self.blocks.get_mut(self.next) {
            Some(block) => {
                *block = Block::Sent(id);
                self.next += 1;
            }
            None => self.is_committing = true,
        }
    }

    /// The server answered the request for `block`, or, if that is none, the put.
    pub(super) fn handle_reply(&mut self, block: Option<u32>, reply: Reply) -> Progress {
        match (block, reply) {
            (Some(_), Reply::Response(ReplicaResponse::Staged { base, bitmap })) => {
                let mut abandoned = Vec::new();
                let known = self.next.min(base as usize);
                (self.base..known).for_each(|number| self.is_there(number, &mut abandoned));
                self.base = self.base.max(known);
                for (at, byte) in bitmap.iter().enumerate() {
                    for bit in (0..8).filter(|bit| byte & (1 << bit) != 0) {
                        self.is_there(base as usize + 8 * at + bit, &mut abandoned);
                    }
                }
                Progress::Abandon(abandoned)
            }
            (None, Reply::Response(ReplicaResponse::Absent { .. }))
                if self.restarts < RESTARTS_MAX =>
            {
                self.restarts += 1;
                self.blocks.fill(Block::Unsent);
                self.missing = self.blocks.len();
                (self.next, self.base) = (0, 0);
                self.is_committing = false;
                Progress::Abandon(Vec::new())
            }
            (None, Reply::Response(ReplicaResponse::Absent { .. })) => {
                Progress::Ended(Reply::Response(ReplicaResponse::Refused(Refusal::Busy)))
            }
            (_, reply) => Progress::Ended(reply),
        }
    }

    /// The requests whose answers are still to come.
    pub(super) fn outstanding(&self) -> Vec<RequestId> {
        let sent = self.blocks.iter().filter_map(|block| match block {
            Block::Sent(id) => Some(*id),
            _ => None,
        });
        sent.collect()
    }

    fn is_there(&mut self, number: usize, abandoned: &mut Vec<RequestId>) {
        // A server may claim what was never sent; that proves nothing.
        if number >= self.next {
            return;
        }
        if let Block::Sent(id) = self.blocks[number] {
            abandoned.push(id);
            self.blocks[number] = Block::There;
            self.missing -= 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use dkvs_common::kv::Value;
    use dkvs_common::record::{CONTENT_TYPE_BYTES_MAX, ContentType};
    use dkvs_common::tag::Tag;
    use dkvs_common::wire::v2::message::RequestMessage;

    fn content(type_bytes: usize, value_bytes: usize) -> Content {
        Content::Value {
            content_type: ContentType::new(vec![b't'; type_bytes]).unwrap(),
            value: Value::new(vec![b'v'; value_bytes]).unwrap(),
        }
    }

    fn upload(key_bytes: usize, content: &Content) -> Upload {
        let key = Key::new(vec![b'k'; key_bytes]).unwrap();
        let tag = Tag { time: 1, op: 1 };
        let record = Record::new(&key, tag, content.clone());
        Upload::new(1, key, record)
    }

    fn message_bytes(request: Request) -> usize {
        let mut message = Vec::new();
        let id = RequestId(1);
        let wait_ms = 1;
        RequestMessage {
            id,
            wait_ms,
            request,
        }
        .encode(&mut message);
        message.len()
    }

    #[test]
    fn the_longest_key_can_be_put_with_its_content_and_a_longer_one_cannot() {
        let values = [0, 1, 10, 11, 12, 13, 1_000, 100_000];
        let types = [0, 1, CONTENT_TYPE_BYTES_MAX];
        let values =
            values.map(|value_bytes| types.map(|type_bytes| content(type_bytes, value_bytes)));
        let contents = values.into_iter().flatten().chain([Content::Tombstone]);
        for content in contents {
            for message_bytes_max in [512 - 44, 512 - 16, 1_200 - 16, 9_000] {
                let longest = put_key_bytes_max(&content, message_bytes_max);
                assert!(
                    upload(longest + 1, &content)
                        .cut(message_bytes_max)
                        .is_err()
                );
                let mut upload = upload(longest, &content);
                upload.cut(message_bytes_max).unwrap();
                let put = match upload.blocks.len() {
                    0 => upload.put(),
                    _ => {
                        upload.next = upload.blocks.len();
                        upload.missing = 0;
                        upload.poll_request()
                    }
                };
                let put = message_bytes(put.unwrap());
                assert_eq!(put, message_bytes_max, "a key of {longest} bytes");
            }
        }
    }

    #[test]
    fn a_key_of_the_length_that_is_always_taken_fits_with_every_content() {
        for (type_bytes, value_bytes) in [(0, 0), (255, 0), (255, 11), (255, 12), (255, 1 << 20)] {
            let content = content(type_bytes, value_bytes);
            let longest = put_key_bytes_max(&content, 1_200);
            assert!(longest >= 1_200 - Request::PUT_HEAD_BYTES_MAX);
        }
    }
}
