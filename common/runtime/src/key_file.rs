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

/// A key file in use, and the subscribers to its keys.
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

/// Reads the cluster's keys, as [`read_private`].
pub fn load(path: &Path) -> anyhow::Result<Keys> {
    let text = read_private(path, "the cluster's keys are in it")?;
    Ok(Keys::parse(&path.display().to_string(), &text)?)
}

/// Reads a file, which is refused if group or others may read, write or run it; `why` says why
/// that matters. One that belongs to root its group may read, unless the process is root itself:
/// that is how service managers give a secret to the user of one service.
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
    use std::os::unix::fs::MetadataExt as _;

    let metadata = file.metadata()?;
    let mode = metadata.mode();
    anyhow::ensure!(
        is_private(mode, metadata.uid(), rustix::process::geteuid().as_raw()),
        "{path} is open to others than its owner (mode {:03o}), and {why}; say chmod 600 {path}",
        mode & 0o777,
        path = path.display(),
    );
    Ok(())
}

/// Whether nobody can read a file whose secrets are this process's but who is to.
#[cfg(unix)]
fn is_private(mode: u32, owner: u32, process: u32) -> bool {
    let is_handed_over = owner == 0 && process != 0;
    let for_others = if is_handed_over { 0o037 } else { 0o077 };
    mode & for_others == 0
}

#[cfg(all(test, unix))]
mod tests {
    use super::*;

    #[test]
    fn only_what_root_hands_over_may_be_read_by_its_group() {
        const ROOT: u32 = 0;
        const OTHER: u32 = 1000;
        for owner in [ROOT, OTHER] {
            for process in [ROOT, OTHER] {
                assert!(is_private(0o400, owner, process));
                assert!(is_private(0o600, owner, process));
                for mode in [0o604, 0o602, 0o601, 0o620, 0o610, 0o660, 0o644] {
                    assert!(!is_private(mode, owner, process), "{mode:o}");
                }
                let is_handed_over = owner == ROOT && process == OTHER;
                assert_eq!(is_private(0o440, owner, process), is_handed_over);
                assert_eq!(is_private(0o640, owner, process), is_handed_over);
            }
        }
    }
}
