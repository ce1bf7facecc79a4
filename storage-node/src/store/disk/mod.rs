//! The durable store: records in memory for those who read, and in a log on a disk for the next
//! start.
//!
//! ```text
//!   apply --> [ queue ] --begin--> [ batch ] --finish--> log, synced --> table --> completion
//!               |  ^                                                       ^
//!               |  '-- the next gather here while a batch is synced        '-- reads look here
//!               '-- full: busy
//! ```
//!
//! Reads see a record only once it is synced, so a crash takes back nothing that was ever returned;
//! and a put is confirmed only then. One batch is on its way to the disk at a time, and takes all
//! that gathered meanwhile (group commit), so nothing waits for a timer.
//!
//! No threads and no files are in here but in `thread` and [`directory`]: the owner of a
//! [`Committer`] drives it, and it writes to a [`medium::Medium`].
//!
//! # Completeness
//!
//! No quorum survives a server that confirmed a record, lost it, and goes on as if it had never
//! been. So a store knows whether it is *complete*: whether it holds, for every key, at least the
//! newest record that its server ever confirmed. In one that is not (its disk is gone, it was taken
//! from a backup, it was not synced when the machine went down) all records are quarantined: a read
//! returns `corrupt`, which counts for nothing in a quorum. Key by key they are attested again,
//! when a read that asked the other replicas says what their newest record is. The store's
//! generation counts how often it became incomplete, and each row says in which it was attested.
//!
//! * `options`, `open`: whether what lies on a disk may be served, and as what
//! * `store`: what reads see; `queue`: what waits for the disk; `status`: its state, for statistics
//! * `batch`, `committer`: what is made durable together, and how
//! * `log`: the rows on the disk; `row`: one of them; [`medium`]: where the bytes lie
//! * `thread`: a committer at work; [`directory`], [`ring_change`]: the data directory of a server

mod batch;
mod committer;
pub mod directory;
mod log;
pub mod medium;
mod open;
mod options;
mod queue;
pub mod ring_change;
mod row;
mod status;
mod store;
mod thread;

pub use batch::Batch;
pub use committer::Committer;
pub use log::{CommitError, Snapshot};
pub use open::OpenError;
pub use options::{Declaration, Media, OpenOptions};
pub use queue::Backup;
pub use status::DiskStatus;
pub use store::DiskStore;
pub use thread::CommitThread;
