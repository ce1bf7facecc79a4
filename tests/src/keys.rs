//! Key files.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt as _;

use crate::process::ServersFile;

/// The key of an id: bytes that count up from it.
pub fn key_bytes(id: u8) -> [u8; 32] {
    std::array::from_fn(|at| id.wrapping_add(u8::try_from(at).expect("less than 32")))
}

/// A key file with the keys of these ids. Only its owner may read it.
pub fn key_file(ids: &[u8]) -> ServersFile {
    let file = ServersFile::with_text(key_lines(ids));
    set_mode(&file, 0o600);
    file
}

/// What stands in such a file.
pub fn key_lines(ids: &[u8]) -> String {
    let hex = |byte: u8| format!("{byte:02x}");
    let line = |id: &u8| {
        let digits: String = key_bytes(*id).map(hex).concat();
        format!("{id} {digits}\n")
    };
    ids.iter().map(line).collect()
}

/// Says who may read and write a file.
pub fn set_mode(file: &ServersFile, mode: u32) {
    fs::set_permissions(file, Permissions::from_mode(mode)).unwrap();
}
