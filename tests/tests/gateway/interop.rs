//! What a gateway writes, a C client reads from each replica, and the reverse.

use std::net::SocketAddr;

use dkvs_tests::http::{client, get, path_of, put};
use dkvs_tests::process::{Cluster, ServersFile};
use dkvs_tests::{programs, v1};
use reqwest::Client;

async fn servers_of(client: &Client, cluster: &Cluster, key: &str, n: u8) -> Vec<SocketAddr> {
    let path = path_of(key).replacen("/kv/", "/ring/", 1);
    let url = cluster.gateway.url(&format!("{path}?n={n}"));
    get(client, url).await.servers()
}

#[tokio::test]
async fn a_c_client_reads_from_each_replica_what_a_gateway_wrote() {
    let cluster = programs!().cluster(5, &[]);
    let client = client();
    let every_byte: Vec<u8> = (1..=255).collect();
    let longest = vec![b'x'; 32_753];
    for (key, value) in [
        ("plain", &b"value"[..]),
        ("with / and .. and \u{e9}", b"value"),
        ("empty", b""),
        ("every byte", &every_byte),
        ("longest", &longest),
    ] {
        let url = cluster.gateway.url(&(path_of(key) + "?n=4&w=4"));
        let put = put(&client, url, value.to_vec()).await;
        assert_eq!(put.status, 200, "{put:?}");
        let replicas = put.servers();
        assert_eq!(replicas.len(), 4);
        for node in &cluster.nodes {
            let held = v1::Client::new(node.addr).get(key);
            let expected = if replicas.contains(&node.addr) {
                value
            } else {
                v1::NUL
            };
            assert!(held == expected, "{key} on {}", node.addr);
        }
    }
}

#[tokio::test]
async fn a_gateway_reads_what_a_c_client_wrote_to_each_replica() {
    let cluster = programs!().cluster(5, &[]);
    let by_v1 = programs!().gateway_over(&cluster.servers, &["--protocol", "v1"]);
    let client = client();
    let every_byte: Vec<u8> = (1..=255).collect();
    let longest = vec![b'x'; 32_753];
    for (key, value) in [
        ("plain", &b"value"[..]),
        ("with / and .. and \u{e9}", b"value"),
        ("empty", b""),
        ("every byte", &every_byte),
        ("longest", &longest),
    ] {
        for server in servers_of(&client, &cluster, key, 3).await {
            v1::Client::new(server).store(key, value);
        }
        let path = path_of(key) + "?wait=all&raw=true";
        let read = get(&client, by_v1.url(&path)).await;
        assert!(read.body == value, "{key}");
        assert_eq!(read.header("dkvs-quorum"), "n=3, r=2, agreeing=3");
        // By DKVS/2 a long value is fetched until two agree; the third was written under a tag of
        // its own, and its checksum shows that it is the same.
        for level in ["&consistency=agreement", "", "&n=3&r=2"] {
            let path = format!("{path}{level}");
            let read = get(&client, cluster.gateway.url(&path)).await;
            assert!(read.body == value, "{key}");
            assert_eq!(read.header("dkvs-consistency"), "agreement", "{key}");
            let expected = "n=3, r=2, agreeing=3";
            assert_eq!(read.header("dkvs-quorum"), expected, "{key} {level}");
        }
        let path = path.replace("raw=true", "consistency=linearizable");
        let read = get(&client, cluster.gateway.url(&path)).await;
        assert_eq!(read.problem(), "invalid-parameter", "{read:?}");
        let detail = read.json["detail"].as_str().unwrap();
        assert!(detail.contains("came by DKVS/1"), "{detail}");
        let written = put(&client, cluster.gateway.url(&path), "by HTTP").await;
        assert_eq!((written.status.as_u16(), written.count("stored")), (200, 3));
        let read = get(&client, cluster.gateway.url(&path)).await;
        assert_eq!(read.json["consistency"], "linearizable");
        assert_eq!(
            (read.json["value"].as_str(), read.count("match")),
            (Some("by HTTP"), 3)
        );
    }
}

#[tokio::test]
async fn a_c_client_that_reached_only_some_replicas_is_seen_for_what_it_did() {
    let cluster = programs!().cluster(3, &[]);
    let client = client();
    let servers = servers_of(&client, &cluster, "k", 3).await;
    let path = "/kv/k?wait=all&consistency=agreement";
    let url = |query: &str| cluster.gateway.url(&format!("{path}{query}"));

    v1::Client::new(servers[1]).store("k", "one");
    let two_absent = get(&client, url("")).await;
    assert_eq!(two_absent.problem(), "key-not-found");
    assert_eq!(two_absent.statuses(), ["absent", "differs", "absent"]);
    let one_enough = get(&client, url("&r=1")).await;
    assert_eq!(one_enough.json["value"], "one");
    assert_eq!(one_enough.statuses(), ["absent", "match", "absent"]);

    v1::Client::new(servers[2]).store("k", "one");
    let two_hold = get(&client, url("")).await;
    assert_eq!(two_hold.json["value"], "one");
    assert_eq!(two_hold.statuses(), ["absent", "match", "match"]);
    assert_eq!(two_hold.json["quorum"]["agreeing"], 2);

    v1::Client::new(servers[0]).store("k", "other");
    assert_eq!(
        get(&client, url("")).await.statuses(),
        ["differs", "match", "match"]
    );
}

#[tokio::test]
async fn pairs_from_a_servers_command_line_are_read() {
    let programs = programs!();
    let node = programs.node(&["colour", "red", "empty", ""]);
    let servers = ServersFile::new(&[node.addr]);
    let gateway = programs.gateway_over(&servers, &[]);
    let client = client();
    let read = get(&client, gateway.url("/kv/colour")).await;
    assert_eq!(read.json["value"], "red");
    assert_eq!(get(&client, gateway.url("/kv/empty")).await.json["size"], 0);
}

#[tokio::test]
async fn two_gateways_over_the_same_servers_see_each_others_writes() {
    let cluster = programs!().cluster(5, &[]);
    let other = programs!().gateway_over(&cluster.servers, &[]);
    let client = client();
    let gateways = [&cluster.gateway, &other];
    for round in 0..20 {
        let (writer, reader) = (gateways[round % 2], gateways[(round + 1) % 2]);
        let value = format!("round {round}");
        // Until all have it: at the agreement level one that is late may come after the next.
        let path = "/kv/shared?wait=all";
        let put = put(&client, writer.url(path), value.clone()).await;
        assert_eq!(put.count("stored"), 3, "{put:?}");
        let read = get(&client, reader.url("/kv/shared")).await;
        assert_eq!(read.json["value"], value);
        assert_eq!(read.servers(), put.servers());
    }
    let rings = [
        get(&client, gateways[0].url("/ring")).await,
        get(&client, gateways[1].url("/ring")).await,
    ];
    assert_eq!(rings[0].json, rings[1].json);
}
