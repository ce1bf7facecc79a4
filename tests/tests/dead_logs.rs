//! Standard error that takes nothing: both programs serve all the same, and count what is lost.

use std::fs::{self, File};
use std::io::{self, PipeReader, Write as _};
use std::net::{SocketAddr, TcpListener, UdpSocket};
use std::path::Path;
use std::process::Stdio;

use dkvs_tests::exposition::{Format, Page};
use dkvs_tests::http::{self, client, get};
use dkvs_tests::process::{DataDir, Gateway, Process, Programs, ServersFile, own_loopback};
use dkvs_tests::tmpfs::Tmpfs;
use dkvs_tests::{programs, until};
use reqwest::Client;
use rustix::fs::{OFlags, fcntl_getfl, fcntl_setfl};
use rustix::process::Signal;
use serde_json::json;

const PROGRAMS: Programs = programs!();

/// A caller that samples its trace: servers log each of its operations.
const TRACEPARENT: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

/// Everything, and in many words.
const LOG: [&str; 4] = ["--log", "trace", "--log-format", "json"];

/// Standard error that takes nothing, and what has to last for as long as it is to be so.
struct Dead {
    name: &'static str,
    stream: Stdio,
    _pipe: Option<PipeReader>,
    _disk: Option<Tmpfs>,
}

impl Dead {
    /// Each kind that there can be here.
    fn kinds() -> Vec<Self> {
        let closed = io::pipe().unwrap().1;
        let dead = |name, stream: Stdio| Self {
            name,
            stream,
            _pipe: None,
            _disk: None,
        };
        let device = File::options().write(true).open("/dev/full").unwrap();
        let mut kinds = vec![
            dead("a pipe whose reader is gone", closed.into()),
            dead("/dev/full", device.into()),
            Self::full_pipe(),
        ];
        kinds.extend(Self::full_disk());
        kinds
    }

    /// A pipe that has a reader, who reads nothing.
    fn full_pipe() -> Self {
        let (reader, mut writer) = io::pipe().unwrap();
        let flags = fcntl_getfl(&writer).unwrap();
        fcntl_setfl(&writer, flags | OFlags::NONBLOCK).unwrap();
        while writer.write(b"x").is_ok() {}
        fcntl_setfl(&writer, flags).unwrap();
        Self {
            name: "a full pipe that nobody reads",
            stream: writer.into(),
            _pipe: Some(reader),
            _disk: None,
        }
    }

    fn full_disk() -> Option<Self> {
        let disk = Tmpfs::mount("64k")?;
        let log = File::create(disk.path().join("log")).unwrap();
        let mut rest = File::create(disk.path().join("rest")).unwrap();
        while rest.write(&[0; 512]).is_ok() {}
        Some(Self {
            name: "a file on a full disk",
            stream: log.into(),
            _pipe: None,
            _disk: Some(disk),
        })
    }
}

/// Puts and gets 60 keys by one request. All succeed.
async fn put_and_get(client: &Client, gateway: &Gateway, kind: &str) {
    let put = |key: u32| json!({"op": "put", "key": key.to_string(), "value": "v", "wait": "all"});
    let get = |key: u32| json!({"op": "get", "key": key.to_string()});
    let operations: Vec<_> = (0..60).flat_map(|key| [put(key), get(key)]).collect();
    let request = client.post(gateway.url("/batch"));
    let request = request.header("traceparent", TRACEPARENT);
    let body = json!({"operations": operations}).to_string();
    let request = request
        .header("content-type", "application/json")
        .body(body);
    let reply = http::send(request).await;
    assert_eq!(reply.status, 200, "{kind}: {reply:?}");
    let results = reply.json["results"].as_array().expect("results");
    for result in results.iter().step_by(2) {
        assert_eq!(result["status"], 200, "{kind}: {result}");
    }
}

async fn dropped(client: &Client, url: String, name: &str) -> f64 {
    let reply = get(client, url).await;
    assert_eq!(reply.status, 200, "{reply:?}");
    let format = Format::of(reply.header("content-type"));
    let page = Page::parse(str::from_utf8(&reply.body).unwrap(), format).unwrap();
    page.sum(name, &[])
}

#[tokio::test]
async fn a_gateway_serves_whatever_becomes_of_its_log_and_counts_what_is_lost() {
    let client = client();
    for dead in Dead::kinds() {
        let mut command = PROGRAMS.gateway_command();
        command.args(["--listen", "127.0.0.1:0", "--embedded", "3"]);
        command
            .args(["--timeout", "30000", "--workers", "2"])
            .args(LOG);
        if cfg!(feature = "otel") {
            // Nobody collects there.
            command.args(["--otlp-endpoint", "http://127.0.0.1:1"]);
        }
        let mut gateway = Gateway::greeting(Process::spawn_with(command, dead.stream));
        until("lines are lost, and counted", async || {
            put_and_get(&client, &gateway, dead.name).await;
            let url = gateway.url("/metrics");
            dropped(&client, url, "dkvs_gateway_log_lines_dropped_total").await > 0.0
        })
        .await;
        // It is no request to end.
        gateway.process.signal(Signal::USR1);
        put_and_get(&client, &gateway, dead.name).await;
        let (status, _) = gateway.process.end_with(Signal::TERM);
        assert!(status.success(), "{}: {status:?}", dead.name);
    }
}

#[tokio::test]
async fn a_server_serves_and_backs_up_whatever_becomes_of_its_log() {
    let client = client();
    for dead in Dead::kinds() {
        let data = DataDir::new();
        let (addr, metrics) = addrs();
        let mut command = PROGRAMS.node_command(addr);
        command.args(["--data-dir", data.path(), "--declare", "new"]);
        command.args(["--metrics", &metrics.to_string()]).args(LOG);
        let mut process = Process::spawn_with(command, dead.stream);
        let servers = ServersFile::new(&[addr]);
        let gateway = PROGRAMS.gateway_over(&servers, &[]);
        until("the server serves", async || {
            assert!(process.is_running(), "{}", dead.name);
            get(&client, gateway.url("/readyz")).await.status == 200
        })
        .await;
        until("lines are lost, and counted", async || {
            put_and_get(&client, &gateway, dead.name).await;
            let url = format!("http://{metrics}/metrics");
            dropped(&client, url, "dkvs_server_log_lines_dropped_total").await > 0.0
        })
        .await;
        process.signal(Signal::USR1);
        until("there is a backup", async || {
            assert!(process.is_running(), "{}", dead.name);
            backups(data.path()) == 1
        })
        .await;
        put_and_get(&client, &gateway, dead.name).await;
        let (status, _) = process.end_with(Signal::TERM);
        assert!(status.success(), "{}: {status:?}", dead.name);
    }
}

/// Where a server can take datagrams, and where it can serve metrics: at an address that is ours
/// alone, so that both stay free.
fn addrs() -> (SocketAddr, SocketAddr) {
    let ip = own_loopback();
    let datagrams = UdpSocket::bind((ip, 0)).unwrap();
    let metrics = TcpListener::bind((ip, 0)).unwrap();
    (
        datagrams.local_addr().unwrap(),
        metrics.local_addr().unwrap(),
    )
}

/// Whole backups in a data directory.
fn backups(data: &str) -> usize {
    let Ok(entries) = fs::read_dir(Path::new(data).join("backups")) else {
        return 0;
    };
    let names = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap());
    names.filter(|name| !name.ends_with(".partial")).count()
}

#[test]
fn both_programs_end_with_their_status_where_nobody_reads_why() {
    for dead in Dead::kinds() {
        let mut command = PROGRAMS.gateway_command();
        command.args(["--servers", "/nonexistent"]);
        let status = Process::spawn_with(command, dead.stream).end();
        assert_eq!(status.code(), Some(1), "{}", dead.name);
    }
    for dead in Dead::kinds() {
        let mut command = PROGRAMS.node_command(([127, 0, 0, 1], 0).into());
        command.args(["--servers", "/nonexistent"]);
        let status = Process::spawn_with(command, dead.stream).end();
        assert_eq!(status.code(), Some(1), "{}", dead.name);
    }
}

#[tokio::test]
async fn a_gateway_whose_greeting_fills_a_pipe_ends_at_a_signal() {
    let dead = Dead::full_pipe();
    let listen = TcpListener::bind((own_loopback(), 0)).unwrap();
    let addr = listen.local_addr().unwrap();
    drop(listen);
    let mut command = std::process::Command::new("sh");
    let script = format!("exec {} --embedded 1 --listen {addr} >&2", PROGRAMS.gateway);
    command.args(["-c", &script]);
    let mut process = Process::spawn_with(command, dead.stream);
    let client = client();
    until("it serves", async || {
        assert!(process.is_running());
        let livez = client.get(format!("http://{addr}/livez")).send().await;
        livez.is_ok_and(|reply| reply.status() == 200)
    })
    .await;
    let (status, _) = process.end_with(Signal::TERM);
    assert!(status.success(), "{status:?}");
}
