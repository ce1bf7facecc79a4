//! Spans, as a collector takes them.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpListener;
use std::thread;

use dkvs_tests::PATIENCE;
use dkvs_tests::http::{Connection, request};
use dkvs_tests::process::Gateway;
use rustix::process::Signal;

use crate::PROGRAMS;

#[tokio::test]
async fn a_collector_gets_the_span_of_a_request_as_part_of_its_callers_trace() {
    let collector = TcpListener::bind("127.0.0.1:0").unwrap();
    let endpoint = format!("http://{}", collector.local_addr().unwrap());
    let collected = thread::spawn(move || collect(&collector));

    let mut command = PROGRAMS.gateway_command();
    for name in ["http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"] {
        command.env_remove(name);
    }
    command.args(["--listen", "127.0.0.1:0", "--embedded", "1"]);
    command.args(["--otlp-endpoint", &endpoint]);
    let mut gateway = Gateway::of(command);
    let mut connection = Connection::open(gateway.addr).await;
    let mut get = request("GET", "/kv/secret", None);
    get.truncate(get.len() - 2);
    get.extend_from_slice(
        b"traceparent: 00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01\r\n\r\n",
    );
    connection.send(get).await;
    assert_eq!(connection.reply().await.status, 404);
    drop(connection);
    // What is held goes out at the end.
    let ended = tokio::task::spawn_blocking(move || gateway.process.end_with(Signal::TERM));
    let (status, _) = ended.await.unwrap();
    assert!(status.success(), "{status:?}");

    let spans = collected.join().expect("a collector");
    let has = |part: &[u8]| spans.windows(part.len()).any(|window| window == part);
    assert!(has(b"GET /kv/{key}"), "{}", spans.escape_ascii());
    assert!(has(b"dkvs-gateway"));
    assert!(has(b"http.response.status_code"));
    assert!(has(
        &0x0af7_6519_16cd_43dd_8448_eb21_1c80_319c_u128.to_be_bytes()
    ));
    assert!(has(&0xb7ad_6b71_6920_3331_u64.to_be_bytes()));
    assert!(!has(b"secret"), "{}", spans.escape_ascii());
}

/// Takes one request as a collector does; its body.
fn collect(listener: &TcpListener) -> Vec<u8> {
    let (stream, _) = listener.accept().expect("a connection");
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let mut reader = BufReader::new(stream);
    let (mut line, mut length) = (String::new(), 0);
    reader.read_line(&mut line).unwrap();
    assert_eq!(line, "POST /v1/traces HTTP/1.1\r\n");
    while line != "\r\n" {
        line.clear();
        reader.read_line(&mut line).unwrap();
        if let Some(value) = line.to_lowercase().strip_prefix("content-length: ") {
            length = value.trim().parse().unwrap();
        }
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body).unwrap();
    let answer = b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n";
    reader.get_mut().write_all(answer).unwrap();
    body
}
