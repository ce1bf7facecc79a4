//! The key file on disk: read only if nobody but its owner can.

use std::fs::File;
use std::io::Read as _;
use std::path::Path;

use anyhow::Context as _;
use dkvs_common::wire::v2::keys::Keys;

/// Reads the cluster's keys. A file that group or others may read, write or run is refused.
pub fn load(path: &Path) -> anyhow::Result<Keys> {
    let cannot_read = || format!("cannot read {}", path.display());
    let mut file = File::open(path).with_context(cannot_read)?;
    // Of the file that was opened, so that no other can take its place in between.
    #[cfg(unix)]
    refuse_if_shared(&file, path)?;
    let mut text = Vec::new();
    file.read_to_end(&mut text).with_context(cannot_read)?;
    Ok(Keys::parse(&path.display().to_string(), &text)?)
}

#[cfg(unix)]
fn refuse_if_shared(file: &File, path: &Path) -> anyhow::Result<()> {
    use std::os::unix::fs::PermissionsExt as _;

    let mode = file.metadata()?.permissions().mode();
    anyhow::ensure!(
        mode & 0o077 == 0,
        "{path} is open to others than its owner (mode {:03o}), and the cluster's keys are in it; \
         say chmod 600 {path}",
        mode & 0o777,
        path = path.display(),
    );
    Ok(())
}
