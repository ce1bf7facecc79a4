//! Writing to a log: that of a store, or a whole new one.

use std::io;
use std::path::Path;
use std::sync::Arc;

use dkvs_log::{
    AppendError, Appended, Directory, DirectoryError, Entry, History, Location, Log, Medium,
    OpenError, Options, Room,
};

use super::format::{self, Manifest};
use super::options::SEGMENT_BYTES_DEFAULT;
use super::queue::NewRecord;
use crate::store::ranges::IntervalSet;

/// Appends records and syncs once. Their places are added to `appended`; returns how many bytes they
/// take.
pub(super) fn append<'a>(
    log: &mut Log,
    records: impl IntoIterator<Item = &'a NewRecord>,
    room: Room,
    appended: &mut Vec<Appended>,
) -> Result<u64, AppendError> {
    let records = records.into_iter();
    let records: Vec<_> = records
        .map(|record| (record, record.head.encode()))
        .collect();
    let entries = records.iter().map(|(record, head)| record.entry(head));
    let entries: Vec<_> = entries.collect();
    log.append(&entries, room, appended)?;
    Ok(entries
        .iter()
        .map(|entry| entry.record_bytes() as u64)
        .sum())
}

/// Appends the manifest in the place of the one that lies at `location`, if there is one, with the parts
/// of the ring for which the store answers though it is not complete.
pub(super) fn write_manifest(
    log: &mut Log,
    location: &mut Option<Location>,
    manifest: Manifest,
    attested: &IntervalSet,
) -> Result<(), AppendError> {
    let head = manifest.encode();
    let attested = format::encode_attested(attested);
    let entry = Entry {
        key: &[],
        head: &head,
        value: &attested,
    };
    let mut appended = Vec::new();
    log.append(&[entry], Room::Reserve, &mut appended)?;
    let new = appended.first().map(|it| it.location);
    if let Some(old) = std::mem::replace(location, new) {
        log.release(old);
    }
    Ok(())
}

/// Begins a log in a directory that is made for it.
pub(super) fn begin<E>(path: &Path, history: History) -> Result<Log, E>
where
    E: From<DirectoryError> + From<OpenError>,
{
    let medium: Arc<dyn Medium> = Arc::new(Directory::open(path, true)?);
    let options = Options {
        history,
        segment_bytes: SEGMENT_BYTES_DEFAULT,
    };
    Ok(Log::create(medium, options)?)
}

/// Ends a log that has all of its records: with its manifest and its hints, and synced.
pub(super) fn end<E>(mut log: Log, manifest: Manifest) -> Result<(), E>
where
    E: From<io::Error> + From<AppendError>,
{
    write_manifest(&mut log, &mut None, manifest, &IntervalSet::default())?;
    while let Some(job) = log.hint_job() {
        let done = job.run()?;
        log.finish_hint(&done)?;
        // Hints save time, and nothing else.
        if done.is_to_be_tried_again() {
            break;
        }
    }
    log.maintain()?;
    Ok(())
}
