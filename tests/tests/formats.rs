//! Data directories as files: of the format before, half converted, of another server, and copies.
//!
//! `directories_of_format_1` has records as version 0.1 left them when it was killed.

use std::fs;
use std::io::Read as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, mpsc};

use dkvs_common::model::Durability;
use dkvs_common::tag::Tag;
use dkvs_storage_node::store::disk::backup::Backup;
use dkvs_storage_node::store::disk::directory::{DataDirectory, DirectoryError, Owner};
use dkvs_storage_node::store::disk::{Declaration, OpenOptions, Opened};
use dkvs_storage_node::store::{Lookup, Part, PutOutcome, RecordStore as _, RecordView};
use dkvs_tests::process::DataDir;
use dkvs_tests::stores::{key, later, record};
use flate2::read::GzDecoder;

/// What a server of format 1 left: its records, and its high-water mark.
struct Old {
    records: &'static [u8],
    witness: [u8; 12],
}

/// Five keys: `first`, `second` that was overwritten, `typed`, `long`, and `deleted`.
const COMPLETE: Old = Old {
    records: include_bytes!("directories_of_format_1/complete.redb.gz"),
    witness: [0, 0, 0, 0, 0, 0, 0, 7, 0x58, 0xe2, 0xd6, 0x61],
};

/// The same, declared incomplete, and `later`, which was put then.
const INCOMPLETE: Old = Old {
    records: include_bytes!("directories_of_format_1/incomplete.redb.gz"),
    witness: [0, 0, 0, 0, 0, 0, 0, 8, 0x06, 0xf1, 0xea, 0x45],
};

impl Old {
    fn write(&self) -> DataDir {
        let directory = DataDir::new();
        let path = Path::new(directory.path());
        fs::create_dir_all(path).unwrap();
        let mut records = Vec::new();
        GzDecoder::new(self.records)
            .read_to_end(&mut records)
            .unwrap();
        fs::write(path.join("records.redb"), records).unwrap();
        fs::write(path.join("witness"), self.witness).unwrap();
        let identity =
            r#"{"format": 1, "server": "127.0.0.1:4000", "ring": null, "servers": null}"#;
        fs::write(path.join("identity.json"), identity).unwrap();
        directory
    }
}

fn owner(port: u16) -> Owner {
    Owner {
        server: format!("127.0.0.1:{port}").parse().unwrap(),
        cluster: None,
        replication: 3,
        is_numbered: false,
    }
}

fn open_as(
    path: &str,
    port: u16,
    declaration: Option<Declaration>,
) -> Result<(DataDirectory, Opened), DirectoryError> {
    let options = OpenOptions {
        declaration,
        cache_bytes_max: 0,
        ..OpenOptions::new(usize::MAX, Durability::Fsync, 1)
    };
    DataDirectory::open(Path::new(path), owner(port), options)
}

fn open(path: &str, declaration: Option<Declaration>) -> (DataDirectory, Opened) {
    open_as(path, 4_000, declaration).unwrap_or_else(|error| panic!("{error}"))
}

fn refusal(path: &str, declaration: Option<Declaration>) -> String {
    match open_as(path, 4_000, declaration) {
        Ok(_) => panic!("it is opened"),
        Err(error) => error.to_string(),
    }
}

/// The content type and the value of a key; none of a tombstone.
fn read(opened: &Opened, name: &str) -> Lookup<Option<(String, String)>> {
    opened.store.read_now(&key(name), Part::Whole, |held| {
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let of_value = |held: &RecordView<'_>| (text(held.content_type()), text(held.value()));
        (!held.head().is_tombstone).then(|| of_value(held))
    })
}

fn value(text: &str) -> Lookup<Option<(String, String)>> {
    typed("", text)
}

fn typed(content_type: &str, text: &str) -> Lookup<Option<(String, String)>> {
    Lookup::Found(Some((content_type.into(), text.into())))
}

fn put(opened: &mut Opened, name: &str, time: u64, text: &str) {
    let (sender, receiver) = mpsc::channel();
    let record = record(name, time, text);
    let at_once = opened.store.apply(&key(name), &record, || later(sender));
    assert_eq!(at_once, None);
    let batch = opened.committer.begin().unwrap();
    opened.committer.finish(batch);
    assert_eq!(receiver.try_recv(), Ok(Ok(PutOutcome::Stored)));
}

fn has_all(opened: &Opened) {
    assert_eq!(read(opened, "first"), value("1"));
    assert_eq!(read(opened, "second"), typed("text/plain", "overwritten"));
    assert_eq!(read(opened, "typed"), typed("image/x-test", "typed"));
    assert_eq!(read(opened, "deleted"), Lookup::Found(None));
    let Lookup::Found(Some((_, long))) = read(opened, "long") else {
        panic!("the long value is not there");
    };
    assert_eq!(long, "0123456789".repeat(10_000));
    assert_eq!(opened.store.len(), 5);
}

#[test]
fn a_directory_of_format_1_is_converted_once_and_kept() {
    let directory = COMPLETE.write();
    let path = Path::new(directory.path());
    let old = fs::read_to_string(path.join("identity.json")).unwrap();
    let (whose, opened) = open(directory.path(), None);
    has_all(&opened);
    assert!(opened.store.is_complete());
    assert_eq!(read(&opened, "never"), Lookup::Absent);
    // By DKVS/1 the first two had the smallest tags.
    let tag = opened.store.peek(&key("first")).unwrap().tag;
    assert_eq!(tag, Tag { time: 0, op: 1 });
    opened.committer.close().unwrap();
    drop(whose);
    let before = path.join("before-format-2");
    assert_eq!(
        fs::read_to_string(before.join("identity.json")).unwrap(),
        old
    );
    assert!(before.join("records.redb").exists() && before.join("witness").exists());
    assert!(!path.join("records.redb").exists() && !path.join("witness").exists());
    // What was kept is such a directory itself.
    let (_, again) = open(before.to_str().unwrap(), None);
    has_all(&again);
    // It can be deleted.
    fs::remove_dir_all(before).unwrap();
    let (_, mut opened) = open(directory.path(), None);
    has_all(&opened);
    put(&mut opened, "new", 1 << 60, "v");
}

#[test]
fn what_was_quarantined_in_format_1_is_so_afterwards() {
    let directory = INCOMPLETE.write();
    let (_, opened) = open(directory.path(), None);
    assert!(!opened.store.is_complete());
    for name in [
        "first", "second", "typed", "deleted", "long", "later", "never",
    ] {
        assert_eq!(read(&opened, name), Lookup::Corrupt, "{name}");
    }
    assert_eq!(opened.store.status().quarantined, 6);
    opened.committer.close().unwrap();
    let (_, opened) = open(directory.path(), Some(Declaration::Complete));
    assert_eq!(read(&opened, "later"), value("v"));
    assert_eq!(read(&opened, "first"), value("1"));
    assert_eq!(read(&opened, "never"), Lookup::Absent);
}

#[test]
fn a_conversion_that_was_interrupted_is_begun_anew_or_ended() {
    // Before the identity says so, whatever there is of the new log is worth nothing.
    let directory = COMPLETE.write();
    let path = Path::new(directory.path());
    let half = path.join("log.new");
    fs::create_dir_all(&half).unwrap();
    fs::write(half.join("0000000001.log"), "half a log").unwrap();
    fs::create_dir_all(path.join("before-format-2")).unwrap();
    drop(open(directory.path(), None));
    assert!(!half.exists());
    // Afterwards, what is left is done.
    let moved = |from: &str, to: &str| fs::rename(path.join(from), path.join(to)).unwrap();
    let back: [&[(&str, &str)]; 3] = [
        &[("log", "log.new")],
        &[("before-format-2/witness", "witness")],
        &[
            ("log", "log.new"),
            ("before-format-2/records.redb", "records.redb"),
            ("before-format-2/witness", "witness"),
        ],
    ];
    for step in back {
        step.iter().for_each(|(from, to)| moved(from, to));
        let (_, opened) = open(directory.path(), None);
        has_all(&opened);
        for name in ["log.new", "records.redb", "witness"] {
            assert!(!path.join(name).exists(), "{name}");
        }
        assert!(path.join("before-format-2/records.redb").exists());
    }
}

#[test]
fn damaged_records_of_format_1_are_put_aside_when_the_operator_says_so_and_not_before() {
    for harm in ["file", "rows"] {
        let directory = COMPLETE.write();
        let path = Path::new(directory.path());
        match harm {
            "file" => fs::write(path.join("records.redb"), vec![7; 100_000]).unwrap(),
            // It says that a later row was confirmed.
            _ => fs::write(path.join("witness"), INCOMPLETE.witness).unwrap(),
        }
        let records = fs::read(path.join("records.redb")).unwrap();
        let refused = refusal(directory.path(), None);
        assert!(refused.contains("the records are damaged"), "{refused}");
        assert!(refused.contains("--declare incomplete"), "{refused}");
        let left = fs::read(path.join("records.redb")).unwrap();
        assert!(harm == "rows" || left == records, "nothing has changed");
        let (_, opened) = open(directory.path(), Some(Declaration::Incomplete));
        assert_eq!(read(&opened, "first"), Lookup::Corrupt);
        assert_eq!(opened.store.len(), 0);
        assert!(path.join("before-format-2/records.redb").exists());
    }
}

fn new_directory(port: u16, name: &str) -> DataDir {
    let directory = DataDir::new();
    let opened = open_as(directory.path(), port, Some(Declaration::New));
    let (_, mut opened) = opened.unwrap();
    put(&mut opened, name, 1, "v");
    opened.committer.close().unwrap();
    directory
}

#[test]
fn the_log_of_another_directory_is_refused_whatever_is_declared() {
    let (ours, other) = (new_directory(4_000, "ours"), new_directory(4_000, "other"));
    let log = |directory: &DataDir| Path::new(directory.path()).join("log");
    fs::rename(log(&ours), log(&ours).with_extension("away")).unwrap();
    fs::rename(log(&other), log(&ours)).unwrap();
    for declaration in [
        None,
        Some(Declaration::Incomplete),
        Some(Declaration::Complete),
    ] {
        let refused = refusal(ours.path(), declaration);
        assert!(refused.contains("belongs to the log"), "{refused}");
    }
    // Not even a part of it is taken for one's own.
    fs::remove_dir_all(log(&ours)).unwrap();
    fs::rename(log(&ours).with_extension("away"), log(&ours)).unwrap();
    let other = new_directory(4_000, "other");
    for name in ["0000000001.log", "manifest-a", "high-water"] {
        let (file, foreign) = (log(&ours).join(name), log(&other).join(name));
        let kept = fs::read(&file).unwrap();
        fs::copy(foreign, &file).unwrap();
        let refused = refusal(ours.path(), None);
        assert!(refused.contains("belongs to the log"), "{name}: {refused}");
        fs::write(&file, kept).unwrap();
    }
    let (_, opened) = open(ours.path(), None);
    assert_eq!(read(&opened, "ours"), value("v"));
}

#[test]
fn a_log_without_an_identity_is_opened_with_a_declaration_alone() {
    let directory = new_directory(4_000, "k");
    let identity = Path::new(directory.path()).join("identity.json");
    fs::remove_file(&identity).unwrap();
    for declaration in [None, Some(Declaration::New)] {
        let refused = refusal(directory.path(), declaration);
        assert!(refused.contains("--declare incomplete"), "{refused}");
        assert!(refused.contains("there is no "), "{refused}");
        assert!(!refused.contains("take the file away"), "{refused}");
    }
    let (whose, opened) = open(directory.path(), Some(Declaration::Incomplete));
    assert_eq!(read(&opened, "k"), Lookup::Corrupt);
    assert_eq!(opened.store.peek(&key("k")).unwrap().tag.time, 1);
    drop((whose, opened));
    open(directory.path(), None);
    // One that does not say which log is its own is none.
    let text = fs::read_to_string(&identity).unwrap();
    let begin = text.find("\"log\"").unwrap();
    let end = begin + text[begin..].find('\n').unwrap() + 1;
    fs::write(&identity, [&text[..begin], &text[end..]].concat()).unwrap();
    let refused = refusal(directory.path(), None);
    assert!(refused.contains("which log is its own"), "{refused}");
}

#[test]
fn a_directory_without_its_log_begins_anew_only_if_that_is_declared() {
    let directory = new_directory(4_000, "k");
    fs::remove_dir_all(Path::new(directory.path()).join("log")).unwrap();
    let refused = refusal(directory.path(), None);
    assert!(refused.contains("there are no records"), "{refused}");
    let refused = refusal(directory.path(), Some(Declaration::Complete));
    assert!(refused.contains("holds nothing at all"), "{refused}");
    let (_, opened) = open(directory.path(), Some(Declaration::Incomplete));
    assert_eq!(read(&opened, "k"), Lookup::Corrupt);
}

/// What lies in a directory: all names, and what is in the files.
fn contents(path: &Path) -> Vec<(PathBuf, Option<Vec<u8>>)> {
    let Ok(entries) = fs::read_dir(path) else {
        return Vec::new();
    };
    let mut found = Vec::new();
    for path in entries.map(|entry| entry.unwrap().path()) {
        let inside = contents(&path);
        found.push((path.clone(), fs::read(&path).ok()));
        found.extend(inside);
    }
    found.sort();
    found
}

#[test]
fn a_start_that_is_refused_changes_nothing() {
    use Declaration::{Complete, Incomplete, New};
    let nowhere = DataDir::new();
    let empty = DataDir::new();
    fs::create_dir_all(empty.path()).unwrap();
    let with = |change: fn(&Path)| {
        let directory = new_directory(4_000, "k");
        change(Path::new(directory.path()));
        directory
    };
    let edit = |path: &Path, from: &str, to: &str| {
        let identity = path.join("identity.json");
        let text = fs::read_to_string(&identity).unwrap();
        assert!(text.contains(from));
        fs::write(identity, text.replace(from, to)).unwrap();
    };
    let no_log = with(|path| fs::remove_dir_all(path.join("log")).unwrap());
    let no_identity = with(|path| fs::remove_file(path.join("identity.json")).unwrap());
    let no_lock = with(|path| fs::remove_file(path.join("lock")).unwrap());
    edit(
        Path::new(no_lock.path()),
        "127.0.0.1:4000",
        "127.0.0.1:4001",
    );
    let newer = with(|path| fs::remove_file(path.join("lock")).unwrap());
    edit(Path::new(newer.path()), "\"format\": 2", "\"format\": 3");
    let backup = with(|path| fs::remove_file(path.join("lock")).unwrap());
    edit(
        Path::new(backup.path()),
        "\"is_backup\": false",
        "\"is_backup\": true",
    );
    let failed = with(|path| fs::write(path.join("failed"), "no such device").unwrap());
    let damaged = with(|path| fs::write(path.join("identity.json"), "{").unwrap());
    let (old_complete, old_incomplete) = (COMPLETE.write(), INCOMPLETE.write());
    let old_empty = COMPLETE.write();
    fs::write(Path::new(old_empty.path()).join("records.redb"), "").unwrap();
    for old in [&old_complete, &old_incomplete, &old_empty] {
        // It held it.
        fs::write(Path::new(old.path()).join("lock"), "").unwrap();
    }
    for (directory, declarations) in [
        (&nowhere, &[None, Some(Complete)][..]),
        (&empty, &[None, Some(Complete)]),
        (&no_log, &[None, Some(Complete)]),
        (&no_identity, &[None, Some(New)]),
        (&no_lock, &[None, Some(New)]),
        (&newer, &[None, Some(Incomplete)]),
        (&backup, &[None]),
        (&failed, &[None]),
        (&damaged, &[None, Some(Incomplete)]),
        (&old_complete, &[Some(Complete), Some(New)]),
        (&old_incomplete, &[Some(Incomplete), Some(New)]),
        (&old_empty, &[None, Some(Complete)]),
    ] {
        let path = Path::new(directory.path());
        let (there, before) = (path.exists(), contents(path));
        for declaration in declarations {
            let refused = refusal(directory.path(), *declaration);
            // The engine of format 1 opens its file to look into it.
            let is_old = |(path, _): &(PathBuf, _)| path.ends_with("records.redb");
            let mut after = contents(path);
            let names = |of: &[(PathBuf, _)]| -> Vec<PathBuf> {
                of.iter().map(|(path, _)| path.clone()).collect()
            };
            assert_eq!(names(&after), names(&before), "{declaration:?}: {refused}");
            let mut before = before.clone();
            before.retain(|it| !is_old(it));
            after.retain(|it| !is_old(it));
            assert!(after == before, "{declaration:?}: {refused}");
            assert_eq!(path.exists(), there, "{declaration:?}: {refused}");
        }
    }
    has_all(&open(old_complete.path(), None).1);
}

#[test]
fn what_there_is_of_a_conversion_that_fails_is_removed() {
    let directory = COMPLETE.write();
    let path = Path::new(directory.path());
    // It has no room, say: the old files cannot be put there.
    fs::write(path.join("before-format-2"), "").unwrap();
    let refused = refusal(directory.path(), None);
    assert!(
        refused.contains("is not converted to format 2"),
        "{refused}"
    );
    assert!(!path.join("log.new").exists() && !path.join("log").exists());
    fs::remove_file(path.join("before-format-2")).unwrap();
    has_all(&open(directory.path(), None).1);
}

fn files(path: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(path)
        .unwrap()
        .map(|entry| entry.unwrap().path());
    let files = entries.flat_map(|path| match path.is_dir() {
        true => files(&path),
        false => vec![path],
    });
    files.collect()
}

#[test]
fn every_file_is_its_owners_alone_also_in_a_directory_that_everyone_may_look_into() {
    let directory = DataDir::new();
    let path = Path::new(directory.path());
    fs::create_dir_all(path).unwrap();
    fs::set_permissions(path, fs::Permissions::from_mode(0o755)).unwrap();
    let (whose, mut opened) = open(directory.path(), Some(Declaration::New));
    // Several segments, and a hint.
    for number in 0..20 {
        put(
            &mut opened,
            &format!("key {number}"),
            1,
            &"v".repeat(200_000),
        );
    }
    while opened.committer.idle() {}
    while let Some(job) = opened.committer.hint_job() {
        opened.committer.finish_hint(job.run());
    }
    let backup = Backup::begin(&Arc::new(whose), 5).unwrap();
    backup.run(&opened.store, drop).unwrap();
    let files = files(path);
    assert!(
        files
            .iter()
            .any(|file| file.extension().is_some_and(|it| it == "hint"))
    );
    assert!(
        files
            .iter()
            .any(|file| file.starts_with(path.join("backups/5")))
    );
    for file in files {
        let mode = fs::metadata(&file).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode, 0o600, "{}", file.display());
    }
}

#[test]
fn a_backup_has_what_was_confirmed_before_it_and_knows_that_it_is_one() {
    let directory = DataDir::new();
    let (whose, mut opened) = open(directory.path(), Some(Declaration::New));
    let keys: Vec<String> = (0..3_000).map(|number| format!("key {number}")).collect();
    for name in &keys {
        put(&mut opened, name, 1, "before");
    }
    let removed = opened
        .store
        .remove(&key("key 7"), Tag { time: 1, op: 1 }, || Box::new(drop));
    assert!(removed.is_none());
    let batch = opened.committer.begin().unwrap();
    opened.committer.finish(batch);
    let backup = Backup::begin(&Arc::new(whose), 5).unwrap();
    let to = backup.path().to_owned();
    let (store, committer) = (opened.store, &mut opened.committer);
    let mut pages = 0;
    let report = backup.run(&store, |_| {
        // The store goes on meanwhile, and gives room back.
        for name in ["key 1", "key 2000", "new"] {
            let record = record(name, 2 + pages, "after");
            let at_once = store.apply(&key(name), &record, || Box::new(drop));
            assert!(at_once.is_none());
        }
        let batch = committer.begin().unwrap();
        committer.finish(batch);
        committer.compact_oldest();
        while committer.idle() {}
        pages += 1;
    });
    let report = report.unwrap();
    assert!(pages > 2 && report.unreadable == 0);
    assert!((2_999..=3_000).contains(&report.records), "{report:?}");
    drop((store, backup));
    let to = to.to_str().unwrap();
    assert!(refusal(to, None).contains("are a backup"));
    let (_, restored) = open(to, Some(Declaration::Complete));
    assert!(restored.store.is_complete());
    for name in keys.iter().filter(|name| *name != "key 7") {
        let read = read(&restored, name);
        assert!(
            read == value("before") || read == value("after"),
            "{name}: {read:?}"
        );
    }
    assert_eq!(read(&restored, "key 7"), Lookup::Absent);
    drop(restored);
    open(to, None);
}

#[test]
fn one_backup_is_made_at_a_time_and_each_under_a_name_of_its_own() {
    let directory = DataDir::new();
    let (whose, mut opened) = open(directory.path(), Some(Declaration::New));
    put(&mut opened, "k", 1, "v");
    let whose = Arc::new(whose);
    let backups = Path::new(directory.path()).join("backups");
    // What a crash left of one.
    fs::create_dir_all(backups.join("6.partial/log")).unwrap();
    let mut made = Vec::new();
    for (time, name) in [(5, "5"), (5, "5-2"), (5, "5-3"), (6, "6-2")] {
        let backup = Backup::begin(&whose, time).unwrap();
        assert_eq!(backup.path(), backups.join(name));
        let report = backup.run(&opened.store, |_| {
            assert!(Backup::begin(&whose, time).is_none(), "one is under way");
            assert!(Backup::begin(&whose, time + 1).is_none());
        });
        assert_eq!(report.unwrap().records, 1);
        made.push(backup.path().to_owned());
    }
    drop((opened, whose));
    for path in made {
        let (_, restored) = open(path.to_str().unwrap(), Some(Declaration::Complete));
        assert_eq!(read(&restored, "k"), value("v"));
    }
}

#[test]
fn what_there_is_of_a_backup_that_fails_is_removed() {
    let directory = DataDir::new();
    let (whose, mut opened) = open(directory.path(), Some(Declaration::New));
    for number in 0..20 {
        put(
            &mut opened,
            &format!("key {number}"),
            1,
            &"v".repeat(100_000),
        );
    }
    let backup = Backup::begin(&Arc::new(whose), 5).unwrap();
    let partial = backup.path().with_extension("partial");
    let mut pages = 0;
    let failed = backup.run(&opened.store, |_| {
        pages += 1;
        if pages == 1 {
            // No file can be made there any more.
            fs::remove_dir_all(partial.join("log")).unwrap();
            fs::write(partial.join("log"), "").unwrap();
        }
    });
    assert!(pages > 0 && failed.is_err());
    assert!(!partial.exists() && !backup.path().exists());
}
