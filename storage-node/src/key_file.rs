//! The key file on disk: read only if nobody but its owner can.

use std::convert::Infallible;
use std::fs::File;
use std::future::Future;
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use dkvs_common::wire::v2::keys::Keys;
use tokio::sync::watch;

use crate::signals::Hangups;

/// A key file in use, and those who are told of its keys.
pub struct KeyFile {
    path: PathBuf,
    keys: watch::Sender<Keys>,
}

impl KeyFile {
    /// Reads the file, as [`load`].
    pub fn open(path: &Path) -> anyhow::Result<Self> {
        Ok(Self {
            path: path.to_owned(),
            keys: watch::Sender::new(load(path)?),
        })
    }

    /// The ids of the keys, in the file's order.
    pub fn ids(&self) -> Vec<u8> {
        self.keys.borrow().ids().collect()
    }

    /// The keys, as they change.
    pub fn subscribe(&self) -> watch::Receiver<Keys> {
        self.keys.subscribe()
    }

    /// Reads the file again. One that is refused changes nothing.
    pub fn reload(&self) {
        match load(&self.path) {
            Ok(keys) => {
                self.keys.send_replace(keys);
                tracing::info!(keys = ?self.ids(), "SIGHUP: the key file was read again");
            }
            Err(error) => {
                tracing::error!("SIGHUP: the keys stay as they were: {error:#}");
            }
        }
    }
}

/// Reads the file again, if there is one, on every SIGHUP, which is then taken over from here on.
/// Needs a runtime with I/O.
pub fn reloads(key_file: Option<&KeyFile>) -> io::Result<impl Future<Output = Infallible>> {
    let hangups = key_file.map(|_| Hangups::new()).transpose()?;
    Ok(async move {
        let (Some(key_file), Some(mut hangups)) = (key_file, hangups) else {
            return std::future::pending().await;
        };
        loop {
            hangups.next().await;
            key_file.reload();
        }
    })
}

/// Reads the cluster's keys. A file that group or others may read, write or run is refused.
pub fn load(path: &Path) -> anyhow::Result<Keys> {
    let text = read_private(path, "the cluster's keys are in it")?;
    Ok(Keys::parse(&path.display().to_string(), &text)?)
}

/// Reads a file, which is refused if group or others may read, write or run it; `why` says why
/// that matters.
pub fn read_private(path: &Path, why: &str) -> anyhow::Result<Vec<u8>> {
    let cannot_read = || format!("cannot read {}", path.display());
    let mut file = File::open(path).with_context(cannot_read)?;
    // Of the file that was opened, so that no other can take its place in between.
    #[cfg(unix)]
    refuse_if_shared(&file, path, why)?;
    #[cfg(not(unix))]
    let _ = why;
    let mut text = Vec::new();
    file.read_to_end(&mut text).with_context(cannot_read)?;
    Ok(text)
}

#[cfg(unix)]
fn refuse_if_shared(file: &File, path: &Path, why: &str) -> anyhow::Result<()> {
    use std::os::unix::fs::PermissionsExt as _;

    let mode = file.metadata()?.permissions().mode();
    anyhow::ensure!(
        mode & 0o077 == 0,
        "{path} is open to others than its owner (mode {:03o}), and {why}; say chmod 600 {path}",
        mode & 0o777,
        path = path.display(),
    );
    Ok(())
}
