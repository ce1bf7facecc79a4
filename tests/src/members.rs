//! Servers that know each other and have disks: ended, started again, and started with nothing.

use std::collections::BTreeSet;
use std::fs;
use std::net::{SocketAddr, UdpSocket};
use std::os::unix::fs::FileExt as _;
use std::path::Path;

use crate::process::{DataDir, Node, Programs, ServersFile, own_loopback};
use crate::replicas::Replicas;

/// Ring points of each server.
const RING_POINTS: usize = 8;

/// See the module. Whatever it started ends with it.
pub struct Members {
    programs: Programs,
    arguments: &'static [&'static str],
    addrs: Vec<SocketAddr>,
    servers: ServersFile,
    replicas: Replicas,
    /// None of those that are away.
    nodes: Vec<Option<Node>>,
    disks: Vec<DataDir>,
}

impl Members {
    /// Starts so many, with further arguments.
    pub fn start(programs: Programs, count: usize, arguments: &'static [&'static str]) -> Self {
        let addrs: Vec<SocketAddr> = (0..count).map(|_| own_addr()).collect();
        let line = |addr: &SocketAddr| format!("{} {} {RING_POINTS}\n", addr.ip(), addr.port());
        let servers = ServersFile::with_text(addrs.iter().map(line).collect::<String>());
        let mut members = Self {
            programs,
            arguments,
            replicas: Replicas::new(&servers, addrs.clone()),
            addrs,
            servers,
            nodes: (0..count).map(|_| None).collect(),
            disks: (0..count).map(|_| DataDir::new()).collect(),
        };
        for number in 0..count {
            members.start_with(number, &["--declare", "new"]);
        }
        members
    }

    /// Their servers file, for gateways.
    pub fn servers(&self) -> &ServersFile {
        &self.servers
    }

    /// To ask them one by one.
    pub fn replicas(&self) -> &Replicas {
        &self.replicas
    }

    /// Where one takes datagrams, and is known to be.
    pub fn addr(&self, number: usize) -> SocketAddr {
        self.addrs[number]
    }

    /// The numbers of those that are not away.
    pub fn living(&self) -> BTreeSet<usize> {
        let nodes = self.nodes.iter().enumerate();
        nodes
            .filter(|(_, node)| node.is_some())
            .map(|(number, _)| number)
            .collect()
    }

    /// Kills one; whether it was there.
    pub fn kill(&mut self, number: usize) -> bool {
        self.nodes[number].take().is_some()
    }

    /// Stops one, as a terminal's Ctrl-Z does, or lets it go on.
    ///
    /// # Panics
    ///
    /// If it is away.
    pub fn stand_still(&self, number: usize, is_still: bool) {
        let node = self.nodes[number].as_ref().expect("it is not away");
        match is_still {
            true => node.process.stop(),
            false => node.process.go_on(),
        }
    }

    /// Starts one that is away, with what it had.
    pub fn start_again(&mut self, number: usize) {
        self.start_with(number, &[]);
    }

    /// Starts one that is away with an empty disk, as it is after a disk was replaced.
    pub fn start_emptied(&mut self, number: usize) {
        fs::remove_dir_all(self.disks[number].path()).expect("the directory is there");
        self.start_with(number, &["--declare", "incomplete"]);
    }

    /// What one that is away has on its disk.
    ///
    /// # Panics
    ///
    /// If it cannot be read.
    pub fn copy_of_disk(&self, number: usize) -> DataDir {
        let copy = DataDir::new();
        copy_directory(Path::new(self.disks[number].path()), Path::new(copy.path()));
        copy
    }

    /// Starts one that is away with what it had when that copy was made.
    ///
    /// # Panics
    ///
    /// If the copy cannot be put in place.
    pub fn start_set_back(&mut self, number: usize, copy: &DataDir) {
        fs::remove_dir_all(self.disks[number].path()).expect("the directory is there");
        copy_directory(Path::new(copy.path()), Path::new(self.disks[number].path()));
        self.start_with(number, &[]);
    }

    /// How far one has noted that another is: the number of its last record; 0 if it has noted nothing.
    pub fn noted(&self, number: usize, peer: usize) -> u64 {
        let file = Path::new(self.disks[number].path()).join("peers.json");
        let text = fs::read_to_string(file).unwrap_or_default();
        let marks: serde_json::Value = serde_json::from_str(&text).unwrap_or_default();
        marks[self.addrs[peer].to_string()]["sequence"]
            .as_u64()
            .unwrap_or(0)
    }

    /// Flips a bit of what one has on its disk, wherever it lies there, while it runs.
    ///
    /// # Panics
    ///
    /// If it lies nowhere.
    pub fn damage(&self, number: usize, bytes: &[u8]) {
        let log = Path::new(self.disks[number].path()).join("log");
        let mut found = 0;
        for entry in fs::read_dir(log).expect("there is a log") {
            let path = entry.expect("an entry").path();
            if path.extension().is_none_or(|it| it != "log") {
                continue;
            }
            let contents = fs::read(&path).expect("a segment is readable");
            let file = fs::File::options().write(true).open(&path);
            let file = file.expect("a segment is writable");
            let windows = contents.windows(bytes.len()).enumerate();
            for (at, _) in windows.filter(|(_, it)| *it == bytes) {
                let flipped = file.write_all_at(&[bytes[0] ^ 1], at as u64);
                flipped.expect("a segment is writable");
                found += 1;
            }
        }
        assert!(found > 0, "it lies nowhere");
    }

    fn start_with(&mut self, number: usize, more: &[&str]) {
        let members = ["--servers", self.servers.path()];
        let disk = ["--data-dir", self.disks[number].path()];
        let arguments = [self.arguments, &members, &disk, more].concat();
        self.nodes[number] = Some(self.programs.node_at(self.addrs[number], &arguments));
    }
}

/// An address that is ours alone, so that its port stays free while its server is away.
pub fn own_addr() -> SocketAddr {
    let socket = UdpSocket::bind((own_loopback(), 0)).expect("a port of our own address");
    socket.local_addr().expect("a bound socket has an address")
}

fn copy_directory(from: &Path, to: &Path) {
    fs::create_dir_all(to).expect("a directory can be made");
    for entry in fs::read_dir(from).expect("the directory is there") {
        let entry = entry.expect("an entry");
        let to = to.join(entry.file_name());
        match entry.file_type().expect("it has a type").is_dir() {
            true => copy_directory(&entry.path(), &to),
            false => drop(fs::copy(entry.path(), to).expect("a file can be copied")),
        }
    }
}
