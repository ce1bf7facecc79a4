//! Embedded servers that outlast the process, on the same ports, so that the ring stays what it was:
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

use super::node::Home;
use super::{Prepared, SERVERS_DEFAULT, bind_any, cluster_of};
use crate::config::Embedded;

const SERVERS_FILE: &str = "servers.txt";

const NOTHING_TO_DECLARE: &str = "there is nothing to declare; start without --declare";

/// The servers file's name until all data directories are there.
const SERVERS_FILE_NEW: &str = "servers.new";

/// How many servers have their data directories in one directory; none if it is new.
pub(super) fn check(path: &Path, embedded: &Embedded) -> anyhow::Result<Option<usize>> {
    let Some(text) = read_servers_file(path)? else {
        ensure!(embedded.declaration.is_none(), NOTHING_TO_DECLARE);
        return Ok(None);
    };
    let cluster = cluster_of_file(path, &text, embedded)?;
    Ok(Some(cluster.servers().len()))
}

/// The servers whose data directories are in one directory, or new ones.
pub(super) fn prepare(
    path: &Path,
    embedded: &Embedded,
) -> anyhow::Result<(Cluster, Vec<Prepared>)> {
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

/// The servers that there are, if they are as many as are wanted.
fn cluster_of_file(path: &Path, text: &[u8], embedded: &Embedded) -> anyhow::Result<Cluster> {
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

fn start_new(path: &Path, embedded: &Embedded) -> anyhow::Result<(Cluster, Vec<Prepared>)> {
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
        // A first start that did not come to its end: nobody was ever served from here.
        fs::remove_dir_all(&directory)?;
    }
    let sockets = bind_any(embedded.servers.unwrap_or(SERVERS_DEFAULT))?;
    let cluster = cluster_of(&sockets)?;
    let mut text = String::from("# The servers that run inside the gateway.\n");
    for server in cluster.servers() {
        let (ip, port) = (server.addr.ip(), server.addr.port());
        text += &format!("{ip} {port} {}\n", server.ring_points);
    }
    let mut file = File::create(&new)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()?;
    let servers = open_all(path, cluster, sockets, embedded, |_| Some(Declaration::New))?;
    fs::rename(&new, &servers_file)?;
    File::open(path)?.sync_all()?;
    Ok(servers)
}

fn start_again(
    path: &Path,
    text: &[u8],
    embedded: &Embedded,
) -> anyhow::Result<(Cluster, Vec<Prepared>)> {
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
    open_all(path, cluster, sockets, embedded, |directory| {
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

fn open_all(
    path: &Path,
    cluster: Cluster,
    sockets: Vec<Sockets>,
    embedded: &Embedded,
    declaration: impl Fn(&Path) -> Option<Declaration>,
) -> anyhow::Result<(Cluster, Vec<Prepared>)> {
    let mut prepared = Vec::new();
    let mut is_declared = embedded.declaration.is_none();
    for ((number, server), sockets) in (1..).zip(cluster.servers()).zip(sockets) {
        let directory = server_directory(path, number);
        let declaration = declaration(&directory);
        let home = Home::Directory {
            path: directory,
            owner: Owner {
                server: server.addr,
                cluster: Some(cluster.clone()),
            },
            durability: embedded.durability,
            thread: format!("storage-{number}"),
        };
        let opened = match (home.open(declaration), embedded.declaration) {
            (Err(error), Some(declaration)) => {
                tracing::warn!(%error, "declared {declaration:?}, and started");
                is_declared = true;
                home.open(Some(declaration))?
            }
            (opened, _) => opened?,
        };
        prepared.push(Prepared {
            sockets,
            home,
            opened,
        });
    }
    ensure!(is_declared, NOTHING_TO_DECLARE);
    Ok((cluster, prepared))
}

fn server_directory(path: &Path, number: u8) -> PathBuf {
    path.join(format!("server-{number}"))
}
