//! Where a server keeps how far its peers have come: `peers.json` in its data directory.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use super::PeerMarks;
use crate::service::Service;
use crate::store::disk::write_synced;

/// The file of a data directory.
pub fn file_of(data_dir: &Path) -> PathBuf {
    data_dir.join("peers.json")
}

/// Takes what was kept, if there is anything. What cannot be read is told by the peers again.
pub fn load(service: &Service, file: &Path) {
    let text = match fs::read_to_string(file) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return,
        Err(error) => return warn(file, &error),
    };
    if let Err(error) = service.peer_marks().load(&text) {
        warn(file, &error);
    }
}

fn warn(file: &Path, error: &dyn std::error::Error) {
    let file = file.display();
    tracing::warn!(
        %file,
        %error,
        "it is not known how far the other replicas had come: if one is set back, this server does not notice"
    );
}

/// Keeps what is new.
pub(crate) fn keep(marks: &PeerMarks, file: &Path) {
    if let Some(text) = marks.take_changed()
        && let Err(error) = write_synced(file, text.as_bytes())
    {
        let file = file.display();
        tracing::warn!(%file, %error, "how far the other replicas have come is not kept");
    }
}
