//! A count of the records of a store that a filter selects, and then those very records.
//!
//! A store in memory shows values as they are. One on a disk shows where they lie, to be read when
//! nothing is locked.

use std::ops::ControlFlow;
use std::sync::Arc;

use bytes::Bytes;

use super::Store;
use super::disk::IndexEntry;
use super::head::{HeldRecord, TableEntry as _};
use super::packed::PackedRecord;
use super::table::{self, PageEnd, PageLimits};

/// A count and what was counted, under way. A store has one at a time.
pub struct CountedScan(Scan);

enum Scan {
    Memory(table::CountedScan<PackedRecord>),
    Disk(table::CountedScan<IndexEntry>),
}

/// The value of a record that was counted.
pub enum ScannedValue {
    /// It is this, unless it is damaged.
    Value(Option<Bytes>),
    /// It lies on the disk.
    OnDisk(super::disk::Place),
}

impl CountedScan {
    /// How many records were counted so far.
    pub fn counted(&self) -> usize {
        match &self.0 {
            Scan::Memory(scan) => scan.counted(),
            Scan::Disk(scan) => scan.counted(),
        }
    }

    /// The memory that is taken for what changed meanwhile, in bytes.
    pub fn noted_bytes(&self) -> usize {
        match &self.0 {
            Scan::Memory(scan) => scan.noted_bytes(),
            Scan::Disk(scan) => scan.noted_bytes(),
        }
    }
}

impl Store {
    /// Begins to count the records that `filter` selects; none if another count is under way.
    pub fn begin_counted_scan(&self, filter: fn(&HeldRecord<'_>) -> bool) -> Option<CountedScan> {
        let scan = match self {
            Self::Memory(store) => {
                let filter = move |held: &PackedRecord| filter(&held.held());
                let scan = store.table().begin_counted_scan(Arc::new(filter));
                Scan::Memory(scan?)
            }
            Self::Disk(store) => {
                let filter = move |held: &IndexEntry| filter(&held.held());
                let scan = store.table().begin_counted_scan(Arc::new(filter));
                Scan::Disk(scan?)
            }
        };
        Some(CountedScan(scan))
    }

    /// Counts a page; when the last is done, [`Self::show_page`] may begin. Records that are not
    /// selected are shown to `other`.
    pub fn count_page(
        &self,
        scan: &mut CountedScan,
        limits: PageLimits,
        mut other: impl FnMut(&HeldRecord<'_>),
    ) -> PageEnd {
        match (self, &mut scan.0) {
            (Self::Memory(store), Scan::Memory(scan)) => {
                let other = |held: &PackedRecord| other(&held.held());
                store.table().count_page(scan, limits, other)
            }
            (Self::Disk(store), Scan::Disk(scan)) => {
                let other = |held: &IndexEntry| other(&held.held());
                store.table().count_page(scan, limits, other)
            }
            // It is of another store.
            _ => PageEnd::Lost,
        }
    }

    /// Shows a page of what was counted, until `take` breaks: it has not taken that record then.
    pub fn show_page(
        &self,
        scan: &mut CountedScan,
        limits: PageLimits,
        mut take: impl FnMut(&HeldRecord<'_>, ScannedValue) -> ControlFlow<()>,
    ) -> PageEnd {
        match (self, &mut scan.0) {
            (Self::Memory(store), Scan::Memory(scan)) => {
                let take = |held: &PackedRecord| {
                    let value = held
                        .is_sound()
                        .then(|| Bytes::copy_from_slice(held.value()));
                    take(&held.held(), ScannedValue::Value(value))
                };
                store.table().show_page(scan, limits, take)
            }
            (Self::Disk(store), Scan::Disk(scan)) => {
                let take =
                    |held: &IndexEntry| take(&held.held(), ScannedValue::OnDisk(held.place()));
                store.table().show_page(scan, limits, take)
            }
            _ => PageEnd::Lost,
        }
    }
}
