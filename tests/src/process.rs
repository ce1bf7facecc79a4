//! Gateways and storage servers as processes.

use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

/// Long enough for anything that a test waits for; reaching it is a failure, never a measure.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// Where the programs are; see [`crate::programs`].
#[derive(Debug, Clone, Copy)]
pub struct Programs {
    pub gateway: &'static str,
    pub storage_node: &'static str,
}

impl Programs {
    /// A storage server on a port of 127.0.0.1 that the system picks.
    pub fn node(&self, arguments: &[&str]) -> Node {
        self.node_at("0", arguments)
    }

    /// A storage server on a given port, for one that comes back.
    pub fn node_at(&self, port: &str, arguments: &[&str]) -> Node {
        let mut command = Command::new(self.storage_node);
        command.args(["127.0.0.1", port]).args(arguments);
        let mut process = Process::spawn(command);
        let line = process.stderr_line_with("serving");
        let addr = line
            .split_whitespace()
            .find_map(|word| word.strip_prefix("addr="))
            .unwrap_or_else(|| panic!("no address in {line:?}"));
        Node {
            addr: addr.parse().unwrap(),
            process,
        }
    }

    /// A gateway on a port of 127.0.0.1 that the system picks.
    pub fn gateway(&self, arguments: &[&str]) -> Gateway {
        let mut command = self.gateway_command();
        command.args(["--listen", "127.0.0.1:0"]).args(arguments);
        let mut process = Process::spawn(command);
        let greeting = process.stdout_line_with("http://");
        let (_, addr) = greeting.split_once("http://").unwrap();
        Gateway {
            addr: addr.trim().parse().unwrap(),
            process,
        }
    }

    /// The gateway's command, with an environment that sets nothing for it.
    pub fn gateway_command(&self) -> Command {
        let mut command = Command::new(self.gateway);
        for (name, _) in std::env::vars_os() {
            if name.as_encoded_bytes().starts_with(b"DKVS_") {
                command.env_remove(name);
            }
        }
        command
    }

    /// `count` storage servers with one ring point each, and a gateway in front of them.
    pub fn cluster(&self, count: usize, gateway_arguments: &[&str]) -> Cluster {
        let nodes: Vec<Node> = (0..count).map(|_| self.node(&[])).collect();
        let addrs: Vec<SocketAddr> = nodes.iter().map(|node| node.addr).collect();
        let servers = ServersFile::new(&addrs);
        let gateway = self.gateway_over(&servers, gateway_arguments);
        Cluster {
            nodes,
            servers,
            gateway,
        }
    }

    /// A gateway over the servers of a file.
    pub fn gateway_over(&self, servers: &ServersFile, arguments: &[&str]) -> Gateway {
        self.gateway(&[&["--servers", servers.path()], arguments].concat())
    }

    /// Runs a command that is to end by itself.
    pub fn run_to_end(&self, mut command: Command) -> (ExitStatus, String, String) {
        command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let mut child = command.spawn().expect("the program starts");
        let status = wait(&mut child).unwrap_or_else(|| {
            child.kill().unwrap();
            panic!("{command:?} went on running");
        });
        let (mut out, mut err) = (String::new(), String::new());
        child.stdout.unwrap().read_to_string(&mut out).unwrap();
        child.stderr.unwrap().read_to_string(&mut err).unwrap();
        (status, out, err)
    }
}

/// A storage server.
pub struct Node {
    pub addr: SocketAddr,
    pub process: Process,
}

/// A gateway.
pub struct Gateway {
    pub addr: SocketAddr,
    pub process: Process,
}

impl Gateway {
    /// The URL of a path with its query.
    pub fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.addr)
    }
}

/// Servers and a gateway.
pub struct Cluster {
    pub nodes: Vec<Node>,
    pub servers: ServersFile,
    pub gateway: Gateway,
}

impl Cluster {
    /// The server at an address.
    pub fn node(&mut self, addr: SocketAddr) -> &mut Node {
        self.nodes
            .iter_mut()
            .find(|node| node.addr == addr)
            .expect("a server of this cluster")
    }
}

/// A servers file that goes with its value.
pub struct ServersFile(PathBuf);

impl ServersFile {
    /// One ring point for each address.
    pub fn new(addrs: &[SocketAddr]) -> Self {
        let line = |addr: &SocketAddr| format!("{} {} 1\n", addr.ip(), addr.port());
        Self::with_text(addrs.iter().map(line).collect::<String>())
    }

    pub fn with_text(text: impl AsRef<[u8]>) -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let name = format!("dkvs-test-{}-{number}.txt", std::process::id());
        let path = std::env::temp_dir().join(name);
        fs::write(&path, text).expect("the temporary directory takes a file");
        Self(path)
    }

    pub fn path(&self) -> &str {
        self.0
            .to_str()
            .expect("a temporary directory with a plain name")
    }
}

impl AsRef<Path> for ServersFile {
    fn as_ref(&self) -> &Path {
        &self.0
    }
}

impl Drop for ServersFile {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.0);
    }
}

/// A running program, killed when the value goes.
pub struct Process {
    child: Child,
    stdout: mpsc::Receiver<String>,
    stderr: mpsc::Receiver<String>,
    /// What it wrote so far and was looked at.
    pub log: Vec<String>,
}

impl Process {
    fn spawn(mut command: Command) -> Self {
        command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let mut child = command.spawn().expect("the program starts");
        let stdout = lines(child.stdout.take().unwrap());
        let stderr = lines(child.stderr.take().unwrap());
        Self {
            child,
            stdout,
            stderr,
            log: Vec::new(),
        }
    }

    /// Waits for a line on standard error.
    pub fn stderr_line_with(&mut self, text: &str) -> String {
        wait_for_line(&self.stderr, &mut self.log, text)
    }

    /// Waits for a line on standard output.
    pub fn stdout_line_with(&mut self, text: &str) -> String {
        wait_for_line(&self.stdout, &mut self.log, text)
    }

    /// Whatever is left on standard output after the end.
    pub fn rest_of_stdout(&mut self) -> Vec<String> {
        self.stdout.iter().collect()
    }

    pub fn signal(&self, signal: Signal) {
        let pid = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw);
        kill_process(pid.expect("a process id"), signal).expect("a process of ours takes signals");
    }

    /// Sends a signal and waits for the end; how it ended, and how long that took.
    pub fn end_with(&mut self, signal: Signal) -> (ExitStatus, Duration) {
        let asked = Instant::now();
        self.signal(signal);
        let status = wait(&mut self.child).expect("a process that was told to end does");
        (status, asked.elapsed())
    }

    pub fn kill(&mut self) {
        self.end_with(Signal::KILL);
    }

    pub fn is_running(&mut self) -> bool {
        self.child.try_wait().unwrap().is_none()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn lines(stream: impl Read + Send + 'static) -> mpsc::Receiver<String> {
    let (sender, receiver) = mpsc::channel();
    std::thread::spawn(move || {
        let lines = BufReader::new(stream).lines().map_while(Result::ok);
        lines
            .take_while(|line| sender.send(line.clone()).is_ok())
            .for_each(drop);
    });
    receiver
}

fn wait_for_line(lines: &mpsc::Receiver<String>, log: &mut Vec<String>, text: &str) -> String {
    let begun = Instant::now();
    loop {
        match lines.recv_timeout(PATIENCE.saturating_sub(begun.elapsed())) {
            Ok(line) => {
                log.push(line.clone());
                if line.contains(text) {
                    return line;
                }
            }
            Err(error) => panic!("no line with {text:?} ({error}); there was {log:#?}"),
        }
    }
}

fn wait(child: &mut Child) -> Option<ExitStatus> {
    let begun = Instant::now();
    while begun.elapsed() < PATIENCE {
        if let Some(status) = child.try_wait().unwrap() {
            return Some(status);
        }
        std::thread::sleep(Duration::from_millis(2));
    }
    None
}
