//! A value on its way to a server, in blocks.
//!
//! ```text
//!   each block: Unsent --poll_request--> Sent --a reply that confirms it--> Stored
//!   all Stored --> the put of the staged value --> its reply ends the upload
//!                      |
//!                      +--> absent: the server has dropped the blocks; from the start
//! ```
//!
//! Each block is a request of the peer, which sends it again. A reply also confirms other blocks
//! than its own, so a lost reply costs nothing.

use super::block_range::BlockRange;
use super::lengths::PUT_STAGED_EXTRA_BYTES;
use dkvs_common::kv::{Key, Value};
use dkvs_common::model::{Refusal, ReplicaCommand, ReplicaResponse};
use dkvs_common::record::{Content, ContentType, Record};
use dkvs_common::wire::v2::message::RequestId;
use dkvs_common::wire::v2::request::Request;

/// How often an upload starts again because the server has dropped its blocks.
const RESTARTS_MAX: u32 = 3;

/// The fields of a stage request beside its block, in bytes.
const STAGE_BYTES: usize = 14 + 8 + 4 + 4 + 2;

/// One upload.
#[derive(Debug)]
pub(super) struct Upload {
    number: u64,
    key: Key,
    record: Record,
    layout: Layout,
    blocks: Vec<Block>,
    /// How many blocks were sent: the first ones.
    next: usize,
    /// How many blocks the server has confirmed without a gap.
    base: usize,
    /// How many blocks the server has not confirmed.
    missing: usize,
    /// Whether the put that ends the upload was sent.
    is_committing: bool,
    restarts: u32,
}

/// How the record is cut into messages.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Layout {
    /// The server's limit is not known yet.
    Undecided,
    /// One message carries the whole record.
    Whole,
    /// The value is sent in blocks of this many bytes, the last of which may be shorter.
    Blocks(u16),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Block {
    Unsent,
    Sent(RequestId),
    Stored,
}

/// What a reply changed.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum UploadProgress {
    /// These requests need no reply any more.
    Abandon(Vec<RequestId>),
    /// The upload has ended with this reply.
    Ended(ReplicaResponse),
}

/// The record fits no datagram, even without its value.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct TooLong;

impl Upload {
    /// An upload that [`Self::cut`] has yet to cut into blocks.
    pub(super) fn new(number: u64, key: Key, record: Record) -> Self {
        Self {
            number,
            key,
            record,
            layout: Layout::Undecided,
            blocks: Vec::new(),
            next: 0,
            base: 0,
            missing: 0,
            is_committing: false,
            restarts: 0,
        }
    }

    /// Decides, when first called, how the record is sent in messages of at most
    /// `message_bytes_max`. Fails if that is not possible.
    pub(super) fn cut(&mut self, message_bytes_max: usize) -> Result<(), TooLong> {
        if self.layout != Layout::Undecided {
            return Ok(());
        }
        let put_bytes = Request::put_bytes(&self.key, &self.record);
        if put_bytes <= message_bytes_max {
            self.layout = Layout::Whole;
            return Ok(());
        }
        let value_bytes = match &self.record.content {
            Content::Value { value, .. } => value.len(),
            Content::Tombstone => 0,
        };
        let block_bytes = message_bytes_max.saturating_sub(STAGE_BYTES);
        let block_bytes = u16::try_from(block_bytes).unwrap_or(u16::MAX);
        let put_staged_bytes = put_bytes - value_bytes + PUT_STAGED_EXTRA_BYTES;
        if put_staged_bytes > message_bytes_max || block_bytes == 0 {
            return Err(TooLong);
        }
        self.layout = Layout::Blocks(block_bytes);
        self.missing = value_bytes.div_ceil(block_bytes.into());
        self.blocks = vec![Block::Unsent; self.missing];
        Ok(())
    }

    /// The most that a block's request takes of the window, in bytes.
    pub(super) fn window_bytes(&self) -> usize {
        match self.layout {
            Layout::Blocks(block_bytes) => STAGE_BYTES + usize::from(block_bytes),
            Layout::Undecided | Layout::Whole => STAGE_BYTES,
        }
    }

    /// The next request, and the block that it sends: none for the put that ends the upload. The
    /// caller confirms it by [`Self::handle_sent`].
    pub(super) fn poll_request(&self) -> Option<(Request, Option<BlockRange>)> {
        match (self.layout, &self.record.content) {
            (Layout::Undecided, _) => None,
            (
                Layout::Blocks(block_bytes),
                Content::Value {
                    content_type,
                    value,
                },
            ) => {
                if self.next < self.blocks.len() {
                    return Some(self.stage(value, block_bytes));
                }
                let is_complete = self.missing == 0;
                let put = || (self.put_staged(content_type, value), None);
                (is_complete && !self.is_committing).then(put)
            }
            (Layout::Whole, _) | (Layout::Blocks(_), Content::Tombstone) => {
                (!self.is_committing).then(|| (self.put(), None))
            }
        }
    }

    fn stage(&self, value: &Value, block_bytes: u16) -> (Request, Option<BlockRange>) {
        let start = self.next * usize::from(block_bytes);
        let end = value.len().min(start + usize::from(block_bytes));
        let block = BlockRange {
            offset: start as u32,
            bytes: (end - start) as u16,
        };
        let request = Request::Command(ReplicaCommand::Stage {
            upload: self.number,
            value_bytes: value.len() as u32,
            offset: block.offset,
            block_bytes,
            block: value.clone().into_bytes().slice(start..end),
        });
        (request, Some(block))
    }

    fn put_staged(&self, content_type: &ContentType, value: &Value) -> Request {
        Request::Command(ReplicaCommand::PutStaged {
            key: self.key.clone(),
            tag: self.record.tag,
            attributes: self.record.attributes,
            content_type: content_type.clone(),
            upload: self.number,
            value_bytes: value.len() as u32,
            checksum: self.record.checksum,
        })
    }

    fn put(&self) -> Request {
        Request::Command(ReplicaCommand::Put {
            key: self.key.clone(),
            record: self.record.clone(),
        })
    }

    /// The request that [`Self::poll_request`] returned was opened as `id`.
    pub(super) fn handle_sent(&mut self, id: RequestId) {
        match self.blocks.get_mut(self.next) {
            Some(block) => {
                *block = Block::Sent(id);
                self.next += 1;
            }
            None => self.is_committing = true,
        }
    }

    /// Handles the reply to the request for `block`, or, if that is none, to the put.
    pub(super) fn handle_response(
        &mut self,
        block: Option<BlockRange>,
        response: ReplicaResponse,
    ) -> UploadProgress {
        match (block, response) {
            (Some(_), ReplicaResponse::Staged { base, bitmap }) => {
                UploadProgress::Abandon(self.confirm(base as usize, &bitmap))
            }
            (None, ReplicaResponse::Absent { .. }) => self.restart(),
            (_, response) => UploadProgress::Ended(response),
        }
    }

    /// The server has all blocks before `base`, and those after it whose bit is set. Returns the
    /// requests that need no reply any more.
    fn confirm(&mut self, base: usize, bitmap: &[u8]) -> Vec<RequestId> {
        let mut confirmed = Vec::new();
        let known = self.next.min(base);
        (self.base..known).for_each(|number| self.confirm_block(number, &mut confirmed));
        self.base = self.base.max(known);
        for (at, byte) in bitmap.iter().enumerate() {
            for bit in (0..8).filter(|bit| byte & (1 << bit) != 0) {
                self.confirm_block(base + 8 * at + bit, &mut confirmed);
            }
        }
        confirmed
    }

    fn confirm_block(&mut self, number: usize, confirmed: &mut Vec<RequestId>) {
        // A server may claim a block that was never sent; that proves nothing.
        if number >= self.next {
            return;
        }
        if let Block::Sent(id) = self.blocks[number] {
            confirmed.push(id);
            self.blocks[number] = Block::Stored;
            self.missing -= 1;
        }
    }

    /// The server has dropped the blocks. Starts again, or gives up after [`RESTARTS_MAX`] times.
    fn restart(&mut self) -> UploadProgress {
        if self.restarts == RESTARTS_MAX {
            let busy = ReplicaResponse::Refused(Refusal::Busy);
            return UploadProgress::Ended(busy);
        }
        self.restarts += 1;
        self.blocks.fill(Block::Unsent);
        self.missing = self.blocks.len();
        (self.next, self.base) = (0, 0);
        self.is_committing = false;
        UploadProgress::Abandon(Vec::new())
    }

    /// The requests for blocks that were opened and not confirmed.
    pub(super) fn outstanding(&self) -> Vec<RequestId> {
        let sent = self.blocks.iter().filter_map(|block| match block {
            Block::Sent(id) => Some(*id),
            Block::Unsent | Block::Stored => None,
        });
        sent.collect()
    }
}

#[cfg(test)]
mod tests {
    use super::super::lengths::put_key_bytes_max;
    use super::*;
    use dkvs_common::record::{Attributes, CONTENT_TYPE_BYTES_MAX, OperationId};
    use dkvs_common::tag::Tag;
    use dkvs_common::wire::v2::message::RequestMessage;

    fn content(type_bytes: usize, value_bytes: usize) -> Content {
        Content::Value {
            content_type: ContentType::new(vec![b't'; type_bytes]).unwrap(),
            value: Value::new(vec![b'v'; value_bytes]).unwrap(),
        }
    }

    const ATTRIBUTES: Attributes = Attributes {
        born: 1,
        expires_ms: Some(2),
        operation: Some(OperationId([3; 16])),
    };

    fn upload(key_bytes: usize, attributes: Attributes, content: &Content) -> Upload {
        let key = Key::new(vec![b'k'; key_bytes]).unwrap();
        let tag = Tag { time: 1, op: 1 };
        let record = Record::with_attributes(&key, tag, attributes, content.clone());
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
        let both = [Attributes::NONE, ATTRIBUTES];
        let contents = contents.flat_map(|content| both.map(|it| (it, content.clone())));
        for (attributes, content) in contents {
            for message_bytes_max in [512 - 44, 512 - 16, 1_200 - 16, 9_000] {
                let longest = put_key_bytes_max(&content, &attributes, message_bytes_max);
                assert!(
                    upload(longest + 1, attributes, &content)
                        .cut(message_bytes_max)
                        .is_err()
                );
                let mut upload = upload(longest, attributes, &content);
                upload.cut(message_bytes_max).unwrap();
                let put = match upload.blocks.len() {
                    0 => upload.put(),
                    _ => {
                        upload.next = upload.blocks.len();
                        upload.missing = 0;
                        upload.poll_request().unwrap().0
                    }
                };
                let put = message_bytes(put);
                assert_eq!(put, message_bytes_max, "a key of {longest} bytes");
            }
        }
    }

    #[test]
    fn key_of_the_guaranteed_length_fits_with_every_content() {
        for (type_bytes, value_bytes) in [(0, 0), (255, 0), (255, 11), (255, 12), (255, 1 << 20)] {
            let content = content(type_bytes, value_bytes);
            let longest = put_key_bytes_max(&content, &ATTRIBUTES, 1_200);
            assert!(longest >= 1_200 - Request::PUT_HEAD_BYTES_MAX);
        }
    }
}
