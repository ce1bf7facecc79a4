//! The log in a directory of the file system.

#![cfg(unix)]
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::sync::Arc;

use dkvs_log::{Directory, DirectoryError, Entry, Log, Medium, Room};
use support::options;

struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Self {
        let name = format!("dkvs-log-{name}-{}", std::process::id());
        Self(std::env::temp_dir().join(name))
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        fs::remove_dir_all(&self.0).unwrap();
    }
}

#[test]
fn it_is_found_again_and_its_files_are_its_owners_alone() {
    let folder = Folder::new("again");
    let values: Vec<Vec<u8>> = (0..300_u32)
        .map(|number| vec![number as u8; 1_000])
        .collect();
    let entry = |number: usize| Entry {
        key: b"key",
        head: b"head",
        value: &values[number],
    };
    {
        let directory = Arc::new(Directory::open(&folder.0, true).unwrap());
        let mut log = Log::create(directory, options()).unwrap();
        for number in 0..values.len() {
            log.append(&[entry(number)], Room::Ordinary, &mut Vec::new())
                .unwrap();
        }
        while let Some(job) = log.hint_job() {
            log.finish_hint(&job.run().unwrap()).unwrap();
        }
    }
    let mode = |path: PathBuf| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(folder.0.clone()), 0o700);
    let mut files = 0;
    for file in fs::read_dir(&folder.0).unwrap() {
        assert_eq!(mode(file.unwrap().path()), 0o600);
        files += 1;
    }
    assert!(files > 12, "{files}");
    let directory = Directory::open(&folder.0, true).unwrap();
    assert!(directory.bytes_available().unwrap() > 0);
    let mut places = Vec::new();
    let (log, recovery) = Log::open(Arc::new(directory), options(), &mut |visited| {
        places.push(visited.location);
        None
    })
    .unwrap();
    assert_eq!((recovery.records, recovery.lost.len()), (300, 0));
    assert!(
        recovery.hinted >= 3 && recovery.scanned == 1,
        "{recovery:?}"
    );
    for (place, value) in places.iter().zip(&values) {
        assert_eq!(log.reader().read(*place).unwrap().value(), value);
    }
}

#[test]
fn one_process_has_it_open_at_a_time() {
    let folder = Folder::new("lock");
    let first = Directory::open(&folder.0, true).unwrap();
    let second = Directory::open(&folder.0, true);
    assert!(matches!(second, Err(DirectoryError::InUse(path)) if path == folder.0));
    drop(first);
    Directory::open(&folder.0, true).unwrap();
}

#[test]
fn files_are_set_aside_renamed_cut_and_removed() {
    let folder = Folder::new("files");
    let directory = Directory::open(&folder.0, true).unwrap();
    let file = directory.create("one", 100_000).unwrap();
    assert_eq!(file.size().unwrap(), 100_000);
    file.write_at(99_998, &[1, 2, 3]).unwrap();
    directory.rename("one", "two").unwrap();
    let mut read = [9; 5];
    directory
        .open("two")
        .unwrap()
        .read_at(99_996, &mut read)
        .unwrap();
    assert_eq!(read, [0, 0, 1, 2, 3]);
    assert!(file.read_at(100_000, &mut read).is_err());
    file.set_size(10).unwrap();
    file.sync().unwrap();
    directory.sync_names().unwrap();
    assert_eq!(directory.open("two").unwrap().size().unwrap(), 10);
    assert_eq!(directory.create("two", 0).unwrap().size().unwrap(), 0);
    directory.remove("two").unwrap();
    assert!(directory.open("two").is_err() && directory.remove("two").is_err());
    assert!(directory.create("large", u64::MAX >> 1).is_err());
    assert_eq!(directory.list().unwrap(), ["lock"]);
}
