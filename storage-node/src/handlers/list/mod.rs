//! Lists: pages of keys, and whose turn it is to have a page made.

mod page;
mod queue;

pub(super) use page::PageQuery;
pub(crate) use queue::ListQueue;

#[cfg(test)]
pub(crate) use queue::RECORDS_PER_SLICE_MAX;
