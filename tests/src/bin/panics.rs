//! A program that begins and ends as both programs do, and panics in between where its argument says.
//!
//! It says so on standard output where it goes on although it should have ended.

use std::convert::Infallible;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::path::Path;
use std::process::ExitCode;
use std::sync::{Arc, mpsc};
use std::thread;

use anyhow::{Context as _, bail};
use bytes::Bytes;
use dkvs_common::kv::{Key, Value};
use dkvs_common::model::Durability;
use dkvs_common::record::{Content, ContentType, Record};
use dkvs_common::tag::Tag;
use dkvs_runtime::log::filter::LogFilter;
use dkvs_runtime::log::{self, LogFormat};
use dkvs_runtime::program;
use dkvs_storage_node::store::disk::directory::{DataDirectory, Owner};
use dkvs_storage_node::store::disk::{CommitThread, Declaration, DiskStore, OpenOptions};
use dkvs_storage_node::store::{
    Asker, Completion, Part, PutResult, ReadRequest, RecordStore as _, RecordView,
};
use tokio::runtime::{Builder, Runtime};

fn main() -> ExitCode {
    program::run("panics", || {
        log::start(&LogFilter::default(), LogFormat::Text)?;
        tracing::info!("before");
        let mut arguments = std::env::args().skip(1);
        match arguments.next().as_deref() {
            Some("main") => panic!("on purpose"),
            Some("thread") => unawaited(|| panic!("on purpose")),
            Some("worker") => unawaited(|| runtime().block_on(async { panic!("on purpose") })),
            Some("task") => unawaited(|| runtime().block_on(tasks(async { panic!("on purpose") }))),
            Some("blocking") => unawaited(|| {
                runtime().block_on(async {
                    drop(tokio::task::spawn_blocking(|| panic!("on purpose")));
                    std::future::pending::<Infallible>().await
                })
            }),
            Some("commit") => commit(Path::new(&arguments.next().context("a directory")?)),
            Some("read") => read(Path::new(&arguments.next().context("a directory")?)),
            _ => Ok(()),
        }
    })
}

/// Runs something on a thread that nobody waits for.
fn unawaited(run: impl FnOnce() -> Infallible + Send + 'static) -> anyhow::Result<()> {
    let (alive, ended) = mpsc::channel::<()>();
    thread::spawn(move || {
        // It is held for longer than the thread lasts.
        std::mem::forget(alive);
        run();
    });
    ended.recv()?;
    bail!("it went on")
}

fn runtime() -> Runtime {
    Builder::new_current_thread().build().expect("a runtime")
}

/// A task whose end nobody awaits, and one that goes on.
async fn tasks(panics: impl Future<Output = Infallible> + Send + 'static) -> Infallible {
    drop(tokio::spawn(panics));
    std::future::pending().await
}

/// The completion of a put panics on the thread that writes to the disk.
fn commit(path: &Path) -> anyhow::Result<()> {
    let (store, _thread) = open(path)?;
    put(&store, Box::new(|_| panic!("on purpose")))?;
    loop {
        thread::park();
    }
}

/// What is made of a value panics on a thread that reads from the disk.
fn read(path: &Path) -> anyhow::Result<()> {
    let (store, _thread) = open(path)?;
    let (stored, completed) = mpsc::channel();
    let confirm = move |put| stored.send(put).expect("this function waits for it");
    put(&store, Box::new(confirm))?;
    completed.recv()??;
    let request = ReadRequest {
        part: Part::Whole,
        deadline: None,
        asker: Asker::OWN,
    };
    let view = |_: &RecordView<'_>| panic!("on purpose");
    let got = store.get(&key()?, request, view, || Box::new(drop));
    anyhow::ensure!(got.is_none(), "it waits for the disk");
    loop {
        thread::park();
    }
}

/// A new store without a cache, at work.
fn open(path: &Path) -> anyhow::Result<(Arc<DiskStore>, CommitThread)> {
    let options = OpenOptions {
        declaration: Some(Declaration::New),
        cache_bytes_max: 0,
        ..OpenOptions::new(1 << 20, Durability::Fsync, 1)
    };
    let owner = Owner {
        server: SocketAddrV4::new(Ipv4Addr::LOCALHOST, 1),
        cluster: None,
        replication: 3,
        is_numbered: false,
    };
    let (directory, opened) = DataDirectory::open(path, owner, options)?;
    let thread = CommitThread::start(opened.committer, "storage".into(), directory)?;
    Ok((opened.store, thread))
}

fn put(store: &DiskStore, completion: Completion<PutResult>) -> anyhow::Result<()> {
    let content = Content::Value {
        content_type: ContentType::default(),
        value: Value::new(Bytes::from_static(b"v"))?,
    };
    let key = key()?;
    let record = Record::new(&key, Tag { time: 1, op: 1 }, content);
    let put = store.apply(&key, &record, || completion);
    anyhow::ensure!(put.is_none(), "it waits for the disk");
    store.wake();
    Ok(())
}

fn key() -> anyhow::Result<Key> {
    Ok(Key::new(Bytes::from_static(b"k"))?)
}
