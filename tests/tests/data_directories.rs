//! Data directories of real processes: who may open one, what is refused, disks that fill, backups.

use std::fs;
use std::net::{SocketAddr, UdpSocket};
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};

use dkvs_tests::members::own_addr;
use dkvs_tests::process::{
    Cluster, Gateway, Node, Process, Programs, ServersFile, end_in_order, own_loopback,
};
use dkvs_tests::tmpfs::Tmpfs;
use dkvs_tests::{patiently, programs, until};
use reqwest::{Client, StatusCode};
use rustix::process::Signal;

const PROGRAMS: Programs = programs!();

/// A directory that goes with its value.
struct Directory(PathBuf);

impl Directory {
    fn new(name: &str) -> Self {
        let name = format!("dkvs-data-{}-{name}", std::process::id());
        let path = std::env::temp_dir().join(name);
        fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    fn path(&self, name: &str) -> String {
        self.0.join(name).to_str().unwrap().to_owned()
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

#[test]
fn a_directory_is_opened_by_its_own_server_alone_and_by_one_process_at_a_time() {
    let directory = Directory::new("owner");
    let data = directory.path("s1");
    let (ours, other) = (own_addr(), own_addr());
    assert!(
        PROGRAMS
            .durable_refusal(ours, &data, &[])
            .contains("--declare new")
    );
    let running = PROGRAMS.durable_node(ours, &data, &["--declare", "new"]);
    assert!(
        PROGRAMS
            .durable_refusal(other, &data, &[])
            .contains("in use by another process")
    );
    end_in_order(running);
    assert!(
        PROGRAMS
            .durable_refusal(other, &data, &[])
            .contains(&format!("belongs to server {ours}"))
    );
    assert!(
        PROGRAMS
            .durable_refusal(ours, &data, &["--declare", "new"])
            .contains("it holds records")
    );
    assert!(
        PROGRAMS
            .durable_refusal(ours, &data, &["--durability", "memory"])
            .contains("leave out one of them")
    );
    let port_0 = SocketAddr::from(([127, 0, 0, 1], 0));
    assert!(
        PROGRAMS
            .durable_refusal(port_0, &data, &[])
            .contains("a port that stays the same")
    );
    // Its operator may say that it has moved: then it answers for no key.
    end_in_order(PROGRAMS.durable_node(other, &data, &["--declare", "incomplete"]));
    assert!(
        PROGRAMS
            .durable_refusal(ours, &data, &[])
            .contains(&format!("belongs to server {other}"))
    );
    end_in_order(PROGRAMS.durable_node(other, &data, &[]));
}

#[test]
fn a_directory_of_another_ring_or_a_newer_format_is_refused() {
    let directory = Directory::new("ring");
    let data = directory.path("s1");
    let ours = own_addr();
    let mut addrs = vec![ours, own_addr(), own_addr()];
    let ring = ServersFile::new(&addrs);
    addrs.push(own_addr());
    let larger = ServersFile::new(&addrs);
    end_in_order(PROGRAMS.durable_node(
        ours,
        &data,
        &["--declare", "new", "--servers", ring.path()],
    ));
    end_in_order(PROGRAMS.durable_node(ours, &data, &["--servers", ring.path()]));
    end_in_order(PROGRAMS.durable_node(ours, &data, &[]));
    let refused = PROGRAMS.durable_refusal(ours, &data, &["--servers", larger.path()]);
    let joined = format!("{} joined", addrs[3]);
    assert!(
        refused.contains("of ring") && refused.contains(&joined),
        "{refused}"
    );
    let identity = Path::new(&data).join("identity.json");
    let text = fs::read_to_string(&identity).unwrap();
    fs::write(&identity, text.replace("\"format\": 2", "\"format\": 3")).unwrap();
    assert!(
        PROGRAMS
            .durable_refusal(ours, &data, &[])
            .contains("is in format 3")
    );
    fs::write(&identity, "{").unwrap();
    assert!(
        PROGRAMS
            .durable_refusal(ours, &data, &[])
            .contains("does not say whose records these are")
    );
    fs::write(&identity, text).unwrap();
    fs::write(Path::new(&data).join("failed"), "no such device").unwrap();
    assert!(
        PROGRAMS
            .durable_refusal(ours, &data, &[])
            .contains("no such device")
    );
    end_in_order(PROGRAMS.durable_node(ours, &data, &["--declare", "incomplete"]));
    end_in_order(PROGRAMS.durable_node(ours, &data, &[]));
    // It is incomplete by now, and that changes nothing of what else may be declared.
    fs::write(Path::new(&data).join("failed"), "no such device").unwrap();
    end_in_order(PROGRAMS.durable_node(ours, &data, &["--declare", "incomplete"]));
    let grown = &["--servers", larger.path()];
    assert!(
        PROGRAMS
            .durable_refusal(ours, &data, grown)
            .contains("--declare complete")
    );
    end_in_order(PROGRAMS.durable_node(
        ours,
        &data,
        &[&grown[..], &["--declare", "complete"]].concat(),
    ));
    end_in_order(PROGRAMS.durable_node(ours, &data, grown));
}

#[test]
fn a_directory_that_does_not_know_the_servers_of_its_ring_learns_them_first() {
    let directory = Directory::new("older");
    let data = directory.path("s1");
    let ours = own_addr();
    let (other, third) = (own_addr(), own_addr());
    let ring = ServersFile::new(&[ours, other]);
    let larger = ServersFile::new(&[ours, other, third]);
    let ring = ["--servers", ring.path()];
    end_in_order(PROGRAMS.durable_node(ours, &data, &[&["--declare", "new"], &ring[..]].concat()));
    // As older versions wrote it.
    let identity = Path::new(&data).join("identity.json");
    let text = fs::read_to_string(&identity).unwrap();
    let (before, _) = text.split_once(",\n  \"is_backup\"").unwrap();
    fs::write(&identity, format!("{before}\n}}\n")).unwrap();
    let grown = ["--servers", larger.path()];
    let refused = PROGRAMS.durable_refusal(ours, &data, &grown);
    assert!(
        refused.contains("with the servers file that it had"),
        "{refused}"
    );
    let declared = [&grown[..], &["--declare", "complete"]].concat();
    assert_eq!(
        PROGRAMS.durable_refusal(ours, &data, &declared),
        refused,
        "not known, whatever is declared"
    );
    end_in_order(PROGRAMS.durable_node(ours, &data, &ring));
    // All but the configuration, which it adopts when it is told to.
    let (learned, rest) = text.split_once("  \"epoch\": ").unwrap();
    let (_, servers) = rest.split_once(",\n").unwrap();
    let learned = format!("{learned}  \"epoch\": null,\n{servers}");
    assert_eq!(fs::read_to_string(&identity).unwrap(), learned);
    let refused = PROGRAMS.durable_refusal(ours, &data, &grown);
    assert!(refused.contains(&format!("{third} joined")), "{refused}");
}

/// Servers with data directories and a servers file.
struct Growing {
    directory: Directory,
    addrs: Vec<SocketAddr>,
}

impl Growing {
    fn data(&self, number: usize) -> String {
        self.directory.path(&format!("s{number}"))
    }

    /// All those of the file, the last of which join.
    fn start(&self, servers: &ServersFile, declared: &[&str]) -> Vec<Node> {
        let start = |(number, declared): (usize, &&str)| {
            let flags = ["--servers", servers.path(), "--declare", declared];
            // A server with nothing to declare does not get the flag.
            let flags = if declared.is_empty() {
                &flags[..2]
            } else {
                &flags
            };
            PROGRAMS.durable_node(self.addrs[number], &self.data(number), flags)
        };
        declared.iter().enumerate().map(start).collect()
    }
}

#[tokio::test]
async fn a_cluster_grows_by_one_server_and_every_key_is_read_and_by_two_it_does_not_start() {
    const KEYS: usize = 100;
    let mut growing = Growing {
        directory: Directory::new("growing"),
        addrs: (0..7).map(|_| own_addr()).collect(),
    };
    growing.addrs.sort_unstable();
    let file = |count: usize| {
        let line = |addr: &SocketAddr| format!("{} {} 16\n", addr.ip(), addr.port());
        let lines = growing.addrs[..count].iter().map(line);
        ServersFile::with_text(lines.collect::<String>())
    };
    let (five, six, seven) = (file(5), file(6), file(7));
    let client = client();
    let url = |gateway: &Gateway, key: usize| gateway.url(&format!("/kv/key{key}?wait=all"));
    let nodes = growing.start(&five, &["new"; 5]);
    {
        let gateway = PROGRAMS.gateway_over(&five, &["--workers", "1"]);
        for key in 0..KEYS {
            let url = url(&gateway, key);
            let put = status(&client, "PUT", &url, &key.to_string()).await;
            assert!(put.is_success(), "{put}");
        }
    }
    nodes.into_iter().for_each(end_in_order);

    // By two at once: nobody starts, whatever is declared, and nothing has changed.
    for number in 0..5 {
        let data = growing.data(number);
        let servers = ["--servers", seven.path()];
        for declared in [
            &[][..],
            &["--declare", "complete"],
            &["--declare", "incomplete"],
        ] {
            let refused = PROGRAMS.durable_refusal(
                growing.addrs[number],
                &data,
                &[&servers, declared].concat(),
            );
            for joined in &growing.addrs[5..] {
                assert!(refused.contains(&format!("{joined} joined")), "{refused}");
            }
            assert!(refused.contains("one server at a time"), "{refused}");
            assert!(!refused.contains("--declare"), "no way round: {refused}");
        }
    }
    let nodes = growing.start(&five, &[""; 5]);
    nodes.into_iter().for_each(end_in_order);

    // By one: the others refuse until that is said to be meant.
    let refused = PROGRAMS.durable_refusal(
        growing.addrs[0],
        &growing.data(0),
        &["--servers", six.path()],
    );
    let joined = format!("{} joined", growing.addrs[5]);
    assert!(refused.contains(&joined), "{refused}");
    assert!(refused.contains("--declare complete"), "{refused}");
    let declared = [
        "complete",
        "complete",
        "complete",
        "complete",
        "complete",
        "incomplete",
    ];
    let _nodes = growing.start(&six, &declared);
    let gateway = PROGRAMS.gateway_over(&six, &["--workers", "1"]);
    let mut of_joiner = 0;
    for key in 0..KEYS {
        let read = patiently(client.get(url(&gateway, key)).send())
            .await
            .unwrap();
        let body: serde_json::Value = patiently(read.json()).await.unwrap();
        assert_eq!(body["value"], format!("{key}"), "{body}");
        assert_eq!(body["consistency"], "linearizable", "{body}");
        let replicas = body["replicas"].as_array().unwrap();
        let joiner = growing.addrs[5].to_string();
        of_joiner += usize::from(replicas.iter().any(|it| it["server"] == joiner));
    }
    assert!(of_joiner > 0, "the new server stands for some of them");
    let listed = patiently(client.get(gateway.url("/kv?limit=1000")).send())
        .await
        .unwrap();
    let listed: serde_json::Value = patiently(listed.json()).await.unwrap();
    assert_eq!(listed["keys"].as_array().unwrap().len(), KEYS, "{listed}");
}

#[test]
fn a_damaged_log_costs_what_was_damaged_and_the_server_starts_by_itself() {
    let directory = Directory::new("damaged");
    let data = directory.path("s1");
    let ours = own_addr();
    let pairs = ["--declare", "new", "key", "value", "other", "sound"];
    end_in_order(PROGRAMS.durable_node(ours, &data, &pairs));
    let log = Path::new(&data).join("log");
    let segment = log.join("0000000001.log");
    let mut bytes = fs::read(&segment).unwrap();
    let at = bytes.windows(5).position(|five| five == b"value");
    bytes[at.unwrap()] ^= 1;
    fs::write(&segment, &bytes).unwrap();
    // The value of one record: its key is known.
    let mut damaged = PROGRAMS.node_command(ours);
    damaged.args(["--data-dir", &data]);
    let mut damaged = Process::spawn(damaged);
    let line = damaged.stderr_line_with("the log is damaged");
    assert!(
        line.contains("no record is lost") && line.contains("unreadable_values=1"),
        "{line}"
    );
    assert!(
        !line.contains("lost_ranges") && !line.contains("other replicas"),
        "{line}"
    );
    damaged.stderr_line_with("serving");
    damaged.kill();
    // All of the segment: nothing is known any more.
    fs::write(&segment, vec![7; bytes.len()]).unwrap();
    let mut node = PROGRAMS.node_command(ours);
    node.args(["--data-dir", &data]);
    let mut node = Process::spawn(node);
    let line = node.stderr_line_with("the log is damaged");
    assert!(
        line.contains("keys=0") && line.contains("lost_ranges=1"),
        "{line}"
    );
    node.stderr_line_with("serving");
    let (status, _) = node.end_with(Signal::TERM);
    assert!(status.success());
}

/// Else the same start, once the port is free, would be refused for what it declares.
#[test]
fn a_server_whose_port_is_taken_makes_and_declares_nothing() {
    let directory = Directory::new("taken");
    let data = directory.path("s1");
    let taken = UdpSocket::bind((own_loopback(), 0)).unwrap();
    let ours = taken.local_addr().unwrap();
    for declared in ["new", "incomplete"] {
        let refused = PROGRAMS.durable_refusal(ours, &data, &["--declare", declared]);
        assert!(refused.contains("cannot take datagrams on"), "{refused}");
        assert!(!Path::new(&data).exists());
    }
    drop(taken);
    end_in_order(PROGRAMS.durable_node(ours, &data, &["--declare", "new"]));
}

#[tokio::test]
async fn the_key_of_a_damaged_record_is_logged_at_debug_alone() {
    let directory = Directory::new("keys");
    let data = directory.path("s1");
    let more = [
        "--declare",
        "new",
        "--cache",
        "0",
        "a-secret-name",
        "a value",
    ];
    let mut cluster = cluster(&data, &more);
    let segment = Path::new(&data).join("log/0000000001.log");
    let bytes = fs::read(&segment).unwrap();
    let at = bytes.windows(7).position(|seven| seven == b"a value");
    let file = fs::OpenOptions::new().write(true).open(&segment).unwrap();
    file.write_all_at(b"b", at.unwrap() as u64).unwrap();
    let url = cluster.gateway.url("/kv/a-secret-name");
    assert!(!status(&client(), "GET", &url, "").await.is_success());
    let process = &mut cluster.nodes[0].process;
    let line = process.stderr_line_with("a record cannot be read");
    assert!(line.contains("segment=1"), "{line}");
    assert!(!line.contains("secret"), "{line}");
    process.end_with(Signal::TERM);
    let rest = process.rest_of_stderr();
    assert!(!rest.iter().any(|line| line.contains("secret")), "{rest:?}");
}

/// One durable server and a gateway.
fn cluster(data: &str, more: &[&str]) -> Cluster {
    let node = PROGRAMS.durable_node(own_addr(), data, more);
    let servers = ServersFile::new(&[node.addr]);
    let gateway = PROGRAMS.gateway_over(&servers, &[]);
    Cluster {
        nodes: vec![node],
        servers,
        gateway,
    }
}

fn client() -> Client {
    Client::builder().no_proxy().build().unwrap()
}

async fn status(client: &Client, method: &str, url: &str, body: &str) -> StatusCode {
    let method = method.parse().unwrap();
    let request = client.request(method, url).body(body.to_owned());
    patiently(request.send()).await.unwrap().status()
}

#[tokio::test]
async fn a_backup_made_while_the_server_runs_is_a_directory_of_its_own() {
    let directory = Directory::new("backup");
    let data = directory.path("s1");
    let mut cluster = cluster(&data, &["--declare", "new"]);
    let client = client();
    let url = cluster.gateway.url("/kv/k");
    assert!(status(&client, "PUT", &url, "before").await.is_success());
    cluster.nodes[0].process.signal(Signal::USR1);
    let line = cluster.nodes[0]
        .process
        .stderr_line_with("a backup is made");
    assert!(status(&client, "PUT", &url, "after").await.is_success());
    let path = line
        .split_whitespace()
        .find_map(|word| word.strip_prefix("path="));
    let backup = path.unwrap().to_owned();
    let ours = cluster.nodes[0].addr;
    cluster.nodes[0].process.kill();
    assert!(
        PROGRAMS
            .durable_refusal(ours, &backup, &[])
            .contains("are a backup")
    );
    let _restored = PROGRAMS.durable_node(ours, &backup, &["--declare", "complete"]);
    let body = patiently(client.get(&url).send()).await.unwrap();
    let body: serde_json::Value = patiently(body.json()).await.unwrap();
    assert_eq!(body["value"], "before", "{body}");
}

#[tokio::test]
async fn a_disk_of_8_mib_is_filled_freed_and_filled_again() {
    let Some(tmpfs) = Tmpfs::mount("8m") else {
        return;
    };
    let data = tmpfs.path().join("s1").display().to_string();
    let mut cluster = cluster(&data, &["--declare", "new"]);
    let client = client();
    let value = "v".repeat(20_000);
    let url = |gateway: &dkvs_tests::process::Gateway, number: usize| {
        gateway.url(&format!("/kv/key{number}"))
    };
    let mut stored = 0;
    loop {
        match status(&client, "PUT", &url(&cluster.gateway, stored), &value).await {
            StatusCode::OK => stored += 1,
            StatusCode::INSUFFICIENT_STORAGE => break,
            other => panic!("{other} after {stored}"),
        }
    }
    assert!(stored > 100, "{stored} values of 20 KB");
    for number in [0, stored / 2, stored - 1] {
        let url = url(&cluster.gateway, number);
        assert_eq!(status(&client, "GET", &url, "").await, StatusCode::OK);
    }
    for number in 0..stored {
        let url = url(&cluster.gateway, number);
        assert!(
            status(&client, "DELETE", &url, "").await.is_success(),
            "{number}"
        );
    }
    let again = url(&cluster.gateway, stored);
    until("there is room again", async || {
        status(&client, "PUT", &again, &value).await == StatusCode::OK
    })
    .await;
    cluster.nodes[0].process.kill();
    let ours = cluster.nodes[0].addr;
    let restarted: Process = PROGRAMS.durable_node(ours, &data, &[]).process;
    assert_eq!(status(&client, "GET", &again, "").await, StatusCode::OK);
    let first = url(&cluster.gateway, 0);
    assert_eq!(
        status(&client, "GET", &first, "").await,
        StatusCode::NOT_FOUND
    );
    drop(restarted);
}
