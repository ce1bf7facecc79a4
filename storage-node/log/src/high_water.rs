//! The high-water mark: up to which sequence number records were synced.
//!
//! ```text
//!   0  file head | ... | 4096  file head
//! ```
//!
//! It is written after each sync, to the two places in turn, and not synced with it, so it may be too
//! low after a power loss and is never too high. It survives the end of the process. When the log is
//! idle it is synced.

use std::io;
use std::sync::Arc;

use crate::errors::OpenError;
use crate::format::{FileHead, FileKind, History, NUMBER_MAX};
use crate::medium::{Medium, MediumFile, is_readable, open_if_sound};
use crate::segment::read_head;

const NAME: &str = "high-water";
const PLACES: [u64; 2] = [0, 4_096];
const BYTES: u64 = 8_192;

#[derive(Debug)]
pub(crate) struct HighWater {
    history: History,
    file: Arc<dyn MediumFile>,
    next_place: usize,
    is_synced: bool,
}

impl HighWater {
    /// Makes one that says that all up to a number was synced. A file that is there is written anew:
    /// the disk may be full.
    pub(crate) fn create(medium: &dyn Medium, history: History, synced: u64) -> io::Result<Self> {
        let old = open_if_sound(medium, NAME)?;
        let old = old
            .filter(|file| file.size().is_ok_and(|bytes| bytes >= BYTES) && is_readable(&**file));
        let mut mark = Self {
            history,
            file: match old {
                Some(file) => file,
                None => medium.create(NAME, BYTES)?,
            },
            next_place: 0,
            is_synced: false,
        };
        for _ in PLACES {
            mark.write(synced)?;
        }
        mark.sync()?;
        medium.sync_names()?;
        Ok(mark)
    }

    /// The mark and what it says; none if nothing of it is sound.
    pub(crate) fn open(
        medium: &dyn Medium,
        history: History,
    ) -> Result<Option<(Self, u64)>, OpenError> {
        let Some(file) = open_if_sound(medium, NAME)? else {
            return Ok(None);
        };
        let mut newest = None;
        for (place, offset) in PLACES.into_iter().enumerate() {
            match read_head(&*file, offset, FileKind::HighWater, history) {
                Ok(head) if head.numbers[0] >= NUMBER_MAX => {}
                Ok(head) => newest = newest.max(Some((head.numbers[0], place))),
                Err(error) => OpenError::refuse(NAME, history, error)?,
            }
        }
        Ok(newest.map(|(synced, place)| {
            let mark = Self {
                history,
                file,
                next_place: 1 - place,
                is_synced: false,
            };
            (mark, synced)
        }))
    }

    pub(crate) fn write(&mut self, synced: u64) -> io::Result<()> {
        let head = FileHead {
            kind: FileKind::HighWater,
            history: self.history,
            numbers: [synced, 0, 0, 0],
            body_bytes: 0,
            body_checksum: 0,
        };
        self.file
            .write_at(PLACES[self.next_place], &head.encode())?;
        self.next_place = 1 - self.next_place;
        self.is_synced = false;
        Ok(())
    }

    /// Makes it durable. Returns whether there was anything to do.
    pub(crate) fn sync(&mut self) -> io::Result<bool> {
        if self.is_synced {
            return Ok(false);
        }
        self.file.sync()?;
        self.is_synced = true;
        Ok(true)
    }
}
