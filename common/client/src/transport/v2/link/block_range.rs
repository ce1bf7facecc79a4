//! Which bytes of a value a block holds.

/// A block of a value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct BlockRange {
    /// Where the block begins, in bytes from the start of the value.
    pub(super) offset: u32,
    /// Its length in bytes.
    pub(super) bytes: u16,
}
