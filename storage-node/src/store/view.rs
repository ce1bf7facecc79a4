//! Which part of a record a read asks for, and what it is shown.

use std::ops::Range;

use dkvs_common::record::Attributes;

use super::head::RecordHead;

/// Which part of a value is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Part {
    /// All of it.
    Whole,
    /// The content type, and so many bytes from the first on, or as many as there are.
    First(usize),
    /// Bytes from one on, or as many of them as there are. Without the content type.
    Block {
        /// The first of them.
        offset: u32,
        /// How many.
        bytes: usize,
    },
}

impl Part {
    /// Which bytes of a value of this length it is.
    pub(super) fn range(self, value_bytes: usize) -> Range<usize> {
        match self {
            Self::Whole => 0..value_bytes,
            Self::First(bytes) => 0..bytes.min(value_bytes),
            Self::Block { offset, bytes } => {
                let start = (offset as usize).min(value_bytes);
                start..start.saturating_add(bytes).min(value_bytes)
            }
        }
    }
}

/// A record as a read is shown it.
#[derive(Debug, Clone, Copy)]
pub struct RecordView<'a> {
    pub(super) head: RecordHead,
    pub(super) attributes: Attributes,
    pub(super) content_type: &'a [u8],
    pub(super) value: &'a [u8],
}

impl<'a> RecordView<'a> {
    /// What is known of it without its value.
    pub fn head(&self) -> RecordHead {
        self.head
    }

    /// What the record says beside its content; only its age, if only a block was asked for.
    pub fn attributes(&self) -> Attributes {
        self.attributes
    }

    /// The value's media type, unless only a block was asked for.
    pub fn content_type(&self) -> &'a [u8] {
        self.content_type
    }

    /// The part of the value that was asked for; no bytes of a tombstone.
    pub fn value(&self) -> &'a [u8] {
        self.value
    }

    /// What is known of it without reading anything.
    pub(crate) fn of_head(head: RecordHead) -> Self {
        Self {
            head,
            attributes: Attributes::NONE.born_at_least(head.born),
            content_type: &[],
            value: &[],
        }
    }
}
