//! What a client can do: one operation, one file.
//!
//! ```text
//!              +--> Send ------ a command to one server --> response, unreachable ---+
//!   poll_step -+--> Fetch ----- a long value from one server --> fetched, failed ----+
//!       ^      +--> Reserve --- memory for it --> reserved --------------------------+
//!       |      +--> MintTag --- a tag above another --> minted ----------------------+
//!       |      +--> Wake ------ at some time --> that time has come ----------------------+
//!       |      +--> Attest ---- that a server may answer for a key again ------------+
//!       |                                                                            |
//!       +------------- until it waits for something, is decided, or complete <-------+
//! ```
//!
//! An operation decides what is sent next and what its end came to; the core decides by which protocol
//! it goes, and carries it. To add one: a type in a file of its own that implements [`Operation`], a
//! line here, and a method of [`Core`](super::Core) that begins it.

mod ask;
mod candidate;
mod conditional;
mod contract;
mod inspect;
mod list;
mod outgoing;
mod read;
mod status;
mod write;

pub use ask::AskOperation;
pub(super) use candidate::pair_bytes;
pub use candidate::{Admission, Candidate, Met};
pub use conditional::{ConditionalOperation, ConditionalResult, Subject};
pub use contract::{CommandId, FollowUp, Missed, Operation, Purpose, Step};
pub use inspect::{InspectOperation, InspectResult};
pub use list::{ListOperation, ListResult};
pub use outgoing::Outgoing;
pub use read::{ReadOperation, ReadResult};
pub use status::{Statistics, StatusOperation};
pub use write::{WriteOperation, WriteResult};
