//! The values of records that lie in the log: read by parts, from the cache or from the disk.

use std::ops::Deref;

use bytes::Bytes;
use dkvs_common::record::Attributes;
use dkvs_log::{Location, ReadError, Reader};

use super::cache::{CHUNK_BYTES_MAX, Chunk, ValueCache};
use super::entry::Located;
use super::format::{LogValue, is_sound, take_apart};
use super::verify::ReadChunks;
use crate::store::view::{Part, RecordView};

/// Whether a record's value of the log is a single chunk.
fn is_short(located: &Located) -> bool {
    located.log_value_bytes <= CHUNK_BYTES_MAX
}

/// A piece of a value of the log.
#[derive(Debug)]
pub(super) struct Piece {
    bytes: Held,
    /// Where it begins.
    at: usize,
    /// Whether all of the value is to be verified, of which this is a part.
    pub(super) is_whole_due: bool,
}

/// Who has the bytes.
#[derive(Debug)]
enum Held {
    /// The cache, too.
    Chunk(Chunk),
    Own(Bytes),
}

impl Deref for Held {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        match self {
            Self::Chunk(bytes) => bytes,
            Self::Own(bytes) => bytes,
        }
    }
}

impl Piece {
    /// What a read of a part is shown; none if this is not what was written.
    pub(super) fn view(&self, located: &Located, part: Part) -> Option<RecordView<'_>> {
        let value_bytes = located.head.value_bytes as usize;
        let range = part.range(value_bytes);
        if matches!(part, Part::Block { .. }) {
            let begin = located.stored.prefix_bytes(located.log_value_bytes) + range.start;
            let begin = begin.checked_sub(self.at)?;
            return Some(RecordView {
                head: located.head,
                attributes: Attributes::NONE.born_at_least(located.head.born),
                content_type: &[],
                value: self.bytes.get(begin..begin + range.len())?,
            });
        }
        let LogValue {
            attributes,
            content_type,
            value,
        } = take_apart(located.stored.flags, &self.bytes).filter(|_| self.at == 0)?;
        Some(RecordView {
            head: located.head,
            attributes: attributes.born_at_least(located.head.born),
            content_type,
            value: value.get(range)?,
        })
    }

    /// A whole value of the log.
    pub(super) fn whole(bytes: Bytes) -> Self {
        Self::at(Held::Own(bytes), 0)
    }

    fn at(bytes: Held, at: usize) -> Self {
        Self {
            bytes,
            at,
            is_whole_due: false,
        }
    }

    /// All of it.
    pub(super) fn into_bytes(self) -> Bytes {
        match self.bytes {
            Held::Chunk(bytes) => Bytes::from_owner(bytes),
            Held::Own(bytes) => bytes,
        }
    }
}

/// Reads values, from any number of threads at once.
pub(super) struct Values {
    reader: Reader,
    pub(super) cache: ValueCache,
    read_chunks: ReadChunks,
}

impl Values {
    pub(super) fn new(reader: Reader, cache_bytes_max: usize) -> Self {
        Self {
            reader,
            cache: ValueCache::new(cache_bytes_max),
            read_chunks: ReadChunks::default(),
        }
    }

    /// The piece for a part of a record, if it is in memory.
    pub(super) fn at_hand(&self, key: &[u8], located: &Located, part: Part) -> Option<Piece> {
        if is_short(located) {
            let bytes = self.cache.chunk(located.location, 0)?;
            // Bits flip in memory, too: then the disk is asked.
            let is_block = matches!(part, Part::Block { .. });
            let is_good = is_block || is_sound(key, &located.stored, &bytes);
            return is_good.then(|| Piece::at(Held::Chunk(bytes), 0));
        }
        let chunk = |number| self.cache.chunk(located.location, number).ok_or(());
        match part {
            Part::Whole => None,
            _ => gather(located, part, chunk).ok(),
        }
    }

    /// The same, from the disk where it is not in memory. Keeps what was read in the cache.
    pub(super) fn read(
        &self,
        key: &[u8],
        located: &Located,
        part: Part,
    ) -> Result<Piece, ReadError> {
        if let Some(piece) = self.at_hand(key, located, part) {
            return Ok(piece);
        }
        if !is_short(located) && part != Part::Whole {
            let mut is_whole_due = false;
            let piece = gather(located, part, |number| {
                self.read_chunk(located, number, &mut is_whole_due)
            });
            return piece.map(|piece| Piece {
                is_whole_due,
                ..piece
            });
        }
        let bytes = self.read_whole(key, located)?;
        if is_short(located) {
            self.cache.keep(located.location, 0, &*bytes);
        }
        Ok(Piece::whole(bytes))
    }

    /// Verifies all of a value of the log, as it is on the disk.
    pub(super) fn verify(&self, key: &[u8], located: &Located) -> Result<(), ReadError> {
        self.read_whole(key, located).map(drop)
    }

    /// All of a value of the log, if memory has all of it and it is what was written.
    pub(super) fn in_memory(&self, key: &[u8], located: &Located) -> Option<Bytes> {
        let chunk = |number| self.cache.chunk(located.location, number).ok_or(());
        let bytes = match located.log_value_bytes {
            // That of a deletion: no more than a content type that is empty.
            1 => Bytes::from_static(&[0]),
            _ => gather(located, Part::Whole, chunk).ok()?.into_bytes(),
        };
        is_sound(key, &located.stored, &bytes).then_some(bytes)
    }

    /// All of a value of the log, without keeping it.
    pub(super) fn read_past_cache(
        &self,
        key: &[u8],
        located: &Located,
    ) -> Result<Bytes, ReadError> {
        match self.at_hand(key, located, Part::Whole) {
            Some(piece) => Ok(piece.into_bytes()),
            None => self.read_whole(key, located),
        }
    }

    /// All of a value of the log from the disk, if it is what was written.
    fn read_whole(&self, key: &[u8], located: &Located) -> Result<Bytes, ReadError> {
        let record = self.reader.read(located.location)?;
        if record.key() != key || !is_sound(key, &located.stored, record.value()) {
            return Err(ReadError::Damaged);
        }
        let (bytes, begin) = record.into_bytes();
        Ok(Bytes::from(bytes).slice(begin..))
    }

    /// Keeps the value of a record that was just written.
    pub(super) fn keep(&self, location: Location, log_value: &Bytes) {
        if log_value.len() <= CHUNK_BYTES_MAX {
            self.cache.keep(location, 0, &**log_value);
        }
    }

    /// A record was moved.
    pub(super) fn moved(&self, from: Location, to: Location) {
        if let Some(chunk) = self.cache.forget(from) {
            self.cache.keep(to, 0, chunk);
        }
    }

    fn read_chunk(
        &self,
        located: &Located,
        number: u32,
        is_whole_due: &mut bool,
    ) -> Result<Chunk, ReadError> {
        if let Some(chunk) = self.cache.chunk(located.location, number) {
            return Ok(chunk);
        }
        let begin = number as usize * CHUNK_BYTES_MAX;
        let end = (begin + CHUNK_BYTES_MAX).min(located.log_value_bytes);
        let mut chunk = vec![0; end.saturating_sub(begin)];
        let log_value_bytes = located.log_value_bytes as u32;
        let from = begin as u32;
        self.reader
            .read_part(located.location, log_value_bytes, from, &mut chunk)?;
        let chunk = Chunk::from(chunk);
        let chunks = located.log_value_bytes.div_ceil(CHUNK_BYTES_MAX) as u32;
        *is_whole_due |= self.read_chunks.is_due(located.location, chunks);
        self.cache.keep(located.location, number, chunk.clone());
        Ok(chunk)
    }
}

/// Puts together the chunks of a long value that a part needs.
fn gather<E>(
    located: &Located,
    part: Part,
    mut chunk: impl FnMut(u32) -> Result<Chunk, E>,
) -> Result<Piece, E> {
    let range = part.range(located.head.value_bytes as usize);
    let prefix = located.stored.prefix_bytes(located.log_value_bytes);
    let begin = match part {
        Part::Block { .. } => prefix + range.start,
        Part::Whole | Part::First(_) => 0,
    };
    let end = prefix + range.end;
    let (first, last) = (
        begin / CHUNK_BYTES_MAX,
        end.saturating_sub(1).max(begin) / CHUNK_BYTES_MAX,
    );
    let at = first * CHUNK_BYTES_MAX;
    // A value has at most 16 MiB, so its chunks have small numbers.
    let bytes = chunk(first as u32)?;
    if first == last {
        return Ok(Piece::at(Held::Chunk(bytes), at));
    }
    let mut joined = Vec::with_capacity((last + 1 - first) * CHUNK_BYTES_MAX);
    joined.extend_from_slice(&bytes);
    for number in first + 1..=last {
        joined.extend_from_slice(&chunk(number as u32)?);
    }
    Ok(Piece::at(Held::Own(joined.into()), at))
}
