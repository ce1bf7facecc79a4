//! A cluster is rolled, servers and gateways one after the other, and no request fails: as
//! docs/operations/upgrade.md gives operators, under "Upgrading without a failed request".

use std::net::{SocketAddr, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use dkvs_tests::http::{Connection, Reply, client, get, request};
use dkvs_tests::process::{DataDir, Gateway, Node, Process, Programs, ServersFile, own_loopback};
use dkvs_tests::random::Random;
use dkvs_tests::{programs, until};
use rustix::process::Signal;
use serde_json::Value;
use tokio::net::TcpStream;
use tokio::task::{JoinSet, LocalSet};

const PROGRAMS: Programs = programs!();

const SERVERS: usize = 5;
const GATEWAYS: usize = 2;
const CLIENTS: u64 = 6;
const KEYS_PER_CLIENT: usize = 3;

/// Requests that have to be answered while a process is away, and after it is back.
const REQUESTS: u64 = 40;

/// Longer than the test takes: it ends each notice itself, by a second signal.
const NOTICE_MS: &str = "600000";

/// What a load balancer in front of the gateways knows.
struct Balancer {
    gateways: [SocketAddr; GATEWAYS],
    /// What the last health check has found, by gateway.
    ready: [AtomicBool; GATEWAYS],
    /// How many health checks are done, by gateway.
    checks: [AtomicU64; GATEWAYS],
    /// Requests that were given to a gateway and have no reply yet.
    under_way: [AtomicU64; GATEWAYS],
    answered: AtomicU64,
    /// Requests that met a connection which the gateway had closed when it was idle.
    moved: AtomicU64,
    is_over: AtomicBool,
}

impl Balancer {
    fn new(gateways: [SocketAddr; GATEWAYS]) -> Self {
        Self {
            gateways,
            ready: Default::default(),
            checks: Default::default(),
            under_way: Default::default(),
            answered: AtomicU64::new(0),
            moved: AtomicU64::new(0),
            is_over: AtomicBool::new(false),
        }
    }

    /// Checks a gateway's health, each time on a new connection, until it is over.
    async fn check(self: Arc<Self>, gateway: usize) {
        until("the end", async || {
            let ready = self.is_ready(gateway).await;
            self.ready[gateway].store(ready, Ordering::SeqCst);
            self.checks[gateway].fetch_add(1, Ordering::SeqCst);
            self.is_over()
        })
        .await;
    }

    async fn is_ready(&self, gateway: usize) -> bool {
        let Ok(stream) = TcpStream::connect(self.gateways[gateway]).await else {
            return false;
        };
        let mut connection = Connection::over(stream);
        connection.send(request("GET", "/readyz", None)).await;
        !connection.first_bytes(1).await.is_empty() && connection.reply().await.status == 200
    }

    /// One of the gateways that are ready, counted as in use.
    async fn choose(&self, random: &mut Random) -> usize {
        let mut chosen = random.below(GATEWAYS);
        until("a gateway is ready", async || {
            chosen = (chosen + 1) % GATEWAYS;
            self.ready[chosen].load(Ordering::SeqCst)
        })
        .await;
        self.under_way[chosen].fetch_add(1, Ordering::SeqCst);
        chosen
    }

    fn is_over(&self) -> bool {
        self.is_over.load(Ordering::SeqCst)
    }

    async fn await_requests(&self) {
        let wanted = self.answered.load(Ordering::SeqCst) + REQUESTS;
        until("requests are answered", async || {
            assert!(!self.is_over(), "a client has failed");
            self.answered.load(Ordering::SeqCst) >= wanted
        })
        .await;
    }

    /// Waits until a gateway that is not ready is found to be so, and nothing is left there.
    async fn await_turned_away(&self, gateway: usize) {
        // One check may have begun before.
        let checks = self.checks[gateway].load(Ordering::SeqCst) + 2;
        until("nobody asks the gateway", async || {
            self.checks[gateway].load(Ordering::SeqCst) >= checks
                && !self.ready[gateway].load(Ordering::SeqCst)
                && self.under_way[gateway].load(Ordering::SeqCst) == 0
        })
        .await;
    }

    async fn await_ready(&self, gateway: usize) {
        until("the gateway is ready", async || {
            self.ready[gateway].load(Ordering::SeqCst)
        })
        .await;
    }
}

/// Ends the run when it is dropped, also by a panic: the other threads would wait for ever.
struct Ending(Arc<Balancer>);

impl Drop for Ending {
    fn drop(&mut self) {
        self.0.is_over.store(true, Ordering::SeqCst);
    }
}

/// A client behind the balancer, with keys of its own.
struct Asking {
    balancer: Arc<Balancer>,
    random: Random,
    /// Whether a connection is used for more than one request.
    keeps: bool,
    kept: [Option<Connection>; GATEWAYS],
}

impl Asking {
    fn new(number: u64, balancer: &Arc<Balancer>) -> Self {
        Self {
            balancer: Arc::clone(balancer),
            random: Random::new(number),
            keeps: number.is_multiple_of(2),
            kept: Default::default(),
        }
    }

    /// Writes and reads until it is over. Each reply has to be what one client alone would get.
    async fn run(mut self, number: u64) {
        let _ending = Ending(Arc::clone(&self.balancer));
        let mut written = [0_u64; KEYS_PER_CLIENT];
        while !self.balancer.is_over() {
            let key = self.random.below(KEYS_PER_CLIENT);
            let path = format!("/kv/c{number}k{key}");
            if written[key] == 0 || self.random.below(2) == 0 {
                written[key] += 1;
                // Some of several blocks, which take several datagrams.
                let padding = self.random.one_of(&[0, 0, 100, 5_000]);
                let value = format!("{}:{}", written[key], "x".repeat(padding));
                let put = request("PUT", &path, Some(value.as_bytes()));
                let reply = self.ask(&put).await;
                assert_eq!(reply.status, 200, "{reply:?}");
                assert_eq!(reply.json["outcome"], "committed", "{reply:?}");
            } else {
                let reply = self.ask(&request("GET", &path, None)).await;
                assert_eq!(reply.status, 200, "{reply:?}");
                let value = reply.json["value"].as_str().unwrap();
                let (read, _) = value.split_once(':').unwrap();
                assert_eq!(read, written[key].to_string(), "{reply:?}");
            }
            self.balancer.answered.fetch_add(1, Ordering::SeqCst);
        }
    }

    /// Sends a request to gateways that are ready until one has taken it.
    async fn ask(&mut self, request: &[u8]) -> Reply {
        loop {
            let gateway = self.balancer.choose(&mut self.random).await;
            let reply = self.ask_at(gateway, request).await;
            self.balancer.under_way[gateway].fetch_sub(1, Ordering::SeqCst);
            match reply {
                Some(reply) => return reply,
                None => self.balancer.moved.fetch_add(1, Ordering::SeqCst),
            };
        }
    }

    /// Nothing if the gateway had closed the connection when it was idle. Where there was none
    /// before, it has to take one, and to answer on it.
    async fn ask_at(&mut self, gateway: usize, request: &[u8]) -> Option<Reply> {
        let kept = self.kept[gateway].take();
        let was_kept = kept.is_some();
        let mut connection = match kept {
            Some(connection) => connection,
            None => {
                let connected = TcpStream::connect(self.balancer.gateways[gateway]).await;
                Connection::over(connected.expect("a gateway that is ready takes connections"))
            }
        };
        connection.send(request).await;
        if connection.first_bytes(1).await.is_empty() {
            assert!(was_kept, "a connection was taken, and its request not");
            return None;
        }
        let reply = connection.reply().await;
        if self.keeps && reply.header("connection") != "close" {
            self.kept[gateway] = Some(connection);
        }
        Some(reply)
    }
}

/// What takes its time, without holding up the clients.
async fn aside<R: Send + 'static>(act: impl FnOnce() -> R + Send + 'static) -> R {
    tokio::task::spawn_blocking(act).await.unwrap()
}

async fn gateway_at(addr: SocketAddr, servers: &ServersFile) -> Gateway {
    let mut command = PROGRAMS.gateway_command();
    command.args(["--servers", servers.path(), "--listen", &addr.to_string()]);
    command.args(["--timeout", "30000", "--shutdown-notice", NOTICE_MS]);
    aside(|| Gateway::of(command)).await
}

async fn node_at(addr: SocketAddr, directory: &DataDir, more: &'static [&str]) -> Node {
    let directory = directory.path().to_owned();
    aside(move || {
        let arguments = ["--data-dir", &directory, "--workers", "1"];
        PROGRAMS.node_at(addr, &[&arguments, more].concat())
    })
    .await
}

async fn end(mut process: Process) {
    aside(move || {
        let (status, _) = process.end_with(Signal::TERM);
        assert!(status.success(), "{:?}", process.rest_of_stderr());
    })
    .await;
}

/// What every gateway says of a server.
async fn reports_of(server: SocketAddr, gateways: &[Gateway]) -> Vec<Value> {
    let mut reported = Vec::new();
    for gateway in gateways {
        let reply = get(&client(), gateway.url("/servers")).await;
        let servers = reply.json["servers"].as_array().unwrap();
        let of_server = servers
            .iter()
            .find(|reported| reported["server"] == server.to_string());
        reported.push(of_server.unwrap().clone());
    }
    reported
}

/// Waits until every gateway reaches a server that was started anew, and it answers for every key.
async fn await_back(server: SocketAddr, gateways: &[Gateway], before: &[Value]) {
    until("the server is back", async || {
        let now = reports_of(server, gateways).await;
        now.iter().zip(before).all(|(now, before)| {
            now["reachable"] == true
                && now["boot_id"] != before["boot_id"]
                && now["storage"]["complete"] == true
        })
    })
    .await;
}

#[tokio::test]
async fn a_roll_of_all_servers_and_gateways_fails_no_request() {
    // All clients, the balancer and the operator are on one thread, so that no client stands
    // between choosing a gateway and being counted there.
    LocalSet::new().run_until(roll()).await;
}

async fn roll() {
    let directories = [(); SERVERS].map(|()| DataDir::new());
    let mut nodes = Vec::new();
    for directory in &directories {
        // The address is ours alone, so the port stays free.
        let socket = UdpSocket::bind((own_loopback(), 0)).unwrap();
        let addr = socket.local_addr().unwrap();
        drop(socket);
        nodes.push(node_at(addr, directory, &["--declare", "new"]).await);
    }
    let addrs: Vec<SocketAddr> = nodes.iter().map(|node| node.addr).collect();
    let servers = ServersFile::new(&addrs);
    let mut gateways = Vec::new();
    for _ in 0..GATEWAYS {
        gateways.push(gateway_at((own_loopback(), 0).into(), &servers).await);
    }

    let balancer = Arc::new(Balancer::new([gateways[0].addr, gateways[1].addr]));
    let mut asking = JoinSet::new();
    for gateway in 0..GATEWAYS {
        asking.spawn_local(Arc::clone(&balancer).check(gateway));
    }
    for number in 0..CLIENTS {
        asking.spawn_local(Asking::new(number, &balancer).run(number));
    }
    let ending = Ending(Arc::clone(&balancer));
    balancer.await_requests().await;

    for (place, addr) in addrs.into_iter().enumerate() {
        let before = reports_of(addr, &gateways).await;
        end(nodes.remove(place).process).await;
        balancer.await_requests().await;
        nodes.insert(place, node_at(addr, &directories[place], &[]).await);
        await_back(addr, &gateways, &before).await;
        balancer.await_requests().await;
    }
    for place in 0..GATEWAYS {
        let mut gateway = gateways.remove(place);
        gateway.process.signal(Signal::TERM);
        let gateway = aside(move || {
            gateway.process.stderr_line_with("not ready, and serving");
            gateway
        })
        .await;
        balancer.await_turned_away(place).await;
        let addr = gateway.addr;
        end(gateway.process).await;
        balancer.await_requests().await;
        gateways.insert(place, gateway_at(addr, &servers).await);
        balancer.await_ready(place).await;
        balancer.await_requests().await;
    }

    drop(ending);
    while let Some(asked) = asking.join_next().await {
        asked.unwrap();
    }
    let [answered, moved] = [&balancer.answered, &balancer.moved];
    let [answered, moved] = [answered, moved].map(|count| count.load(Ordering::SeqCst));
    println!("{answered} requests answered, {moved} of them on another connection");
}
