//! Files of zeros for which the disk has set room aside: the reserve.
//!
//! A segment begins as a spare file, which is given another name. So records that have to be written
//! to make room, on a disk that others may have filled, do not depend on what they leave.

use std::io;
use std::sync::Arc;

use crate::format::RECORDS_BEGIN;
use crate::medium::{Medium, MediumFile, is_full};
use crate::segment::{spare_name, spare_of};

/// Files take room in pieces of so many bytes, on most disks.
pub(crate) const BLOCK_BYTES: u32 = 4_096;

/// A file of the reserve, which is closed.
#[derive(Debug)]
pub(crate) struct Spare {
    pub(crate) name: String,
    pub(crate) bytes: u32,
}

/// One that is about to become a segment, and is open.
#[derive(Debug)]
pub(crate) struct Ready {
    pub(crate) spare: Spare,
    pub(crate) file: Arc<dyn MediumFile>,
}

#[derive(Debug)]
pub(crate) struct Spares {
    medium: Arc<dyn Medium>,
    /// From the smallest to the largest.
    spares: Vec<Spare>,
    next_number: u32,
}

impl Spares {
    /// Those that are there.
    pub(crate) fn open(medium: &Arc<dyn Medium>, names: &[String]) -> io::Result<Self> {
        let mut spares = Self {
            medium: Arc::clone(medium),
            spares: Vec::new(),
            next_number: 0,
        };
        for name in names {
            let Some(number) = spare_of(name) else {
                continue;
            };
            spares.next_number = spares.next_number.max(number.wrapping_add(1));
            let file = medium.open(name)?;
            let bytes = u32::try_from(file.size()?).unwrap_or(0);
            // One that has had records, since the disk forgot the name that it had.
            let mut first = [0; RECORDS_BEGIN as usize];
            let is_read = file.read_at(RECORDS_BEGIN.into(), &mut first).is_ok();
            if !is_read || first.iter().any(|byte| *byte != 0) {
                medium.remove(name)?;
                continue;
            }
            let name = name.clone();
            spares.put(Spare { name, bytes });
        }
        Ok(spares)
    }

    pub(crate) fn len(&self) -> usize {
        self.spares.len()
    }

    pub(crate) fn bytes(&self) -> u64 {
        let bytes = self.spares.iter().map(|it| u64::from(it.bytes));
        bytes.sum()
    }

    /// How long the longest one is.
    pub(crate) fn longest(&self) -> u64 {
        self.spares.last().map_or(0, |it| it.bytes.into())
    }

    pub(crate) fn put(&mut self, spare: Spare) {
        let at = self.spares.partition_point(|it| it.bytes < spare.bytes);
        self.spares.insert(at, spare);
    }

    /// Makes one outside of the reserve, if the disk has room for it and for `free` bytes more.
    pub(crate) fn make(&mut self, bytes: u32, free: u64) -> io::Result<Option<Ready>> {
        if self.medium.bytes_available()? < u64::from(bytes) + free {
            return Ok(None);
        }
        let name = spare_name(self.next_number);
        self.next_number = self.next_number.wrapping_add(1);
        match self.medium.create(&name, bytes.into()) {
            Ok(file) => Ok(Some(Ready {
                spare: Spare { name, bytes },
                file,
            })),
            Err(error) if is_full(&error) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Fills the reserve up to so many bytes, with files of `each`. Returns whether it is full.
    pub(crate) fn refill(&mut self, target: u64, each: u32) -> io::Result<bool> {
        let before = self.spares.len();
        while self.bytes() < target
            && let Some(Ready { spare, file }) = self.make(each, 0)?
        {
            // After a crash it is there.
            file.sync()?;
            self.put(spare);
        }
        if self.spares.len() > before {
            self.medium.sync_names()?;
        }
        if self.bytes() < target {
            return Ok(false);
        }
        // Small ones, of the time when the log was small, give their room back.
        while let Some(smallest) = self.spares.first()
            && self.bytes() - u64::from(smallest.bytes) >= target + u64::from(each)
        {
            self.medium.remove(&smallest.name)?;
            self.spares.remove(0);
        }
        Ok(true)
    }

    /// Takes one of at least so many bytes that the reserve does not need.
    pub(crate) fn take_surplus(&mut self, bytes: u32, target: u64) -> io::Result<Option<Ready>> {
        let at = self.spares.partition_point(|it| it.bytes < bytes);
        let spare = self.spares.get(at);
        match spare.filter(|it| self.bytes() >= target + u64::from(it.bytes)) {
            Some(_) => Ok(Some(self.take_at(at)?)),
            None => Ok(None),
        }
    }

    /// Takes one, unless it cannot be opened.
    fn take_at(&mut self, at: usize) -> io::Result<Ready> {
        let file = self.medium.open(&self.spares[at].name)?;
        let spare = self.spares.remove(at);
        Ok(Ready { spare, file })
    }

    /// Takes one of at least so many bytes out of the reserve, all of which but the largest `keep`
    /// files may be used.
    pub(crate) fn take(&mut self, bytes: u32, keep: usize) -> io::Result<Option<Ready>> {
        let free = self.spares.len().saturating_sub(keep);
        let at = self.spares.partition_point(|it| it.bytes < bytes);
        if at < free {
            return Ok(Some(self.take_at(at)?));
        }
        let inside: u64 = self.spares[..free]
            .iter()
            .map(|it| u64::from(it.bytes))
            .sum();
        let needed = bytes.next_multiple_of(BLOCK_BYTES);
        if inside + self.medium.bytes_available()? < needed.into() {
            return Ok(None);
        }
        // Several become one.
        for spare in self.spares.drain(..free) {
            self.medium.remove(&spare.name)?;
        }
        self.make(needed, 0)
    }
}
