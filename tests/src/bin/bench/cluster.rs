//! Who takes part: storage servers, a gateway before them, and what they hold.

use std::net::{SocketAddr, UdpSocket};
use std::path::Path;

use anyhow::Context;
use dkvs_tests::memory_limit::MemoryLimit;
use dkvs_tests::process::{Gateway, Node, Process, ServersFile, own_loopback};
use dkvs_tests::replicas::Replicas;

use crate::http::{self, Client};
use crate::options::Options;
use crate::role::Role;

/// How many keys there are.
pub const KEYS: usize = 10_000;

/// The value under each of them: 32 bytes.
pub const SMALL: &str = "just thirty-two bytes of a value";

/// The length of the value that is long, and its key.
pub const LARGE_BYTES: usize = 1 << 20;
pub const LARGE_KEY: &str = "large";

/// Ring points of each server.
const RING_POINTS: usize = 64;

/// One of the keys, all of which are equally long.
pub fn key(number: usize) -> String {
    format!("key-{number:07}")
}

/// A GET of each key.
pub fn gets(query: &str) -> Vec<Vec<u8>> {
    let get = |number| http::get(&format!("/kv/{}{query}", key(number)));
    (0..KEYS).map(get).collect()
}

/// A batch of gets of the first keys.
pub fn batch_of_gets(count: usize) -> Vec<u8> {
    let operation = |number| format!(r#"{{"op":"get","key":"{}"}}"#, key(number));
    let operations: Vec<String> = (0..count).map(operation).collect();
    let body = format!(r#"{{"operations":[{}]}}"#, operations.join(","));
    http::with_body("POST", "/batch", body.as_bytes())
}

/// A PUT of each key.
pub fn puts(query: &str) -> Vec<Vec<u8>> {
    let put = |number| {
        let path = format!("/kv/{}{query}", key(number));
        http::with_body("PUT", &path, SMALL.as_bytes())
    };
    (0..KEYS).map(put).collect()
}

/// A storage server by itself.
pub fn node(options: &Options) -> anyhow::Result<Node> {
    node_with((own_loopback(), 0).into(), options, &[], None)
}

/// The same with a data directory, at an address that it has again when it is started again, and
/// within a limit on its memory.
pub fn node_on_disk(
    addr: SocketAddr,
    options: &Options,
    directory: &Path,
    more: &[&str],
    limit: Option<&MemoryLimit>,
) -> anyhow::Result<Node> {
    let directory = directory.to_str().context("a path with a plain name")?;
    let arguments = [&["--data-dir", directory], more].concat();
    node_with(addr, options, &arguments, limit)
}

/// An address for such a server.
pub fn node_addr() -> anyhow::Result<SocketAddr> {
    Ok(UdpSocket::bind((own_loopback(), 0))?.local_addr()?)
}

/// A server at an address, with further arguments, and within a limit on its memory.
pub fn node_with(
    addr: SocketAddr,
    options: &Options,
    more: &[&str],
    limit: Option<&MemoryLimit>,
) -> anyhow::Result<Node> {
    let mut command = Role::StorageNode.command()?;
    command
        .args([addr.ip().to_string(), addr.port().to_string()])
        .args(options.server_arguments())
        .args(more);
    let mut process = Process::spawn(match limit {
        Some(limit) => limit.around(&command),
        None => command,
    });
    let line = process.stderr_line_with("serving");
    let addr = line
        .split_whitespace()
        .find_map(|word| word.strip_prefix("addr="));
    let addr = addr
        .with_context(|| format!("no address in {line:?}"))?
        .parse()?;
    Ok(Node { addr, process })
}

/// The bare handlers.
pub fn bare_handler() -> anyhow::Result<Gateway> {
    Ok(Gateway::of(Role::BareHandler.command()?))
}

/// The raw echo.
pub fn udp_echo() -> anyhow::Result<Node> {
    let mut process = Process::spawn(Role::UdpEcho.command()?);
    let line = process.stdout_line_with("udp://");
    let (_, addr) = line.split_once("udp://").context("no address")?;
    let addr = addr.trim().parse()?;
    Ok(Node { addr, process })
}

/// Servers, and a gateway before them.
pub struct Cluster {
    pub nodes: Vec<Node>,
    pub gateway: Gateway,
    /// The gateway reads it at the start; it goes with the cluster.
    servers: ServersFile,
}

impl Cluster {
    /// Starts `servers` servers that hold every key, on three of them each, or on all if there
    /// are fewer.
    pub fn start(servers: usize, options: &Options) -> anyhow::Result<Self> {
        Self::start_with(servers, options, &[])
    }

    /// The same, with further arguments for the gateway.
    pub fn start_with(servers: usize, options: &Options, more: &[&str]) -> anyhow::Result<Self> {
        let nodes = (0..servers).map(|_| node(options));
        let cluster = Self::of(nodes.collect::<anyhow::Result<Vec<_>>>()?, options, more)?;
        cluster.fill("")?;
        Ok(cluster)
    }

    /// Starts servers that sync to disk, and hold nothing yet.
    pub fn start_on_disk(
        servers: usize,
        options: &Options,
        directory: &Path,
    ) -> anyhow::Result<Self> {
        let node = |number: usize| {
            let directory = directory.join(number.to_string());
            node_on_disk(
                node_addr()?,
                options,
                &directory,
                &["--declare", "new"],
                None,
            )
        };
        let nodes = (0..servers).map(node).collect::<anyhow::Result<Vec<_>>>()?;
        Self::of(nodes, options, &[])
    }

    /// Servers that know each other, and pull from each other what they lack; without keys.
    pub fn start_members(servers: usize, options: &Options) -> anyhow::Result<Self> {
        let addrs = (0..servers).map(|_| node_addr());
        let addrs = addrs.collect::<anyhow::Result<Vec<_>>>()?;
        let file = servers_file(&addrs);
        let node = |addr| node_with(addr, options, &["--servers", file.path()], None);
        let nodes = addrs.into_iter().map(node);
        Self::of(nodes.collect::<anyhow::Result<_>>()?, options, &[])
    }

    /// The same with disks, in folders of a directory by the numbers of the servers.
    pub fn start_members_on_disk(
        servers: usize,
        options: &Options,
        directory: &Path,
    ) -> anyhow::Result<Self> {
        let addrs = (0..servers).map(|_| node_addr());
        let addrs = addrs.collect::<anyhow::Result<Vec<_>>>()?;
        let file = servers_file(&addrs);
        let more = ["--servers", file.path(), "--declare", "new"];
        let node = |(number, addr): (usize, SocketAddr)| {
            node_on_disk(
                addr,
                options,
                &directory.join(number.to_string()),
                &more,
                None,
            )
        };
        let nodes = addrs.into_iter().enumerate().map(node);
        Self::of(nodes.collect::<anyhow::Result<_>>()?, options, &[])
    }

    /// Starts one of these again that has ended, with further arguments.
    pub fn start_member_on_disk(
        &mut self,
        number: usize,
        options: &Options,
        directory: &Path,
        more: &[&str],
    ) -> anyhow::Result<()> {
        let directory = directory.join(number.to_string());
        let more = [&["--servers", self.servers.path()], more].concat();
        let addr = self.nodes[number].addr;
        self.nodes[number] = node_on_disk(addr, options, &directory, &more, None)?;
        Ok(())
    }

    /// The servers, to be asked one by one.
    pub fn replicas(&self) -> Replicas {
        let addrs = self.nodes.iter().map(|node| node.addr);
        Replicas::new(&self.servers, addrs.collect())
    }

    /// Ends one of them, and starts it anew, with nothing.
    pub fn empty_member(&mut self, number: usize, options: &Options) -> anyhow::Result<()> {
        let addr = self.nodes[number].addr;
        self.nodes[number].process.kill();
        let arguments = ["--servers", self.servers.path()];
        self.nodes[number] = node_with(addr, options, &arguments, None)?;
        Ok(())
    }

    /// Their configuration.
    pub fn epoch(&self) -> anyhow::Result<dkvs_common::epoch::Epoch> {
        let text = std::fs::read(&self.servers)?;
        let cluster = dkvs_common::cluster::Cluster::parse("servers", &text)?;
        Ok(dkvs_common::epoch::Epoch::of_file(&cluster, 3))
    }

    fn of(nodes: Vec<Node>, options: &Options, more: &[&str]) -> anyhow::Result<Self> {
        let addrs: Vec<SocketAddr> = nodes.iter().map(|node| node.addr).collect();
        let servers = servers_file(&addrs);
        let mut command = Role::Gateway.command()?;
        command.args(["--servers", servers.path(), "--listen", "127.0.0.1:0"]);
        command.args(more).args(options.gateway_arguments());
        Ok(Self {
            nodes,
            gateway: Gateway::of(command),
            servers,
        })
    }

    /// Stores every key.
    pub fn fill(&self, query: &str) -> anyhow::Result<()> {
        let mut client = Client::new(self.addr())?;
        for put in puts(query) {
            client.demand(&put).context("filling the cluster")?;
        }
        Ok(())
    }

    /// Where the gateway listens.
    pub fn addr(&self) -> SocketAddr {
        self.gateway.addr
    }
}

/// A servers file with the usual ring points.
pub fn servers_file(addrs: &[SocketAddr]) -> ServersFile {
    let line = |addr: &SocketAddr| format!("{} {} {RING_POINTS}\n", addr.ip(), addr.port());
    ServersFile::with_text(addrs.iter().map(line).collect::<String>())
}
