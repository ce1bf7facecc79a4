//! A directory of arbitrary bytes is opened as a log, or refused.
//!
//! The fuzzer's bytes are patches of the files of a small sound log, or whole files. A fuzzer does not
//! guess checksums, so a patch may have them corrected behind it.

use std::sync::{Arc, OnceLock};

use dkvs_log::simulated::SimulatedDisk;
use dkvs_log::{Entry, History, Index, Liveness, Location, Log, Options, Room, Visited};

const HISTORY: [u8; 16] = [5; 16];

/// Numbers below this are far from the greatest ones.
const NUMBER_USUAL: u64 = 1 << 40;

fn options() -> Options {
    Options {
        history: History(HISTORY),
        segment_bytes: 64 << 10,
    }
}

fn base() -> &'static SimulatedDisk {
    static BASE: OnceLock<SimulatedDisk> = OnceLock::new();
    BASE.get_or_init(|| {
        let disk = SimulatedDisk::default();
        let mut log = Log::create(Arc::new(disk.clone()), options()).expect("a new log");
        for number in 0..80_u8 {
            let key = [number % 16];
            let value = vec![number; 2_000];
            let entry = Entry {
                key: &key,
                head: b"head",
                value: &value,
            };
            let appended = log.append(&[entry; 2], Room::Ordinary, &mut Vec::new());
            appended.expect("there is room");
        }
        let job = log.hint_job().expect("a sealed segment");
        let done = job.run().expect("a hint");
        log.finish_hint(&done).expect("a hint");
        drop(log);
        disk.duplicate()
    })
}

/// Whatever the files of a log hold, opening it ends and does not panic, and neither does what comes
/// after.
pub fn log(data: &[u8]) {
    let disk = base().duplicate();
    let mut data = data;
    while let Some(patched) = patch(&disk, data) {
        data = patched;
    }
    let mut places = Vec::new();
    let opened = Log::open(Arc::new(disk.clone()), options(), &mut |visited| {
        places.push((visited.sequence, visited.location));
        None
    });
    let Ok((mut log, _)) = opened else {
        return;
    };
    assert!(places.is_sorted_by(|one, two| one.0 < two.0));
    for (_, place) in &places {
        if let Ok(record) = log.reader().read(*place) {
            assert_eq!(record.into_bytes().0.len(), place.bytes as usize);
        }
    }
    let next = log.next_sequence();
    assert!(places.last().is_none_or(|it| it.0 < next));
    let entry = Entry {
        key: b"new",
        head: b"",
        value: b"value",
    };
    let mut appended = Vec::new();
    let taken = log.append(&[entry], Room::Ordinary, &mut appended);
    log.compact_oldest();
    while log
        .compact_step(1 << 20, &mut Everything)
        .is_ok_and(|it| it)
    {}
    drop(log);
    if taken.is_err() || next > NUMBER_USUAL {
        return;
    }
    let mut is_there = false;
    let opened = Log::open(Arc::new(disk), options(), &mut |visited| {
        is_there |= visited.key == b"new" && visited.sequence >= next;
        None
    });
    assert!(opened.is_ok() && is_there, "what was appended is gone");
}

/// Takes every record for live.
struct Everything;

impl Index for Everything {
    fn liveness(&mut self, _record: &Visited<'_>, _is_oldest: bool) -> Liveness {
        Liveness::Live
    }

    fn moved(&mut self, _key: &[u8], _from: Location, _to: Location, _sequence: u64) {}
}

/// Makes one change of a file: which one 1, how 1, where 4, how many bytes 2, the bytes.
fn patch<'a>(disk: &SimulatedDisk, data: &'a [u8]) -> Option<&'a [u8]> {
    let (fixed, rest) = data.split_first_chunk::<8>()?;
    let names = disk.names();
    let name = names.get(usize::from(fixed[0]) % names.len().max(1))?;
    let mut file = disk.contents(name)?;
    let at = u32::from_le_bytes([fixed[2], fixed[3], fixed[4], fixed[5]]) as usize;
    let length = usize::from(u16::from_le_bytes([fixed[6], fixed[7]]));
    let (bytes, rest) = rest.split_at(length.min(rest.len()));
    match fixed[1] & 7 {
        0 => disk.take(name),
        1 => disk.put(name, bytes.to_vec()),
        2 => {
            file.truncate(at);
            disk.put(name, file);
        }
        3 => {
            let other = &names[at % names.len()];
            let theirs = disk.contents(other)?;
            disk.put(other, file);
            disk.put(name, theirs);
        }
        how => {
            let at = at % file.len().max(1);
            let end = (at + bytes.len()).min(file.len());
            file[at..end].copy_from_slice(&bytes[..end - at]);
            if how & 1 == 1 {
                correct_head(&mut file);
            }
            if how & 2 == 2 {
                let segment = name.split('.').next()?.parse().unwrap_or(0);
                correct_record(&mut file, segment, at);
            }
            disk.put(name, file);
        }
    }
    Some(rest)
}

/// Corrects the checksums of a file's head and body.
fn correct_head(file: &mut [u8]) {
    let Some((head, body)) = file.split_at_mut_checked(80) else {
        return;
    };
    let bytes: [u8; 8] = head[64..72].try_into().expect("eight bytes");
    let bytes = usize::try_from(u64::from_le_bytes(bytes)).unwrap_or(usize::MAX);
    let sum = crc32c::crc32c(&body[..bytes.min(body.len())]);
    head[72..76].copy_from_slice(&sum.to_le_bytes());
    let sum = crc32c::crc32c(&head[..76]);
    head[76..].copy_from_slice(&sum.to_le_bytes());
}

/// Corrects the first checksum of a record as if one began here.
fn correct_record(file: &mut [u8], segment: u32, at: usize) {
    let Some(record) = file.get_mut(at..at + 32) else {
        return;
    };
    let mut sum = crc32c::crc32c(&HISTORY);
    sum = crc32c::crc32c_append(sum, &segment.to_le_bytes());
    sum = crc32c::crc32c_append(sum, &(at as u32).to_le_bytes());
    sum = crc32c::crc32c_append(sum, &record[4..]);
    record[..4].copy_from_slice(&sum.to_le_bytes());
}
