//! A host that takes all the memory for uploads, from many ports.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};

use bytes::Bytes;
use dkvs_common::model::{Refusal, ReplicaCommand, ReplicaResponse, Statistic};
use dkvs_common::wire::v2::reply::Reply;
use dkvs_common::wire::v2::request::Request;
use dkvs_tests::http::{client, get, put};
use dkvs_tests::process::own_loopback;
use dkvs_tests::v1;
use dkvs_tests::v2::Client;

use crate::PROGRAMS;
use crate::attack::{alone, beside_callers};
use crate::statistics::statistic;

const PORTS: usize = 16;

/// Uploads that each port begins, of the longest value: together more than there is room for.
const UPLOADS_PER_PORT: u64 = 8;
const VALUE_BYTES: u32 = 1 << 20;
const UPLOAD_MEMORY: u64 = 64 << 20;

/// How many long values are written meanwhile.
const PUTS: usize = 8;

#[tokio::test]
async fn a_host_that_hoards_uploads_keeps_no_long_value_out() {
    let _alone = alone().await;
    // The host of the gateway itself, and another one.
    for host in [Ipv4Addr::LOCALHOST, own_loopback()] {
        let mut cluster = PROGRAMS.cluster(3, &["--workers", "1"]);
        let servers: Vec<SocketAddr> = cluster.nodes.iter().map(|node| node.addr).collect();
        let url = cluster.gateway.url("/kv/long");
        let gateway = &mut cluster.gateway;
        beside_callers(gateway, 96 << 20, async || {
            let hoards: Vec<Hoard> = servers.iter().map(|it| Hoard::begin(host, *it)).collect();
            let client = client();
            for number in 0..PUTS {
                let value = vec![b'a' + number as u8; VALUE_BYTES as usize];
                let put = put(&client, url.clone(), value.clone()).await;
                assert_eq!(put.status, 200, "{host} {number}: {put:?}");
                let got = get(&client, format!("{url}?raw=true")).await;
                assert!(got.body == value, "{host} {number}");
                // Clients of the original system get their turns as well.
                for server in &servers {
                    let (c_client, text) = (v1::Client::new(*server), format!("{number}"));
                    c_client.store("by-a-c-client", &text);
                    assert_eq!(c_client.get("by-a-c-client"), text.as_bytes());
                }
            }
            hoards.into_iter().for_each(Hoard::end);
        })
        .await;
        for server in servers {
            let reserved = statistic(server, Statistic::UploadBytesReserved);
            assert!(reserved <= UPLOAD_MEMORY, "{reserved}");
            assert!(statistic(server, Statistic::UploadsDisplaced) > 0);
        }
    }
}

/// Ports of a host that have begun as many uploads as they can, and go on beginning them.
struct Hoard {
    ended: Arc<AtomicBool>,
    thread: JoinHandle<()>,
}

impl Hoard {
    /// Returns when there is no room any more.
    fn begin(host: Ipv4Addr, server: SocketAddr) -> Self {
        let mut ports: Vec<Client> = (0..PORTS)
            .map(|_| Client::from_host(host, server))
            .collect();
        let mut is_full = false;
        for upload in 0..UPLOADS_PER_PORT {
            for port in &mut ports {
                is_full |= !begins(port, upload);
            }
        }
        let displaced = statistic(server, Statistic::UploadsDisplaced);
        assert!(is_full || displaced > 0, "there was room for all of it");
        let ended = Arc::new(AtomicBool::new(false));
        let is_over = Arc::clone(&ended);
        let thread = thread::spawn(move || {
            for upload in UPLOADS_PER_PORT.. {
                for port in &mut ports {
                    if is_over.load(Ordering::Relaxed) {
                        return;
                    }
                    begins(port, upload);
                }
            }
        });
        Self { ended, thread }
    }

    fn end(self) {
        self.ended.store(true, Ordering::Relaxed);
        self.thread.join().unwrap();
    }
}

/// Begins an upload by its first block; returns whether it is taken.
fn begins(port: &mut Client, upload: u64) -> bool {
    const BLOCK_BYTES: u16 = 1_000;
    let stage = ReplicaCommand::Stage {
        upload,
        value_bytes: VALUE_BYTES,
        offset: 0,
        block_bytes: BLOCK_BYTES,
        block: Bytes::from_static(&[0; BLOCK_BYTES as usize]),
    };
    match port.ask(&Request::Command(stage)) {
        Reply::Response(ReplicaResponse::Staged { .. }) => true,
        Reply::Response(ReplicaResponse::Refused(Refusal::Busy)) => false,
        reply => panic!("{reply:?}"),
    }
}
