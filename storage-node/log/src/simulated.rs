//! A disk in memory that forgets, fails, fills and flips bits.
//!
//! After a crash, every write since the last sync of its file may be there or not, as a whole or in
//! pieces, and so may every change of a file's size, and of names since these were synced, whatever
//! came before or after it. A file system promises no more.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::medium::{EMFILE, Medium, MediumFile};

/// A file takes room in pieces of so many bytes.
const BLOCK_BYTES: u64 = 4_096;

/// A disk; copies of the value are the same disk.
#[derive(Debug, Clone, Default)]
pub struct SimulatedDisk(Arc<Mutex<State>>);

#[derive(Debug, Default)]
struct State {
    files: Vec<File>,
    names: BTreeMap<String, usize>,
    synced_names: BTreeMap<String, usize>,
    unsynced_names: Vec<NameChange>,
    operations: u64,
    written_bytes: u64,
    read_bytes: u64,
    syncs: u64,
    fault: Option<(u64, Fault)>,
    is_down: bool,
    bytes_max: Option<u64>,
    /// What others take.
    others: u64,
    /// Blocks that cannot be read.
    unreadable: BTreeSet<(usize, u64)>,
    /// How often it was asked what room there is.
    room_questions: u64,
    /// How many handles there are.
    open_files: usize,
    /// How many there may be.
    open_files_max: Option<usize>,
}

#[derive(Debug, Default)]
struct File {
    seen: Vec<u8>,
    synced: Vec<u8>,
    unsynced: Vec<Change>,
}

#[derive(Debug)]
enum Change {
    Write(usize, Vec<u8>),
    Size(usize),
}

#[derive(Debug)]
enum NameChange {
    Link(String, usize),
    Unlink(String),
    Rename(String, String, usize),
}

/// What goes wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// The machine goes down.
    Crash,
    /// The operation fails, and so does every one after it.
    Error,
}

/// How much of what was not synced a crash keeps.
pub enum Kept<'a> {
    /// Nothing.
    Nothing,
    /// All of it.
    All,
    /// Each change or not, and of writes each piece that ends at a multiple of so many bytes.
    Pieces(usize, &'a mut dyn FnMut() -> bool),
}

impl SimulatedDisk {
    /// It has so many bytes from now on.
    pub fn resize(&self, bytes_max: u64) {
        self.state().bytes_max = Some(bytes_max);
    }

    /// At most so many files may be open from now on, or any number. Those that are stay open.
    pub fn limit_open_files(&self, open_files_max: Option<usize>) {
        self.state().open_files_max = open_files_max;
    }

    /// How many files are open.
    pub fn open_files(&self) -> usize {
        self.state().open_files
    }

    /// Others take so many bytes of it from now on.
    pub fn set_others(&self, bytes: u64) {
        self.state().others = bytes;
    }

    /// How many writes, syncs and changes of names there were.
    pub fn operations(&self) -> u64 {
        self.state().operations
    }

    /// How many bytes were written.
    pub fn written_bytes(&self) -> u64 {
        self.state().written_bytes
    }

    /// How many bytes were read.
    pub fn read_bytes(&self) -> u64 {
        self.state().read_bytes
    }

    /// How often a file or the names were synced.
    pub fn syncs(&self) -> u64 {
        self.state().syncs
    }

    /// How often it was asked what room there is.
    pub fn room_questions(&self) -> u64 {
        self.state().room_questions
    }

    /// What the files take of it.
    pub fn bytes_taken(&self) -> u64 {
        self.state().bytes_taken()
    }

    /// Something goes wrong at the operation of this number.
    pub fn fail_at(&self, operation: u64, fault: Fault) {
        self.state().fault = Some((operation, fault));
    }

    /// Whether the machine went down.
    pub fn is_down(&self) -> bool {
        self.state().is_down
    }

    /// The machine goes down, unless it is, and comes up again.
    pub fn crash(&self, mut kept: Kept<'_>) {
        let mut state = self.state();
        for file in &mut state.files {
            file.recover(&mut kept);
        }
        let changes = std::mem::take(&mut state.unsynced_names);
        let mut names = std::mem::take(&mut state.synced_names);
        for change in changes {
            let is_kept = match &mut kept {
                Kept::Nothing => false,
                Kept::All => true,
                Kept::Pieces(_, random) => random(),
            };
            if is_kept {
                change.apply(&mut names);
            }
        }
        state.names.clone_from(&names);
        state.synced_names = names;
        state.is_down = false;
        state.fault = None;
    }

    /// The process ends, and the machine goes on: nothing is forgotten.
    pub fn restart(&self) {
        let mut state = self.state();
        state.is_down = false;
        state.fault = None;
    }

    /// A disk of its own with the same files, all of them synced.
    pub fn duplicate(&self) -> Self {
        let copy = Self::default();
        for name in self.names() {
            let bytes = self.contents(&name).unwrap_or_default();
            copy.put(&name, bytes);
        }
        copy.state().bytes_max = self.state().bytes_max;
        copy
    }

    /// The names of all files.
    pub fn names(&self) -> Vec<String> {
        self.state().names.keys().cloned().collect()
    }

    /// What a file holds.
    pub fn contents(&self, name: &str) -> Option<Vec<u8>> {
        let state = self.state();
        let file = *state.names.get(name)?;
        Some(state.files[file].seen.clone())
    }

    /// Puts a file there, synced, in place of any that has the name.
    pub fn put(&self, name: &str, bytes: Vec<u8>) {
        let mut state = self.state();
        let number = state.files.len();
        state.files.push(File {
            seen: bytes.clone(),
            synced: bytes,
            unsynced: Vec::new(),
        });
        state.names.insert(name.into(), number);
        state.synced_names.insert(name.into(), number);
    }

    /// Takes a file away for good.
    pub fn take(&self, name: &str) {
        let mut state = self.state();
        state.names.remove(name);
        state.synced_names.remove(name);
    }

    /// Flips a bit of a file, also for those who have it open.
    pub fn flip(&self, name: &str, offset: usize, bit: usize) {
        let mut state = self.state();
        let Some(file) = state.names.get(name).copied() else {
            return;
        };
        let File { seen, synced, .. } = &mut state.files[file];
        for contents in [seen, synced] {
            if let Some(byte) = contents.get_mut(offset) {
                *byte ^= 1 << (bit % 8);
            }
        }
    }

    /// A block of a file cannot be read from now on.
    pub fn break_block(&self, name: &str, offset: u64) {
        let mut state = self.state();
        if let Some(file) = state.names.get(name).copied() {
            state.unreadable.insert((file, offset / BLOCK_BYTES));
        }
    }

    /// All blocks can be read again.
    pub fn mend_blocks(&self) {
        self.state().unreadable.clear();
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn file(&self, number: usize) -> Arc<dyn MediumFile> {
        let disk = self.clone();
        self.state().open_files += 1;
        Arc::new(SimulatedFile { disk, number })
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
        let sizes = self.names.values().map(|file| self.files[*file].seen.len());
        let blocks = sizes.map(|bytes| (bytes as u64).next_multiple_of(BLOCK_BYTES));
        blocks.sum()
    }

    fn bytes_available(&self) -> u64 {
        let taken = self.bytes_taken() + self.others;
        self.bytes_max
            .map_or(1 << 50, |max| max.saturating_sub(taken))
    }

    fn check_open_files(&self) -> io::Result<()> {
        match self
            .open_files_max
            .is_some_and(|max| self.open_files >= max)
        {
            true => Err(io::Error::from_raw_os_error(EMFILE)),
            false => Ok(()),
        }
    }

    fn check_room(&self, more: u64) -> io::Result<()> {
        match more.next_multiple_of(BLOCK_BYTES) > self.bytes_available() {
            true => Err(io::ErrorKind::StorageFull.into()),
            false => Ok(()),
        }
    }

    fn change_names(&mut self, change: NameChange) {
        change.apply(&mut self.names);
        self.unsynced_names.push(change);
    }

    fn number(&self, name: &str) -> io::Result<usize> {
        let number = self.names.get(name).copied();
        number.ok_or_else(|| io::ErrorKind::NotFound.into())
    }
}

impl NameChange {
    fn apply(&self, names: &mut BTreeMap<String, usize>) {
        match self {
            Self::Link(name, file) => _ = names.insert(name.clone(), *file),
            Self::Unlink(name) => _ = names.remove(name),
            Self::Rename(from, to, file) => {
                names.remove(from);
                names.insert(to.clone(), *file);
            }
        }
    }
}

impl File {
    fn change(&mut self, change: Change) {
        change.apply(&mut self.seen);
        self.unsynced.push(change);
    }

    fn recover(&mut self, kept: &mut Kept<'_>) {
        let mut left = std::mem::take(&mut self.synced);
        for change in self.unsynced.drain(..) {
            match kept {
                Kept::Nothing => {}
                Kept::All => change.apply(&mut left),
                Kept::Pieces(bytes, random) => change.apply_pieces(&mut left, *bytes, random),
            }
        }
        self.seen.clone_from(&left);
        self.synced = left;
    }
}

impl Change {
    fn apply(&self, contents: &mut Vec<u8>) {
        match self {
            Self::Size(bytes) => contents.resize(*bytes, 0),
            Self::Write(offset, bytes) => write(contents, *offset, bytes),
        }
    }

    fn apply_pieces(
        &self,
        contents: &mut Vec<u8>,
        piece_bytes: usize,
        random: &mut dyn FnMut() -> bool,
    ) {
        let Self::Write(offset, bytes) = self else {
            if random() {
                self.apply(contents);
            }
            return;
        };
        let (mut at, mut rest) = (*offset, &bytes[..]);
        while !rest.is_empty() {
            let (piece, more) = rest.split_at((piece_bytes - at % piece_bytes).min(rest.len()));
            if random() {
                write(contents, at, piece);
            }
            at += piece.len();
            rest = more;
        }
    }
}

fn write(contents: &mut Vec<u8>, offset: usize, bytes: &[u8]) {
    let end = offset + bytes.len();
    if contents.len() < end {
        contents.resize(end, 0);
    }
    contents[offset..end].copy_from_slice(bytes);
}

impl Medium for SimulatedDisk {
    fn list(&self) -> io::Result<Vec<String>> {
        Ok(self.names())
    }

    fn create(&self, name: &str, bytes: u64) -> io::Result<Arc<dyn MediumFile>> {
        let mut state = self.state();
        state.step()?;
        state.check_open_files()?;
        state.check_room(bytes)?;
        let number = state.files.len();
        let mut file = File::default();
        file.change(Change::Size(
            usize::try_from(bytes).map_err(io::Error::other)?,
        ));
        state.files.push(file);
        state.change_names(NameChange::Link(name.into(), number));
        drop(state);
        Ok(self.file(number))
    }

    fn open(&self, name: &str) -> io::Result<Arc<dyn MediumFile>> {
        let state = self.state();
        let number = state.number(name)?;
        state.check_open_files()?;
        drop(state);
        Ok(self.file(number))
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        let mut state = self.state();
        state.step()?;
        let number = state.number(from)?;
        state.change_names(NameChange::Rename(from.into(), to.into(), number));
        Ok(())
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        let mut state = self.state();
        state.step()?;
        state.number(name)?;
        state.change_names(NameChange::Unlink(name.into()));
        Ok(())
    }

    fn sync_names(&self) -> io::Result<()> {
        let mut state = self.state();
        state.step()?;
        state.syncs += 1;
        state.unsynced_names.clear();
        let names = state.names.clone();
        state.synced_names = names;
        Ok(())
    }

    fn bytes_available(&self) -> io::Result<u64> {
        let mut state = self.state();
        state.room_questions += 1;
        Ok(state.bytes_available())
    }
}

#[derive(Debug)]
struct SimulatedFile {
    disk: SimulatedDisk,
    number: usize,
}

impl Drop for SimulatedFile {
    fn drop(&mut self) {
        self.disk.state().open_files -= 1;
    }
}

impl MediumFile for SimulatedFile {
    fn size(&self) -> io::Result<u64> {
        Ok(self.disk.state().files[self.number].seen.len() as u64)
    }

    fn read_at(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        let mut state = self.disk.state();
        state.read_bytes += out.len() as u64;
        let end = offset + out.len() as u64;
        let mut blocks = offset / BLOCK_BYTES..end.div_ceil(BLOCK_BYTES);
        if blocks.any(|block| state.unreadable.contains(&(self.number, block))) {
            return Err(io::Error::other("the block cannot be read"));
        }
        let start = usize::try_from(offset).map_err(io::Error::other)?;
        let seen = state.files[self.number].seen.get(start..start + out.len());
        out.copy_from_slice(seen.ok_or(io::ErrorKind::UnexpectedEof)?);
        Ok(())
    }

    fn write_at(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        let mut state = self.disk.state();
        let stepped = state.step();
        let size = state.files[self.number].seen.len() as u64;
        if stepped.is_ok() {
            let end = (offset + bytes.len() as u64).next_multiple_of(BLOCK_BYTES);
            state.check_room(end.saturating_sub(size.next_multiple_of(BLOCK_BYTES)))?;
            state.written_bytes += bytes.len() as u64;
        }
        // A crash in the middle of a write leaves any part of it.
        if stepped.is_ok() || state.is_down {
            let offset = usize::try_from(offset).map_err(io::Error::other)?;
            state.files[self.number].change(Change::Write(offset, bytes.to_vec()));
        }
        stepped
    }

    fn set_size(&self, bytes: u64) -> io::Result<()> {
        let mut state = self.disk.state();
        state.step()?;
        let bytes = usize::try_from(bytes).map_err(io::Error::other)?;
        state.files[self.number].change(Change::Size(bytes));
        Ok(())
    }

    fn sync(&self) -> io::Result<()> {
        let mut state = self.disk.state();
        state.step()?;
        state.syncs += 1;
        let file = &mut state.files[self.number];
        for change in file.unsynced.drain(..) {
            change.apply(&mut file.synced);
        }
        Ok(())
    }
}
