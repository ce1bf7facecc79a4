//! What gateways and servers count, as Prometheus scrapes it, and what they log of requests.
//!
//! * here: pages of metrics, read strictly
//! * [`listener`]: what a storage server's port for metrics does with unknown clients
//! * [`documents`]: docs/metrics.md and the dashboard against what is really there
//! * [`logs`]: lines of JSON, and the trace of a request in them
//! * `spans`: what a collector gets, with the feature `otel`

mod documents;
mod listener;
mod logs;
#[cfg(feature = "otel")]
mod spans;

use std::net::SocketAddr;

use dkvs_tests::exposition::{Format, Page};
use dkvs_tests::http::{self, Connection, Reply, client, exchange, get, put, request};
use dkvs_tests::process::{Gateway, Node, Programs, ServersFile};
use dkvs_tests::{programs, until};
use reqwest::Client;
use tokio::net::TcpListener;

const PROGRAMS: Programs = programs!();

/// What a scraper of Prometheus accepts.
const SCRAPER: &str = "application/openmetrics-text;version=1.0.0;q=0.5,text/plain;q=0.3,*/*;q=0.1";

/// A page, in the format that its media type says.
fn page(reply: &Reply) -> Page {
    assert_eq!(reply.status, 200, "{reply:?}");
    let text = str::from_utf8(&reply.body).expect("a page is text");
    let format = Format::of(reply.header("content-type"));
    Page::parse(text, format).unwrap_or_else(|wrong| panic!("{wrong}\nin {text}"))
}

/// The page of a gateway.
async fn scrape(client: &Client, gateway: &Gateway) -> Page {
    let request = client
        .get(gateway.url("/metrics"))
        .header("accept", SCRAPER);
    page(&http::send(request).await)
}

/// The same of what serves nothing but metrics.
async fn scrape_at(client: &Client, addr: SocketAddr) -> Page {
    let request = client.get(format!("http://{addr}/metrics"));
    page(&http::send(request.header("accept", SCRAPER)).await)
}

/// A server that serves metrics, and where.
fn measured_node(arguments: &[&str]) -> (Node, SocketAddr) {
    measured_node_at("127.0.0.1:0", arguments)
}

fn measured_node_at(addr: &str, arguments: &[&str]) -> (Node, SocketAddr) {
    let mut node = PROGRAMS.node(&[&["--metrics", addr], arguments].concat());
    let line = node.process.stderr_line_with("metrics are at");
    let (_, url) = line.split_once("http://").expect("a URL");
    let addr = url.strip_suffix("/metrics").expect("its path");
    (node, addr.parse().expect("its address"))
}

#[tokio::test]
async fn pages_are_well_formed_in_both_formats() {
    let gateway = PROGRAMS.gateway(&["--embedded", "3"]);
    let (_node, addr) = measured_node(&[]);
    let client = client();
    put(&client, gateway.url("/kv/k"), "v").await;
    for url in [gateway.url("/metrics"), format!("http://{addr}/metrics")] {
        for (accept, format) in [
            (SCRAPER, Format::OpenMetrics),
            ("*/*", Format::Prometheus),
            ("text/plain", Format::Prometheus),
        ] {
            let reply = http::send(client.get(&url).header("accept", accept)).await;
            assert_eq!(Format::of(reply.header("content-type")), format);
            assert!(page(&reply).families.len() > 20, "{reply:?}");
        }
    }
}

const ROUTE: (&str, &str) = ("route", "/kv/{key}");

#[tokio::test]
async fn what_callers_ask_is_counted_by_route_method_and_status() {
    let gateway = PROGRAMS.gateway(&["--embedded", "3"]);
    let client = client();
    let before = scrape(&client, &gateway).await;
    assert_eq!(
        before.sum("dkvs_gateway_http_requests_total", &[ROUTE]),
        0.0
    );
    put(&client, gateway.url("/kv/a/secret%00key"), "v").await;
    get(&client, gateway.url("/kv/a/secret%00key")).await;
    get(&client, gateway.url("/kv/absent")).await;
    get(&client, gateway.url("/kv/k?n=9")).await;
    get(&client, gateway.url("/nowhere")).await;
    http::send(client.post(gateway.url("/kv/k"))).await;
    let request = client
        .get(gateway.url("/metrics"))
        .header("accept", SCRAPER);
    let reply = http::send(request).await;
    let after = page(&reply);
    for (labels, expected) in [
        (&[ROUTE, ("method", "PUT"), ("status", "200")][..], 1.0),
        (&[ROUTE, ("method", "GET"), ("status", "200")], 1.0),
        (&[ROUTE, ("method", "GET"), ("status", "404")], 1.0),
        (&[ROUTE, ("method", "GET"), ("status", "400")], 1.0),
        (&[ROUTE, ("method", "POST"), ("status", "405")], 1.0),
        (&[("route", "other"), ("status", "404")], 1.0),
        (&[("route", "/metrics"), ("status", "200")], 1.0),
    ] {
        let counted = after.sum("dkvs_gateway_http_requests_total", labels);
        assert_eq!(counted, expected, "{labels:?}");
    }
    let get_count = after.sum(
        "dkvs_gateway_http_request_duration_seconds_count",
        &[ROUTE, ("method", "GET")],
    );
    assert_eq!(get_count, 3.0);
    for (kind, outcome) in [
        ("write", "committed"),
        ("read", "found"),
        ("read", "absent"),
    ] {
        let labels = [
            ("kind", kind),
            ("outcome", outcome),
            ("level", "linearizable"),
        ];
        let count = |page: &Page| page.sum("dkvs_gateway_quorum_requests_total", &labels);
        assert_eq!((count(&before), count(&after)), (0.0, 1.0), "{labels:?}");
    }
    assert_eq!(after.sum("dkvs_gateway_quorum_requests_total", &[]), 3.0);
    // This one.
    assert_eq!(after.sum("dkvs_gateway_http_requests_in_flight", &[]), 1.0);
    let text = String::from_utf8_lossy(&reply.body);
    assert!(
        !text.contains("secret") && !text.contains("nowhere"),
        "{text}"
    );
}

#[tokio::test]
async fn all_workers_count_together() {
    let gateway = PROGRAMS.gateway(&["--embedded", "3", "--workers", "3"]);
    let client = client();
    for _ in 0..30 {
        // Connections of their own, which the system spreads over the workers.
        let reply = exchange(gateway.addr, request("PUT", "/kv/k", Some(b"v"))).await;
        assert_eq!(reply.status, 200);
    }
    for _ in 0..3 {
        let mut connection = Connection::open(gateway.addr).await;
        connection.send(request("GET", "/metrics", None)).await;
        let page = page(&connection.reply().await);
        let requests = page.sum("dkvs_gateway_http_requests_total", &[ROUTE]);
        assert_eq!(requests, 30.0);
        let written = [("kind", "write"), ("outcome", "committed")];
        let written = page.sum("dkvs_gateway_quorum_requests_total", &written);
        assert_eq!(written, 30.0);
        assert_eq!(page.sum("dkvs_gateway_workers", &[]), 3.0);
        assert!(page.sum("dkvs_gateway_link_requests_total", &[]) >= 120.0);
    }
    until("the connections are closed", async || {
        let page = scrape(&client, &gateway).await;
        page.sum("dkvs_gateway_connections_open", &[]) == 1.0
    })
    .await;
}

#[tokio::test]
async fn a_server_that_is_gone_shows() {
    let mut cluster = PROGRAMS.cluster(3, &["--workers", "1"]);
    let client = client();
    put(&client, cluster.gateway.url("/kv/k"), "v").await;
    cluster.nodes[0].process.kill();
    let gone = cluster.nodes[0].addr.to_string();
    let (gone, rest) = (("server", &*gone), cluster.nodes[1].addr.to_string());
    let rest = ("server", &*rest);
    put(&client, cluster.gateway.url("/kv/k?wait=all"), "v").await;
    let page = scrape(&client, &cluster.gateway).await;
    assert_eq!(page.sum("dkvs_gateway_server_reachable", &[gone]), 0.0);
    assert_eq!(page.sum("dkvs_gateway_server_reachable", &[rest]), 1.0);
    assert!(page.sum("dkvs_gateway_link_unreachable_total", &[gone]) >= 1.0);
    assert_eq!(
        page.sum("dkvs_gateway_link_unreachable_total", &[rest]),
        0.0
    );
    assert_eq!(page.sum("dkvs_server_keys", &[gone]), 0.0);
    assert_eq!(page.sum("dkvs_server_keys", &[rest]), 1.0);

    cluster.nodes[1].process.kill();
    let reply = put(&client, cluster.gateway.url("/kv/k"), "v").await;
    assert_eq!(reply.status, 503);
    let page = scrape(&client, &cluster.gateway).await;
    let unreachable = [("kind", "write"), ("outcome", "unreachable")];
    let unreachable = page.sum("dkvs_gateway_quorum_requests_total", &unreachable);
    assert_eq!(unreachable, 1.0);
    let refused = [ROUTE, ("status", "503")];
    assert_eq!(page.sum("dkvs_gateway_http_requests_total", &refused), 1.0);
}

#[tokio::test]
async fn servers_that_are_silent_show() {
    let cluster = PROGRAMS.cluster(3, &["--workers", "1"]);
    let client = client();
    put(&client, cluster.gateway.url("/kv/k?wait=all"), "v").await;
    for node in &cluster.nodes[..2] {
        node.process.stop();
    }
    let reply = get(&client, cluster.gateway.url("/kv/k?timeout_ms=300")).await;
    assert_eq!(reply.status, 504, "{reply:?}");
    let silent = cluster.nodes[0].addr.to_string();
    let silent = [("server", &*silent)];
    let timed_out = [("kind", "read"), ("outcome", "timed_out")];
    // What nobody waits for any more is given up a little later.
    until("requests are given up", async || {
        let page = scrape(&client, &cluster.gateway).await;
        let counted = page.sum("dkvs_gateway_quorum_requests_total", &timed_out);
        assert_eq!(counted, 1.0);
        page.sum("dkvs_gateway_link_unanswered_total", &silent) >= 1.0
            && page.sum("dkvs_gateway_link_retransmissions_total", &silent) >= 1.0
    })
    .await;
    // A caller who does not wait for that long.
    let mut impatient = Connection::open(cluster.gateway.addr).await;
    impatient.send(request("GET", "/kv/k", None)).await;
    let cancelled = [("outcome", "cancelled")];
    until("the request is begun", async || {
        let page = scrape(&client, &cluster.gateway).await;
        page.sum("dkvs_gateway_http_requests_in_flight", &[]) == 2.0
    })
    .await;
    impatient.reset();
    until("the request is abandoned", async || {
        let page = scrape(&client, &cluster.gateway).await;
        page.sum("dkvs_gateway_http_requests_abandoned_total", &[]) == 1.0
            && page.sum("dkvs_gateway_quorum_requests_total", &cancelled) == 1.0
    })
    .await;
    cluster.nodes[..2].iter().for_each(|it| it.process.go_on());
}

#[tokio::test]
async fn limits_that_are_hit_and_repairs_are_counted() {
    let gateway = PROGRAMS.gateway(&[
        "--embedded",
        "1",
        "--workers",
        "1",
        "--max-connections",
        "1",
    ]);
    let mut idle = Connection::open(gateway.addr).await;
    idle.send(request("GET", "/livez", None)).await;
    assert_eq!(idle.reply().await.status, 200);
    let mut kept = http::busy_connection(gateway.addr).await;
    assert_eq!(idle.rest().await, b"", "it has made room");
    let refused = exchange(gateway.addr, request("GET", "/livez", None)).await;
    assert_eq!(refused.status, 503);
    kept.send("v").await;
    assert_eq!(kept.reply().await.status, 200);
    kept.send(request("GET", "/metrics", None)).await;
    let full = page(&kept.reply().await);
    assert_eq!(full.sum("dkvs_gateway_connections_evicted_total", &[]), 1.0);
    let hit = [("limit", "connections")];
    assert_eq!(full.sum("dkvs_gateway_limits_hit_total", &hit), 1.0);
    assert_eq!(full.sum("dkvs_gateway_connections_open", &[]), 1.0);
    assert_eq!(full.sum("dkvs_gateway_connections_max", &[]), 1.0);

    let mut cluster = PROGRAMS.cluster(3, &["--workers", "1"]);
    let client = client();
    put(&client, cluster.gateway.url("/kv/k?wait=all"), "v").await;
    let addr = cluster.nodes[0].addr;
    cluster.nodes[0].process.kill();
    cluster.nodes[0] = PROGRAMS.node_at(addr, &[]);
    let behind = addr.to_string();
    let behind = [("server", &*behind)];
    until("the server is repaired", async || {
        get(&client, cluster.gateway.url("/kv/k?wait=all")).await;
        let page = scrape(&client, &cluster.gateway).await;
        page.sum("dkvs_gateway_repairs_stored_total", &behind) >= 1.0
            && page.sum("dkvs_gateway_repairs_total", &behind) >= 1.0
    })
    .await;
}

#[tokio::test]
async fn a_gateway_that_is_busy_answers_and_shows_its_servers() {
    let cluster = PROGRAMS.cluster(3, &["--workers", "1", "--max-in-flight", "1"]);
    let client = client();
    put(&client, cluster.gateway.url("/kv/k?wait=all"), "v").await;
    cluster.nodes.iter().for_each(|it| it.process.stop());
    let (asking, url) = (client.clone(), cluster.gateway.url("/kv/k"));
    let busy = tokio::spawn(async move {
        loop {
            // A page that is being made takes the one place, too.
            let reply = get(&asking, url.clone()).await;
            if reply.status != 503 {
                return reply;
            }
        }
    });
    until("the one place is taken", async || {
        let page = scrape(&client, &cluster.gateway).await;
        // They are checked, and silent.
        let reachable = &page.families["dkvs_gateway_server_reachable"].samples;
        assert_eq!(reachable.len(), 3);
        assert_eq!(page.sum("dkvs_gateway_server_reachable", &[]), 0.0);
        page.sum("dkvs_gateway_quorum_requests_in_flight", &[]) == 1.0
    })
    .await;
    cluster.nodes.iter().for_each(|it| it.process.go_on());
    until("the servers are back", async || {
        let page = scrape(&client, &cluster.gateway).await;
        page.sum("dkvs_gateway_server_reachable", &[]) == 3.0
    })
    .await;
    assert_eq!(busy.await.expect("an answer").status, 200);
}

#[tokio::test]
async fn a_server_reports_the_same_as_the_gateway_reports_of_it() {
    let (node, addr) = measured_node(&["a", "1", "b", "2"]);
    let servers = ServersFile::new(&[node.addr]);
    let gateway = PROGRAMS.gateway_over(&servers, &[]);
    let client = client();
    put(&client, gateway.url("/kv/k"), "v").await;
    let by_gateway = scrape(&client, &gateway).await;
    let by_server = scrape_at(&client, addr).await;
    let server = node.addr.to_string();
    for name in [
        "dkvs_server_keys",
        "dkvs_server_memory_bytes",
        "dkvs_server_puts_total",
    ] {
        let labels = [("server", &*server)];
        let reported = by_server.sum(name, &labels);
        assert!(reported > 0.0, "{name}");
        assert_eq!(by_gateway.sum(name, &labels), reported, "{name}");
    }
    assert_eq!(by_server.sum("dkvs_server_keys", &[]), 3.0);
    assert_eq!(by_server.sum("dkvs_server_puts_total", &[]), 1.0);
    // One worker's socket receives the requests of one gateway.
    let heard = |page: &Page| page.sum("dkvs_server_messages_received_total", &[]);
    scrape(&client, &gateway).await;
    assert!(heard(&scrape_at(&client, addr).await) > heard(&by_server));
}

#[tokio::test]
async fn a_server_does_not_start_where_it_cannot_or_must_not_serve_metrics() {
    let taken = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let taken = taken.local_addr().unwrap().to_string();
    for (metrics, reason) in [
        (&*taken, format!("cannot serve metrics on {taken}")),
        ("0.0.0.0:0", "say --insecure".to_owned()),
        ("here", "invalid value 'here' for '--metrics".to_owned()),
    ] {
        let mut command = PROGRAMS.node_command(([127, 0, 0, 1], 0).into());
        command.args(["--metrics", metrics]);
        let (status, out, err) = PROGRAMS.run_to_end(command);
        assert!(status.code().is_some_and(|code| code != 0), "{err}");
        assert_eq!(out, "");
        assert!(err.contains(&reason), "{reason}: {err}");
    }
    let (_node, addr) = measured_node_at("0.0.0.0:0", &["--insecure"]);
    let addr = SocketAddr::from(([127, 0, 0, 1], addr.port()));
    scrape_at(&client(), addr).await;
}
