//! The store that the arguments name, with the pairs of the command line in it.

use std::ffi::OsString;

use anyhow::{Context, ensure};
use bytes::Bytes;
use dkvs_common::cluster::Cluster;
use dkvs_common::kv::{Key, Value};
use dkvs_common::record::{Content, ContentType, Record};
use dkvs_common::tag::Tag;
use dkvs_common::wire::v1;

use super::arguments::{Arguments, DurabilityChoice, Epochs};
use super::disk::Opened;
use crate::store::disk::directory::{self, DataDirectory, Owner};
use crate::store::disk::{Declaration, OpenOptions};
use crate::store::{MemoryStore, RecordStore as _, Store};

/// A store with the pairs of the command line, for the start that has this boot id.
pub(super) fn store(
    arguments: &Arguments,
    cluster: Option<Cluster>,
    boot_id: u64,
) -> anyhow::Result<(Store, Option<Opened>)> {
    let addr = arguments.addr();
    let has_data_dir = arguments.data_dir.is_some();
    let durability = DurabilityChoice::resolve(arguments.durability, has_data_dir);
    let durability = durability.map_err(anyhow::Error::msg)?;
    // What is wrong shows before anything is declared or made.
    let pairs = initial_pairs(&arguments.pairs)?;
    let mut opened = None;
    let store = match &arguments.data_dir {
        None => Store::Memory(MemoryStore::new(arguments.max_memory.0)),
        Some(path) => {
            ensure!(
                addr.port() != 0,
                "with --data-dir the server needs a port that stays the same: its ring knows it \
                 by that"
            );
            let machine_run = directory::machine_run();
            let options = OpenOptions {
                declaration: arguments.declare.map(Declaration::from),
                cache_bytes_max: arguments.cache.0,
                lineage: boot_id,
                ..OpenOptions::new(arguments.max_memory.0, durability, machine_run)
            };
            let owner = Owner {
                server: addr,
                cluster,
                replication: arguments.replication,
                is_numbered: arguments.epochs == Some(Epochs::Numbered),
            };
            let (directory, store) = DataDirectory::open(path, owner, options)?;
            opened = Some(Opened {
                directory,
                committer: store.committer,
            });
            Store::Disk(store.store)
        }
    };
    for (op, (key, value)) in (1..).zip(pairs) {
        let content_type = ContentType::default();
        // The smallest tags there are: whatever is written later is newer.
        let tag = Tag { time: 0, op };
        let record = Record::new(
            &key,
            tag,
            Content::Value {
                content_type,
                value,
            },
        );
        let (results, completed) = std::sync::mpsc::channel();
        let result = store.apply(&key, &record, || {
            Box::new(move |put| {
                // The receiver is still there: this function has it.
                let _ = results.send(put);
            })
        });
        let result = result.or_else(|| {
            let committer = &mut opened.as_mut()?.committer;
            let batch = committer.begin()?;
            committer.finish(batch);
            completed.try_recv().ok()
        });
        result
            .context("the pairs on the command line are not stored")?
            .context("the pairs on the command line do not fit")?;
    }
    Ok((store, opened))
}

fn initial_pairs(arguments: &[OsString]) -> anyhow::Result<Vec<(Key, Value)>> {
    ensure!(
        arguments.len().is_multiple_of(2),
        "the pairs on the command line are a key, its value, and so on; the last key has no value"
    );
    let pair = |pair: &[OsString]| -> anyhow::Result<(Key, Value)> {
        let bytes = |text: &OsString| Bytes::copy_from_slice(text.as_encoded_bytes());
        let key = Key::new(bytes(&pair[0]))?;
        let value = Value::new(bytes(&pair[1]))?;
        v1::check_key(&key)?;
        v1::check_value(&value)?;
        Ok((key, value))
    };
    arguments
        .chunks(2)
        .map(|both| pair(both).with_context(|| format!("the pair {both:?}")))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::arguments::Size;
    use clap::Parser;

    #[test]
    fn flags_may_stand_before_and_after_the_pairs() {
        let arguments = Arguments::parse_from([
            "dkvs-storage-node",
            "--workers",
            "1",
            "127.0.0.1",
            "4000",
            "k",
            "v",
            "k2",
            "",
            "--max-memory",
            "1M",
        ]);
        assert_eq!(arguments.max_memory, Size(1 << 20));
        let pairs = initial_pairs(&arguments.pairs).unwrap();
        assert_eq!(pairs.len(), 2);
        assert!(pairs[1].1.is_empty());
    }

    #[test]
    fn a_key_without_value_is_refused() {
        assert!(initial_pairs(&["k".into()]).is_err());
        assert!(initial_pairs(&["".into(), "v".into()]).is_err());
    }
}
