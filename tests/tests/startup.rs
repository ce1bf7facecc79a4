//! How a gateway starts, and how it refuses to.

use std::process::Command;

use dkvs_tests::http::{client, exchange, get, put, request};
use dkvs_tests::process::{DataDir, Gateway, Process, Programs, ServersFile, own_loopback};
use dkvs_tests::{programs, until};
use rustix::process::Signal;
use serde_json::{Value as Json, json};
use tokio::net::TcpStream;

const PROGRAMS: Programs = programs!();

/// A gateway's command on a port that the system picks.
fn command(arguments: &[&str]) -> Command {
    let mut command = PROGRAMS.gateway_command();
    command.args(["--listen", "127.0.0.1:0"]).args(arguments);
    command
}

/// Runs a gateway that should not start; what it said.
fn refusal(command: Command) -> String {
    let (status, out, err) = PROGRAMS.run_to_end(command);
    assert!(
        status.code().is_some_and(|code| code != 0),
        "{status:?}: {err}"
    );
    assert_eq!(out, "", "nothing on standard output");
    assert!(!err.contains("panicked"), "{err}");
    err
}

#[test]
fn a_bad_servers_file_is_refused_with_file_line_and_reason() {
    for (text, line, reason) in [
        (&b""[..], 1, "no server is listed"),
        (b"# nobody\n\n", 3, "no server is listed"),
        (
            b"127.0.0.1 4000 1\nlocalhost 4001 1\n",
            2,
            "\"localhost\" is not an IPv4 address",
        ),
        (
            b"127.0.001 4000 1\n",
            1,
            "\"127.0.001\" is not an IPv4 address",
        ),
        (
            b"256.0.0.1 4000 1\n",
            1,
            "\"256.0.0.1\" is not an IPv4 address",
        ),
        (b"127.0.0.1 0 1\n", 1, "\"0\" is not a port"),
        (b"127.0.0.1 65536 1\n", 1, "\"65536\" is not a port"),
        (b"127.0.0.1 1aa4 1\r\n", 1, "\"1aa4\" is not a port"),
        (b"127.0.0.1 -1236 1\n", 1, "\"-1236\" is not a port"),
        (
            b"127.0.0.1 4000 0\n",
            1,
            "\"0\" is not a number of ring points",
        ),
        (b"127.0.0.1 4000\n", 1, "found 2"),
        (b"127.0.0.1 4000 1 1\n", 1, "found 4"),
        (
            b"127.0.0.1 1 1\n127.0.0.1 2 1\n127.0.0.1 1 9\n",
            3,
            "listed already, on line 1",
        ),
        (b"\xff\xfe 1 1\n", 1, "is not an IPv4 address"),
        (b"\x1b[31m 1 1\n", 1, "is not an IPv4 address"),
        (
            b"127.0.0.1 1 1048576\n127.0.0.1 2 1\n",
            2,
            "at most 1048576 ring points",
        ),
    ] {
        let servers = ServersFile::with_text(text);
        let said = refusal(command(&["--servers", servers.path()]));
        let place = format!("{}:{line}: ", servers.path());
        assert!(said.contains(&place), "{place}: {said}");
        assert!(said.contains(reason), "{reason}: {said}");
        assert!(!said.contains('\x1b'), "{said:?}");
    }
}

#[test]
fn a_servers_file_that_cannot_be_read_is_refused_with_its_name() {
    for path in ["/no/such/file", "/"] {
        let said = refusal(command(&["--servers", path]));
        assert!(said.contains(&format!("cannot read {path}")), "{said}");
    }
}

#[tokio::test]
async fn a_servers_file_with_comments_and_line_ends_of_any_kind_is_taken() {
    let text = "# two servers\r\n\r\n127.0.0.1 \t4000  2\r\n \t\n127.0.0.1 4001 3";
    let servers = ServersFile::with_text(text);
    let gateway = PROGRAMS.gateway_over(&servers, &[]);
    let ring = get(&client(), gateway.url("/ring")).await;
    assert_eq!(ring.json["replication"], 2);
    assert_eq!(ring.json["points"].as_array().unwrap().len(), 5);
}

#[test]
fn an_address_where_another_gateway_listens_is_refused() {
    for (first, second) in [("1", "1"), ("2", "2"), ("1", "2"), ("2", "1")] {
        let mut gateway = PROGRAMS.gateway(&["--embedded", "1", "--workers", first]);
        let mut command = PROGRAMS.gateway_command();
        command.args(["--listen", &gateway.addr.to_string(), "--workers", second]);
        let said = refusal(command);
        let expected = format!("cannot take HTTP on {}", gateway.addr);
        assert!(said.contains(&expected), "{first} {second}: {said}");
        assert!(gateway.process.is_running());
    }
}

#[test]
fn bad_arguments_are_refused_with_what_is_wrong() {
    let servers = ServersFile::with_text("127.0.0.1 4000 1\n127.0.0.1 4001 1\n");
    let path = servers.path();
    for (arguments, reason) in [
        (&["--no-such-flag"][..], "--no-such-flag"),
        (&["file"], "the subcommand 'file'"),
        (
            &["--servers", path, "--embedded", "3"],
            "both `servers` and `embedded` are set",
        ),
        (
            &["--servers", path, "--replication", "3"],
            "the cluster has 2 servers",
        ),
        (
            &["--embedded", "5", "--replication", "6"],
            "the cluster has 5 servers",
        ),
        (&["--embedded", "0"], "--embedded"),
        (&["--embedded", "256"], "--embedded"),
        (&["--replication", "0"], "--replication"),
        (&["--timeout", "0"], "from 1 to 30000"),
        (&["--timeout", "30001"], "from 1 to 30000"),
        (&["--timeout", "1s"], "--timeout"),
        (&["--workers", "0"], "--workers"),
        (&["--max-in-flight", "0"], "--max-in-flight"),
        (&["--max-connections", "0"], "--max-connections"),
        (&["--insecure=perhaps"], "--insecure"),
        (&["--log", "loud=="], "loud=="),
        (&["--embedded", "3", "--embedded", "4"], "--embedded"),
        (&["--config", "/no/such/file"], "cannot read /no/such/file"),
    ] {
        let said = refusal(command(arguments));
        assert!(said.contains(reason), "{reason}: {said}");
    }
    for listen in ["8080", "localhost:0", "127.0.0.1:65536", "127.0.0.1"] {
        let mut command = PROGRAMS.gateway_command();
        command.args(["--listen", listen]);
        let said = refusal(command);
        assert!(said.contains(listen) && said.contains("--listen"), "{said}");
    }
}

#[test]
fn the_programs_describe_their_options_to_shells_and_man() {
    for program in [PROGRAMS.gateway, PROGRAMS.storage_node] {
        for (arguments, expected) in [
            (&["--completions", "bash"][..], "--check-config"),
            (&["--completions", "zsh"], "--check-config"),
            (&["--completions", "fish"], "check-config"),
            (&["--man"], "\\-\\-check\\-config"),
        ] {
            let mut command = Command::new(program);
            command.args(arguments);
            let (status, stdout, stderr) = PROGRAMS.run_to_end(command);
            assert!(status.success(), "{program} {arguments:?}: {stderr}");
            assert!(stdout.contains(expected), "{program} {arguments:?}");
        }
    }
}

#[test]
fn settings_are_checked_without_starting_anything() {
    let good = ServersFile::with_text("127.0.0.1 4100 3\n127.0.0.1 4101 3\n");
    let bad = ServersFile::with_text("127.0.0.1 x 3\n");
    let token = format!("dkvs_{}", "a".repeat(42) + "A");
    let run = |program: &str, arguments: &[&str]| {
        let mut command = Command::new(program);
        command.args(arguments).arg("--check-config");
        PROGRAMS.run_to_end(command)
    };
    for (arguments, expected) in [
        (&["--servers", good.path()][..], "2 servers, each key on 2"),
        (&["--data-dir", "/nonexistent"], "inside the gateway"),
    ] {
        let (status, stdout, stderr) = run(PROGRAMS.gateway, arguments);
        assert!(status.success(), "{stderr}");
        assert!(stdout.contains(expected), "{stdout}");
    }
    for (arguments, expected) in [
        (&["--servers", bad.path()][..], ":1: "),
        (&["--servers", "/nonexistent"], "cannot read /nonexistent"),
        (&["--tokens", bad.path()], "mode"),
        (&["--log", "=="], "no level"),
        (
            &["--replication", "9", "--servers", good.path()],
            "at most their number",
        ),
        (&["--replication", "6"], "the cluster has 5 servers"),
        (
            &["--replication", "4", "--embedded", "3"],
            "the cluster has 3 servers",
        ),
        (
            &["--data-dir", "/nonexistent", "--declare", "complete"],
            "nothing to declare",
        ),
        (&["--tokens", &token], "has to be the path of a file"),
    ] {
        let (status, _, stderr) = run(PROGRAMS.gateway, arguments);
        assert!(!status.success(), "{arguments:?}");
        assert!(stderr.contains(expected), "{stderr}");
        assert!(!stderr.contains(&token), "a secret: {stderr}");
    }
    let node = |arguments: &[&str]| {
        run(
            PROGRAMS.storage_node,
            &[&["127.0.0.1", "4100"], arguments].concat(),
        )
    };
    let (status, stdout, stderr) = node(&["--servers", good.path(), "--data-dir", "/nonexistent"]);
    assert!(status.success(), "{stderr}");
    assert!(stdout.contains("durability fsync"), "{stdout}");
    for arguments in [["--servers", bad.path()], ["--key-file", "/nonexistent"]] {
        let (status, _, stderr) = node(&arguments);
        assert!(
            !status.success() && stderr.contains(arguments[1]),
            "{stderr}"
        );
    }
}

#[test]
fn a_program_without_an_http_client_can_check_whether_a_gateway_is_ready() {
    let ask = |gateway: &Gateway| {
        let mut command = PROGRAMS.gateway_command();
        command.args(["ready", &gateway.addr.to_string()]);
        PROGRAMS.run_to_end(command)
    };
    let ready = PROGRAMS.gateway(&["--embedded", "1"]);
    let (status, stdout, stderr) = ask(&ready);
    assert!(status.success(), "{stderr}");
    assert_eq!((stdout, stderr), (String::new(), String::new()));
    let nobody = ServersFile::with_text("127.0.0.1 1 1\n");
    let alone = PROGRAMS.gateway(&["--servers", nobody.path()]);
    let (status, _, stderr) = ask(&alone);
    assert_eq!(status.code(), Some(1));
    assert!(stderr.contains("no majority"), "{stderr}");
    let addr = alone.addr;
    drop(alone);
    let (status, _, stderr) = ask(&Gateway { addr, ..ready });
    assert_eq!(status.code(), Some(1));
    assert!(stderr.contains("no answer from"), "{stderr}");
}

#[tokio::test]
async fn other_machines_are_let_in_only_if_that_is_said() {
    for listen in ["0.0.0.0:0", "[::]:0", "192.0.2.1:0"] {
        let mut command = PROGRAMS.gateway_command();
        command.args(["--listen", listen]);
        let said = refusal(command);
        assert!(
            said.contains(listen) && said.contains("--insecure"),
            "{said}"
        );
    }
    for insecure in ["--insecure", "--insecure=true"] {
        let mut command = PROGRAMS.gateway_command();
        command.args(["--listen", "0.0.0.0:0", insecure]);
        let gateway = Gateway::of(command);
        let url = format!("http://127.0.0.1:{}/livez", gateway.addr.port());
        assert_eq!(get(&client(), url).await.status, 200);
    }
    let mut command = PROGRAMS.gateway_command();
    command.args(["--listen", "0.0.0.0:0", "--insecure=false"]);
    assert!(refusal(command).contains("--insecure"));
}

#[test]
fn a_name_in_the_environment_that_does_not_exist_is_refused() {
    for (name, value) in [
        ("DKVS_LISTENN", "127.0.0.1:0"),
        ("DKVS_", ""),
        ("DKVS_workers", "1"),
    ] {
        let mut command = command(&[]);
        command.env(name, value);
        let said = refusal(command);
        assert!(said.contains(name), "{said}");
    }
    let mut bad_value = command(&[]);
    bad_value.env("DKVS_WORKERS", "many");
    let said = refusal(bad_value);
    assert!(said.contains("many"), "{said}");
}

#[test]
fn a_configuration_file_with_anything_unknown_or_wrong_is_refused() {
    for (text, reason) in [
        ("colour = 'red'\n", "colour"),
        ("timeout = '1s'\n", "timeout"),
        ("timeout = 30001\n", "from 1 to 30000"),
        ("workers = 0\n", "workers"),
        ("listen = 'localhost'\n", "listen"),
        ("config = 'another'\n", "config"),
        ("[gateway]\ntimeout = 1\n", "gateway"),
        ("timeout = 1\ntimeout = 2\n", "timeout"),
        ("timeout\n", "refused"),
    ] {
        let file = ServersFile::with_text(text);
        let said = refusal(command(&["--config", file.path()]));
        assert!(said.contains(reason), "{reason}: {said}");
    }
    let file = ServersFile::with_text("colour = 'red'\n");
    let said = refusal(command(&["--config", file.path()]));
    assert!(said.contains(file.path()), "{said}");
}

#[tokio::test]
async fn a_flag_outranks_the_environment_and_that_the_file() {
    let file = ServersFile::with_text(
        "embedded = 4\nreplication = 1\ntimeout = 7000\nlisten = '127.0.0.1:0'\n",
    );
    for (environment, flag, replication) in [
        (None, None, 1),
        (Some("2"), None, 2),
        (None, Some("3"), 3),
        (Some("2"), Some("3"), 3),
        (Some("2"), Some("4"), 4),
    ] {
        let mut command = PROGRAMS.gateway_command();
        command.env("DKVS_CONFIG", file.path());
        command.envs(environment.map(|value| ("DKVS_REPLICATION", value)));
        command.args(
            flag.map(|value| ["--replication", value])
                .into_iter()
                .flatten(),
        );
        let gateway = Gateway::of(command);
        let ring = get(&client(), gateway.url("/ring")).await;
        assert_eq!(ring.json["replication"], replication);
        assert_eq!(
            ring.json["servers"].as_array().unwrap().len(),
            4,
            "as the file has it"
        );
    }
}

#[tokio::test]
async fn an_embedded_cluster_greets_says_what_it_is_and_works() {
    for (arguments, servers, replication) in [
        (&[][..], 5, 3),
        (&["--embedded", "3"], 3, 3),
        (&["--embedded", "2"], 2, 2),
    ] {
        let mut gateway = PROGRAMS.gateway(arguments);
        let addr = gateway.addr;
        let greeting = gateway.process.stdout_line_with("--servers FILE");
        assert!(greeting.contains("real ones"));
        let greeting = gateway.process.log.join("\n");
        let counted = format!("{servers} servers, each key on {replication} of them:");
        for expected in [
            &*format!("on http://{addr}"),
            &counted,
            &format!("The console: http://{addr}/"),
            &format!("curl -X PUT --data-binary 'hello' 'http://{addr}/kv/greeting'"),
            &format!("curl 'http://{addr}/kv/greeting'"),
            &format!("curl 'http://{addr}/servers'"),
            "nothing is kept",
        ] {
            assert!(greeting.contains(expected), "{expected}: {greeting}");
        }
        assert_eq!(greeting.matches(" ring points ").count(), servers);

        let client = client();
        let reported = get(&client, gateway.url("/servers")).await;
        let reported = reported.json["servers"].as_array().unwrap().iter();
        let addrs: Vec<_> = reported
            .map(|server| server["server"].as_str().unwrap())
            .collect();
        assert_eq!(addrs.len(), servers);
        for server in addrs {
            assert!(greeting.contains(server), "{server}: {greeting}");
        }
        // The commands of the greeting, carried out.
        let url = gateway.url("/kv/greeting");
        assert_eq!(
            put(&client, url.clone() + "?wait=all", "hello")
                .await
                .status,
            200
        );
        assert_eq!(get(&client, url).await.json["value"], "hello");

        gateway.process.end_with(Signal::TERM);
        assert_eq!(
            gateway.process.rest_of_stdout(),
            [""; 0],
            "nothing after the greeting"
        );
    }
}

#[tokio::test]
async fn an_embedded_cluster_with_a_data_directory_reports_its_disks() {
    let data = DataDir::new();
    let gateway = PROGRAMS.gateway(&["--embedded", "3", "--data-dir", data.path()]);
    let client = client();
    // A server has half a second to report, which may be too little at times.
    let reported = async || -> Vec<Json> {
        let mut servers = Vec::new();
        until("all three report their disks", async || {
            let reported = get(&client, gateway.url("/servers")).await;
            servers.clone_from(reported.json["servers"].as_array().unwrap());
            servers.iter().all(|server| server["storage"].is_object())
        })
        .await;
        servers
    };
    for server in reported().await {
        let storage = &server["storage"];
        assert_eq!(storage["commits"], 0);
        assert_eq!(storage["commit_mean_us"], 0);
        assert_eq!(storage["last_commit_age_ms"], json!(null));
    }
    let put = put(&client, gateway.url("/kv/k?wait=all"), "v").await;
    assert_eq!(put.statuses(), ["stored"; 3]);
    for server in reported().await {
        assert_eq!(server["durability"], "fsync");
        assert_eq!(server["corrupt_answers"], 0);
        let storage = &server["storage"];
        assert_eq!(storage["complete"], true);
        assert_eq!(storage["read_only"], false);
        assert_eq!(storage["disk_full"], false);
        assert_eq!(storage["lost_ranges"], 0);
        assert_eq!(storage["commits"], 1);
        assert_eq!(storage["waiting"], 0);
        assert!(storage["last_commit_age_ms"].is_u64(), "{storage}");
        let number = |name: &str| storage[name].as_u64().unwrap();
        assert!(number("commit_mean_us") > 0, "{storage}");
        assert!(0 < number("log_bytes") && number("log_bytes") < number("disk_bytes"));
        assert!(number("disk_available_bytes") > 0, "{storage}");
    }
}

#[test]
fn the_greeting_of_real_servers_says_nothing_of_what_is_not_kept() {
    let lines = (1..=30).map(|port| format!("127.0.0.1 {port} 1\n"));
    let servers = ServersFile::with_text(lines.collect::<String>());
    let mut gateway = PROGRAMS.gateway_over(&servers, &[]);
    gateway.process.end_with(Signal::TERM);
    let greeting = gateway.process.rest_of_stdout().join("\n");
    assert!(
        greeting.contains("30 servers, each key on 3 of them:"),
        "{greeting}"
    );
    assert!(greeting.contains("and 10 more: see /ring"), "{greeting}");
    assert!(!greeting.contains("nothing is kept"), "{greeting}");
}

#[tokio::test]
async fn a_gateway_whose_greeting_nobody_reads_serves_all_the_same() {
    // Its address is known from one that greeted.
    let mut command = PROGRAMS.gateway_command();
    command.args([
        "--embedded",
        "1",
        "--listen",
        &format!("{}:0", own_loopback()),
    ]);
    let addr = Gateway::of(command).addr;
    let mut unread = Command::new("sh");
    let script = format!("exec {} --embedded 1 --listen {addr} >&-", PROGRAMS.gateway);
    unread.args(["-c", &script]);
    let mut process = Process::spawn(unread);
    until("it serves", async || {
        assert!(process.is_running());
        TcpStream::connect(addr).await.is_ok()
    })
    .await;
    let get = exchange(addr, request("GET", "/livez", None)).await;
    assert_eq!(get.json["status"], "alive");
}

/// The command with a limit on the files that it may open.
#[cfg(unix)]
fn with_open_files(files: usize, command: &Command) -> Command {
    let mut limited = Command::new("/bin/sh");
    limited.args(["-c", &format!(r#"ulimit -n {files} && exec "$0" "$@""#)]);
    limited.arg(command.get_program()).args(command.get_args());
    limited
}

#[cfg(unix)]
#[test]
fn a_program_that_may_open_too_few_files_says_how_many_it_takes() {
    let servers = ServersFile::with_text("127.0.0.1 4000 1\n");
    let embedded = command(&["--embedded", "3", "--workers", "2"]);
    let gateway = command(&["--servers", servers.path(), "--workers", "1"]);
    let mut node = PROGRAMS.node_command((own_loopback(), 0).into());
    node.args(["--workers", "2", "--metrics", "127.0.0.1:0"]);
    let data = DataDir::new();
    let mut durable = PROGRAMS.node_command((own_loopback(), 4000).into());
    durable.args(["--workers", "2", "--data-dir", data.path()]);
    for files in [9, 10, 11, 12, 16, 25, 64] {
        for command in [&embedded, &gateway, &node, &durable] {
            let err = refusal(with_open_files(files, command));
            let expected = format!("a process that may open {files} files is too small");
            assert!(err.contains(&expected), "{files}: {err}");
            let takes = err.split("it takes ").nth(1).unwrap();
            let least = takes.split(' ').next().unwrap().parse::<usize>();
            assert!(least.unwrap() > files, "{err}");
        }
    }
}
