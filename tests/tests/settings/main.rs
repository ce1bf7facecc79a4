//! Every setting of both programs, with values that are wrong, empty, extreme, or next to right
//! ones: each is refused with what is wrong, where it stands, and what would be right.

mod memory;
mod reference;
mod tables;

use std::collections::BTreeSet;
use std::process::Command;

use dkvs_tests::process::{DataDir, Programs, ServersFile};
use dkvs_tests::programs;
use rustix::process::Signal;

use crate::tables::{SERVER_FLAGS, SETTINGS, Setting};

const PROGRAMS: Programs = programs!();

/// Runs a command that only checks.
fn check(mut command: Command) -> (bool, String) {
    command.arg("--check-config");
    let (status, out, said) = PROGRAMS.run_to_end(command);
    assert!(!said.contains("panicked"), "{said}");
    assert_eq!(status.success(), !out.is_empty(), "{out}{said}");
    assert!(status.code().is_some_and(|code| code <= 2), "{status:?}");
    (status.success(), said)
}

#[test]
fn a_wrong_value_is_refused_with_its_reason_and_where_it_stands() {
    for Setting {
        name,
        wrong,
        wrong_in_file,
        ..
    } in SETTINGS
    {
        let flag = format!("--{}", name.replace('_', "-"));
        let variable = format!("DKVS_{}", name.to_uppercase());
        for (value, reason) in *wrong {
            let mut command = PROGRAMS.gateway_command();
            command.arg(format!("{flag}={value}"));
            // The flag takes precedence over the variable, so the message is about the flag.
            command.env(&variable, value);
            let (is_taken, said) = check(command);
            assert!(!is_taken, "{flag}={value}");
            assert!(
                said.contains(reason),
                "{flag}={value}: {reason:?} in {said}"
            );
            assert!(said.contains(&flag), "{flag}={value}: {said}");
            assert!(!said.contains(&variable), "{flag}={value}: {said}");

            let mut command = PROGRAMS.gateway_command();
            command.env(&variable, value);
            let (is_taken, said) = check(command);
            assert!(!is_taken, "{variable}={value}");
            assert!(
                said.contains(reason),
                "{variable}={value}: {reason:?} in {said}"
            );
            assert!(said.contains(&variable), "{variable}={value}: {said}");
        }
        for (value, reason) in *wrong_in_file {
            let file = ServersFile::with_text(format!("# one\n\n{name} = {value}\n"));
            let mut command = PROGRAMS.gateway_command();
            command.args(["--config", file.path()]);
            let (is_taken, said) = check(command);
            assert!(!is_taken, "{name} = {value}");
            assert!(
                said.contains(reason),
                "{name} = {value}: {reason:?} in {said}"
            );
            assert!(said.contains(file.path()), "{name} = {value}: {said}");
            assert!(said.contains("line 3"), "{name} = {value}: {said}");
            assert!(said.contains(name), "{name} = {value}: {said}");
        }
    }
}

#[test]
fn the_values_next_to_wrong_ones_are_taken() {
    for Setting { name, right, .. } in SETTINGS {
        for value in *right {
            let mut command = PROGRAMS.gateway_command();
            command.arg(format!("--{}={value}", name.replace('_', "-")));
            let (is_taken, said) = check(command);
            assert!(is_taken, "{name} = {value}: {said}");
        }
    }
}

#[test]
fn a_file_that_is_named_has_to_be_there_and_be_a_file() {
    let directory = std::env::temp_dir().display().to_string();
    for flag in ["--servers", "--key-file", "--tokens", "--config"] {
        for path in ["/no/such/file", &*directory] {
            let mut command = PROGRAMS.gateway_command();
            command.args([flag, path]);
            let (is_taken, said) = check(command);
            assert!(!is_taken, "{flag} {path}");
            assert!(said.contains(path), "{flag}: {said}");
        }
    }
    let binary = ServersFile::with_text([0xff, 0xfe, 0]);
    let mut command = PROGRAMS.gateway_command();
    command.args(["--config", binary.path()]);
    let (_, said) = check(command);
    assert!(
        said.contains(binary.path()) && said.contains("UTF-8"),
        "{said}"
    );
}

#[test]
fn what_kubernetes_sets_for_services_stops_no_gateway() {
    let service = |prefix: &str| {
        [
            ("SERVICE_HOST", "10.96.0.7"),
            ("SERVICE_PORT", "8080"),
            ("SERVICE_PORT_HTTP", "8080"),
            ("PORT", "tcp://10.96.0.7:8080"),
            ("PORT_8080_TCP", "tcp://10.96.0.7:8080"),
            ("PORT_8080_TCP_PROTO", "tcp"),
            ("PORT_8080_TCP_PORT", "8080"),
            ("PORT_8080_TCP_ADDR", "10.96.0.7"),
        ]
        .map(|(name, value)| (format!("{prefix}_{name}"), value))
    };
    let command = || {
        let mut command = PROGRAMS.gateway_command();
        command.envs(
            ["DKVS", "DKVS_GATEWAY", "DKVS_LISTEN"]
                .into_iter()
                .flat_map(service),
        );
        command
    };
    let (is_taken, said) = check(command());
    assert!(is_taken, "{said}");
    for name in [
        "DKVS_LISTENN",
        "DKVS_TOKEN",
        "DKVS_PORT_X",
        "DKVS_SERVERS_PORT",
    ] {
        let mut command = command();
        command.env(name, "127.0.0.1:0");
        let (is_taken, said) = check(command);
        assert!(!is_taken && said.contains(name), "{name}: {said}");
    }
}

#[test]
fn a_wrong_argument_of_a_server_is_refused_with_its_flag_and_reason() {
    for (flag, wrong) in SERVER_FLAGS {
        for (value, reason) in *wrong {
            let mut command = PROGRAMS.node_command(([127, 0, 0, 1], 4000).into());
            command.arg(format!("{flag}={value}"));
            let (is_taken, said) = check(command);
            assert!(!is_taken, "{flag}={value}");
            assert!(
                said.contains(reason),
                "{flag}={value}: {reason:?} in {said}"
            );
            assert!(said.contains(flag), "{flag}={value}: {said}");
        }
    }
    for (ip, port, reason) in [
        ("localhost", "4000", "it is an IPv4 address"),
        ("::1", "4000", "it is an IPv4 address"),
        ("127.0.0.1", "65536", "PORT"),
        ("127.0.0.1", "", "PORT"),
        ("", "4000", "IP"),
        ("0.0.0.0", "4000", "--key-file FILE"),
    ] {
        let mut command = Command::new(PROGRAMS.storage_node);
        command.args([ip, port]);
        let (is_taken, said) = check(command);
        assert!(!is_taken && said.contains(reason), "{ip} {port}: {said}");
    }
}

#[test]
fn the_tables_have_every_setting() {
    let flags = |program: &str| -> BTreeSet<String> {
        let mut command = Command::new(program);
        command.arg("--help");
        let (_, text, _) = PROGRAMS.run_to_end(command);
        let words = text
            .lines()
            .filter_map(|line| line.trim_start().strip_prefix("--"));
        let name = |line: &str| {
            line.split([' ', '[', '='])
                .next()
                .map(|it| format!("--{it}"))
        };
        words.filter_map(name).collect()
    };
    // What takes no value, or is said once and not left anywhere.
    let others = [
        "--check-config",
        "--completions",
        "--man",
        "--help",
        "--version",
    ];
    let others = || others.map(str::to_owned);
    let mut expected: BTreeSet<String> = SETTINGS
        .iter()
        .map(|setting| format!("--{}", setting.name.replace('_', "-")))
        .chain(["--config", "--declare"].map(str::to_owned))
        .chain(others())
        .collect();
    let mut there = flags(PROGRAMS.gateway);
    // They have a letter, which stands first.
    for short in ["--help", "--version"] {
        there.insert(short.to_owned());
    }
    assert_eq!(there, expected);
    expected = SERVER_FLAGS
        .iter()
        .map(|(flag, _)| (*flag).to_owned())
        .collect();
    expected.extend(others());
    expected.insert("--insecure".to_owned());
    let mut there = flags(PROGRAMS.storage_node);
    for short in ["--help", "--version"] {
        there.insert(short.to_owned());
    }
    assert_eq!(there, expected);
}

#[test]
fn no_more_files_are_open_than_is_documented() {
    let count = |id: u32| std::fs::read_dir(format!("/proc/{id}/fd")).unwrap().count();
    for workers in [1, 6] {
        let number = workers.to_string();
        let data = DataDir::new();
        let arguments = [
            "--workers",
            &number,
            "--embedded",
            "4",
            "--data-dir",
            data.path(),
        ];
        let mut gateway = PROGRAMS.gateway(&arguments);
        let open = count(gateway.process.id());
        assert!(open > 4 * workers, "{open} with {workers} workers");
        assert!(
            open <= 168 + 3 * 4 + workers * (8 + 4) + 4 * 8,
            "{open} with {workers} workers"
        );
        gateway.process.end_with(Signal::TERM);

        let data = DataDir::new();
        let mut node = PROGRAMS.node(&["--workers", &number, "--metrics", "127.0.0.1:0"]);
        let addr = node.addr;
        node.process.end_with(Signal::TERM);
        let more = [
            "--workers",
            &number,
            "--data-dir",
            data.path(),
            "--declare",
            "new",
        ];
        let node = PROGRAMS.node_at(addr, &more);
        let open = count(node.process.id());
        assert!(open > 2 * workers, "{open} with {workers} workers");
        assert!(open <= 64 + workers * 8, "{open} with {workers} workers");
    }
}
