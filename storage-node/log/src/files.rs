//! Which files are open. Those of segments are within a limit, since a log may have thousands: one that
//! is closed is opened again when it is read. The one that was not asked for since longest is closed,
//! about (the clock of Corbató 1968).
//!
//! If the process may open no more, some of them are closed, whatever is to be opened.

use std::collections::{HashMap, VecDeque};
use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard, Weak};

use crate::errors::ReadError;
use crate::medium::{Medium, MediumFile, is_out_of_files};
use crate::segment::segment_name;

/// Most files of segments that are kept open.
pub const OPEN_SEGMENTS_MAX: usize = 64;

/// So many are not closed for other files: then at least some records can be read.
const OPEN_SEGMENTS_MIN: usize = 4;

/// The files of a log, of which the log and its readers share those of segments. It is a medium that
/// closes files of segments if it may open no more.
#[derive(Debug)]
pub(crate) struct Files {
    /// The log's own: readers that outlive it keep nobody from opening it again.
    medium: Weak<dyn Medium>,
    /// What the checksums of this history begin with.
    pub(crate) history: u32,
    segments: RwLock<Segments>,
}

#[derive(Debug, Default)]
struct Segments {
    files: HashMap<u32, Slot>,
    /// Those that are open, in the order in which it is looked which of them to close.
    open: VecDeque<u32>,
}

/// The file of a segment.
#[derive(Debug, Default)]
struct Slot {
    file: Option<Arc<dyn MediumFile>>,
    /// Whether it was asked for since it was looked at last.
    is_used: AtomicBool,
}

impl Files {
    pub(crate) fn new(medium: &Arc<dyn Medium>, history: u32) -> Arc<Self> {
        let segments = RwLock::default();
        Arc::new(Self {
            medium: Arc::downgrade(medium),
            history,
            segments,
        })
    }

    /// There is a segment, and its file is open.
    pub(crate) fn insert(&self, segment: u32, file: Arc<dyn MediumFile>) {
        let mut segments = self.write();
        segments.files.insert(segment, Slot::default());
        segments.keep(segment, file);
    }

    /// There is a segment whose file stays open, until [`Self::unpin`]: the one that is written.
    pub(crate) fn insert_pinned(&self, segment: u32, file: Arc<dyn MediumFile>) {
        let mut segments = self.write();
        segments.open.retain(|it| *it != segment);
        let slot = Slot {
            file: Some(file),
            is_used: AtomicBool::new(false),
        };
        segments.files.insert(segment, slot);
    }

    /// The file of a segment may be closed from now on.
    pub(crate) fn unpin(&self, segment: u32) {
        self.write().note_open(segment);
    }

    /// There is no such segment any more.
    pub(crate) fn remove(&self, segment: u32) {
        self.write().files.remove(&segment);
    }

    /// The file of a segment, which is opened if it is not; none if there is no such segment.
    pub(crate) fn segment(&self, segment: u32) -> io::Result<Option<Arc<dyn MediumFile>>> {
        let known = |segments: &Segments| segments.files.contains_key(&segment);
        {
            let segments = self.read();
            let Some(slot) = segments.files.get(&segment) else {
                return Ok(None);
            };
            if let Some(file) = &slot.file {
                slot.is_used.store(true, Ordering::Relaxed);
                return Ok(Some(Arc::clone(file)));
            }
        }
        // A segment keeps its name until it is removed, and no other one gets it.
        match self.open(&segment_name(segment)) {
            Ok(file) => {
                let mut segments = self.write();
                if !known(&segments) {
                    return Ok(None);
                }
                segments.keep(segment, Arc::clone(&file));
                Ok(Some(file))
            }
            Err(_) if !known(&self.read()) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// The same for a reader.
    pub(crate) fn to_read(&self, segment: u32) -> Result<Arc<dyn MediumFile>, ReadError> {
        match self.segment(segment) {
            Ok(file) => file.ok_or(ReadError::Gone),
            Err(error) if self.medium.strong_count() == 0 => Err(ReadError::OutOfFiles(error)),
            Err(error) => Err(ReadError::of(error)),
        }
    }

    /// Closes all that are not pinned.
    pub(crate) fn close(&self) {
        let mut segments = self.write();
        for segment in std::mem::take(&mut segments.open) {
            if let Some(slot) = segments.files.get_mut(&segment) {
                slot.file = None;
            }
        }
    }

    fn medium(&self) -> io::Result<Arc<dyn Medium>> {
        let medium = self.medium.upgrade();
        medium.ok_or_else(|| io::Error::other("the log is closed"))
    }

    /// Tries again what finds that no more files may be open, for as long as there are some to close.
    fn with_room<T>(&self, open: impl Fn() -> io::Result<T>) -> io::Result<T> {
        loop {
            match open() {
                Err(error) if is_out_of_files(&error) && self.write().close_half() => {}
                result => return result,
            }
        }
    }

    fn read(&self) -> RwLockReadGuard<'_, Segments> {
        self.segments.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, Segments> {
        let segments = self.segments.write();
        segments.unwrap_or_else(PoisonError::into_inner)
    }
}

impl Segments {
    /// Keeps the file of a segment open, and closes another one if there are too many.
    fn keep(&mut self, segment: u32, file: Arc<dyn MediumFile>) {
        let Some(slot) = self.files.get_mut(&segment) else {
            return;
        };
        if slot.file.is_some() {
            return;
        }
        slot.file = Some(file);
        self.note_open(segment);
    }

    fn note_open(&mut self, segment: u32) {
        self.open.push_back(segment);
        while self.open.len() > OPEN_SEGMENTS_MAX {
            self.close_one();
        }
    }

    /// Closes the first that was not asked for of late.
    fn close_one(&mut self) {
        while let Some(segment) = self.open.pop_front() {
            let Some(slot) = self.files.get_mut(&segment) else {
                return;
            };
            if !slot.is_used.swap(false, Ordering::Relaxed) {
                slot.file = None;
                return;
            }
            self.open.push_back(segment);
        }
    }

    /// Closes half of them, but for some. Returns whether there were any.
    fn close_half(&mut self) -> bool {
        let count = self
            .open
            .len()
            .saturating_sub(OPEN_SEGMENTS_MIN)
            .div_ceil(2);
        (0..count).for_each(|_| self.close_one());
        count > 0
    }
}

impl Medium for Files {
    fn list(&self) -> io::Result<Vec<String>> {
        let medium = self.medium()?;
        self.with_room(|| medium.list())
    }

    fn create(&self, name: &str, bytes: u64) -> io::Result<Arc<dyn MediumFile>> {
        let medium = self.medium()?;
        self.with_room(|| medium.create(name, bytes))
    }

    fn open(&self, name: &str) -> io::Result<Arc<dyn MediumFile>> {
        let medium = self.medium()?;
        self.with_room(|| medium.open(name))
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        self.medium()?.rename(from, to)
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        self.medium()?.remove(name)
    }

    fn sync_names(&self) -> io::Result<()> {
        self.medium()?.sync_names()
    }

    fn sync_from_now_on(&self) -> io::Result<()> {
        let medium = self.medium()?;
        self.with_room(|| medium.sync_from_now_on())
    }

    fn bytes_available(&self) -> io::Result<u64> {
        self.medium()?.bytes_available()
    }
}
