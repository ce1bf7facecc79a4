//! Values that arrive in blocks: one of them, and all that are under way.

mod table;
mod upload;

pub(super) use table::{BlockError, TakeError, UploadId, Uploads};
pub(super) use upload::{Block, Progress, Shape};

#[cfg(test)]
pub(super) use table::UPLOADS_MAX;

pub(crate) use upload::BITMAP_BYTES_MAX;
