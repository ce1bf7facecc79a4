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
use crate::config::Config;
use crate::http::gate::Gate;
use crate::http::hosts::Scheme;
use crate::http::serve::{self, Listener};
use crate::http::{App, GatewayState, TIMEOUT_MS_MAX};
use crate::open_files::{OpenFilesDemand, OpenFilesGrant};
use crate::tls::{Tls, TlsFiles};
use crate::tokens::TokenFile;

/// Bytes of long values on their way, per worker.
const VALUE_BYTES_IN_FLIGHT_MAX: usize = 256 << 20;

/// How many workers there are, and how much each may have open.
pub(super) struct WorkerPlan {
    workers: usize,
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
        let workers = config.workers.map_or_else(default_workers, |it| it.get());
        let demand = OpenFilesDemand {
            workers,
            servers,
            embedded: if is_embedded { servers } else { 0 },
            connections_max: config.max_connections,
        };
        Ok(Self {
            workers,
            granted: demand.grant(files_max)?,
        })
    }

    /// A listener for each worker.
    pub(super) fn bind(&self, listen: SocketAddr) -> anyhow::Result<Vec<Listener>> {
        serve::bind(listen, self.workers).with_context(|| format!("cannot take HTTP on {listen}"))
    }

    /// Starts the workers.
    pub(super) fn spawn(
        &self,
        listeners: Vec<Listener>,
        config: &Config,
        files: &Files,
        context: &WorkerContext,
    ) -> anyhow::Result<Vec<WorkerThread>> {
        let client_config = self.client_config(config, context);
        let policy = Arc::new(config.policy.clone());
        let scheme = match files.tls {
            None => Scheme::Http,
            Some(_) => Scheme::Https,
        };
        let app = |_: &Listener| {
            let client = Client::new(Arc::clone(&context.shared), client_config.clone());
            let client = client.context("the system has no random bytes")?;
            let tokens = files.tokens.as_ref().map(TokenFile::subscribe);
            App::new(
                client,
                context.replication,
                config.timeout,
                context.draining.clone(),
                Gate::new(tokens, Arc::clone(&policy), scheme),
                Arc::clone(&context.gateway),
            )
        };
        let apps: Vec<App> = listeners.iter().map(app).collect::<Result<_, _>>()?;
        App::unite(&apps);
        let workers = listeners.into_iter().zip(apps).enumerate();
        let spawn = |(number, (listener, app))| {
            let tls = files.tls.as_ref().map(TlsFiles::subscribe);
            let connections_max = self.granted.connections_max;
            spawn_worker(
                number,
                listener,
                app,
                connections_max,
                tls,
                &context.shutdown,
            )
        };
        workers.map(spawn).collect()
    }

    fn client_config(&self, config: &Config, context: &WorkerContext) -> ClientConfig {
        ClientConfig {
            protocol: config.protocol,
            datagram_bytes_max: config.datagram_bytes_max,
            value_bytes_max: config.value_bytes_max,
            offload: config.udp_offload,
            keys: context.keys.clone(),
            timeout_max: Duration::from_millis(TIMEOUT_MS_MAX),
            limits: Limits {
                requests_max: config.max_in_flight,
                sockets_max: self.granted.v1_sockets_max,
                value_bytes_in_flight_max: VALUE_BYTES_IN_FLIGHT_MAX
                    .max(4 * config.value_bytes_max),
            },
        }
    }
}

fn default_workers() -> usize {
    if cfg!(target_os = "linux") {
        thread::available_parallelism().map_or(1, |cores| cores.get())
    } else {
        1
    }
}

pub(super) type WorkerThread = JoinHandle<anyhow::Result<()>>;

/// A thread with a runtime and a listener. When one worker ends, for whatever reason, all do.
fn spawn_worker(
    number: usize,
    listener: Listener,
    app: App,
    connections_max: usize,
    tls: Option<Tls>,
    shutdown: &CancellationToken,
) -> anyhow::Result<WorkerThread> {
    let shutdown = shutdown.clone();
    let thread = thread::Builder::new().name(format!("worker-{number}"));
    Ok(thread.spawn(move || {
        let _ended = shutdown.clone().drop_guard();
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        runtime.block_on(serve::run(listener, app, connections_max, tls, shutdown))?;
        Ok(())
    })?)
}

/// Waits for the end of all workers.
///
/// # Errors
///
/// If one has failed.
pub(super) fn join(threads: Vec<WorkerThread>) -> anyhow::Result<()> {
    for thread in threads {
        match thread.join() {
            Ok(result) => result.context("a worker failed")?,
            Err(_) => bail!("a worker panicked"),
        }
    }
    Ok(())
}
