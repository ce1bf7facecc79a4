//! The `dkvs-gateway` program: settings, logs, workers, signals.

use std::convert::Infallible;
use std::fs;
use std::future::Future;
use std::io::Write as _;
use std::net::SocketAddr;
use std::num::NonZeroU8;
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::Duration;

use anyhow::{Context, bail, ensure};
use dkvs_common::cluster::Cluster;
use dkvs_runtime::about;
use dkvs_runtime::key_file::KeyFile;
use dkvs_runtime::signals::{Backups, Hangups, Signals};
use dkvs_runtime::{log, open_files, program};
use tokio::runtime::Runtime;
use tokio_util::sync::CancellationToken;

use crate::config::{Command, Config, Embedded, Flags, NewToken, Servers, TIMEOUT_MS_MAX};
use crate::embedded::EmbeddedCluster;
use crate::environment;
use crate::http::gate::Gate;
use crate::http::metrics;
use crate::http::serve::{self, Listener};
use crate::http::{App, Common};
use crate::open_files::Wish;
use crate::ready;
use crate::tls::{Tls, TlsFiles};
use crate::tokens::{self, TokenFile};
use dkvs_client::{Client, ClientConfig, Limits, Shared};

/// Bytes of long values on their way, per worker.
const VALUE_BYTES_IN_FLIGHT_MAX: usize = 256 << 20;

/// Runs the program to its end.
pub fn main() -> ExitCode {
    program::run("dkvs-gateway", || carry_out(environment::flags()))
}

fn carry_out(flags: Flags) -> anyhow::Result<()> {
    if let Some(text) = flags.about.text::<Flags>()? {
        return Ok(about::print(&text)?);
    }
    match &flags.command {
        Some(Command::Token(wanted)) => return print_token(wanted),
        Some(Command::Ready { addr }) => return ready::ask(*addr),
        None => {}
    }
    environment::check(&std::env::vars_os().collect::<Vec<_>>())?;
    let is_check = flags.check_config;
    let config = Config::new(flags)?;
    match is_check {
        true => check(&config),
        false => run(&config),
    }
}

/// Whether the settings, and the files that they name, are such as to serve with.
fn check(config: &Config) -> anyhow::Result<()> {
    // For what is no reason to refuse them.
    log::start(&config.log, config.log_format).context(log::NO_THREAD)?;
    let servers = match &config.servers {
        Servers::File(path) => {
            let cluster = read_cluster(path)?;
            let servers = cluster.servers().len();
            let replication = replication(config.replication, servers)?;
            format!("{servers} servers, each key on {replication} of them")
        }
        Servers::Embedded(embedded) => {
            let servers = EmbeddedCluster::check(embedded)?;
            let replication = replication(config.replication, servers)?;
            format!("{servers} servers inside the gateway, each key on {replication} of them")
        }
    };
    let files = Files::open(config)?;
    let has = |is_there: bool| if is_there { "with" } else { "without" };
    let text = format!(
        "the settings are good, and nothing was started\n  HTTP on {}, {} TLS, {} tokens\n  \
         {servers}, {} keys\n",
        config.listen,
        has(files.tls.is_some()),
        has(files.tokens.is_some()),
        has(files.keys.is_some()),
    );
    Ok(about::print(text.as_bytes())?)
}

fn read_cluster(path: &Path) -> anyhow::Result<Cluster> {
    let name = path.display().to_string();
    let text = fs::read(path).with_context(|| format!("cannot read {name}"))?;
    Ok(Cluster::parse(&name, &text)?)
}

/// Prints a token and its line for the file, a line each, and what to do with them aside.
fn print_token(wanted: &NewToken) -> anyhow::Result<()> {
    let minted = tokens::mint(&wanted.name, wanted.scope, &wanted.prefix);
    let minted = minted.context("the system has no random bytes")?;
    writeln!(std::io::stdout(), "{}\n{}", minted.token, minted.line)?;
    log::tell(
        "\nThe first line is the token: give it to whoever is to use it. It is shown this once and \
         kept nowhere.\nAdd the second line to the token file of each gateway (--tokens FILE, mode \
         600), and start them with it or send them SIGHUP.",
    );
    Ok(())
}

fn run(config: &Config) -> anyhow::Result<()> {
    let _log = start_log(config)?;
    let files_max = open_files::raise_limit();
    let files = Files::open(config)?;
    let keys = files.keys.as_ref().map(KeyFile::subscribe);
    let (cluster, embedded) = match &config.servers {
        Servers::File(path) => (read_cluster(path)?, None),
        Servers::Embedded(servers) => {
            let embedded = EmbeddedCluster::start(servers, keys.clone())?;
            (embedded.cluster().clone(), Some(embedded))
        }
    };
    let replication = replication(config.replication, cluster.servers().len())?;
    let workers = config
        .workers
        .map_or_else(default_workers, |workers| workers.get());
    let wish = Wish {
        workers,
        servers: cluster.servers().len(),
        embedded: embedded
            .as_ref()
            .map_or(0, |it| it.cluster().servers().len()),
        connections_max: config.max_connections,
    };
    let allowed = wish.grant(files_max)?;
    let client_config = ClientConfig {
        protocol: config.protocol,
        datagram_bytes_max: config.datagram_bytes_max,
        value_bytes_max: config.value_bytes_max,
        offload: config.udp_offload,
        keys: embedded.as_ref().map(EmbeddedCluster::keys).or(keys),
        timeout_max: Duration::from_millis(TIMEOUT_MS_MAX),
        limits: Limits {
            requests_max: config.max_in_flight,
            sockets_max: allowed.v1_sockets_max,
            value_bytes_in_flight_max: VALUE_BYTES_IN_FLIGHT_MAX.max(4 * config.value_bytes_max),
        },
    };

    let listeners = serve::bind(config.listen, workers)
        .with_context(|| format!("cannot take HTTP on {}", config.listen))?;
    let listen = listeners[0].local_addr()?;
    warn_of_what_is_readable(config, listen);
    let policy = Arc::new(config.policy.clone());
    let shared = Arc::new(Shared::new(cluster));
    let shutdown = CancellationToken::new();
    // From the notice on, or without any from the beginning of the end.
    let draining = shutdown.child_token();
    let switch = embedded.as_ref().map(EmbeddedCluster::switch);
    let common = Arc::new(Common::new(switch));
    let mut apps = Vec::new();
    for _ in &listeners {
        let client = Client::new(Arc::clone(&shared), client_config.clone());
        let client = client.context("the system has no random bytes")?;
        let tokens = files.tokens.as_ref().map(TokenFile::subscribe);
        let gate = Gate::new(tokens, Arc::clone(&policy));
        let app = App::new(
            client,
            replication,
            config.timeout,
            draining.clone(),
            gate,
            Arc::clone(&common),
        )?;
        apps.push(app);
    }
    metrics::unite(&apps);
    let mut threads = Vec::new();
    for (number, (listener, app)) in listeners.into_iter().zip(apps).enumerate() {
        let connections_max = allowed.connections_max;
        threads.push(spawn_worker(
            number,
            listener,
            app,
            connections_max,
            files.tls.as_ref().map(TlsFiles::subscribe),
            &shutdown,
        )?);
    }
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    // Before anyone is told that the gateway serves, and might tell it to end.
    let signals = runtime.block_on(async { Signals::new() });
    let signals = signals.context("cannot take over signals")?;
    let reloads = runtime.block_on(async { files.reloads() });
    let reloads = reloads.context("cannot take over SIGHUP")?;
    let backups = runtime.block_on(async { Backups::new() });
    let backups = backups.context("cannot take over SIGUSR1")?;
    greet(config, listen, &shared, replication)?;
    let notice = Notice {
        draining,
        time: config.shutdown_notice,
    };
    let others = async move {
        tokio::select! {
            never = reloads => never,
            never = refuse_backups(backups) => never,
        }
    };
    wait_for_signal(runtime, signals, others, &notice, &shutdown);
    for thread in threads {
        match thread.join() {
            Ok(result) => result.context("a worker failed")?,
            Err(_) => bail!("a worker panicked"),
        }
    }
    tracing::info!("stopped");
    Ok(())
}

/// What has to last for as long as something is logged.
struct Log {
    #[cfg(feature = "otel")]
    _exporter: Option<crate::otel::Exporter>,
}

fn start_log(config: &Config) -> anyhow::Result<Log> {
    #[cfg(feature = "otel")]
    if let Some(endpoint) = &config.otlp_endpoint {
        let exporter = crate::otel::Exporter::new(endpoint)?;
        log::start_with(&config.log, config.log_format, exporter.layer())
            .context(log::NO_THREAD)?;
        return Ok(Log {
            _exporter: Some(exporter),
        });
    }
    log::start(&config.log, config.log_format).context(log::NO_THREAD)?;
    Ok(Log {
        #[cfg(feature = "otel")]
        _exporter: None,
    })
}

/// The files that are read again on SIGHUP.
struct Files {
    keys: Option<KeyFile>,
    tokens: Option<TokenFile>,
    tls: Option<TlsFiles>,
}

impl Files {
    fn open(config: &Config) -> anyhow::Result<Self> {
        Ok(Self {
            keys: config.key_file.as_deref().map(KeyFile::open).transpose()?,
            tokens: config.tokens.as_deref().map(TokenFile::open).transpose()?,
            tls: config.tls.as_ref().map(TlsFiles::open).transpose()?,
        })
    }

    /// Reads them again on every SIGHUP, which is taken over from here on if there are any. Needs
    /// a runtime with I/O.
    fn reloads(&self) -> std::io::Result<impl Future<Output = Infallible>> {
        let any = self.keys.is_some() || self.tokens.is_some() || self.tls.is_some();
        let hangups = any.then(Hangups::new).transpose()?;
        Ok(async move {
            let Some(mut hangups) = hangups else {
                return std::future::pending().await;
            };
            loop {
                hangups.next().await;
                self.keys.as_ref().inspect(|file| file.reload());
                self.tokens.as_ref().inspect(|file| file.reload());
                self.tls.as_ref().inspect(|files| files.reload());
            }
        })
    }
}

/// Says what others on the way can read, and use, although callers have to prove who they are.
fn warn_of_what_is_readable(config: &Config, listen: SocketAddr) {
    if config.tokens.is_some() && config.tls.is_none() && !listen.ip().is_loopback() {
        tracing::warn!(
            "tokens and values travel unencrypted: whoever reads along on the network can use them; \
             give --tls-cert and --tls-key, or let something in front of the gateway speak TLS"
        );
    }
}

fn replication(set: Option<NonZeroU8>, servers: usize) -> anyhow::Result<u8> {
    let Some(replication) = set else {
        return Ok(u8::try_from(servers.min(3)).expect("at most three"));
    };
    ensure!(
        usize::from(replication.get()) <= servers,
        "`replication` is {replication} and the cluster has {servers} servers; it is at most their number"
    );
    Ok(replication.get())
}

fn default_workers() -> usize {
    if cfg!(target_os = "linux") {
        thread::available_parallelism().map_or(1, |cores| cores.get())
    } else {
        1
    }
}

type WorkerThread = JoinHandle<anyhow::Result<()>>;

/// A thread with a runtime and a listener. The end of any worker, however it came, ends all.
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

/// What comes between the signal to end and the end.
struct Notice {
    /// Says that the gateway is not ready any more.
    draining: CancellationToken,
    time: Duration,
}

/// Returns when the process is to end, with `shutdown` called. A signal begins the notice, the next
/// one ends it if it is not over, and one more ends the process at once. `others`, what else signals
/// ask for, is polled until the first.
fn wait_for_signal(
    runtime: Runtime,
    mut signals: Signals,
    others: impl Future<Output = Infallible>,
    notice: &Notice,
    shutdown: &CancellationToken,
) {
    runtime.block_on(async {
        tokio::select! {
            mut name = signals.next() => {
                notice.draining.cancel();
                if !notice.time.is_zero() {
                    let time = notice.time;
                    tracing::info!("{name}: not ready, and serving for {time:?}; once more to end");
                    tokio::select! {
                        again = signals.next() => name = again,
                        () = tokio::time::sleep(time) => {}
                        () = shutdown.cancelled() => {}
                    }
                }
                tracing::info!("{name}: finishing what is in flight; once more to stop at once");
            }
            never = others => match never {},
            () = shutdown.cancelled() => {}
        }
        shutdown.cancel();
    });
    thread::spawn(move || {
        let name = runtime.block_on(signals.next());
        tracing::warn!("{name}: stopping at once");
        log::flush();
        std::process::exit(1);
    });
}

/// Says of each SIGUSR1 that it is for storage servers. It would end the process otherwise.
async fn refuse_backups(mut asked: Backups) -> Infallible {
    loop {
        asked.next().await;
        tracing::warn!("SIGUSR1: a gateway makes no backup; a storage server does");
    }
}

/// Tells the person who started the gateway how to talk to it. Nobody may be reading, so a thread
/// of its own waits for that.
fn greet(
    config: &Config,
    listen: SocketAddr,
    shared: &Shared,
    replication: u8,
) -> anyhow::Result<()> {
    let text = greeting(config, listen, shared, replication);
    let print = move || {
        if let Err(error) = std::io::stdout().write_all(text.as_bytes()) {
            tracing::debug!(%error, "the greeting could not be printed");
        }
    };
    let thread = thread::Builder::new().name("greeting".into()).spawn(print);
    thread.context("cannot start a thread for the greeting")?;
    Ok(())
}

fn greeting(config: &Config, listen: SocketAddr, shared: &Shared, replication: u8) -> String {
    let view = shared.view();
    let (servers, shares) = (view.cluster().servers(), view.ring().shares());
    let version = env!("CARGO_PKG_VERSION");
    let url = match &config.tls {
        Some(_) => format!("https://{listen}"),
        None => format!("http://{listen}"),
    };
    let mut text = format!(
        "dkvs gateway {version} on {url}\n\n\
         {} servers, each key on {replication} of them:\n",
        servers.len()
    );
    for (id, server) in view.cluster().iter().take(GREETED_SERVERS_MAX) {
        let share = shares.get(id).copied().unwrap_or(0.0);
        let (addr, points) = (server.addr.to_string(), server.ring_points);
        let percent = share * 100.0;
        text += &format!("  {addr:<21}  {points:>4} ring points  {percent:5.1} % of the keys\n");
    }
    if servers.len() > GREETED_SERVERS_MAX {
        text += &format!(
            "  and {} more: see /ring\n",
            servers.len() - GREETED_SERVERS_MAX
        );
    }
    let mut curl = String::from("curl");
    if config.tokens.is_some() {
        curl += " -H 'Authorization: Bearer TOKEN'";
    }
    text += &format!(
        "\nThe console: {url}/\n\nTry:\n  \
         {curl} -X PUT --data-binary 'hello' '{url}/kv/greeting'\n  \
         {curl} '{url}/kv/greeting'\n  \
         {curl} '{url}/servers'\n"
    );
    match &config.servers {
        Servers::Embedded(Embedded { data_dir: None, .. }) => {
            text += "\nThe servers run inside this process, in memory: nothing is kept when it \
                     ends.\nWith --data-dir DIR they keep it, and with --servers FILE the gateway \
                     uses a cluster of real ones.\n";
        }
        Servers::Embedded(Embedded {
            data_dir: Some(path),
            ..
        }) => {
            text += &format!(
                "\nThe servers run inside this process, and keep what they hold in {}.\n",
                path.display()
            );
        }
        Servers::File(_) => {}
    }
    text
}

const GREETED_SERVERS_MAX: usize = 20;
