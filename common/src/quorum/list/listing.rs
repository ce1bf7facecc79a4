//! What is to be listed, and what a server is asked for it.

use bytes::Bytes;

use crate::kv::Key;
use crate::model::{Direction, KeyPosition};
use crate::mutants::{self, Mutant};

/// What is to be listed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listing {
    /// Only keys that begin with these bytes.
    pub prefix: Bytes,
    /// Where to begin.
    pub start: KeyPosition,
    /// In which direction.
    pub direction: Direction,
    /// What folders end with: keys that have it after the prefix are returned as one folder. No bytes
    /// if there are none.
    pub delimiter: Bytes,
    /// Most keys and folders to return, at least 1.
    pub items_max: usize,
    /// How many servers may be silent.
    pub silent_max: usize,
}

/// What a listing returns.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ListItem {
    /// A key.
    Key(Key),
    /// What some keys begin with, up to the first delimiter after the prefix and including it.
    Folder(Bytes),
}

/// A page to be requested from a server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PageRequest {
    /// Where it begins.
    pub start: KeyPosition,
    /// In which direction.
    pub direction: Direction,
    /// Most keys in it.
    pub keys_max: usize,
}

impl Listing {
    /// The item that stands for a key; none if it does not begin with the prefix.
    pub(super) fn item(&self, key: Key) -> Option<ListItem> {
        let below = key.as_bytes().strip_prefix(&self.prefix[..])?;
        let delimiter = &self.delimiter[..];
        let mut places = below.windows(delimiter.len().max(1));
        // No window is equal to no bytes.
        let place = places.position(|window| window == delimiter);
        Some(match place {
            Some(place) => {
                let folder_bytes = self.prefix.len() + place + delimiter.len();
                // Detached from the page, which would stay in memory with it.
                ListItem::Folder(Bytes::copy_from_slice(&key.as_bytes()[..folder_bytes]))
            }
            None => {
                let key = Bytes::copy_from_slice(key.as_bytes());
                ListItem::Key(Key::new(key).expect("it is as long as before"))
            }
        })
    }

    /// Where the listing goes on behind a folder.
    pub(super) fn behind_folder(&self, folder: &Bytes) -> KeyPosition {
        let passed = match mutants::is_on(Mutant::FolderSkippedTooFar) {
            true => folder.slice(..folder.len() - self.delimiter.len()),
            false => folder.clone(),
        };
        KeyPosition::last_of(&passed, self.direction)
    }
}

impl ListItem {
    /// Its bytes.
    pub fn as_bytes(&self) -> &[u8] {
        match self {
            Self::Key(key) => key.as_bytes(),
            Self::Folder(folder) => folder,
        }
    }
}
