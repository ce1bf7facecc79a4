//! Appends: records at the end of the last segment, under one sync, and the next segment.

use std::io;
use std::mem;
use std::sync::Arc;

use crate::errors::AppendError;
use crate::format::{Entry, FileHead, FileKind, Location, RECORDS_BEGIN, RecordHead, Seed};
use crate::log::{Appended, HintState, Log, Room, Segment};
use crate::medium::MediumFile;
use crate::segment::{Span, segment_name};
use crate::spares::{BLOCK_BYTES, Ready};

impl Log {
    /// Appends records under the next numbers, in their order, and syncs once. Their places are added
    /// to `appended`. Copies that compaction made before are synced with them, also if there are no
    /// records. A crash before it returns leaves any of them, each whole or not at all.
    pub fn append(
        &mut self,
        entries: &[Entry<'_>],
        room: Room,
        appended: &mut Vec<Appended>,
    ) -> Result<(), AppendError> {
        self.prepare(entries, room)?;
        let written = self.write(entries, appended);
        let synced = written.and_then(|()| self.sync_written());
        self.note(synced)
    }

    /// Writes records for which there is room. They are synced later.
    pub(crate) fn write(
        &mut self,
        entries: &[Entry<'_>],
        appended: &mut Vec<Appended>,
    ) -> io::Result<()> {
        let history = self.options.history.seed();
        let mut buffer = mem::take(&mut self.buffer);
        for entry in entries {
            let bytes = entry.record_bytes() as u32;
            let active = self.active.map(|number| &self.segments[&number]);
            if active.is_none_or(|it| it.room() < bytes) {
                self.flush(&mut buffer)?;
                self.rotate()?;
            }
            if self.next_sequence - 1 - self.synced > u16::MAX.into() {
                self.flush(&mut buffer)?;
                self.sync_written()?;
            }
            let batch_place = (self.next_sequence - 1 - self.synced) as u16;
            let sequence = self.next_sequence;
            let number = self.active.expect("there is one after a rotation");
            let segment = self
                .segments
                .get_mut(&number)
                .expect("it is the active one");
            let offset = segment.span.end;
            let seed = Seed {
                history,
                segment: number,
            };
            RecordHead::write(*entry, (sequence, batch_place), (seed, offset), &mut buffer);
            segment.span.end += bytes;
            segment.span.last = sequence;
            segment.live_bytes += u64::from(bytes);
            segment.live_records += 1;
            self.bytes += u64::from(bytes);
            self.live_bytes += u64::from(bytes);
            self.longest = self.longest.max(bytes);
            self.next_sequence += 1;
            let location = Location {
                segment: number,
                offset,
                bytes,
            };
            appended.push(Appended { sequence, location });
        }
        self.flush(&mut buffer)?;
        // A long one is not kept for short ones.
        buffer.shrink_to(1 << 20);
        self.buffer = buffer;
        Ok(())
    }

    /// Writes what was put together for the end of the active segment.
    fn flush(&mut self, buffer: &mut Vec<u8>) -> io::Result<()> {
        if let Some(number) = self.active.filter(|_| !buffer.is_empty()) {
            let segment = &self.segments[&number];
            let begin = u64::from(segment.span.end) - buffer.len() as u64;
            self.active_file()?.write_at(begin, buffer)?;
            buffer.clear();
        }
        Ok(())
    }

    /// Returns once a crash takes back nothing of what was written.
    pub(crate) fn sync_written(&mut self) -> io::Result<()> {
        let written = self.next_sequence - 1;
        if self.active.is_some() && self.synced < written {
            self.active_file()?.sync()?;
            self.synced = written;
            self.high_water.write(written)?;
        }
        Ok(())
    }

    fn active_file(&self) -> io::Result<&dyn MediumFile> {
        let file = self.active_file.as_deref();
        file.ok_or_else(|| io::Error::other("no segment is open"))
    }

    /// Seals the active segment and begins the next one.
    fn rotate(&mut self) -> io::Result<()> {
        self.sync_written()?;
        let ready = self.ready.pop_front();
        let Ready { spare, file } =
            ready.ok_or_else(|| io::Error::other("no segment was made ready"))?;
        let number = self.next_segment;
        let next = number.checked_add(1);
        self.next_segment = next.ok_or_else(|| io::Error::other("no more segments"))?;
        // What a crash leaves of this has no records and is in no manifest.
        let head = FileHead {
            kind: FileKind::Segment,
            history: self.options.history,
            numbers: [number.into(), self.next_sequence, 0, 0],
            body_bytes: 0,
            body_checksum: 0,
        };
        self.medium.rename(&spare.name, &segment_name(number))?;
        file.write_at(0, &head.encode())?;
        file.sync()?;
        self.medium.sync_names()?;
        let span = Span {
            segment: number,
            first: self.next_sequence,
            last: self.next_sequence - 1,
            end: RECORDS_BEGIN,
        };
        self.files.insert_pinned(number, Arc::clone(&file));
        let segment = Segment {
            span,
            capacity: spare.bytes,
            live_bytes: 0,
            live_records: 0,
            hint: HintState::Missing,
            compacted_up_to: 0,
            is_stuck: false,
        };
        self.segments.insert(number, segment);
        let sealed = self.active.replace(number);
        let sealed_file = self.active_file.replace(file);
        let Some((sealed, sealed_file)) = sealed.zip(sealed_file) else {
            return self.write_manifest();
        };
        let segment = self
            .segments
            .get_mut(&sealed)
            .expect("it was the active one");
        if segment.span.records() == 0 {
            self.segments.remove(&sealed);
            self.write_manifest()?;
            self.files.remove(sealed);
            return self.medium.remove(&segment_name(sealed));
        }
        self.files.unpin(sealed);
        // The room that it does not need goes back.
        segment.capacity = segment.span.end.next_multiple_of(BLOCK_BYTES);
        if segment.live_records == 0 {
            self.emptied.push(sealed);
        }
        self.write_manifest()?;
        sealed_file.set_size(self.segments[&sealed].span.end.into())
    }
}
