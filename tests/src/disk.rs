//! A disk that forgets: files in memory, of which a crash keeps what was synced and any part of
//! what was not.
//!
//! A file system promises no more. So here every write since the last sync of its file may be
//! there after a crash or not, as a whole or in pieces, whatever came before or after it; and so
//! may be every change of the file's length.

use std::io;
use std::sync::{Arc, Mutex, MutexGuard};

use dkvs_storage_node::store::disk::Media;
use dkvs_storage_node::store::disk::medium::Medium;

use crate::random::Random;

/// A file system takes room in pieces of so many bytes.
const BLOCK_BYTES: u64 = 4_096;

/// The files of one server.
#[derive(Debug, Clone, Default)]
pub struct Disk(Arc<Mutex<State>>);

#[derive(Debug, Default)]
struct State {
    files: [File; 2],
    /// Writes, cuts and syncs so far.
    operations: u64,
    fault: Option<(u64, Fault)>,
    /// Nothing works any more until the next start.
    is_down: bool,
    bytes_max: Option<u64>,
    syncs: u64,
}

/// What goes wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// The machine goes down.
    Crash,
    /// The operation fails, and so does nothing after it.
    Error,
}

#[derive(Debug, Default)]
struct File {
    /// As it is read.
    seen: Vec<u8>,
    /// As a crash leaves it at the least.
    synced: Vec<u8>,
    unsynced: Vec<Change>,
    /// Which blocks take room.
    blocks: std::collections::BTreeSet<u64>,
}

#[derive(Debug, Clone)]
enum Change {
    Write { offset: usize, bytes: Vec<u8> },
    Len(usize),
}

/// How much of what was not synced a crash keeps.
#[derive(Debug)]
pub enum Kept<'a> {
    /// Nothing.
    Nothing,
    /// All of it.
    All,
    /// Each piece, or not.
    Some(&'a mut Random),
}

impl Disk {
    /// One of so many bytes.
    pub fn of_bytes(bytes_max: u64) -> Self {
        let disk = Self::default();
        disk.resize(bytes_max);
        disk
    }

    /// It has so many bytes from now on.
    pub fn resize(&self, bytes_max: u64) {
        self.state().bytes_max = Some(bytes_max);
    }

    /// The files of a store.
    pub fn media(&self) -> Media {
        let file = |number| DiskFile {
            disk: self.clone(),
            number,
        };
        Media {
            records: Arc::new(file(0)),
            high_water: Arc::new(file(1)),
        }
    }

    /// How often it was written to, cut or synced.
    pub fn operations(&self) -> u64 {
        self.state().operations
    }

    /// How often it was synced.
    pub fn syncs(&self) -> u64 {
        self.state().syncs
    }

    /// Something goes wrong at the operation of this number.
    pub fn fail_at(&self, operation: u64, fault: Fault) {
        self.state().fault = Some((operation, fault));
    }

    /// The machine goes down.
    pub fn crash(&self) {
        self.state().is_down = true;
    }

    /// Whether the machine went down.
    pub fn is_down(&self) -> bool {
        self.state().is_down
    }

    /// The machine comes up again.
    pub fn recover(&self, mut kept: Kept<'_>) {
        let mut state = self.state();
        for file in &mut state.files {
            file.recover(&mut kept);
        }
        state.is_down = false;
        state.fault = None;
    }

    /// The process ends, and the machine goes on: nothing is forgotten.
    pub fn restart(&self) {
        let mut state = self.state();
        state.is_down = false;
        state.fault = None;
    }

    /// The same contents on another disk.
    pub fn duplicate(&self) -> Self {
        let disk = Self::default();
        {
            let (ours, mut copy) = (self.state(), disk.state());
            for (from, to) in ours.files.iter().zip(&mut copy.files) {
                to.seen.clone_from(&from.seen);
                to.synced.clone_from(&from.seen);
                to.blocks.clone_from(&from.blocks);
            }
            copy.bytes_max = ours.bytes_max;
        }
        disk
    }

    /// Shows the engine's file, to be damaged.
    pub fn with_records<R>(&self, show: impl FnOnce(&mut Vec<u8>) -> R) -> R {
        let mut state = self.state();
        let file = &mut state.files[0];
        let shown = show(&mut file.seen);
        file.synced.clone_from(&file.seen);
        file.unsynced.clear();
        shown
    }

    /// Forgets both files.
    pub fn wipe(&self) {
        self.state().files = Default::default();
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().expect("no file panics")
    }
}

impl State {
    /// Counts an operation, and lets happen what is to happen at it.
    fn step(&mut self) -> io::Result<()> {
        if self.is_down {
            return Err(io::Error::other("the machine is down"));
        }
        let number = self.operations;
        self.operations += 1;
        match self.fault {
            Some((at, Fault::Crash)) if at == number => {
                self.is_down = true;
                Err(io::Error::other("the machine goes down"))
            }
            Some((at, Fault::Error)) if at <= number => Err(io::Error::other("the disk fails")),
            _ => Ok(()),
        }
    }

    fn bytes_taken(&self) -> u64 {
        let blocks: usize = self.files.iter().map(|file| file.blocks.len()).sum();
        blocks as u64 * BLOCK_BYTES
    }

    /// Takes room for a write, block by block, for as long as there is any.
    fn take_room(&mut self, number: usize, offset: u64, bytes: u64) -> io::Result<()> {
        for block in offset / BLOCK_BYTES..(offset + bytes).div_ceil(BLOCK_BYTES) {
            let is_full = self
                .bytes_max
                .is_some_and(|bytes_max| self.bytes_taken() + BLOCK_BYTES > bytes_max);
            if self.files[number].blocks.contains(&block) {
                continue;
            }
            if is_full {
                return Err(io::ErrorKind::StorageFull.into());
            }
            self.files[number].blocks.insert(block);
        }
        Ok(())
    }
}

impl File {
    fn change(&mut self, change: Change) {
        apply(&mut self.seen, &change);
        self.unsynced.push(change);
    }

    fn recover(&mut self, kept: &mut Kept<'_>) {
        let mut left = std::mem::take(&mut self.synced);
        for change in self.unsynced.drain(..) {
            match kept {
                Kept::Nothing => {}
                Kept::All => apply(&mut left, &change),
                Kept::Some(random) => keep_pieces(&mut left, &change, random),
            }
        }
        self.seen.clone_from(&left);
        self.synced = left;
    }
}

fn apply(contents: &mut Vec<u8>, change: &Change) {
    match change {
        Change::Len(len) => contents.resize(*len, 0),
        Change::Write { offset, bytes } => {
            let end = offset + bytes.len();
            if contents.len() < end {
                contents.resize(end, 0);
            }
            contents[*offset..end].copy_from_slice(bytes);
        }
    }
}

fn keep_pieces(contents: &mut Vec<u8>, change: &Change, random: &mut Random) {
    // Whole changes, sectors, or pieces that no disk would cut.
    let piece_bytes = random.one_of(&[usize::MAX, 4_096, 512, 64, 7]);
    match change {
        Change::Len(_) => {
            if random.below(2) == 0 {
                apply(contents, change);
            }
        }
        Change::Write { offset, bytes } => {
            let mut at = *offset;
            for piece in bytes.chunks(piece_bytes) {
                let bytes = piece.to_vec();
                if random.below(2) == 0 {
                    apply(contents, &Change::Write { offset: at, bytes });
                }
                at += piece.len();
            }
        }
    }
}

#[derive(Debug)]
struct DiskFile {
    disk: Disk,
    number: usize,
}

impl Medium for DiskFile {
    fn len(&self) -> io::Result<u64> {
        Ok(self.disk.state().files[self.number].seen.len() as u64)
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        let state = self.disk.state();
        let start = usize::try_from(offset).map_err(io::Error::other)?;
        let seen = state.files[self.number].seen.get(start..start + out.len());
        out.copy_from_slice(seen.ok_or(io::ErrorKind::UnexpectedEof)?);
        Ok(())
    }

    fn write(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        let mut state = self.disk.state();
        let stepped = state.step();
        if stepped.is_ok() {
            state.take_room(self.number, offset, bytes.len() as u64)?;
        }
        // A crash in the middle of a write leaves any part of it.
        if stepped.is_ok() || state.is_down {
            let offset = usize::try_from(offset).map_err(io::Error::other)?;
            let bytes = bytes.to_vec();
            state.files[self.number].change(Change::Write { offset, bytes });
        }
        stepped
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        let mut state = self.disk.state();
        state.step()?;
        let len = usize::try_from(len).map_err(io::Error::other)?;
        let file = &mut state.files[self.number];
        file.change(Change::Len(len));
        let end = (len as u64).div_ceil(BLOCK_BYTES);
        file.blocks.retain(|block| *block < end);
        Ok(())
    }

    fn sync(&self) -> io::Result<()> {
        let mut state = self.disk.state();
        state.step()?;
        state.syncs += 1;
        let file = &mut state.files[self.number];
        for change in file.unsynced.drain(..) {
            apply(&mut file.synced, &change);
        }
        Ok(())
    }

    fn bytes_available(&self) -> io::Result<u64> {
        let state = self.disk.state();
        let taken = state.bytes_taken();
        Ok(state
            .bytes_max
            .map_or(u64::MAX, |max| max.saturating_sub(taken)))
    }

    fn bytes_allocated(&self) -> io::Result<u64> {
        Ok(self.disk.state().files[self.number].blocks.len() as u64 * BLOCK_BYTES)
    }
}
