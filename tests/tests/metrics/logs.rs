//! What is logged of a request.

use std::net::SocketAddr;

use dkvs_tests::http::{Connection, client, put, request, send};
use dkvs_tests::process::{Gateway, Process, ServersFile, own_loopback};
use dkvs_tests::v1;
use rustix::process::Signal;
use serde_json::Value as Json;

use crate::PROGRAMS;

const TRACE_ID: &str = "0af7651916cd43dd8448eb211c80319c";
const TRACEPARENT: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

/// Every line that a program has logged, once it has ended.
fn log_of(process: &mut Process) -> Vec<String> {
    let (status, _) = process.end_with(Signal::TERM);
    assert!(status.success(), "{status:?}");
    let mut lines = process.rest_of_stderr();
    // The greeting is on standard output, and was waited for.
    lines.retain(|line| !line.starts_with("dkvs gateway "));
    lines
}

fn as_json(lines: &[String]) -> Vec<Json> {
    let json = |line: &String| {
        let event: Json = serde_json::from_str(line).unwrap_or_else(|_| panic!("no JSON: {line}"));
        for member in ["timestamp", "level", "target"] {
            assert!(event[member].is_string(), "{member} of {line}");
        }
        assert!(event["fields"].is_object(), "{line}");
        event
    };
    lines.iter().map(json).collect()
}

fn answered(events: &[Json]) -> Vec<&Json> {
    let fields = events.iter().map(|event| &event["fields"]);
    fields
        .filter(|fields| fields["message"] == "answered")
        .collect()
}

/// Sends a GET with more header lines, and takes the answer.
async fn ask(connection: &mut Connection, target: &str, headers: &[(&str, &str)]) {
    let mut bytes = request("GET", target, None);
    bytes.truncate(bytes.len() - 2);
    for (name, value) in headers {
        bytes.extend_from_slice(format!("{name}: {value}\r\n").as_bytes());
    }
    bytes.extend_from_slice(b"\r\n");
    connection.send(bytes).await;
    connection.reply().await;
}

fn gateway(arguments: &[&str]) -> Gateway {
    PROGRAMS.gateway(&[&["--embedded", "1"], arguments].concat())
}

#[tokio::test]
async fn at_debug_each_request_is_one_event_with_its_name_and_trace() {
    let mut gateway = gateway(&["--log", "debug", "--log-format", "json"]);
    let mut connection = Connection::open(gateway.addr).await;
    let name = ("x-request-id", "named-by-caller");
    ask(
        &mut connection,
        "/kv/secret%0akey",
        &[name, ("traceparent", TRACEPARENT)],
    )
    .await;
    ask(
        &mut connection,
        "/kv/k?n=9",
        &[("traceparent", "00-no-trace")],
    )
    .await;
    ask(&mut connection, "/nowhere", &[]).await;
    drop(connection);
    let lines = log_of(&mut gateway.process);
    let events = as_json(&lines);
    let [first, second, third] = answered(&events)[..] else {
        panic!("three requests: {lines:#?}");
    };
    assert_eq!(first["request_id"], "named-by-caller");
    assert_eq!(first["trace_id"], TRACE_ID);
    assert_eq!(
        (&first["method"], &first["route"], &first["status"]),
        (&"GET".into(), &"/kv/{key}".into(), &404.into())
    );
    assert!(first["elapsed_us"].is_u64(), "{first}");
    assert_eq!(
        (&second["route"], &second["status"]),
        (&"/kv/{key}".into(), &400.into())
    );
    assert_eq!(
        (&third["route"], &third["status"]),
        (&"other".into(), &404.into())
    );
    let trace_ids = [first, second, third].map(|it| it["trace_id"].as_str().expect("a trace"));
    for id in trace_ids {
        let is_digit = |it: u8| matches!(it, b'0'..=b'9' | b'a'..=b'f');
        assert!(id.len() == 32 && id.bytes().all(is_digit), "{id}");
    }
    assert!(trace_ids[1] != trace_ids[2] && trace_ids[1] != TRACE_ID);
    assert!(
        !lines.iter().any(|line| line.contains("secret")),
        "{lines:#?}"
    );
}

#[tokio::test]
async fn at_info_nothing_is_logged_of_a_request() {
    for format in ["text", "json"] {
        let mut gateway = gateway(&["--log-format", format]);
        let mut connection = Connection::open(gateway.addr).await;
        ask(&mut connection, "/kv/k", &[("traceparent", TRACEPARENT)]).await;
        drop(connection);
        let lines = log_of(&mut gateway.process);
        assert!(!lines.is_empty(), "it says that it has ended");
        let reported = lines
            .iter()
            .filter(|line| line.contains(TRACE_ID) || line.contains("/kv/"));
        assert_eq!(reported.collect::<Vec<_>>(), [""; 0]);
    }
}

#[tokio::test]
async fn a_key_never_is_a_log_lines_control_bytes() {
    for format in ["text", "json"] {
        // By hand: the address is not in one place in both.
        let mut command = PROGRAMS.node_command((own_loopback(), 0).into());
        command.args(["--log", "debug", "--log-format", format]);
        let mut process = Process::spawn(command);
        let line = process.stderr_line_with("serving");
        let addr: SocketAddr = match format {
            "json" => {
                let event = &as_json(&[line])[0];
                event["fields"]["addr"]
                    .as_str()
                    .expect("an address")
                    .parse()
            }
            _ => {
                let (_, addr) = line.split_once("addr=").expect("an address");
                addr.split(' ').next().expect("its end").parse()
            }
        }
        .expect("an address");
        let gateway = PROGRAMS.gateway_over(&ServersFile::new(&[addr]), &[]);
        let value = put(&client(), gateway.url("/kv/%1b%0akey"), &b"\0"[..]).await;
        assert_eq!(value.status, 200, "{value:?}");
        // DKVS/1 cannot carry this value, and the server logs of which key.
        assert_eq!(v1::Client::new(addr).get("\u{1b}\nkey"), v1::NUL);
        let lines = log_of(&mut process);
        if format == "json" {
            as_json(&lines);
        }
        let mut lines = lines.iter();
        let reported = lines.find(|line| line.contains("told as unknown"));
        let reported = reported.expect("the key is logged");
        assert!(
            reported.contains("x1b") && reported.contains("nkey"),
            "{reported}"
        );
        assert!(!reported.contains('\u{1b}'), "{reported}");
    }
}

#[test]
fn the_format_is_taken_from_the_environment_too_and_no_other_value_is() {
    let mut command = PROGRAMS.gateway_command();
    command.env("DKVS_LOG_FORMAT", "json");
    command.args(["--listen", "127.0.0.1:0", "--embedded", "1"]);
    let mut gateway = Gateway::of(command);
    assert!(!as_json(&log_of(&mut gateway.process)).is_empty());
    let mut command = PROGRAMS.gateway_command();
    command.args(["--log-format", "xml"]);
    let (status, _, err) = PROGRAMS.run_to_end(command);
    assert_eq!(status.code(), Some(2), "{err}");
    assert!(err.contains("'xml'") && err.contains("text, json"), "{err}");
}

#[tokio::test]
async fn servers_log_what_they_do_under_the_trace_of_a_caller_who_samples_it() {
    let mut nodes = [(); 3].map(|()| PROGRAMS.node(&["--log", "debug"]));
    let servers = ServersFile::new(&nodes.each_ref().map(|it| it.addr));
    let gateway = PROGRAMS.gateway_over(&servers, &[]);
    let client = client();
    for (key, flags) in [("sampled", "01"), ("not", "00")] {
        let traceparent = format!("00-{TRACE_ID}-b7ad6b7169203331-{flags}");
        let put = client.put(gateway.url(&format!("/kv/{key}?wait=all")));
        let put = put.header("traceparent", traceparent).body("v");
        assert_eq!(send(put).await.status, 200);
    }
    let mut tags = 0;
    for node in &mut nodes {
        let mut lines = log_of(&mut node.process);
        lines.retain(|line| line.contains(TRACE_ID));
        for line in &lines {
            assert!(line.contains("span_id=b7ad6b7169203331"), "{line}");
            assert!(line.contains("key_bytes=7"), "{line}");
        }
        let of = |operation: &str| {
            let operation = format!("operation=\"{operation}\"");
            lines
                .iter()
                .filter(|line| line.contains(&operation))
                .count()
        };
        assert_eq!(of("put"), 1, "{lines:?}");
        assert_eq!(of("put") + of("tag"), lines.len(), "{lines:?}");
        tags += of("tag");
    }
    // A majority's tags are enough: the third server may never have been asked for its own.
    assert!(tags == 2 || tags == 3, "{tags}");
}
