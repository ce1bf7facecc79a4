//! Five servers with nine ring points between them, N=4, W=3, R=2.

use std::net::SocketAddr;

use dkvs_tests::http::{Reply, client, get, put};
use dkvs_tests::process::{Gateway, Node, Programs, ServersFile};
use dkvs_tests::{programs, until};
use reqwest::Client;

const PROGRAMS: Programs = programs!();

/// The system after `my_key` was put with four servers up.
struct Example {
    nodes: Vec<Node>,
    gateway: Gateway,
    client: Client,
    /// The four servers of `my_key`, in preference order.
    four: Vec<SocketAddr>,
    _servers: ServersFile,
}

impl Example {
    async fn start() -> Self {
        let nodes: Vec<Node> = (0..5).map(|_| PROGRAMS.node(&[])).collect();
        let line = |(node, ring_points): (&Node, u8)| {
            let (ip, port) = (node.addr.ip(), node.addr.port());
            format!("{ip} {port} {ring_points}\n")
        };
        let text: String = nodes.iter().zip([1, 2, 3, 2, 1]).map(line).collect();
        let servers = ServersFile::with_text(text);
        let gateway = PROGRAMS.gateway_over(&servers, &[]);
        let mut example = Self {
            nodes,
            gateway,
            client: client(),
            four: Vec::new(),
            _servers: servers,
        };
        let ring = get(&example.client, example.gateway.url("/ring")).await;
        assert_eq!(ring.json["points"].as_array().unwrap().len(), 9);

        let put = example.put("old").await;
        assert_eq!((put.status.as_u16(), put.count("stored")), (200, 4));
        example.four = put.servers();
        let mut distinct = example.four.clone();
        distinct.sort();
        distinct.dedup();
        assert_eq!(distinct.len(), 4);
        example
    }

    async fn put(&self, value: &'static str) -> Reply {
        let path = "/kv/my_key?n=4&w=3&wait=all";
        put(&self.client, self.gateway.url(path), value).await
    }

    async fn get(&self) -> Reply {
        let path = "/kv/my_key?n=4&r=2&wait=all";
        get(&self.client, self.gateway.url(path)).await
    }

    /// The first reply in which all four answered. One that was dead a moment ago is not asked
    /// at once; until it is, three agree all the same.
    async fn get_once_all_answered(&self) -> Reply {
        let mut heard = None;
        until("all four are heard", async || {
            let get = self.get().await;
            assert_eq!(get.json["value"], "new", "{get:?}");
            heard = (get.count("unreachable") == 0).then_some(get);
            heard.is_some()
        })
        .await;
        heard.expect("a reply")
    }

    fn node(&mut self, place: usize) -> &mut Node {
        let addr = self.four[place];
        self.nodes
            .iter_mut()
            .find(|node| node.addr == addr)
            .unwrap()
    }
}

#[tokio::test]
async fn with_one_of_four_dead_three_confirm_and_three_agree() {
    for dead in 0..4 {
        let mut example = Example::start().await;
        example.node(dead).process.kill();

        let put = example.put("my_value").await;
        assert_eq!(put.status, 200, "{put:?}");
        assert_eq!(put.json["quorum"]["confirmed"], 3);
        let mut expected = ["stored"; 4];
        expected[dead] = "unreachable";
        assert_eq!(put.statuses(), expected);

        let get = example.get().await;
        assert_eq!(get.json["value"], "my_value");
        assert_eq!(get.json["quorum"]["agreeing"], 3);
        let mut expected = ["match"; 4];
        expected[dead] = "unreachable";
        assert_eq!(get.statuses(), expected);
    }
}

#[tokio::test]
async fn the_dead_server_back_with_an_old_value_is_outvoted() {
    let mut example = Example::start().await;
    example.node(0).process.kill();
    assert_eq!(example.put("new").await.json["quorum"]["confirmed"], 3);
    *example.node(0) = PROGRAMS.node_at(example.four[0], &["my_key", "old"]);

    let read = example.get_once_all_answered().await;
    assert_eq!(read.json["quorum"]["agreeing"], 3);
    assert_eq!(read.statuses(), ["differs", "match", "match", "match"]);
    // Nor does it win by speaking first: two have to agree.
    for _ in 0..50 {
        let url = example.gateway.url("/kv/my_key?n=4&r=2");
        assert_eq!(get(&example.client, url).await.json["value"], "new");
    }

    // One more down: two hold the new value, and three can still confirm another.
    example.node(1).process.kill();
    let read = example.get().await;
    assert_eq!(read.json["value"], "new");
    assert_eq!(
        read.statuses(),
        ["differs", "unreachable", "match", "match"]
    );
    let put = example.put("newer").await;
    assert_eq!((put.status.as_u16(), put.count("stored")), (200, 3));
    assert_eq!(example.get().await.json["value"], "newer");
}

#[tokio::test]
async fn the_dead_server_back_with_nothing_is_outvoted() {
    let mut example = Example::start().await;
    example.node(3).process.kill();
    assert_eq!(example.put("new").await.status, 200);
    *example.node(3) = PROGRAMS.node_at(example.four[3], &[]);
    let get = example.get_once_all_answered().await;
    assert_eq!(get.statuses(), ["match", "match", "match", "absent"]);
}

#[tokio::test]
async fn one_more_dead_fails_the_write_and_not_the_read() {
    let mut example = Example::start().await;
    example.node(1).process.kill();
    example.node(2).process.kill();

    let read = example.get().await;
    assert_eq!(read.json["value"], "old");
    assert_eq!(read.json["quorum"]["agreeing"], 2);

    let put = example.put("new").await;
    assert_eq!(
        (put.status.as_u16(), put.problem()),
        (503, "quorum-unreachable")
    );
    assert_eq!(put.header("retry-after"), "1");
    assert_eq!(put.json["quorum"]["confirmed"], 2);
    assert_eq!(put.json["outcome"], "unknown");
    // It is on two servers, which is what R=2 asks for: it has surfaced.
    assert_eq!(example.get().await.json["value"], "new");

    example.node(0).process.kill();
    let read = example.get().await;
    assert_eq!(
        (read.status.as_u16(), read.problem()),
        (503, "quorum-unreachable")
    );
    example.node(3).process.kill();
    // The first request to notice does not know whether the server had it before it ended.
    assert_eq!(example.get().await.count("unreachable"), 4);
    let put = example.put("newest").await;
    assert_eq!(put.problem(), "quorum-unreachable");
    assert_eq!(put.json["outcome"], "not_applied");
}
