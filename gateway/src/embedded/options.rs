//! Which servers run inside the gateway, and the choices that settings have about them.

use std::num::NonZeroU8;
use std::path::PathBuf;

use dkvs_common::model::Durability;
pub use dkvs_storage_node::cli::{DeclarationChoice, DurabilityChoice};
pub use dkvs_storage_node::store::disk::Declaration;

/// How many servers there are unless a setting says otherwise.
const SERVERS_DEFAULT: NonZeroU8 = NonZeroU8::new(5).unwrap();

/// How many of them keep each key unless a setting says otherwise, if there are so many.
const REPLICATION_DEFAULT: u8 = 3;

/// Which servers run inside the gateway.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EmbeddedOptions {
    /// How many; none if no setting says.
    pub servers: Option<NonZeroU8>,
    /// How many of them keep each key; none if no setting says.
    pub replication: Option<NonZeroU8>,
    /// Where they keep their records, if on disk.
    pub data_dir: Option<PathBuf>,
    /// What a confirmed write survives.
    pub durability: Durability,
    /// What the operator declares of data directories that cannot be opened otherwise.
    pub declaration: Option<Declaration>,
    /// Whether they answer DKVS/1 to anyone, besides DKVS/2 to those who have their key.
    pub is_v1_on: bool,
}

impl EmbeddedOptions {
    /// How many servers are wanted where no data directory decides it.
    pub(super) fn servers_or_default(&self) -> NonZeroU8 {
        self.servers.unwrap_or(SERVERS_DEFAULT)
    }

    /// How many of so many servers keep each key.
    pub(super) fn replication(&self, servers: usize) -> u8 {
        let default = servers.min(usize::from(REPLICATION_DEFAULT));
        self.replication
            .map_or(default as u8, |replication| replication.get())
    }
}
