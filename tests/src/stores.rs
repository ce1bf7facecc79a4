//! Stores for tests, of either kind, with what writes to the disk of one that has a disk.

use std::sync::{Arc, mpsc};
use std::time::Instant;

use dkvs_common::kv::{Key, Value};
use dkvs_common::model::Durability;
use dkvs_common::record::{Content, ContentType, Record};
use dkvs_common::tag::{Exhausted, Tag};
use dkvs_log::simulated::SimulatedDisk;
use dkvs_log::{History, Recovery};
use dkvs_storage_node::store::disk::{
    Committer, Declaration, DiskStore, INDEX_HEAD_BYTES, OpenError, OpenOptions,
};
use dkvs_storage_node::store::{
    Asker, Completion, GetResult, Lookup, MemoryStore, Part, PutOutcome, PutResult, ReadRequest,
    RecordStore as _, RecordView, RemoveResult, Store, overhead_bytes,
};

/// The result of a put that is stored.
pub const STORED: PutResult = Ok(PutOutcome::Stored);

/// Whose the logs of tests are.
pub const HISTORY: History = History(*b"history of tests");

/// A store, and what stores for it.
pub struct Kept {
    pub store: Store,
    pub committer: Option<Committer>,
    /// How the log was found.
    pub recovery: Recovery,
}

/// Options of a durable store, for tests that are not about them.
pub fn options(declaration: Option<Declaration>) -> OpenOptions {
    OpenOptions {
        declaration,
        cache_bytes_max: 1 << 20,
        segment_bytes: 64 << 10,
        ..OpenOptions::new(usize::MAX, Durability::Fsync, 1)
    }
}

/// The options of a new store that keeps no values in memory, so that reads see what is on the disk.
pub fn uncached() -> OpenOptions {
    OpenOptions {
        cache_bytes_max: 0,
        ..options(Some(Declaration::New))
    }
}

/// Opens the store on a disk.
pub fn open(disk: &SimulatedDisk, options: OpenOptions) -> Result<Kept, OpenError> {
    let opened = DiskStore::open(Arc::new(disk.clone()), HISTORY, options)?;
    Ok(Kept {
        store: Store::Disk(opened.store),
        committer: Some(opened.committer),
        recovery: opened.recovery,
    })
}

/// Opens a new store on a disk.
pub fn new_store(disk: &SimulatedDisk) -> Kept {
    open(disk, options(Some(Declaration::New))).expect("a new store is opened")
}

/// Opens the store on a disk again.
pub fn reopen(disk: &SimulatedDisk) -> Kept {
    open(disk, options(None)).expect("the store is opened again")
}

/// Fails unless a put was stored.
pub fn stored(result: PutResult) {
    assert_eq!(result, STORED);
}

/// An empty store of each kind, which takes so many bytes.
pub fn of_each_kind(bytes_max: usize) -> [(&'static str, Kept); 2] {
    let memory = Kept {
        store: Store::Memory(MemoryStore::new(bytes_max)),
        committer: None,
        recovery: Recovery::default(),
    };
    let options = OpenOptions {
        bytes_max,
        ..options(Some(Declaration::New))
    };
    let disk = open(&SimulatedDisk::default(), options).expect("an empty disk takes a new store");
    [("memory", memory), ("disk", disk)]
}

impl Kept {
    /// Puts a record, and stores all that has gathered.
    pub fn put(&mut self, name: &str, record: &Record) -> PutResult {
        let (sender, receiver) = mpsc::channel();
        let later = || later(sender);
        let at_once = self.store.apply(&key(name), record, later);
        self.store_all();
        at_once.unwrap_or_else(|| receiver.try_recv().expect("it is stored by now"))
    }

    /// Puts the record of this time.
    pub fn put_at(&mut self, name: &str, time: u64, value: &str) -> PutResult {
        self.put(name, &record(name, time, value))
    }

    /// Deletes a key at this time.
    pub fn delete_at(&mut self, name: &str, time: u64) -> PutResult {
        let tag = Tag { time, op: 1 };
        let tombstone = Record::new(&key(name), tag, Content::Tombstone);
        self.put(name, &tombstone)
    }

    /// Puts a value as what comes next.
    pub fn put_next(&mut self, name: &str, value: &str, step: u64) -> PutResult {
        let (sender, receiver) = mpsc::channel();
        let mint = move |held: Tag| -> Result<Tag, Exhausted> {
            Ok(Tag {
                time: held.time + step,
                op: 9,
            })
        };
        let later = || later(sender);
        let key = key(name);
        let at_once = self
            .store
            .apply_next(&key, &content(value), Box::new(mint), later);
        self.store_all();
        at_once.unwrap_or_else(|| receiver.try_recv().expect("it is stored by now"))
    }

    /// Attests the record of a key.
    pub fn attest(&mut self, name: &str, time: u64) -> bool {
        let (sender, receiver) = mpsc::channel();
        let later = || later(sender);
        let attested = self.store.attest(&key(name), Tag { time, op: 1 }, later);
        self.read_all();
        self.store_all();
        let result = attested.map(|at_once| at_once.or_else(|| receiver.try_recv().ok()));
        result == Ok(Some(Ok(PutOutcome::Stored)))
    }

    /// Forgets the record of a key if it is of this time.
    pub fn remove(&mut self, name: &str, time: u64) -> RemoveResult {
        let (sender, receiver) = mpsc::channel();
        let completion = || later(sender);
        let at_once = self
            .store
            .remove(&key(name), Tag { time, op: 1 }, completion);
        self.store_all();
        at_once.unwrap_or_else(|| receiver.try_recv().expect("it is removed by now"))
    }

    /// Stores all that has gathered.
    pub fn store_all(&mut self) {
        let Some(committer) = &mut self.committer else {
            return;
        };
        while let Some(batch) = committer.begin() {
            committer.finish(batch);
            committer.compact();
        }
    }

    /// Ends in good order.
    pub fn close(self) {
        let committer = self.committer.expect("it is on a disk");
        committer.close().expect("the disk takes it");
    }

    /// The time and the value of a key, as a read sees them; a tombstone has none.
    pub fn read(&self, name: &str) -> Lookup<(u64, Option<String>)> {
        self.read_part(name, Part::Whole)
    }

    /// The same of a part of the value.
    pub fn read_part(&self, name: &str, part: Part) -> Lookup<(u64, Option<String>)> {
        self.try_read_part(name, part).expect("few reads wait")
    }

    /// The time and the value of a key, or why it cannot be read now.
    pub fn try_read(&self, name: &str) -> GetResult<(u64, Option<String>)> {
        self.try_read_part(name, Part::Whole)
    }

    fn try_read_part(&self, name: &str, part: Part) -> GetResult<(u64, Option<String>)> {
        let (sender, receiver) = mpsc::channel();
        let view = |held: &RecordView<'_>| {
            let value = || String::from_utf8_lossy(held.value()).into_owned();
            let value = (!held.head().is_tombstone).then(value);
            (held.head().tag.time, value)
        };
        let request = ReadRequest {
            part,
            deadline: None,
            asker: Asker::OWN,
        };
        let at_once = self.store.get(&key(name), request, view, || later(sender));
        self.read_all();
        at_once.unwrap_or_else(|| receiver.try_recv().expect("it is read by now"))
    }

    /// Has all reads done that wait for the disk.
    pub fn read_all(&self) {
        let Store::Disk(store) = &self.store else {
            return;
        };
        while let Some(read) = store.take_read() {
            read.run(store, Instant::now());
        }
    }

    /// The age of the record of a key.
    pub fn born(&self, name: &str) -> Option<u32> {
        self.store.peek(&key(name)).map(|held| held.born)
    }

    /// What the pair of a key and a value takes of the limit on memory.
    pub fn entry_bytes(&self, name: &str, value: &str) -> usize {
        let entry = match self.store {
            Store::Memory(_) => 24 + value.len(),
            Store::Disk(_) => INDEX_HEAD_BYTES,
        };
        overhead_bytes(name.len()) + name.len() + entry
    }

    /// The store, as one on a disk.
    pub fn disk(&self) -> &DiskStore {
        match &self.store {
            Store::Disk(store) => store,
            Store::Memory(_) => panic!("it is in memory"),
        }
    }
}

/// What a read of a value is to see.
pub fn shown(time: u64, value: &str) -> Lookup<(u64, Option<String>)> {
    Lookup::Found((time, Some(value.into())))
}

/// A completion that sends its result.
pub fn later<T: Send + 'static>(sender: mpsc::Sender<T>) -> Completion<T> {
    // A receiver that is gone needs no result.
    Box::new(move |result| {
        let _ = sender.send(result);
    })
}

pub fn key(name: &str) -> Key {
    Key::new(name.to_owned()).expect("it is short")
}

pub fn content(value: &str) -> Content {
    Content::Value {
        content_type: ContentType::default(),
        value: Value::new(value.to_owned()).expect("it is short"),
    }
}

pub fn record(name: &str, time: u64, value: &str) -> Record {
    Record::new(&key(name), Tag { time, op: 1 }, content(value))
}
