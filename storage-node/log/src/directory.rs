//! A directory of the file system, open to one process at a time.

use std::fs::{self, DirBuilder, File, OpenOptions, TryLockError};
use std::io;
use std::os::unix::fs::{DirBuilderExt, FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use thiserror::Error;

use crate::medium::{Medium, MediumFile};

const LOCK: &str = "lock";

/// Where room cannot be set aside, zeros are written, so many at a time.
const ZEROS_BYTES: usize = 1 << 20;

/// A directory, which is locked until the value is dropped. It and its files are their owner's alone.
#[derive(Debug)]
pub struct Directory {
    path: PathBuf,
    /// Open, so that names are synced however many files may be open.
    names: File,
    /// Whether a sync does anything.
    syncs: Arc<AtomicBool>,
    _lock: File,
}

/// A directory is not opened.
#[derive(Debug, Error)]
pub enum DirectoryError {
    /// Another process has it open.
    #[error("{} is in use by another process", .0.display())]
    InUse(PathBuf),
    /// It cannot be made or locked.
    #[error("{}: {error}", path.display())]
    Io {
        /// Which file.
        path: PathBuf,
        /// Why not.
        error: io::Error,
    },
}

impl Directory {
    /// Opens a directory, which is made if there is none. Unless it `syncs`, a sync does nothing, and
    /// what was written survives the process and not the machine.
    pub fn open(path: &Path, syncs: bool) -> Result<Self, DirectoryError> {
        let at = |path: &Path| {
            let path = path.to_owned();
            move |error| DirectoryError::Io { path, error }
        };
        let mut builder = DirBuilder::new();
        let made = builder.recursive(true).mode(0o700).create(path);
        made.map_err(at(path))?;
        let lock_path = path.join(LOCK);
        let mut options = private();
        let lock = options.create(true).truncate(false).open(&lock_path);
        let lock = lock.map_err(at(&lock_path))?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Err(DirectoryError::InUse(path.to_owned())),
            Err(TryLockError::Error(error)) => return Err(at(&lock_path)(error)),
        }
        let names = File::open(path).map_err(at(path))?;
        Ok(Self {
            path: path.to_owned(),
            names,
            syncs: Arc::new(AtomicBool::new(syncs)),
            _lock: lock,
        })
    }

    fn file(&self, file: File) -> Arc<dyn MediumFile> {
        let syncs = Arc::clone(&self.syncs);
        Arc::new(DirectoryFile { file, syncs })
    }

    /// From now on a sync does nothing, until [`Medium::sync_from_now_on`].
    pub fn sync_no_more(&self) {
        self.syncs.store(false, Ordering::Relaxed);
    }
}

/// How a file is opened that nobody else may read.
fn private() -> OpenOptions {
    let mut options = OpenOptions::new();
    options.read(true).write(true).mode(0o600);
    options
}

impl Medium for Directory {
    fn list(&self) -> io::Result<Vec<String>> {
        let mut names = Vec::new();
        for entry in fs::read_dir(&self.path)? {
            // A name that is no text is none of the log's.
            names.extend(entry?.file_name().into_string().ok());
        }
        Ok(names)
    }

    fn create(&self, name: &str, bytes: u64) -> io::Result<Arc<dyn MediumFile>> {
        let path = self.path.join(name);
        match fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let file = private().create_new(true).open(&path)?;
        if let Err(error) = set_room_aside(&file, bytes) {
            fs::remove_file(&path)?;
            return Err(error);
        }
        Ok(self.file(file))
    }

    fn open(&self, name: &str) -> io::Result<Arc<dyn MediumFile>> {
        Ok(self.file(private().open(self.path.join(name))?))
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        fs::rename(self.path.join(from), self.path.join(to))
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        fs::remove_file(self.path.join(name))
    }

    fn sync_names(&self) -> io::Result<()> {
        match self.syncs.load(Ordering::Relaxed) {
            true => self.names.sync_all(),
            false => Ok(()),
        }
    }

    fn sync_from_now_on(&self) -> io::Result<()> {
        if self.syncs.load(Ordering::Relaxed) {
            return Ok(());
        }
        for name in self.list()? {
            let path = self.path.join(name);
            if path.is_file() {
                File::open(path)?.sync_all()?;
            }
        }
        self.names.sync_all()?;
        // Not before: after an error it is to be tried again.
        self.syncs.store(true, Ordering::Relaxed);
        Ok(())
    }

    fn bytes_available(&self) -> io::Result<u64> {
        let disk = rustix::fs::statvfs(&self.path)?;
        Ok(disk.f_bavail.saturating_mul(disk.f_frsize))
    }
}

fn set_room_aside(file: &File, bytes: u64) -> io::Result<()> {
    #[cfg(target_os = "linux")]
    {
        use rustix::io::Errno;
        let none = rustix::fs::FallocateFlags::empty();
        match rustix::fs::fallocate(file, none, 0, bytes) {
            Err(Errno::OPNOTSUPP | Errno::NOSYS | Errno::INVAL) if bytes > 0 => {}
            Err(Errno::INVAL) => return Ok(()),
            result => return Ok(result?),
        }
    }
    let zeros = vec![0; ZEROS_BYTES];
    let mut at = 0;
    while at < bytes {
        let piece = (bytes - at).min(ZEROS_BYTES as u64);
        file.write_all_at(&zeros[..piece as usize], at)?;
        at += piece;
    }
    Ok(())
}

#[derive(Debug)]
struct DirectoryFile {
    file: File,
    syncs: Arc<AtomicBool>,
}

impl MediumFile for DirectoryFile {
    fn size(&self) -> io::Result<u64> {
        Ok(self.file.metadata()?.len())
    }

    fn read_at(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        self.file.read_exact_at(out, offset)
    }

    fn write_at(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        self.file.write_all_at(bytes, offset)
    }

    fn set_size(&self, bytes: u64) -> io::Result<()> {
        self.file.set_len(bytes)
    }

    fn sync(&self) -> io::Result<()> {
        match self.syncs.load(Ordering::Relaxed) {
            true => self.file.sync_data(),
            false => Ok(()),
        }
    }
}
