//! Gateways and storage servers as processes.

use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, WaitOptions, kill_process, waitpid};

pub use crate::waiting::PATIENCE;

/// A loopback address that nobody else uses, where the system has so many of them. A server
/// that is to be gone for a while, or to come back, has such a one: at 127.0.0.1 another test
/// may get its port meanwhile.
pub fn own_loopback() -> Ipv4Addr {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    if !cfg!(target_os = "linux") {
        return Ipv4Addr::LOCALHOST;
    }
    let [.., high, low] = std::process::id().to_be_bytes();
    let number = NEXT.fetch_add(1, Ordering::Relaxed) % 254 + 1;
    Ipv4Addr::new(127, high, low, u8::try_from(number).expect("1 to 254"))
}

/// Where the programs are; see [`crate::programs`].
#[derive(Debug, Clone, Copy)]
pub struct Programs {
    pub gateway: &'static str,
    pub storage_node: &'static str,
}

impl Programs {
    /// A storage server at an address of its own, on a port that the system picks.
    pub fn node(&self, arguments: &[&str]) -> Node {
        self.node_at((own_loopback(), 0).into(), arguments)
    }

    /// A storage server at a given address, for one that comes back.
    pub fn node_at(&self, addr: SocketAddr, arguments: &[&str]) -> Node {
        let mut command = self.node_command(addr);
        command.args(arguments);
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

    /// The storage server's command.
    /// The same with its records in this directory.
    pub fn durable_node(&self, addr: SocketAddr, data_dir: &str, more: &[&str]) -> Node {
        self.node_at(addr, &[&["--data-dir", data_dir], more].concat())
    }

    /// What a server with its records in this directory says, which does not start.
    ///
    /// # Panics
    ///
    /// If it does start.
    pub fn durable_refusal(&self, addr: SocketAddr, data_dir: &str, more: &[&str]) -> String {
        let mut command = self.node_command(addr);
        command.args(["--data-dir", data_dir]).args(more);
        let (status, _, err) = self.run_to_end(command);
        assert!(!status.success(), "{err}");
        err
    }

    pub fn node_command(&self, addr: SocketAddr) -> Command {
        let mut command = Command::new(self.storage_node);
        command.args([addr.ip().to_string(), addr.port().to_string()]);
        command
    }

    /// A gateway on a port of 127.0.0.1 that the system picks. Where neither a flag nor a request
    /// says otherwise it waits for as long as it can, so that a busy machine fails no test.
    pub fn gateway(&self, arguments: &[&str]) -> Gateway {
        let mut command = self.gateway_command();
        command.env("DKVS_TIMEOUT", "30000");
        command.args(["--listen", "127.0.0.1:0"]).args(arguments);
        Gateway::of(command)
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
        self.cluster_of(count, &[], gateway_arguments)
    }

    /// The same of servers with arguments.
    pub fn cluster_of(
        &self,
        count: usize,
        node_arguments: &[&str],
        gateway_arguments: &[&str],
    ) -> Cluster {
        let nodes: Vec<Node> = (0..count).map(|_| self.node(node_arguments)).collect();
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

/// Ends a server in good order.
///
/// # Panics
///
/// If it does not end so.
pub fn end_in_order(mut node: Node) {
    let (status, _) = node.process.end_with(Signal::TERM);
    assert!(status.success(), "{:?}", node.process.rest_of_stderr());
}

/// A gateway.
pub struct Gateway {
    pub addr: SocketAddr,
    pub process: Process,
}

impl Gateway {
    /// Runs a command that starts one.
    pub fn of(command: Command) -> Self {
        Self::greeting(Process::spawn(command))
    }

    /// The same of one that runs.
    pub fn greeting(mut process: Process) -> Self {
        let greeting = process.stdout_line_with("://");
        let (_, addr) = greeting.split_once("://").unwrap();
        Self {
            addr: addr.trim().parse().unwrap(),
            process,
        }
    }

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
    /// The server at an address, which is in the cluster.
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

/// A directory that goes with its value, and was not there before it. To be declared before the
/// programs that use it, so that they end first.
pub struct DataDir(PathBuf);

impl DataDir {
    pub fn new() -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let name = format!("dkvs-test-{}-{number}.d", std::process::id());
        Self(std::env::temp_dir().join(name))
    }

    pub fn path(&self) -> &str {
        self.0
            .to_str()
            .expect("a temporary directory with a plain name")
    }
}

impl Default for DataDir {
    fn default() -> Self {
        Self::new()
    }
}

impl Drop for DataDir {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// A running program, killed when the value goes. That it panicked anywhere fails the test then.
pub struct Process {
    child: Child,
    stdout: mpsc::Receiver<String>,
    stderr: mpsc::Receiver<String>,
    /// What it wrote so far and was looked at.
    pub log: Vec<String>,
}

impl Process {
    pub fn spawn(command: Command) -> Self {
        Self::spawn_with(command, Stdio::piped())
    }

    /// One whose standard error goes elsewhere, and not into its log.
    pub fn spawn_with(mut command: Command, stderr: Stdio) -> Self {
        command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(stderr);
        let mut child = command.spawn().expect("the program starts");
        let stdout = lines(child.stdout.take().unwrap());
        let stderr = match child.stderr.take() {
            Some(stream) => lines(stream),
            None => mpsc::channel().1,
        };
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

    /// Everything that was looked at, and what is left on standard error after the end.
    pub fn rest_of_stderr(&mut self) -> Vec<String> {
        self.log.extend(self.stderr.iter());
        self.log.clone()
    }

    /// Its number with the system.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// The memory that it occupies, in bytes, where the system reports it.
    pub fn resident_bytes(&self) -> Option<u64> {
        self.status_bytes("VmRSS:")
    }

    fn status_bytes(&self, name: &str) -> Option<u64> {
        let text = fs::read_to_string(format!("/proc/{}/status", self.id())).ok()?;
        let line = text.lines().find_map(|line| line.strip_prefix(name))?;
        let kibibytes: u64 = line.trim().strip_suffix(" kB")?.parse().ok()?;
        Some(kibibytes << 10)
    }

    /// The most memory that it ever occupied, in bytes, where the system reports it.
    pub fn peak_bytes(&self) -> Option<u64> {
        self.status_bytes("VmHWM:")
    }

    fn pid(&self) -> Pid {
        let pid = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw);
        pid.expect("a process id")
    }

    pub fn signal(&self, signal: Signal) {
        kill_process(self.pid(), signal).expect("a process of ours takes signals");
    }

    /// Stops it, as a terminal's Ctrl-Z does. On return it stands still.
    pub fn stop(&self) {
        self.signal(Signal::STOP);
        let (_, status) = waitpid(Some(self.pid()), WaitOptions::UNTRACED)
            .expect("a child of ours can be waited for")
            .expect("a wait without NOHANG has a result");
        assert!(status.stopped(), "stopped, not ended");
    }

    /// Lets it go on.
    pub fn go_on(&self) {
        self.signal(Signal::CONT);
    }

    /// Sends a signal and waits for the end; how it ended, and how long that took.
    pub fn end_with(&mut self, signal: Signal) -> (ExitStatus, Duration) {
        let asked = Instant::now();
        self.signal(signal);
        (self.end(), asked.elapsed())
    }

    /// Waits for the end.
    pub fn end(&mut self) -> ExitStatus {
        wait(&mut self.child).expect("a process ends after the signal")
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
        // A panic on a task shows in the log alone.
        let panicked = self
            .rest_of_stderr()
            .iter()
            .any(|line| line.contains("panicked at"));
        if panicked && !std::thread::panicking() {
            panic!("the program panicked: {:#?}", self.log);
        }
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
