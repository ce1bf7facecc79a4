//! What fits one message: lengths that depend on the wire format alone.

use super::super::peer::DATAGRAM_BYTES_MIN;
use dkvs_common::record::Content;
use dkvs_common::wire::v2::envelope::AUTHENTICATED_BYTES;
use dkvs_common::wire::v2::request::Request;

/// The longest message, in bytes, that fits a datagram of any server.
pub const MESSAGE_BYTES_GUARANTEED: usize = DATAGRAM_BYTES_MIN - AUTHENTICATED_BYTES;

/// What a staged put takes beyond a put without its value, in bytes: the upload's number and the
/// value's length, but no kind of content.
pub(super) const PUT_STAGED_EXTRA_BYTES: usize = 8 + 4 - 1;

/// The longest key, in bytes, under which a server that accepts messages of at most
/// `message_bytes_max` can store `content`: in one message, or, where that allows a longer key, with
/// the value in blocks.
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

/// The longest key, in bytes, that can be asked for in a message of `message_bytes_max`.
pub fn get_key_bytes_max(message_bytes_max: usize) -> usize {
    message_bytes_max.saturating_sub(Request::GET_KEY_OVERHEAD_BYTES)
}

/// Most bytes of a list's prefix, together with those of the place where it begins that the prefix does
/// not begin with, in a message of `message_bytes_max`.
pub fn list_bytes_max(message_bytes_max: usize) -> usize {
    message_bytes_max.saturating_sub(Request::LIST_OVERHEAD_BYTES)
}
