//! The `dkvs-gateway` program: from its settings to its end.
//!
//! * `files`: keys, tokens and certificates, read again on SIGHUP
//! * `workers`: the threads that serve
//! * `greeting`: what it prints

mod files;
mod greeting;
mod workers;

use std::convert::Infallible;
use std::fs;
use std::future::Future;
use std::io::Write as _;
use std::net::SocketAddr;
use std::num::NonZeroU8;
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use anyhow::{Context, ensure};
use dkvs_client::Shared;
use dkvs_common::cluster::Cluster;
use dkvs_runtime::about;
use dkvs_runtime::key_file::KeyFile;
use dkvs_runtime::signals::{Backups, Signals};
use dkvs_runtime::{log, open_files, program};
use tokio::runtime::Runtime;
use tokio_util::sync::CancellationToken;

use crate::config::environment;
use crate::config::{Command, Config, Flags, NewToken, Servers};
use crate::cursor_keys::CursorKeys;
use crate::embedded::EmbeddedCluster;
use crate::http::GatewayState;
use crate::http::serve::Listener;
use crate::memory::MemoryDemand;
use crate::ready;
use crate::tokens::{self, TokenFile};
use files::Files;
use greeting::greeting;
use workers::{WorkerContext, WorkerPlan, worker_count};

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

/// Checks that the gateway could serve with these settings and the files that they name.
fn check(config: &Config) -> anyhow::Result<()> {
    // For warnings about them.
    log::start(&config.log, config.log_format).context(log::NO_THREAD)?;
    let mut demand = MemoryDemand {
        workers: worker_count(config),
        connections_max: config.max_connections,
        requests_max: config.max_in_flight,
        value_bytes_max: config.value_bytes_max,
        is_tls: config.tls.is_some(),
        servers: 0,
        embedded: 0,
    };
    let servers = match &config.servers {
        Servers::File(path) => {
            let cluster = read_cluster(path)?;
            let servers = cluster.servers().len();
            demand.servers = servers;
            let replication = replication(config.replication, servers)?;
            format!("{servers} servers, each key on {replication} of them")
        }
        Servers::Embedded(embedded) => {
            let servers = EmbeddedCluster::check(embedded)?;
            (demand.servers, demand.embedded) = (servers, servers);
            let replication = replication(config.replication, servers)?;
            format!("{servers} servers inside the gateway, each key on {replication} of them")
        }
    };
    let files = Files::open(config)?;
    let has = |is_there: bool| if is_there { "with" } else { "without" };
    let admin = config.admin.as_ref().map_or_else(String::new, |admin| {
        format!("\n  health and metrics on {}", admin.listen)
    });
    let text = format!(
        "the settings are good, and nothing was started\n  HTTP on {}, {} TLS, {} tokens{admin}\n  \
         {servers}, {} keys\n  {demand}\n",
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

/// Prints a token and its line for the file to standard output, and what to do with them to standard
/// error.
fn print_token(wanted: &NewToken) -> anyhow::Result<()> {
    let minted = tokens::mint(&wanted.name, wanted.scope, &wanted.prefix);
    let minted = minted.context("the system has no random bytes")?;
    writeln!(std::io::stdout(), "{}\n{}", minted.token, minted.line)?;
    log::print(
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
    let (cluster, plan, embedded) = match &config.servers {
        Servers::File(path) => {
            let cluster = read_cluster(path)?;
            let plan = WorkerPlan::new(config, cluster.servers().len(), false, files_max)?;
            (cluster, plan, None)
        }
        Servers::Embedded(options) => {
            // It is known before they start that there are files enough for them.
            let servers = EmbeddedCluster::check(options)?;
            let plan = WorkerPlan::new(config, servers, true, files_max)?;
            let embedded = EmbeddedCluster::start(options, keys.clone())?;
            (embedded.cluster().clone(), plan, Some(embedded))
        }
    };
    let replication = replication(config.replication, cluster.servers().len())?;
    let listeners = plan.bind(config.listen)?;
    let listen = listeners[0].local_addr()?;
    let admin = WorkerPlan::bind_admin(config)?;
    let admin_listen = admin.as_ref().map(Listener::local_addr).transpose()?;
    warn_of_readable_tokens(config, listen);
    let shared = Arc::new(Shared::new(cluster));
    let shutdown = CancellationToken::new();
    // Cancelled when the notice begins, or without a notice together with `shutdown`.
    let draining = shutdown.child_token();
    let keys = embedded.as_ref().map(EmbeddedCluster::keys).or(keys);
    let tokens = files.tokens.as_ref().map(TokenFile::subscribe);
    let context = WorkerContext {
        shared: Arc::clone(&shared),
        keys: keys.clone(),
        replication,
        gateway: Arc::new(GatewayState::new(
            embedded.as_ref().map(EmbeddedCluster::switch),
            CursorKeys::new(keys, tokens),
        )),
        draining: draining.clone(),
        shutdown: shutdown.clone(),
        ended: CancellationToken::new(),
    };
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    // Before anybody is answered, or greeted: from then on signals may come.
    let signals = runtime.block_on(async { Signals::new() });
    let signals = signals.context("cannot take over signals")?;
    let reloads = runtime.block_on(async { files.reloads() });
    let reloads = reloads.context("cannot take over SIGHUP")?;
    let backups = runtime.block_on(async { Backups::new() });
    let backups = backups.context("cannot take over SIGUSR1")?;
    let threads = plan.spawn(listeners, admin, config, &files, &context)?;
    if let Some(listen) = admin_listen {
        tracing::info!("health and metrics are at http://{listen}");
    }
    greet(greeting(config, listen, &shared.view(), replication))?;
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
    threads.join()?;
    tracing::info!("stopped");
    Ok(())
}

/// Kept for as long as something is logged.
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

/// Warns of tokens that travel without TLS.
fn warn_of_readable_tokens(config: &Config, listen: SocketAddr) {
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

/// How the gateway announces its end.
struct Notice {
    /// Cancelled when the gateway is no longer ready.
    draining: CancellationToken,
    time: Duration,
}

/// Returns when the process is to end, with `shutdown` cancelled. A signal begins the notice, the next
/// one ends it early, and one more ends the process at once. Polls `others`, which handles other
/// signals, until the first.
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

/// Warns at each SIGUSR1 that only storage servers make backups. By default it would end the process.
async fn refuse_backups(mut asked: Backups) -> Infallible {
    loop {
        asked.next().await;
        tracing::warn!("SIGUSR1: a gateway makes no backup; a storage server does");
    }
}

/// Prints how to talk to the gateway. A thread of its own does so, since the reader may block it.
fn greet(text: String) -> anyhow::Result<()> {
    let print = move || {
        if let Err(error) = std::io::stdout().write_all(text.as_bytes()) {
            tracing::debug!(%error, "the greeting could not be printed");
        }
    };
    let thread = thread::Builder::new().name("greeting".into()).spawn(print);
    thread.context("cannot start a thread for the greeting")?;
    Ok(())
}
