//! Small file systems.

use std::fs;
use std::path::Path;
use std::process::Command;

use crate::process::DataDir;

/// A file system of so many bytes, in memory, which goes with its value.
pub struct Tmpfs(DataDir);

impl Tmpfs {
    /// None where the system does not let us.
    pub fn mount(size: &str) -> Option<Self> {
        let directory = DataDir::new();
        fs::create_dir_all(directory.path()).expect("the temporary directory takes another");
        let size = format!("size={size}");
        let mut command = Command::new("mount");
        command
            .args(["-t", "tmpfs", "-o", &size, "dkvs-test"])
            .arg(directory.path());
        match command.output() {
            Ok(output) if output.status.success() => Some(Self(directory)),
            refused => {
                eprintln!("skipped: no file system can be mounted here: {refused:?}");
                None
            }
        }
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        Path::new(self.0.path())
    }
}

impl Drop for Tmpfs {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(self.path()).status();
    }
}
