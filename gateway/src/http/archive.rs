//! One file out of a zip archive in memory.
//!
//! Only as much of the format as the archives need that this program carries: stored and deflated
//! entries, no encryption, no parts, none of the 64-bit extension. The layout, from the end on:
//!
//! ```text
//!   [ local header, name, extra, data ]* [ central header, name, extra, comment ]* [ end ]
//! ```
//!
//! The format: APPNOTE.TXT of PKWARE, 4.3.

use std::io::Read as _;

use flate2::Crc;
use flate2::read::DeflateDecoder;

/// Begins the end of the archive, which says where the central headers are.
const END: &[u8] = b"PK\x05\x06";
/// Begins a central header.
const CENTRAL: &[u8] = b"PK\x01\x02";
/// Begins a local header.
const LOCAL: &[u8] = b"PK\x03\x04";

const STORED: usize = 0;
const DEFLATED: usize = 8;

/// The first file of an archive whose name ends so. None if there is no such file, or if the archive
/// is none of those that this module reads.
pub(super) fn file(archive: &[u8], name_end: &str) -> Option<Vec<u8>> {
    let end = archive
        .windows(END.len())
        .rposition(|window| window == END)?;
    let count = number(archive, end + 10, 2)?;
    let mut header = number(archive, end + 16, 4)?;
    for _ in 0..count {
        let name_bytes = number(archive, header + 28, 2)?;
        let name = part(archive, header + 46, name_bytes)?;
        if part(archive, header, CENTRAL.len())? != CENTRAL {
            return None;
        }
        if name.ends_with(name_end.as_bytes()) {
            return entry(archive, header);
        }
        let rest = number(archive, header + 30, 2)? + number(archive, header + 32, 2)?;
        header += 46 + name_bytes + rest;
    }
    None
}

/// The content of the file with this central header.
fn entry(archive: &[u8], header: usize) -> Option<Vec<u8>> {
    let packed_bytes = number(archive, header + 20, 4)?;
    let file_bytes = number(archive, header + 24, 4)?;
    let local = number(archive, header + 42, 4)?;
    if part(archive, local, LOCAL.len())? != LOCAL {
        return None;
    }
    let names = number(archive, local + 26, 2)? + number(archive, local + 28, 2)?;
    let packed = part(archive, local + 30 + names, packed_bytes)?;
    let mut file = Vec::new();
    match number(archive, header + 10, 2)? {
        STORED => file.extend_from_slice(packed),
        DEFLATED => drop(DeflateDecoder::new(packed).read_to_end(&mut file).ok()?),
        _ => return None,
    }
    let mut checksum = Crc::new();
    checksum.update(&file);
    let expected = number(archive, header + 16, 4)?;
    let is_whole = file.len() == file_bytes && usize::try_from(checksum.sum()) == Ok(expected);
    is_whole.then_some(file)
}

/// Some bytes of the archive.
fn part(archive: &[u8], from: usize, bytes: usize) -> Option<&[u8]> {
    archive.get(from..from.checked_add(bytes)?)
}

/// A number of up to four bytes, the lowest first.
fn number(archive: &[u8], from: usize, bytes: usize) -> Option<usize> {
    let bytes = part(archive, from, bytes)?;
    let number = bytes
        .iter()
        .rev()
        .fold(0_u32, |number, byte| number << 8 | u32::from(*byte));
    usize::try_from(number).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Two files, as Info-ZIP packs them: `a/one.txt` deflated, `two.txt` stored.
    fn archive() -> Vec<u8> {
        let deflated = [0x4b, 0x4c, 0x84, 0x01, 0x00];
        let files = [
            ("a/one.txt", DEFLATED, &deflated[..], "aaaaaaaaaa"),
            ("two.txt", STORED, b"two", "two"),
        ];
        let (mut archive, mut central) = (Vec::new(), Vec::new());
        for (name, method, packed, content) in files {
            let mut checksum = Crc::new();
            checksum.update(content.as_bytes());
            let local = archive.len();
            let mut common = vec![20, 0, 0, 0, method as u8, 0, 0, 0, 0, 0];
            common.extend_from_slice(&checksum.sum().to_le_bytes());
            common.extend_from_slice(&(packed.len() as u32).to_le_bytes());
            common.extend_from_slice(&(content.len() as u32).to_le_bytes());
            common.extend_from_slice(&(name.len() as u16).to_le_bytes());
            archive.extend_from_slice(LOCAL);
            archive.extend_from_slice(&common);
            archive.extend_from_slice(&[2, 0]);
            archive.extend_from_slice(name.as_bytes());
            archive.extend_from_slice(b"ex");
            archive.extend_from_slice(packed);
            central.extend_from_slice(CENTRAL);
            central.extend_from_slice(&[20, 0]);
            central.extend_from_slice(&common);
            central.extend_from_slice(&[0, 0, 3, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
            central.extend_from_slice(&(local as u32).to_le_bytes());
            central.extend_from_slice(name.as_bytes());
            central.extend_from_slice(b"com");
        }
        let begin = archive.len();
        archive.extend_from_slice(&central);
        archive.extend_from_slice(END);
        archive.extend_from_slice(&[0, 0, 0, 0, 2, 0, 2, 0]);
        archive.extend_from_slice(&(central.len() as u32).to_le_bytes());
        archive.extend_from_slice(&(begin as u32).to_le_bytes());
        archive.extend_from_slice(&[0, 0]);
        archive
    }

    #[test]
    fn files_come_out_whole() {
        let archive = archive();
        assert_eq!(file(&archive, "/one.txt").unwrap(), b"aaaaaaaaaa");
        assert_eq!(file(&archive, "two.txt").unwrap(), b"two");
        assert_eq!(file(&archive, "three.txt"), None);
    }

    #[test]
    fn no_damage_panics_or_is_returned() {
        let sound = archive();
        for place in 0..sound.len() {
            for bit in 0..8 {
                let mut damaged = sound.clone();
                damaged[place] ^= 1 << bit;
                for (name, content) in [("one.txt", &b"aaaaaaaaaa"[..]), ("two.txt", b"two")] {
                    if let Some(found) = file(&damaged, name) {
                        assert_eq!(found, content, "bit {bit} of byte {place}");
                    }
                }
            }
        }
        // All but the length of a comment.
        for end in 0..sound.len() - 2 {
            assert_eq!(file(&sound[..end], "two.txt"), None, "{end} bytes");
        }
    }

    #[test]
    fn the_viewer_is_in_its_archive() {
        let archive = utoipa_swagger_ui_vendored::SWAGGER_UI_VENDORED;
        for name in ["/dist/swagger-ui-bundle.js", "/dist/swagger-ui.css"] {
            assert!(file(archive, name).unwrap().len() > 10_000);
        }
    }
}
