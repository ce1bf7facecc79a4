//! A value is any bytes that the protocol carries, and comes back as it went in. What DKVS/2 alone
//! carries is in `v2`.

use dkvs_tests::http::{Connection, client, exchange, get, put, request, send};
use dkvs_tests::process::Gateway;
use dkvs_tests::programs;
use dkvs_tests::random::Random;

const LONGEST: usize = 32_753;

#[tokio::test]
async fn an_empty_value_is_a_value() {
    let cluster = programs!().cluster(3, &[]);
    let client = client();
    let url = cluster.gateway.url("/kv/k");
    assert_eq!(put(&client, url.clone(), "").await.status, 200);
    let read = get(&client, url.clone()).await;
    assert_eq!(
        (read.status.as_u16(), read.json["value"].as_str()),
        (200, Some(""))
    );
    assert_eq!(read.json["size"], 0);
    let raw = get(&client, url.clone() + "?raw=true").await;
    assert_eq!((raw.status.as_u16(), raw.body.len()), (200, 0));
    assert_eq!(raw.header("content-length"), "0");
    // A put without any body is one of an empty value as well.
    assert_eq!(put(&client, url.clone(), "full").await.status, 200);
    let bare = exchange(cluster.gateway.addr, request("PUT", "/kv/k?wait=all", None)).await;
    assert_eq!(bare.status, 200, "{bare:?}");
    assert_eq!(get(&client, url).await.json["size"], 0);
}

#[tokio::test]
async fn values_of_every_kind_come_back_as_they_went_in() {
    let cluster = programs!().cluster(3, &[]);
    let client = client();
    let every_byte: Vec<u8> = (1..=255).collect();
    let mut random = Random::new(17);
    let mut without_nul = random.bytes(LONGEST);
    without_nul.retain(|byte| *byte != 0);
    let values: [(&str, &[u8]); 8] = [
        ("text", b"hello"),
        ("json", b"{\"value\": \"\\u0000\"}"),
        ("lines", b"a\r\nb\n\tc\x1b[31m"),
        ("utf-8", "\u{65e5}\u{672c} \u{1f600}".as_bytes()),
        ("bytes", b"\xff\xfe"),
        ("every", &every_byte),
        ("random", &without_nul),
        ("longest", &[b'v'; LONGEST]),
    ];
    for (name, value) in values {
        let url = cluster.gateway.url(&format!("/kv/{name}"));
        let put = put(&client, url.clone(), value.to_vec()).await;
        assert_eq!(put.status, 200, "{name}: {put:?}");
        let raw = get(&client, url.clone() + "?raw=true").await;
        assert!(raw.body == value, "{name}");
        let read = get(&client, url).await;
        assert_eq!(read.json["size"], value.len());
        if let Ok(text) = std::str::from_utf8(value) {
            assert_eq!(read.json["encoding"], "utf-8", "{name}");
            assert_eq!(read.json["value"], text, "{name}");
        } else {
            assert_eq!(read.json["encoding"], "base64", "{name}");
        }
    }
    let bytes = get(&client, cluster.gateway.url("/kv/bytes")).await;
    assert_eq!(bytes.json["value"], "//4=");
}

#[tokio::test]
async fn a_raw_value_comes_with_its_diagnosis_and_runs_nothing() {
    let cluster = programs!().cluster(3, &[]);
    let client = client();
    let url = cluster.gateway.url("/kv/k?wait=all");
    put(&client, url.clone(), "<script>").await;
    let by_parameter = get(&client, url.clone() + "&raw=true").await;
    let accept = ("accept", "application/octet-stream");
    let by_header = send(client.get(url).header(accept.0, accept.1)).await;
    for raw in [by_parameter, by_header] {
        assert_eq!(raw.body, b"<script>");
        assert_eq!(raw.header("content-type"), "application/octet-stream");
        assert_eq!(raw.header("x-content-type-options"), "nosniff");
        let policy = raw.header("content-security-policy");
        assert_eq!(policy, "default-src 'none'; sandbox");
        assert_eq!(raw.header("dkvs-consistency"), "linearizable");
        assert_eq!(raw.header("dkvs-quorum"), "n=3, r=2, agreeing=3");
        assert_eq!(raw.header("server-timing").matches(" match\"").count(), 3);
    }
}

#[tokio::test]
async fn head_returns_what_get_would_and_has_no_body() {
    let cluster = programs!().cluster(3, &[]);
    let client = client();
    put(&client, cluster.gateway.url("/kv/k"), "hello").await;
    let mut connection = Connection::open(cluster.gateway.addr).await;
    for (target, status, length) in [
        ("/kv/k?raw=true", 200, Some("5")),
        ("/kv/k", 200, None),
        ("/kv/none", 404, None),
        ("/kv/k?n=9", 400, None),
        ("/nothing", 404, None),
    ] {
        connection.send(request("HEAD", target, None)).await;
        let head = connection.reply_to("HEAD").await;
        assert_eq!(head.status, status, "{target}");
        let answer: usize = head.header("content-length").parse().unwrap();
        assert!(answer > 0, "{target}");
        assert!(length.is_none_or(|length| head.header("content-length") == length));
        assert_ne!(head.header("content-type"), "", "{target}");
        // Had there been a body, this would not be a reply.
        connection.send(request("GET", "/livez", None)).await;
        assert_eq!(connection.reply().await.json["status"], "alive");
    }
}

#[tokio::test]
async fn a_value_of_32754_bytes_is_413_however_it_is_sent() {
    let cluster = programs!().cluster(3, &["--protocol", "v1"]);
    too_large(&cluster.gateway, LONGEST).await;
}

#[tokio::test]
async fn a_value_that_is_longer_than_the_gateway_takes_is_413_however_it_is_sent() {
    let cluster = programs!().cluster(3, &[]);
    too_large(&cluster.gateway, 1 << 20).await;
    let cluster = programs!().cluster(3, &["--max-value", "5000"]);
    too_large(&cluster.gateway, 5_000).await;
}

async fn too_large(gateway: &Gateway, longest: usize) {
    let addr = gateway.addr;
    let too_long = vec![b'v'; longest + 1];
    let announced = request("PUT", "/kv/k", Some(&too_long));
    let mut chunked =
        b"PUT /kv/k HTTP/1.1\r\nhost: localhost\r\ntransfer-encoding: chunked\r\n\r\n".to_vec();
    for chunk in too_long.chunks(1_000) {
        chunked.extend(format!("{:x}\r\n", chunk.len()).into_bytes());
        chunked.extend_from_slice(chunk);
        chunked.extend_from_slice(b"\r\n");
    }
    chunked.extend_from_slice(b"0\r\n\r\n");
    // The answer comes before the client has sent it all.
    let head_alone = request("PUT", "/kv/k", None);
    let head_alone = [
        &head_alone[..head_alone.len() - 2],
        format!("content-length: {}\r\n\r\n", longest + 1).as_bytes(),
    ]
    .concat();
    let endless =
        b"PUT /kv/k HTTP/1.1\r\nhost: localhost\r\ntransfer-encoding: chunked\r\n\r\nffffff\r\n";
    let endless = [endless, &too_long[..]].concat();
    let megabytes = request("PUT", "/kv/k", Some(&vec![b'v'; 8 << 20]));

    for (name, request) in [
        ("announced", announced),
        ("chunked", chunked),
        ("head alone", head_alone),
        ("endless", endless),
        ("megabytes", megabytes),
    ] {
        let reply = exchange(addr, request).await;
        assert_eq!(reply.status, 413, "{name}: {reply:?}");
        assert_eq!(reply.problem(), "value-too-large", "{name}");
        assert_eq!(reply.json["value_bytes_max"], longest, "{name}");
    }
    let client = client();
    let refused = put(&client, gateway.url("/kv/k"), too_long).await;
    assert_eq!(refused.status, 413);
    assert_eq!(get(&client, gateway.url("/kv/k")).await.status, 404);
}

#[tokio::test]
async fn a_chunked_value_of_32753_bytes_is_taken() {
    let cluster = programs!().cluster(3, &[]);
    let mut connection = Connection::open(cluster.gateway.addr).await;
    let head = "PUT /kv/k HTTP/1.1\r\nhost: localhost\r\ntransfer-encoding: chunked\r\n\r\n";
    connection.send(head).await;
    for chunk in vec![b'v'; LONGEST].chunks(10_000) {
        connection.send(format!("{:x}\r\n", chunk.len())).await;
        connection.send(chunk).await;
        connection.send("\r\n").await;
    }
    connection.send("0\r\n\r\n").await;
    let put = connection.reply().await;
    assert_eq!(put.status, 200, "{put:?}");
    connection
        .send(request("GET", "/kv/k?raw=true", None))
        .await;
    assert_eq!(connection.reply().await.body, vec![b'v'; LONGEST]);
}

#[tokio::test]
async fn by_dkvs_1_a_nul_in_a_value_is_refused_and_nothing_is_stored() {
    let cluster = programs!().cluster(3, &["--protocol", "v1"]);
    let client = client();
    let url = cluster.gateway.url("/kv/k");
    for value in [&b"\0"[..], b"v\0", b"\0v", b"a\0b"] {
        let refused = put(&client, url.clone(), value).await;
        assert_eq!(refused.status, 400);
        assert_eq!(refused.problem(), "invalid-value");
    }
    assert_eq!(get(&client, url).await.status, 404);
}

#[tokio::test]
async fn a_body_that_is_cut_off_or_ill_formed_stores_nothing() {
    let cluster = programs!().cluster(3, &[]);
    let cut_off = b"PUT /kv/k HTTP/1.1\r\nhost: localhost\r\ncontent-length: 10\r\n\r\nonly";
    let chunked = "PUT /kv/k HTTP/1.1\r\nhost: localhost\r\ntransfer-encoding: chunked\r\n\r\n";
    for body in [
        &cut_off[..],
        format!("{chunked}4\r\nonly\r\n").as_bytes(),
        format!("{chunked}4\r\nonly\r\nzz\r\n").as_bytes(),
        format!("{chunked}4\r\nonlymore\r\n0\r\n\r\n").as_bytes(),
    ] {
        let mut connection = Connection::open(cluster.gateway.addr).await;
        connection.send(body).await;
        connection.finish().await;
        let reply = String::from_utf8(connection.rest().await).unwrap();
        assert!(
            reply.is_empty() || reply.starts_with("HTTP/1.1 400 "),
            "{reply}"
        );
    }
    let client = client();
    let read = get(&client, cluster.gateway.url("/kv/k?wait=all")).await;
    assert_eq!(read.statuses(), ["absent"; 3]);
}
