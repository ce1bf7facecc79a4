//! Key files.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt as _;

use crate::process::ServersFile;

/// A key file with these keys, the bytes of each being its id. Only its owner may read it.
pub fn key_file(ids: &[u8]) -> ServersFile {
    let file = ServersFile::with_text(key_lines(ids));
    set_mode(&file, 0o600);
    file
}

/// What stands in such a file.
pub fn key_lines(ids: &[u8]) -> String {
    let line = |id: &u8| format!("{id} {}\n", format!("{id:02x}").repeat(32));
    ids.iter().map(line).collect()
}

/// Says who may read and write a file.
pub fn set_mode(file: &ServersFile, mode: u32) {
    fs::set_permissions(file, Permissions::from_mode(mode)).unwrap();
}
