//! Servers and gateways with keys: who has one is served, who has none changes nothing, and keys
//! are replaced while requests go on.

use std::fs;

use dkvs_tests::http::{client, get, put, send};
use dkvs_tests::keys::{key_file, key_lines, set_mode};
use dkvs_tests::load::Load;
use dkvs_tests::process::ServersFile;
use dkvs_tests::until;
use rustix::process::Signal;

use crate::PROGRAMS;

#[tokio::test]
async fn with_keys_everything_works() {
    let keys = key_file(&[1, 2]);
    let with_keys = ["--key-file", keys.path()];
    let cluster = PROGRAMS.cluster_of(3, &with_keys, &with_keys);
    let client = client();
    let url = cluster.gateway.url("/kv/k?wait=all");
    for value_bytes in [0, 1, 1_000, 1_150, 1_200, 100_000, 1 << 20] {
        let value = vec![0; value_bytes];
        let put = put(&client, url.clone(), value.clone()).await;
        assert_eq!(put.statuses(), ["stored"; 3], "{put:?}");
        let raw = get(&client, url.clone() + "&raw=true").await;
        assert!(raw.body == value, "{value_bytes}");
        assert_eq!(raw.header("dkvs-quorum"), "n=3, r=2, agreeing=3");
    }
    let deleted = send(client.delete(&url)).await;
    assert_eq!(deleted.statuses(), ["stored"; 3], "{deleted:?}");
    assert_eq!(get(&client, url).await.json["deleted"], true);
    until("all are reachable", async || {
        let answer = get(&client, cluster.gateway.url("/servers")).await;
        let mut servers = answer.json["servers"].as_array().unwrap().iter();
        servers.all(|server| server["reachable"] == true && server["protocol"] == "DKVS/2")
    })
    .await;
}

#[tokio::test]
async fn a_gateway_without_a_key_or_with_another_stores_nothing() {
    let keys = key_file(&[1]);
    let with_keys = ["--key-file", keys.path()];
    let cluster = PROGRAMS.cluster_of(3, &with_keys, &with_keys);
    let client = client();
    let other_id = key_file(&[2]);
    // The right id before the wrong bytes.
    let other_bytes = ServersFile::with_text(key_lines(&[2]).replacen('2', "1", 1));
    set_mode(&other_bytes, 0o600);
    for arguments in [
        &[][..],
        &["--protocol", "v1"],
        &["--protocol", "v2"],
        &["--key-file", other_id.path()],
        &["--key-file", other_bytes.path()],
    ] {
        let foreign = PROGRAMS.gateway_over(&cluster.servers, arguments);
        let url = foreign.url("/kv/k?timeout_ms=100");
        let refused = put(&client, url.clone(), "v").await;
        assert_eq!(
            (refused.status.as_u16(), refused.problem()),
            (504, "timeout")
        );
        let refused = get(&client, url).await;
        assert_eq!(
            (refused.status.as_u16(), refused.problem()),
            (504, "timeout")
        );
    }
    let none = get(&client, cluster.gateway.url("/kv/k?wait=all")).await;
    assert_eq!(none.statuses(), ["absent"; 3]);
}

/// The recipe of docs/operations/configure.md.
#[tokio::test]
async fn keys_are_replaced_under_load_and_no_request_fails() {
    const CLIENTS: usize = 8;
    let keys = key_file(&[1]);
    let with_keys = ["--key-file", keys.path()];
    let mut cluster = PROGRAMS.cluster_of(3, &with_keys, &[]);
    let gateway_keys = key_file(&[1]);
    let arguments = ["--key-file", gateway_keys.path()];
    cluster.gateway = PROGRAMS.gateway_over(&cluster.servers, &arguments);

    let urls = (0..CLIENTS).map(|number| cluster.gateway.url(&format!("/kv/{number}")));
    let mut load = Load::on(urls);
    load.progress().await;
    for (servers, gateway) in [(&[1, 2][..], &[1, 2][..]), (&[1, 2], &[2, 1]), (&[2], &[2])] {
        for (file, ids) in [(&gateway_keys, gateway), (&keys, servers)] {
            fs::write(file, key_lines(ids)).unwrap();
        }
        for node in &mut cluster.nodes {
            node.process.signal(Signal::HUP);
            let said = node.process.stderr_line_with("the key file was read again");
            assert!(said.contains(&format!("{servers:?}")), "{said}");
        }
        load.progress().await;
        let process = &mut cluster.gateway.process;
        process.signal(Signal::HUP);
        let said = process.stderr_line_with("the key file was read again");
        assert!(said.contains(&format!("{gateway:?}")), "{said}");
        load.progress().await;
    }
    load.end().await;
    // Key 1 is worth nothing any more.
    let old = key_file(&[1]);
    let old = PROGRAMS.gateway_over(&cluster.servers, &["--key-file", old.path()]);
    let refused = get(&client(), old.url("/kv/0?timeout_ms=100")).await;
    assert_eq!(
        (refused.status.as_u16(), refused.problem()),
        (504, "timeout")
    );
}
