//! The storage server as a process, spoken to in DKVS/1 by hand.

use dkvs_common::model::ReplicaResponse;
use std::net::{Ipv4Addr, UdpSocket};
use std::process::Command;
use std::time::Duration;

use dkvs_common::tag::Tag;
use dkvs_common::wire::v2::reply::Reply;
use dkvs_tests::process::{DataDir, Programs, ServersFile, own_loopback};
use dkvs_tests::random::Random;
use dkvs_tests::v1::{Client, EMPTY, NUL};
use dkvs_tests::{PATIENCE, programs, v2};
use rustix::process::Signal;
use serde_json::Value;

const PROGRAMS: Programs = programs!();
const LONGEST: usize = 32_753;

fn bytes_of_hex(hex: &str) -> Vec<u8> {
    let byte = |at: usize| u8::from_str_radix(&hex[2 * at..2 * at + 2], 16).unwrap();
    (0..hex.len() / 2).map(byte).collect()
}

#[test]
fn the_published_vectors_hold_over_a_socket() {
    let text = include_str!("../../common/tests/vectors/wire-v1.json");
    let vectors: Value = serde_json::from_str(text).unwrap();
    let exchanges = vectors["exchanges"].as_array().unwrap();
    assert_eq!(exchanges.len(), 13);
    let node = PROGRAMS.node(&[]);
    let client = Client::new(node.addr);
    for exchange in exchanges {
        let name = &exchange["name"];
        let request = bytes_of_hex(exchange["request"].as_str().unwrap());
        if let Some(expected) = exchange["reply"].as_array() {
            let [expected] = &expected[..] else {
                panic!("{name} has one reply");
            };
            let expected = bytes_of_hex(expected.as_str().unwrap());
            assert_eq!(client.ask(&request).unwrap(), expected, "{name}");
        } else {
            assert!(request.is_empty(), "{name} is a dump");
            let mut expected: Vec<_> = exchange["reply_pattern"]
                .as_str()
                .unwrap()
                .lines()
                .collect();
            let first = expected.remove(0);
            expected.sort_unstable();
            let dump = client.whole_dump();
            assert_eq!(
                first,
                format!("storing {} key-value pairs:", dump.announced)
            );
            assert_eq!(dump.pairs, expected, "{name}");
        }
    }
}

#[test]
fn the_longest_key_and_value_are_kept_and_longer_ones_refused() {
    let node = PROGRAMS.node(&[]);
    let client = Client::new(node.addr);
    let (key, value) = (vec![b'k'; LONGEST], vec![b'v'; LONGEST]);
    assert_eq!(client.get(&key), NUL);
    client.store(&key, &value);
    assert!(client.get(&key) == value);
    let (longer_key, longer_value) = (vec![b'k'; LONGEST + 1], vec![b'v'; LONGEST + 1]);
    assert_eq!(client.put(&longer_key, "v"), EMPTY);
    assert_eq!(client.put("k", &longer_value), EMPTY);
    assert_eq!(client.put(&longer_key, &value[1..]), EMPTY);
    assert_eq!(client.get(&longer_key), NUL);
    assert_eq!(client.get(vec![b'k'; 65_507]), NUL);
    assert_eq!(client.get("k"), NUL);
    assert!(client.get(&key) == value);
    // Its line fits no datagram; the count line does not promise it.
    client.store("short", "one");
    let dump = client.whole_dump();
    assert_eq!(
        (dump.announced, dump.pairs),
        (1, vec!["short --> one".to_owned()])
    );
}

#[test]
fn a_dump_goes_over_as_many_datagrams_as_it_takes() {
    let node = PROGRAMS.node(&[]);
    let client = Client::new(node.addr);
    let mut expected = Vec::new();
    for number in 0..200 {
        let (key, value) = (format!("key-{number:03}"), format!("{number}").repeat(400));
        client.store(&key, &value);
        expected.push(format!("{key} --> {value}"));
    }
    let dump = client.whole_dump();
    assert_eq!(dump.announced, 200);
    assert_eq!(dump.pairs, expected);
    assert!(dump.datagrams > 2, "{}", dump.datagrams);
}

#[test]
fn a_dump_leaves_out_what_dkvs_1_cannot_carry_and_does_not_count_it() {
    let node = PROGRAMS.node(&["a", "1"]);
    let mut by_v2 = v2::Client::new(node.addr);
    let tag = Tag { time: 1, op: 1 };
    for (key, value) in [
        ("b", "2"),
        ("nul", "\0"),
        ("nul inside", "v\0w"),
        ("nul\0in key", "v"),
    ] {
        assert_eq!(
            by_v2.ask(&v2::put(key, value, tag)),
            Reply::Response(ReplicaResponse::Done)
        );
    }
    let dump = Client::new(node.addr).whole_dump();
    assert_eq!(dump.announced, 2);
    assert_eq!(dump.pairs, ["a --> 1", "b --> 2"]);
}

#[test]
fn a_dump_takes_little_memory_and_keeps_nobody_waiting() {
    const PAIRS: usize = (64 << 20) / 32_000;
    for workers in ["1", "2"] {
        let node = PROGRAMS.node(&["--workers", workers]);
        let client = Client::new(node.addr);
        for number in 0..PAIRS {
            client.store(format!("{number}"), vec![b'v'; 32_000]);
        }
        let before = node.process.peak_bytes();
        let dumped = Client::new(node.addr);
        let begins = dumped.ask(b"").expect("the first datagram of a dump");
        assert!(begins.starts_with(format!("storing {PAIRS} key-value pairs:\n").as_bytes()));
        // Many more are asked for; they are dropped.
        let others: Vec<_> = (0..8).map(|_| Client::new(node.addr)).collect();
        for other in &others {
            other.send(b"");
        }
        // It goes on for a while yet: a datagram holds one of these pairs, and 4 ms pass after each.
        assert_eq!(client.get("1").len(), 32_000);
        assert_eq!(client.get("absent"), NUL);
        client.store("meanwhile", "v");
        for _ in 0..50 {
            let further = dumped.next().expect("a further datagram");
            assert!(further.ends_with(b"v\n"));
        }
        for other in others {
            assert!(!other.has_more(), "one dump at a time, whatever the worker");
        }
        if let (Some(before), Some(after)) = (before, node.process.peak_bytes()) {
            let more = after - before;
            assert!(more < 8 << 20, "{more} bytes for a dump of 64 MiB");
        }
    }
}

#[test]
fn pairs_of_the_command_line_are_there_from_the_start() {
    let arguments = [
        "a",
        "1",
        "--workers",
        "2",
        "b",
        "",
        "a/b \u{e9}",
        "x y",
        "a",
        "2",
    ];
    let mut node = PROGRAMS.node(&arguments);
    let client = Client::new(node.addr);
    assert_eq!(client.get("a"), b"2", "the last of a key counts");
    assert_eq!(client.get("b"), EMPTY);
    assert_eq!(client.get("a/b \u{e9}"), b"x y");
    client.store("a", "3");
    assert_eq!(client.get("a"), b"3");
    assert_eq!(client.whole_dump().announced, 3);
    assert!(node.process.is_running());
}

#[test]
fn a_full_server_refuses_and_serves() {
    let node = PROGRAMS.node(&["--max-memory", "1K", "a", "1"]);
    let client = Client::new(node.addr);
    let stored = (0..100).filter(|number| client.put(format!("k{number}"), "v") == NUL);
    let stored: Vec<i32> = stored.collect();
    assert!((1..20).contains(&stored.len()), "{stored:?}");
    assert_eq!(client.put("a", "x".repeat(1_000)), EMPTY);
    assert_eq!(client.get("a"), b"1");
    for number in 0..100 {
        let expected = if stored.contains(&number) {
            &b"v"[..]
        } else {
            NUL
        };
        assert_eq!(client.get(format!("k{number}")), expected);
    }
    client.store("a", "2");
    assert_eq!(client.get("a"), b"2", "what is no longer always fits");
    assert_eq!(client.whole_dump().announced, stored.len() + 1);
}

#[test]
fn sigint_and_sigterm_end_it_within_a_second_and_stdout_stays_empty() {
    for signal in [Signal::INT, Signal::TERM] {
        for workers in ["1", "2"] {
            let mut node = PROGRAMS.node(&["k", "v", "--workers", workers]);
            assert_eq!(Client::new(node.addr).get("k"), b"v");
            let (status, took) = node.process.end_with(signal);
            assert_eq!(status.code(), Some(0), "{status:?}");
            assert!(took < Duration::from_secs(1), "{took:?}");
            assert_eq!(node.process.rest_of_stdout(), [""; 0]);
        }
    }
}

#[test]
fn it_ends_at_once_even_while_a_dump_is_on_its_way() {
    let mut node = PROGRAMS.node(&[]);
    let client = Client::new(node.addr);
    for number in 0..100 {
        client.store(number.to_string(), vec![b'v'; LONGEST]);
    }
    let first = client.ask(b"").unwrap();
    assert!(first.starts_with(b"storing 100 key-value pairs:\n"));
    let (status, took) = node.process.end_with(Signal::TERM);
    assert_eq!(status.code(), Some(0), "{status:?}");
    assert!(took < Duration::from_secs(1), "{took:?}");
}

/// Runs the server where it should not start; what it said.
fn refusal(command: Command) -> String {
    let (status, out, err) = PROGRAMS.run_to_end(command);
    assert!(
        status.code().is_some_and(|code| code != 0),
        "{status:?}: {err}"
    );
    assert_eq!(out, "", "nothing on standard output");
    err
}

#[test]
fn a_port_that_is_taken_is_refused() {
    for (first, second) in [("1", "1"), ("2", "2"), ("1", "2"), ("2", "1")] {
        let node = PROGRAMS.node(&["k", "v", "--workers", first]);
        let mut command = PROGRAMS.node_command(node.addr);
        command.args(["--workers", second]);
        let said = refusal(command);
        assert!(
            said.contains(&format!("cannot take datagrams on {}", node.addr)),
            "{said}"
        );
        assert_eq!(Client::new(node.addr).get("k"), b"v", "the first serves on");
    }
}

#[test]
fn other_machines_are_let_in_only_if_that_is_said() {
    let said = refusal(PROGRAMS.node_command(([0, 0, 0, 0], 0).into()));
    assert!(
        said.contains("0.0.0.0:0") && said.contains("--insecure"),
        "{said}"
    );
    let node = PROGRAMS.node_at(([0, 0, 0, 0], 0).into(), &["--insecure", "k", "v"]);
    let addr = ([127, 0, 0, 1], node.addr.port()).into();
    assert_eq!(Client::new(addr).get("k"), b"v");
}

#[test]
fn a_server_may_be_known_by_another_address_than_it_is_bound_to() {
    // An address for documentation, which no machine has.
    let known = "192.0.2.1:4000".parse().unwrap();
    let servers = ServersFile::with_text("192.0.2.1 4000 1\n192.0.2.2 4000 1\n");
    let dir = DataDir::new();
    let bound = format!("{}:0", own_loopback());
    let arguments = [
        ["--bind", &bound],
        ["--servers", servers.path()],
        ["--data-dir", dir.path()],
        ["--declare", "new"],
    ];
    let arguments = [&["--insecure"], arguments.as_flattened()].concat();
    let node = PROGRAMS.node_at(known, &arguments);
    assert_eq!(node.addr, known, "the log names it as the ring does");
    let serving = node.process.log.last().unwrap().clone();
    let bound = serving
        .split_whitespace()
        .find_map(|word| word.strip_prefix("bound="));
    let client = Client::new(bound.unwrap().parse().unwrap());
    client.store("k", "v");
    assert_eq!(client.get("k"), b"v");
    let identity = std::fs::read_to_string(format!("{}/identity.json", dir.path())).unwrap();
    assert!(identity.contains("192.0.2.1:4000"), "{identity}");
}

#[test]
fn bad_arguments_are_refused_with_what_is_wrong() {
    let long = "x".repeat(LONGEST + 1);
    for (arguments, reason) in [
        (&[][..], "<IP>"),
        (&["127.0.0.1"], "<PORT>"),
        (&["localhost", "0"], "localhost"),
        (&["127.0.001", "0"], "127.0.001"),
        (&["::1", "0"], "::1"),
        (&["127.0.0.1", "65536"], "65536"),
        (&["127.0.0.1", "-1"], "-1"),
        (&["127.0.0.1", "1aa4"], "1aa4"),
        (&["127.0.0.1", "0", "--no-such-flag"], "--no-such-flag"),
        (
            &["127.0.0.1", "0", "--max-memory", "lots"],
            "a whole number of bytes",
        ),
        (&["127.0.0.1", "0", "--workers", "0"], "--workers"),
        (&["127.0.0.1", "0", "k"], "the last key has no value"),
        (
            &["127.0.0.1", "0", "k", "v", "k2"],
            "the last key has no value",
        ),
        (&["127.0.0.1", "0", "", "v"], "the key is empty"),
        (&["127.0.0.1", "0", &long, "v"], "32754 bytes"),
        (&["127.0.0.1", "0", "k", &long], "32754 bytes"),
        (
            &["127.0.0.1", "0", "--max-memory", "50", "k", "v"],
            "do not fit",
        ),
    ] {
        let mut command = Command::new(PROGRAMS.storage_node);
        command.args(arguments);
        let said = refusal(command);
        assert!(said.contains(reason), "{reason}: {said:.1000}");
    }
}

#[test]
fn many_clients_at_once_get_their_own_answers() {
    let node = PROGRAMS.node(&["--workers", "2"]);
    std::thread::scope(|scope| {
        for number in 0..32 {
            scope.spawn(move || {
                let client = Client::new(node.addr);
                let mut random = Random::new(number);
                for round in 0..100 {
                    let (key, value) = (
                        format!("{number}-{}", round % 10),
                        random.number().to_string(),
                    );
                    client.store(&key, &value);
                    assert_eq!(client.get(&key), value.as_bytes());
                    assert_eq!(client.get(format!("{number}-none")), NUL);
                    let shared = client.put("shared", format!("by {number}"));
                    assert_eq!(shared, NUL);
                    let shared = String::from_utf8(client.get("shared")).unwrap();
                    assert!(shared.starts_with("by "), "{shared}");
                }
            });
        }
    });
    assert_eq!(Client::new(node.addr).whole_dump().announced, 321);
}

/// What a server answers to any datagram but a dump, as far as it is no get of a stored key.
fn expected_reply(datagram: &[u8]) -> &'static [u8] {
    let Some(nul) = datagram.iter().position(|byte| *byte == 0) else {
        return NUL;
    };
    let (key, value) = (&datagram[..nul], &datagram[nul + 1..]);
    let too_long = key.len() > LONGEST || value.len() > LONGEST;
    if key.is_empty() || too_long || value.contains(&0) {
        EMPTY
    } else {
        NUL
    }
}

#[test]
fn datagrams_of_every_length_and_content_are_answered_and_do_no_harm() {
    let mut node = PROGRAMS.node(&["k", "v"]);
    let client = Client::new(node.addr);
    let mut random = Random::new(29);
    let lengths = (1..=1_500)
        .chain((1_500..65_507).step_by(997))
        .chain([65_506, 65_507]);
    for length in lengths {
        for kind in 0..3 {
            let mut datagram = random.bytes(length);
            match kind {
                0 => {}
                1 => datagram.iter_mut().for_each(|byte| *byte = (*byte).max(1)),
                _ => {
                    datagram.iter_mut().for_each(|byte| *byte = (*byte).max(1));
                    let nul = random.below(length);
                    datagram[nul] = 0;
                }
            }
            let reply = client.ask(&datagram).unwrap();
            // Short random keys do meet again.
            if length > 4 {
                assert_eq!(
                    reply,
                    expected_reply(&datagram),
                    "{length} bytes, kind {kind}"
                );
            }
        }
    }
    assert_eq!(Client::new(node.addr).get("k"), b"v");
    assert!(node.process.is_running());
}

#[test]
fn replies_to_one_burst_keep_their_order_and_where_each_ends() {
    let node = PROGRAMS.node(&["--workers", "1", "a", "1234", "b", "567", "empty", ""]);
    let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    socket.connect(node.addr).unwrap();
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    // Equal ones may leave together, a shorter one only as the last, and an empty one alone.
    let exchanges = [
        ("a", &b"1234"[..]),
        ("a", b"1234"),
        ("b", b"567"),
        ("b", b"567"),
        ("empty", b""),
        ("none", b"\0"),
        ("empty", b""),
        ("a", b"1234"),
    ];
    let mut buffer = [0; 16];
    for _ in 0..50 {
        // Stopped, so that all of it has arrived when the server looks.
        node.process.stop();
        for (key, _) in exchanges {
            socket.send(key.as_bytes()).unwrap();
        }
        node.process.go_on();
        for (key, value) in exchanges {
            let length = socket.recv(&mut buffer).unwrap();
            assert_eq!(&buffer[..length], value, "{key}");
        }
    }
}
