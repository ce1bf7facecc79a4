//! A log of records in segments: appended, synced in batches, read where they lie, compacted, and found
//! again after crashes and damage. It is no database: which record of a key is the newest, its owner
//! knows, who keeps keys and places in memory (the layout is that of Bitcask, Sheehy and Smith 2010).
//!
//! ```text
//!   DIR/0000000007.log    a segment: file head, zeros up to 512, then records one after the other;
//!                         the last one goes on with zeros, for which room is set aside
//!   DIR/0000000007.hint   what a sealed segment holds, without the values
//!   DIR/manifest-a, -b    which segments there are, and what is known to be lost; the same twice
//!   DIR/high-water        up to which record all was synced
//!   DIR/spare-3           zeros: the reserve, and segments to come
//!   DIR/lock              held by the process that has the directory open
//!
//!   a segment   | head | record 41 | record 42 | record 43 | 0 0 0 ...
//!   a record    | checksum, lengths, number, checksums of key and head, of the value | key | head | value |
//! ```
//!
//! Every file but spares and the lock begins with its kind, the format and whose history it is, under a
//! checksum; `format` has the bytes. Records have numbers without gaps: a gap within a segment is a loss, one between
//! segments was made by compaction, which is what the manifest tells.
//!
//! * What was appended and synced is there after a crash, and what was not is there whole or not at all.
//! * A damaged record costs that record. A damaged hint, one copy of the manifest, or one place of the
//!   mark costs nothing but time. What is lost is reported as ranges of numbers, at each start until
//!   the owner acknowledges it. The odds that a loss goes unseen are in decision 027.
//! * An append waits for one sync, and for no compaction. [`Log::compact_step`], [`Log::maintain`] and
//!   [`Log::hint_job`] are called by the owner when it sees fit; the log has no thread and no clock.
//! * On a full disk, records that make room are still taken ([`Room::Reserve`]).
//! * An error of a write or a sync is final: from then on the log is only read.
//! * At most [`OPEN_SEGMENTS_MAX`] segments are kept open. If the process may open no more files, that is
//!   no error of the disk: what needs one is refused, and nothing has changed.
//!
//! ```text
//!   recover  opens -----.                 .-> spares, manifest, high_water --------.
//!   compact  moves --> append --> room --> log                                      --> format, medium
//!                                         '-> reader; scan, hint, victim --> files -'
//! ```

#![forbid(unsafe_code)]
#![warn(missing_docs)]

mod append;
mod compact;
#[cfg(unix)]
mod directory;
mod errors;
mod files;
mod format;
mod high_water;
mod hint;
mod log;
mod manifest;
mod medium;
mod reader;
mod recover;
mod room;
mod scan;
mod segment;
#[cfg(feature = "simulated")]
pub mod simulated;
mod spares;
mod upkeep;
mod victim;

pub use compact::{Index, Liveness};
#[cfg(unix)]
pub use directory::{Directory, DirectoryError};
pub use errors::{AppendError, LostRange, OpenError, ReadError};
pub use files::OPEN_SEGMENTS_MAX;
pub use format::{Entry, FORMAT, History, KEY_BYTES_MAX, Location, VALUE_BYTES_MAX};
pub use hint::{HintDone, HintJob};
pub use log::{Appended, Log, Options, Room};
pub use medium::{Medium, MediumFile, is_full, is_out_of_files};
pub use reader::{Reader, Record};
pub use recover::{Recovery, Visit};
pub use room::{RecordSpace, SEGMENT_BYTES_MAX, SEGMENT_BYTES_MIN, Space};
pub use segment::Visited;
