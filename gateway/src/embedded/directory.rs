//! Embedded servers that outlast the process, on the same ports, so that the ring stays the same:
//!
//! ```text
//!   DIR/servers.txt    the servers file of the cluster
//!   DIR/server-1/      the data directory of the first, and so on
//! ```

use std::fs::{self, File};
use std::io::{self, Write};
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};

use anyhow::{Context, ensure};
use dkvs_common::cluster::{Cluster, Server};
use dkvs_storage_node::store::disk::Declaration;
use dkvs_storage_node::store::disk::directory::{DataDirectory, Owner};
use dkvs_storage_node::udp::Sockets;

use super::node::{PreparedServer, StorageLocation};
use super::options::EmbeddedOptions;
use super::sockets::{bind_any, cluster_of};

const SERVERS_FILE: &str = "servers.txt";

const NOTHING_TO_DECLARE: &str = "there is nothing to declare; start without --declare";

/// The name of the servers file until all data directories exist.
const SERVERS_FILE_NEW: &str = "servers.new";

/// How many servers have their data directories below `path`; none if it is new.
pub(super) fn check(path: &Path, embedded: &EmbeddedOptions) -> anyhow::Result<Option<usize>> {
    let Some(text) = read_servers_file(path)? else {
        ensure!(embedded.declaration.is_none(), NOTHING_TO_DECLARE);
        return Ok(None);
    };
    let cluster = cluster_of_file(path, &text, embedded)?;
    Ok(Some(cluster.servers().len()))
}

/// Opens the servers whose data directories are below `path`, or new ones.
pub(super) fn prepare(
    path: &Path,
    embedded: &EmbeddedOptions,
) -> anyhow::Result<(Cluster, Vec<PreparedServer>)> {
    fs::create_dir_all(path)?;
    match read_servers_file(path)? {
        Some(text) => start_again(path, &text, embedded),
        None => start_new(path, embedded),
    }
}

fn read_servers_file(path: &Path) -> anyhow::Result<Option<Vec<u8>>> {
    let servers_file = path.join(SERVERS_FILE);
    match fs::read(&servers_file) {
        Ok(text) => Ok(Some(text)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error).with_context(|| format!("cannot read {}", servers_file.display())),
    }
}

/// The cluster in the servers file. Fails if the options ask for another number of servers.
fn cluster_of_file(
    path: &Path,
    text: &[u8],
    embedded: &EmbeddedOptions,
) -> anyhow::Result<Cluster> {
    let cluster = Cluster::parse(&path.join(SERVERS_FILE).display().to_string(), text)?;
    let servers = cluster.servers().len();
    if let Some(wanted) = embedded.servers {
        ensure!(
            usize::from(wanted.get()) == servers,
            "it has {servers} servers, and `embedded` is {wanted}; leave that out, or give another \
             directory"
        );
    }
    Ok(cluster)
}

fn start_new(
    path: &Path,
    embedded: &EmbeddedOptions,
) -> anyhow::Result<(Cluster, Vec<PreparedServer>)> {
    let (new, servers_file) = (path.join(SERVERS_FILE_NEW), path.join(SERVERS_FILE));
    let is_left_over = new.exists();
    for number in 1..=u8::MAX {
        let directory = server_directory(path, number);
        if !directory.exists() {
            continue;
        }
        ensure!(
            is_left_over,
            "there is {} and no {SERVERS_FILE} that says on which ports the servers were; put it \
             back, or give an empty directory",
            directory.display()
        );
        // A first start was interrupted: no server has ever answered from here.
        fs::remove_dir_all(&directory)?;
    }
    let sockets = bind_any(embedded.servers_or_default())?;
    let cluster = cluster_of(&sockets)?;
    let mut text = String::from("# The servers that run inside the gateway.\n");
    for server in cluster.servers() {
        let (ip, port) = (server.addr.ip(), server.addr.port());
        text += &format!("{ip} {port} {}\n", server.ring_points);
    }
    let mut file = File::create(&new)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()?;
    let servers =
        open_data_directories(path, cluster, sockets, embedded, |_| Some(Declaration::New))?;
    fs::rename(&new, &servers_file)?;
    File::open(path)?.sync_all()?;
    Ok(servers)
}

fn start_again(
    path: &Path,
    text: &[u8],
    embedded: &EmbeddedOptions,
) -> anyhow::Result<(Cluster, Vec<PreparedServer>)> {
    let cluster = cluster_of_file(path, text, embedded)?;
    let servers = cluster.servers();
    let bind = |server: &Server| {
        Sockets::bind(server.addr.into(), NonZeroUsize::MIN).with_context(|| {
            format!(
                "the servers in it were on {} and have to be there again; is another gateway \
                 running?",
                server.addr
            )
        })
    };
    let sockets = servers.iter().map(bind).collect::<Result<Vec<_>, _>>()?;
    open_data_directories(path, cluster, sockets, embedded, |directory| {
        let is_there = DataDirectory::is_one(directory);
        if !is_there {
            tracing::warn!(
                path = %directory.display(),
                "the directory of a server is gone: it begins without records, and answers for no \
                 key until the other servers told it what they hold"
            );
        }
        (!is_there).then_some(Declaration::Incomplete)
    })
}

fn open_data_directories(
    path: &Path,
    cluster: Cluster,
    sockets: Vec<Sockets>,
    embedded: &EmbeddedOptions,
    declaration: impl Fn(&Path) -> Option<Declaration>,
) -> anyhow::Result<(Cluster, Vec<PreparedServer>)> {
    let mut prepared = Vec::new();
    let mut is_declared = embedded.declaration.is_none();
    for ((number, server), sockets) in (1..).zip(cluster.servers()).zip(sockets) {
        let directory = server_directory(path, number);
        let declaration = declaration(&directory);
        let location = StorageLocation::Directory {
            path: directory,
            owner: Owner {
                server: server.addr,
                cluster: Some(cluster.clone()),
                replication: embedded.replication(cluster.servers().len()),
                // The only gateway is of the same version.
                is_numbered: true,
            },
            durability: embedded.durability,
            thread: format!("storage-{number}"),
        };
        let opened = match (location.open(declaration), embedded.declaration) {
            (Err(error), Some(declaration)) => {
                tracing::warn!(%error, "declared {declaration:?}, and started");
                is_declared = true;
                location.open(Some(declaration))?
            }
            (opened, _) => opened?,
        };
        prepared.push(PreparedServer {
            sockets,
            location,
            opened,
        });
    }
    ensure!(is_declared, NOTHING_TO_DECLARE);
    Ok((cluster, prepared))
}

fn server_directory(path: &Path, number: u8) -> PathBuf {
    path.join(format!("server-{number}"))
}
