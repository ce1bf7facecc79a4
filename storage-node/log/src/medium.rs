//! Where the log's files lie: a directory, or what a test puts in its place.

use std::fmt;
use std::io;
use std::sync::Arc;

/// Files by name, in one directory.
///
/// A crash may take back any change of names until [`Self::sync_names`] has returned.
pub trait Medium: fmt::Debug + Send + Sync {
    /// The names of all files.
    fn list(&self) -> io::Result<Vec<String>>;

    /// Makes a file of so many zeros, for which the disk has set room aside, in place of any that has
    /// the name. If the disk has no room, an error of a kind of which [`is_full`] knows, and no
    /// file; if no more files may be open, one of which [`is_out_of_files`] knows. Beside this, opening
    /// and listing, nothing needs to open a file.
    fn create(&self, name: &str, bytes: u64) -> io::Result<Arc<dyn MediumFile>>;

    /// Opens a file that is there.
    fn open(&self, name: &str) -> io::Result<Arc<dyn MediumFile>>;

    /// Gives a file another name, in place of any that has it. Who has the file open keeps it.
    fn rename(&self, from: &str, to: &str) -> io::Result<()>;

    /// Removes a name. Who has the file open can still read it.
    fn remove(&self, name: &str) -> io::Result<()>;

    /// Returns once a power loss takes back no earlier change of names.
    fn sync_names(&self) -> io::Result<()>;

    /// If syncs did nothing so far, syncs all that is there, and they sync from now on.
    fn sync_from_now_on(&self) -> io::Result<()> {
        Ok(())
    }

    /// How many more bytes the disk has room for.
    fn bytes_available(&self) -> io::Result<u64>;
}

/// The bytes of a file. Any number of threads may read while one writes elsewhere in it.
pub trait MediumFile: fmt::Debug + Send + Sync {
    /// How many there are.
    fn size(&self) -> io::Result<u64>;

    /// Fills `out` from `offset` on; an error if there are fewer bytes.
    fn read_at(&self, offset: u64, out: &mut [u8]) -> io::Result<()>;

    /// Writes from `offset` on. A crash may take any part of it back until a sync.
    fn write_at(&self, offset: u64, bytes: &[u8]) -> io::Result<()>;

    /// Cuts or grows to so many bytes; new ones are 0. A crash may take it back until a sync.
    fn set_size(&self, bytes: u64) -> io::Result<()>;

    /// Returns once a power loss takes back nothing of what was done before.
    fn sync(&self) -> io::Result<()>;
}

/// Whether an error says that the disk has no room.
pub fn is_full(error: &io::Error) -> bool {
    use io::ErrorKind::{QuotaExceeded, StorageFull};
    matches!(error.kind(), StorageFull | QuotaExceeded)
}

/// How Unix says that the process may open no more files, and that the system may not.
pub(crate) const EMFILE: i32 = 24;
const ENFILE: i32 = 23;

/// Whether an error says that the process, or the system, may open no more files for now. It says
/// nothing of the disk.
pub fn is_out_of_files(error: &io::Error) -> bool {
    cfg!(unix) && matches!(error.raw_os_error(), Some(EMFILE | ENFILE))
}

/// A file that is there, if the disk gives it.
///
/// # Errors
///
/// If that is not known, since no more files may be open.
pub(crate) fn open_if_sound(
    medium: &dyn Medium,
    name: &str,
) -> io::Result<Option<Arc<dyn MediumFile>>> {
    match medium.open(name) {
        Ok(file) => Ok(Some(file)),
        Err(error) if is_out_of_files(&error) => Err(error),
        Err(_) => Ok(None),
    }
}

/// In what pieces a file is read of which a part cannot be.
const PIECE_BYTES: usize = 4_096;

/// How much is cleared at a time.
const CLEAR_BYTES: u32 = 64 << 10;

/// Fills `out` from `offset` on with what can be read; all other bytes are 0. Returns whether the disk
/// gave all that the file has.
pub(crate) fn read_lossy(file: &dyn MediumFile, offset: u64, out: &mut [u8]) -> bool {
    if file.read_at(offset, out).is_ok() {
        return true;
    }
    let mut is_whole = true;
    let size = file.size().unwrap_or(0);
    let mut at = offset;
    let mut rest = out;
    while !rest.is_empty() {
        // Pieces end where the disk's own do, and where the file does.
        let to_boundary = PIECE_BYTES - (at % PIECE_BYTES as u64) as usize;
        let in_file = usize::try_from(size.saturating_sub(at)).unwrap_or(usize::MAX);
        let bytes = to_boundary.min(rest.len());
        let (piece, more) = rest.split_at_mut(bytes);
        let readable = bytes.min(in_file);
        if file.read_at(at, &mut piece[..readable]).is_err() {
            piece.fill(0);
            is_whole = false;
        }
        piece[readable..].fill(0);
        at += bytes as u64;
        rest = more;
    }
    is_whole
}

/// Whether the disk can read a whole file.
pub(crate) fn is_readable(file: &dyn MediumFile) -> bool {
    let Ok(size) = file.size() else {
        return false;
    };
    let mut piece = vec![0; PIECE_BYTES];
    let mut at = 0;
    while at < size {
        let bytes = (size - at).min(PIECE_BYTES as u64) as usize;
        if file.read_at(at, &mut piece[..bytes]).is_err() {
            return false;
        }
        at += bytes as u64;
    }
    true
}

/// Writes zeros from an offset on, wherever there is anything else. Returns how far that was.
pub(crate) fn clear(file: &dyn MediumFile, from: u32, to: u32) -> io::Result<u64> {
    let mut bytes = vec![0; CLEAR_BYTES as usize];
    let (mut at, mut cleared) = (from, 0);
    while at < to {
        let piece = &mut bytes[..CLEAR_BYTES.min(to - at) as usize];
        read_lossy(file, at.into(), piece);
        if piece.iter().any(|byte| *byte != 0) {
            piece.fill(0);
            file.write_at(at.into(), piece)?;
            cleared = u64::from(at - from) + piece.len() as u64;
        }
        at += piece.len() as u32;
    }
    Ok(cleared)
}
