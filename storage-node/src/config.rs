//! The settings of a server's service.

use dkvs_common::wire::v2::{DATAGRAM_BYTES_DEFAULT, VALUE_BYTES_DEFAULT};

/// The settings of a server's service.
#[derive(Debug, Clone, Copy)]
pub struct ServiceConfig {
    /// Random, and another one after every start.
    pub boot_id: u64,
    /// The longest DKVS/2 datagram to send, in bytes.
    pub datagram_bytes_max: usize,
    /// The longest value to store by DKVS/2, in bytes.
    pub value_bytes_max: usize,
    /// The ring that the server belongs to, if it knows: commands for another are refused.
    pub epoch: Option<u32>,
    /// The memory for uploads, in bytes; no less than four of the longest values.
    pub upload_bytes_max: usize,
    /// Whether DKVS/1 is answered. If not, only DKVS/2 is.
    pub is_v1_on: bool,
    /// How deep leaves are at least, by which the server compares itself with others.
    pub leaf_depth_min: u8,
}

/// The memory for uploads by default, in bytes.
pub const UPLOAD_BYTES_DEFAULT: usize = 64 << 20;

/// How deep leaves are at least, by default: as is right for four million records, in 256 KiB.
pub(crate) const LEAF_DEPTH_MIN_DEFAULT: u8 = 14;

impl ServiceConfig {
    /// The defaults.
    pub fn new(boot_id: u64) -> Self {
        Self {
            boot_id,
            datagram_bytes_max: DATAGRAM_BYTES_DEFAULT,
            value_bytes_max: VALUE_BYTES_DEFAULT,
            epoch: None,
            upload_bytes_max: UPLOAD_BYTES_DEFAULT,
            is_v1_on: true,
            leaf_depth_min: LEAF_DEPTH_MIN_DEFAULT,
        }
    }
}
