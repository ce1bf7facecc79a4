//! The threads that serve: how many, with which limits, and what each is made of.

use std::net::SocketAddr;
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::Duration;

use anyhow::{Context as _, bail};
use dkvs_client::{Client, ClientConfig, Limits, Shared};
use dkvs_common::wire::v2::keys::Keys;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::files::Files;
use crate::config::{AdminListener, Config};
use crate::http::gate::Gate;
use crate::http::hosts::{BrowserPolicy, Scheme};
use crate::http::serve::{self, ConnectionLimits, LONG_HEADS_BYTES_MAX, Listener, Routes};
use crate::http::{App, GatewayState, TIMEOUT_MS_MAX};
use crate::memory::value_bytes_in_flight_max;
use crate::open_files::{
    ADMIN_CONNECTIONS_MAX, OpenFilesDemand, OpenFilesGrant, watch_v1_sockets_max,
};
use crate::tls::TlsFiles;
use crate::tokens::TokenFile;

/// How long a connection to the listener for health and metrics may be silent.
const ADMIN_IDLE_TIMEOUT: Duration = Duration::from_secs(5);

/// How many workers there are, and how much each may have open.
pub(super) struct WorkerPlan {
    workers: usize,
    servers: usize,
    granted: OpenFilesGrant,
}

/// What all workers share.
pub(super) struct WorkerContext {
    pub(super) shared: Arc<Shared>,
    /// The keys towards the servers.
    pub(super) keys: Option<watch::Receiver<Keys>>,
    pub(super) replication: u8,
    pub(super) gateway: Arc<GatewayState>,
    /// Cancelled when the gateway is no longer ready.
    pub(super) draining: CancellationToken,
    /// Cancelled when the gateway ends, and when any worker has ended.
    pub(super) shutdown: CancellationToken,
    /// Cancelled when all workers have ended.
    pub(super) ended: CancellationToken,
}

/// The threads of a gateway.
pub(super) struct Threads {
    workers: Vec<WorkerThread>,
    watch: WorkerThread,
    ended: CancellationToken,
}

impl WorkerPlan {
    /// A plan for a cluster of `servers`, in a process that may open `files_max` files.
    ///
    /// # Errors
    ///
    /// If the process may open too few.
    pub(super) fn new(
        config: &Config,
        servers: usize,
        is_embedded: bool,
        files_max: usize,
    ) -> anyhow::Result<Self> {
        let workers = worker_count(config);
        let demand = OpenFilesDemand {
            workers,
            servers,
            embedded: if is_embedded { servers } else { 0 },
            connections_max: config.max_connections,
        };
        Ok(Self {
            workers,
            servers,
            granted: demand.grant(files_max)?,
        })
    }

    /// A listener for each worker.
    pub(super) fn bind(&self, listen: SocketAddr) -> anyhow::Result<Vec<Listener>> {
        serve::bind(listen, self.workers).with_context(|| format!("cannot take HTTP on {listen}"))
    }

    /// A listener for health and metrics, if there is to be one.
    pub(super) fn bind_admin(config: &Config) -> anyhow::Result<Option<Listener>> {
        let Some(AdminListener { listen, .. }) = config.admin else {
            return Ok(None);
        };
        let listeners = serve::bind(listen, 1);
        let listeners =
            listeners.with_context(|| format!("cannot take HTTP for health on {listen}"))?;
        Ok(listeners.into_iter().next())
    }

    /// Starts the workers, and what watches them.
    pub(super) fn spawn(
        &self,
        listeners: Vec<Listener>,
        admin: Option<Listener>,
        config: &Config,
        files: &Files,
        context: &WorkerContext,
    ) -> anyhow::Result<Threads> {
        let policy = Arc::new(config.policy.clone());
        let scheme = match files.tls {
            None => Scheme::Http,
            Some(_) => Scheme::Https,
        };
        let app = |limits, policy: &Arc<BrowserPolicy>, scheme| {
            let client_config = client_config(config, context, limits);
            let client = Client::new(Arc::clone(&context.shared), client_config);
            let client = client.context("the system has no random bytes")?;
            let tokens = files.tokens.as_ref().map(TokenFile::subscribe);
            App::new(
                client,
                context.replication,
                config.timeout,
                context.draining.clone(),
                Gate::new(tokens, Arc::clone(policy), scheme),
                Arc::clone(&context.gateway),
            )
        };
        let client_limits = self.client_limits(config);
        let apps = listeners
            .iter()
            .map(|_| app(client_limits, &policy, scheme));
        let apps: Vec<App> = apps.collect::<Result<_, _>>()?;
        let admin_policy = config.admin.as_ref().map(|admin| admin.policy.clone());
        let admin_policy = admin_policy.map_or(policy, Arc::new);
        let watch = app(
            watch_client_limits(self.servers),
            &admin_policy,
            Scheme::Http,
        )?;
        App::unite(&apps, &watch);
        let workers = listeners.into_iter().zip(apps).enumerate();
        let spawn = |(number, (listener, app))| {
            let tls = files.tls.as_ref().map(TlsFiles::subscribe);
            let limits = ConnectionLimits {
                connections_max: self.granted.connections_max,
                idle_timeout: config.idle_timeout,
                long_heads_bytes_max: LONG_HEADS_BYTES_MAX,
                keep_alive: true,
            };
            let shutdown = context.shutdown.clone();
            let serving = serve::run(listener, app, Routes::All, limits, tls, shutdown);
            spawn_thread(format!("worker-{number}"), &context.shutdown, async {
                Ok(serving.await?)
            })
        };
        let workers = workers.map(spawn).collect::<Result<_, _>>()?;
        let ended = context.ended.clone();
        Ok(Threads {
            workers,
            watch: spawn_thread(
                "watch".into(),
                &context.shutdown,
                watch_workers(watch, admin, ended),
            )?,
            ended: context.ended.clone(),
        })
    }

    fn client_limits(&self, config: &Config) -> Limits {
        Limits {
            requests_max: config.max_in_flight,
            sockets_max: self.granted.v1_sockets_max,
            value_bytes_in_flight_max: value_bytes_in_flight_max(config.value_bytes_max),
        }
    }
}

/// The limits of the client that checks the servers, one check at a time.
fn watch_client_limits(servers: usize) -> Limits {
    Limits {
        requests_max: 1,
        sockets_max: watch_v1_sockets_max(servers),
        // It reads no values, and its listener has few connections of one reply each.
        value_bytes_in_flight_max: usize::MAX,
    }
}

fn client_config(config: &Config, context: &WorkerContext, limits: Limits) -> ClientConfig {
    ClientConfig {
        protocol: config.protocol,
        replication: context.replication,
        datagram_bytes_max: config.datagram_bytes_max,
        value_bytes_max: config.value_bytes_max,
        offload: config.udp_offload,
        keys: context.keys.clone(),
        timeout_max: Duration::from_millis(TIMEOUT_MS_MAX),
        limits,
    }
}

/// How many workers a gateway with these settings has.
pub(super) fn worker_count(config: &Config) -> usize {
    config.workers.map_or_else(default_workers, |it| it.get())
}

fn default_workers() -> usize {
    if cfg!(target_os = "linux") {
        thread::available_parallelism().map_or(1, |cores| cores.get())
    } else {
        1
    }
}

type WorkerThread = JoinHandle<anyhow::Result<()>>;

/// A thread with a runtime. When one ends, for whatever reason, all do.
fn spawn_thread(
    name: String,
    shutdown: &CancellationToken,
    work: impl Future<Output = anyhow::Result<()>> + Send + 'static,
) -> anyhow::Result<WorkerThread> {
    let shutdown = shutdown.clone();
    let thread = thread::Builder::new().name(name);
    Ok(thread.spawn(move || {
        let _ended = shutdown.drop_guard();
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        runtime.block_on(work)
    })?)
}

/// Watches the workers, and serves health and metrics to whoever asks by a listener of their own, until
/// all workers have ended.
async fn watch_workers(
    app: App,
    listener: Option<Listener>,
    ended: CancellationToken,
) -> anyhow::Result<()> {
    let serving = async {
        match listener {
            Some(listener) => {
                let limits = ConnectionLimits {
                    connections_max: ADMIN_CONNECTIONS_MAX,
                    idle_timeout: ADMIN_IDLE_TIMEOUT,
                    long_heads_bytes_max: 0,
                    keep_alive: false,
                };
                let routes = Routes::Health;
                serve::run(listener, app.clone(), routes, limits, None, ended.clone()).await
            }
            None => {
                ended.cancelled().await;
                Ok(())
            }
        }
    };
    tokio::select! {
        served = serving => Ok(served?),
        never = app.watch() => match never {},
    }
}

impl Threads {
    /// Waits for the end of all workers, and then of what watches them.
    ///
    /// # Errors
    ///
    /// If one has failed.
    pub(super) fn join(self) -> anyhow::Result<()> {
        let joined = self.workers.into_iter().try_for_each(join);
        self.ended.cancel();
        let watched = join(self.watch);
        joined.and(watched)
    }
}

fn join(thread: WorkerThread) -> anyhow::Result<()> {
    match thread.join() {
        Ok(result) => result.context("a worker failed"),
        Err(_) => bail!("a worker panicked"),
    }
}
