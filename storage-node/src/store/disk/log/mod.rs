//! The log: rows under growing numbers in an engine (redb), which makes each commit whole or
//! nothing. Records are appended; rows that a newer record has made useless are dropped from the
//! other end.
//!
//! ```text
//!   rows     | first | ... | next - 1 |          no number between them is missing
//!              ^                ^
//!              compacted        appended
//! ```
//!
//! With each commit the log also says where it begins and ends, so no row can vanish unseen. If the
//! engine has to give up a commit as damaged when it opens, what that commit said is gone with it:
//! against that the high-water mark, a small file beside the engine, keeps the end of the last
//! commit. It is not synced. So one thing goes unnoticed: bits of the last commit that flip just
//! when power fails look like a commit that was cut short.
//!
//! Compaction goes along with appending: while the rows take more than they may, each commit also
//! looks at twice as many of the oldest, drops the dead, and appends the living anew (Rosenblum
//! and Ousterhout 1992). So no commit is much longer than others.
//!
//! To remove a key, all of its rows have to go, or an older one would be its record after the next
//! start. Since no number may be missing, the oldest living rows of the log move into their places.
//! That reads the whole log once for all keys that are removed together.
//!
//! * `rows`: the log; `engine`: what it is written with
//! * `manifest`: what the store knows of itself
//! * `snapshot`: a copy of the log
//! * `errors`: what can go wrong

mod engine;
mod errors;
mod manifest;
mod rows;
mod snapshot;

pub use errors::CommitError;
pub use snapshot::Snapshot;

pub(super) use errors::LogError;
pub(super) use manifest::Manifest;
pub(super) use rows::{Liveness, Log};
