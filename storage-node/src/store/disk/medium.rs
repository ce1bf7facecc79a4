//! Where the bytes of a durable store lie: files, or what a test puts in their place.
//!
//! The engine and the high-water mark are read and written only through a [`Medium`], so a test can
//! make up byte by byte what a crash leaves behind.

use std::fmt;
use std::fs::{File, OpenOptions};
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// Bytes that can be read, written, cut and synced, as those of a file.
pub trait Medium: fmt::Debug + Send + Sync {
    /// How many bytes there are.
    fn len(&self) -> io::Result<u64>;

    /// Whether there is none.
    fn is_empty(&self) -> io::Result<bool> {
        Ok(self.len()? == 0)
    }

    /// Fills `out` from `offset` on; an error if there are fewer bytes.
    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()>;

    /// Writes `bytes` from `offset` on. A crash may take any part of it back until a sync.
    fn write(&self, offset: u64, bytes: &[u8]) -> io::Result<()>;

    /// Cuts or grows to `len` bytes; new ones are 0. A crash may take it back until a sync.
    fn set_len(&self, len: u64) -> io::Result<()>;

    /// Returns once a power loss takes back nothing of what was done before.
    fn sync(&self) -> io::Result<()>;

    /// If syncs did nothing so far, they sync from now on.
    fn sync_from_now_on(&self) {}

    /// How many more bytes the disk has room for.
    fn bytes_available(&self) -> io::Result<u64>;

    /// What the bytes take of the disk: less than there are where some were never written.
    fn bytes_allocated(&self) -> io::Result<u64>;
}

/// A file.
#[derive(Debug)]
pub struct FileMedium {
    file: File,
    /// Whether a sync does anything.
    syncs: AtomicBool,
}

impl FileMedium {
    /// Opens a file, which is made if there is none. Unless it `syncs`, a sync does nothing, and
    /// what was written survives the process and not the machine.
    pub fn open(path: &Path, syncs: bool) -> io::Result<Self> {
        let mut options = OpenOptions::new();
        let file = options.read(true).write(true).create(true).truncate(false);
        let file = file.open(path)?;
        let syncs = AtomicBool::new(syncs);
        Ok(Self { file, syncs })
    }
}

#[cfg(unix)]
impl Medium for FileMedium {
    fn len(&self) -> io::Result<u64> {
        Ok(self.file.metadata()?.len())
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        std::os::unix::fs::FileExt::read_exact_at(&self.file, out, offset)
    }

    fn write(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        std::os::unix::fs::FileExt::write_all_at(&self.file, bytes, offset)
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.file.set_len(len)
    }

    fn sync(&self) -> io::Result<()> {
        if self.syncs.load(Ordering::Relaxed) {
            self.file.sync_data()?;
        }
        Ok(())
    }

    fn sync_from_now_on(&self) {
        self.syncs.store(true, Ordering::Relaxed);
    }

    fn bytes_available(&self) -> io::Result<u64> {
        let disk = rustix::fs::fstatvfs(&self.file)?;
        Ok(disk.f_bavail.saturating_mul(disk.f_frsize))
    }

    fn bytes_allocated(&self) -> io::Result<u64> {
        let file = rustix::fs::fstat(&self.file)?;
        // The unit is 512 bytes, whatever the blocks of the disk are.
        Ok(u64::try_from(file.st_blocks)
            .unwrap_or(0)
            .saturating_mul(512))
    }
}

/// A medium as the engine takes it.
#[derive(Debug)]
pub(super) struct Backend(pub(super) Arc<dyn Medium>);

impl redb::StorageBackend for Backend {
    fn len(&self) -> io::Result<u64> {
        self.0.len()
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        self.0.read(offset, out)
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.0.set_len(len)
    }

    fn sync_data(&self) -> io::Result<()> {
        self.0.sync()
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.0.write(offset, data)
    }
}
