//! Directories for what takes part, which go when it does.

use std::fs;
use std::path::PathBuf;

/// A directory that goes with its value.
pub struct Directory(pub PathBuf);

impl Directory {
    /// A new one, empty.
    pub fn new(name: &str) -> anyhow::Result<Self> {
        let path = std::env::temp_dir().join(format!("dkvs-bench-{}-{name}", std::process::id()));
        fs::create_dir(&path)?;
        Ok(Self(path))
    }

    /// Writes a file into it.
    pub fn file(&self, name: &str, text: &str) -> anyhow::Result<PathBuf> {
        let path = self.0.join(name);
        fs::write(&path, text)?;
        Ok(path)
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_goes_with_its_value() {
        let directory = Directory::new("test").unwrap();
        let file = directory.file("a", "b").unwrap();
        assert_eq!(fs::read_to_string(&file).unwrap(), "b");
        drop(directory);
        assert!(!file.exists());
    }
}
