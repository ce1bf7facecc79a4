//! The durable store: keys, heads and places in memory, values in a log on a disk.
//!
//! ```text
//!   apply --> [ queue ] --begin--> [ batch ] --finish--> log, synced --> table --> completion
//!               |  ^                                       |               ^
//!               |  '-- the next gather here                |               '-- heads are read here,
//!               '-- full: busy                             v                   and where values lie
//!   get --> table --> [ cache ] ----- or else [ reads ] --> log --> completion
//!                                               '-- full: busy
//! ```
//!
//! Reads see a record only once it is synced, so a crash takes back nothing that was ever returned;
//! and a put is confirmed only then. One batch is on its way to the disk at a time, and takes all
//! that gathered meanwhile (group commit), so nothing waits for a timer. A value that is not in memory
//! is read by a thread for that, and what is answered is what is newest then.
//!
//! No threads and no files are in here but in `thread` and [`directory`]: the owner of a
//! [`Committer`] drives it, and has reads run that wait ([`DiskStore::take_read`]); the log writes to
//! a [`dkvs_log::Medium`].
//!
//! # Completeness
//!
//! No quorum survives a server that confirmed a record, lost it, and goes on as if it had never
//! been. So a store knows whether it is *complete*: whether it holds, for every key, at least the
//! newest record that its server ever confirmed. In one that is not, a key without a record is
//! answered `corrupt`, which counts for nothing in a quorum, and so is one whose record is
//! quarantined. If its disk is gone, or it was taken from a backup, or it was not synced when the
//! machine went down, all of its records are. If records of the log were lost, they have numbers, and
//! those records are quarantined whose numbers are not greater: the others were still the newest of
//! their keys after whatever was lost. Key by key they are attested again, when a read that asked the
//! other replicas says what their newest record is.
//!
//! * `options`, `open`, `load`: whether what lies on a disk may be served, and as what
//! * `format`: records in the log; `entry`: what memory keeps of them
//! * `store`: what reads see; `queue`: what waits to be written; `reads`: what waits to be read;
//!   `reading`: how it is
//! * `scrub`, `damage`: reading again what nobody asks for, and what is known to be damaged
//! * `position`: how far the store has come; `set_back`: what becomes of it if that is less than it was
//! * `values`, `cache`, `verify`: the values; `status`: the state, for statistics
//! * `batch`, `committer`, `writing`: what is made durable together, and how; `index`: what is live, for the log
//! * `format_1`, `convert`: data directories of format 1, and how they become such of format 2
//! * `thread`: committer and readers at work; [`directory`], `refusals`, `identity`,
//!   [`ring_change`]: the data directory, whose it is, and what may change; [`backup`]: copies of it

mod accepting;
pub mod backup;
mod batch;
mod cache;
mod committer;
mod convert;
mod damage;
pub mod directory;
mod entry;
mod files;
mod format;
mod format_1;
mod identity;
mod index;
mod load;
mod open;
mod options;
mod position;
mod queue;
mod reading;
mod reads;
mod refusals;
pub mod ring_change;
mod scrub;
mod set_back;
mod status;
mod store;
mod thread;
mod values;
mod verify;
mod writing;

pub use batch::Batch;
pub use committer::{CommitError, Committer};
pub use damage::DamageHook;
pub use entry::Place;
pub(crate) use files::write_synced;
pub use open::{OpenError, Opened};
pub use options::{CACHE_BYTES_DEFAULT, Declaration, OpenOptions, SEGMENT_BYTES_DEFAULT};
pub use reads::{ColdRead, Scrubbed};
pub use status::DiskStatus;
pub use store::DiskStore;
pub use thread::CommitThread;

pub use entry::INDEX_HEAD_BYTES;
pub(in crate::store) use entry::IndexEntry;
