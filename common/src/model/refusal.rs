//! Why a replica does not carry out a command.

use crate::epoch::Epoch;

/// Why a replica did not do what it was asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Refusal {
    /// It gave no reason: DKVS/1 has none. It may have stored what it was given, too: some servers
    /// answer so to every put.
    Unstated,
    /// It has no room.
    Full,
    /// It stores nothing any more.
    ReadOnly,
    /// The value is longer than it takes.
    TooLarge {
        /// What it takes, in bytes.
        value_bytes_max: u32,
    },
    /// The key is longer than it can be asked for, or be asked to store with what goes with it.
    KeyTooLong {
        /// The longest that it could be, in bytes.
        key_bytes_max: u32,
    },
    /// The key or the value has a NUL byte, and its protocol cannot carry any.
    HasNul,
    /// Its protocol cannot delete.
    NoDeletion,
    /// It speaks DKVS/1 only, and is not to be asked by that.
    NotV2,
    /// It holds another record under the very tag of this one.
    TagTaken,
    /// It belongs to another ring.
    WrongEpoch {
        /// That ring.
        epoch: u32,
    },
    /// It belongs to a later configuration of the cluster than the sender.
    Stale {
        /// That configuration.
        served: Epoch,
    },
    /// It belongs to an earlier configuration than the sender.
    Behind {
        /// That configuration.
        served: Epoch,
    },
    /// It belongs to a configuration with the same number which is not the same: the servers file or the
    /// replication differs.
    OtherConfiguration {
        /// That configuration.
        served: Epoch,
    },
    /// The sender has been set back: it has told of more records than it holds now.
    SetBack,
    /// It does not know the operation.
    Unsupported,
    /// It has too much under way.
    Busy,
    /// The record was damaged, on its way or in the store; or the server has lost records, perhaps
    /// a newer one of this key.
    Corrupt,
    /// Something went wrong in the server.
    Internal,
}

impl Refusal {
    /// Whether no copy of what was refused so can have been carried out there. One who belongs to
    /// another ring says nothing of the server that was at its address before, a damaged copy
    /// nothing about a sound one; without a reason it says nothing at all.
    pub fn is_certain(self) -> bool {
        !matches!(
            self,
            Self::Unstated
                | Self::WrongEpoch { .. }
                | Self::Stale { .. }
                | Self::Behind { .. }
                | Self::OtherConfiguration { .. }
                | Self::Corrupt
                | Self::Internal
        )
    }
}
