//! What the gateway is told: flags, then the environment, then a TOML file, then defaults.
//!
//! Each name exists once: `--max-in-flight`, `DKVS_MAX_IN_FLIGHT` and `max_in_flight`. A name
//! that does not exist is refused wherever it stands.

use std::fs;
use std::net::SocketAddr;
use std::num::{NonZeroU8, NonZeroUsize};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, bail, ensure};
use clap::builder::NonEmptyStringValueParser;
use clap::{Args, Parser, Subcommand};
use dkvs_client::transport::peer::DATAGRAM_BYTES_MIN;
use dkvs_common::kv::VALUE_BYTES_MAX;
use dkvs_common::model::Durability;
use dkvs_common::wire::v2::{DATAGRAM_BYTES_DEFAULT, DATAGRAM_BYTES_MAX, VALUE_BYTES_DEFAULT};
use dkvs_runtime::about::About;
use dkvs_runtime::log::LogFormat;
use dkvs_runtime::log::filter::LogFilter;
use dkvs_storage_node::cli::{DeclarationChoice, DurabilityChoice};
use dkvs_storage_node::store::disk::Declaration;
use serde::Deserialize;

use crate::http::gate::Policy;
use crate::http::hosts::{Hosts, parse_host, parse_origin};
use crate::settings::{self, COUNT_MAX, WORKERS_MAX, parse_listen, parse_log, parse_whole};
use crate::tls;
use crate::tokens::{self, Scopes};
use dkvs_client::Protocol;

/// The longest a request may take, in milliseconds.
pub const TIMEOUT_MS_MAX: u64 = 30_000;

/// The longest notice that the gateway gives before it ends.
const SHUTDOWN_NOTICE_MS_MAX: u64 = 600_000;

const DATAGRAM_MIN: u64 = DATAGRAM_BYTES_MIN as u64;
const DATAGRAM_MAX: u64 = DATAGRAM_BYTES_MAX as u64;
const VALUE_MAX: u64 = VALUE_BYTES_MAX as u64;

/// The dkvs gateway: a distributed key-value store over plain HTTP.
///
/// Without --servers it runs five storage servers inside itself, in memory unless there is a
/// --data-dir.
#[derive(Debug, Default, Parser)]
#[command(name = "dkvs-gateway", version)]
#[command(args_conflicts_with_subcommands = true, disable_help_subcommand = true)]
pub struct Flags {
    /// The servers of the cluster, one a line: `<IPv4> <port> <ring points>`
    #[arg(long, env = "DKVS_SERVERS", value_name = "FILE")]
    servers: Option<PathBuf>,

    /// Without --servers: how many servers to run inside the gateway [default: 5]
    #[arg(long, env = "DKVS_EMBEDDED", value_name = "N",
          value_parser = parse_whole::<1, 255, NonZeroU8>)]
    embedded: Option<NonZeroU8>,

    /// Without --servers: whether the servers inside the gateway answer DKVS/1, too, which lets every
    /// program of this machine read and write all keys [default: off; on with --protocol v1]
    #[arg(long, env = "DKVS_EMBEDDED_V1", value_name = "on|off")]
    embedded_v1: Option<Switch>,

    /// Without --servers: keep what the servers hold in this directory, so that it outlasts the
    /// process
    #[arg(long, env = "DKVS_DATA_DIR", value_name = "DIR")]
    data_dir: Option<PathBuf>,

    /// With --data-dir: what a confirmed write survives, the loss of power or the end of the
    /// process [default: fsync]
    #[arg(long, env = "DKVS_DURABILITY", value_name = "fsync|buffered|memory")]
    durability: Option<DurabilityName>,

    /// With --data-dir: say once, of servers that do not start otherwise, that records may be
    /// missing from them, or that what they hold is complete
    #[arg(long, value_name = "incomplete|complete", requires = "data_dir")]
    declare: Option<DeclarationChoice>,

    /// Where to take HTTP [default: 127.0.0.1:8080]
    #[arg(long, env = "DKVS_LISTEN", value_name = "ADDR", value_parser = parse_listen)]
    listen: Option<SocketAddr>,

    /// How many servers keep each key [default: 3, or the number of servers if fewer]
    #[arg(long, env = "DKVS_REPLICATION", value_name = "N",
          value_parser = parse_whole::<1, 255, NonZeroU8>)]
    replication: Option<NonZeroU8>,

    /// How long a request waits for its quorum unless it says otherwise, in milliseconds, at
    /// most 30000 [default: 1000]
    #[arg(long, env = "DKVS_TIMEOUT", value_name = "MS",
          value_parser = parse_whole::<1, TIMEOUT_MS_MAX, u64>)]
    timeout: Option<u64>,

    /// Threads, each with a listener and sockets of its own [default: one per core]
    #[arg(long, env = "DKVS_WORKERS", value_name = "N",
          value_parser = parse_whole::<1, WORKERS_MAX, NonZeroUsize>)]
    workers: Option<NonZeroUsize>,

    /// Most requests in flight per worker; past it, 503 [default: 1024]
    #[arg(long, env = "DKVS_MAX_IN_FLIGHT", value_name = "N",
          value_parser = parse_whole::<1, COUNT_MAX, NonZeroUsize>)]
    max_in_flight: Option<NonZeroUsize>,

    /// Most HTTP connections per worker; past it, 503 [default: 4096]
    #[arg(long, env = "DKVS_MAX_CONNECTIONS", value_name = "N",
          value_parser = parse_whole::<1, COUNT_MAX, NonZeroUsize>)]
    max_connections: Option<NonZeroUsize>,

    /// How long to go on serving when told to end, in milliseconds, at most 600000, while /readyz
    /// says 503, so that load balancers turn away first; another signal cuts it short [default: 0]
    #[arg(long, env = "DKVS_SHUTDOWN_NOTICE", value_name = "MS",
          value_parser = parse_whole::<0, SHUTDOWN_NOTICE_MS_MAX, u64>)]
    shutdown_notice: Option<u64>,

    /// Which protocol to speak to the servers: DKVS/2; DKVS/1; or auto, which is DKVS/2, and DKVS/1
    /// with those that answer nothing else [default: v2]
    #[arg(long, env = "DKVS_PROTOCOL", value_name = "auto|v1|v2")]
    protocol: Option<ProtocolName>,

    /// The cluster's keys, one a line: `<id 1-255> <64 hexadecimal digits>`; the first is used for
    /// sending. Read again on SIGHUP
    #[arg(long, env = "DKVS_KEY_FILE", value_name = "FILE")]
    key_file: Option<PathBuf>,

    /// The longest datagram to send to the servers, in bytes, 512 to 65507; longer ones are faster
    /// where the whole path takes them, as loopback and jumbo frames do
    /// [default: 1200, or 65507 with an embedded cluster]
    #[arg(long, env = "DKVS_MAX_DATAGRAM", value_name = "BYTES",
          value_parser = parse_whole::<DATAGRAM_MIN, DATAGRAM_MAX, u16>)]
    max_datagram: Option<u16>,

    /// The longest value to take, in bytes, at most 16777216 [default: 1048576]
    #[arg(long, env = "DKVS_MAX_VALUE", value_name = "BYTES",
          value_parser = parse_whole::<0, VALUE_MAX, u32>)]
    max_value: Option<u32>,

    /// Send and receive many datagrams by one system call, where the system can [default: on]
    #[arg(long, env = "DKVS_UDP_OFFLOAD", value_name = "on|off")]
    udp_offload: Option<Switch>,

    /// The access tokens that are let in, one a line: `<name> sha256:<64 hexadecimal digits>
    /// <scopes>`; without it nobody needs one. `dkvs-gateway token` makes one. Read again on SIGHUP
    #[arg(long, env = "DKVS_TOKENS", value_name = "FILE")]
    tokens: Option<PathBuf>,

    /// Speak TLS with this certificate, in PEM, followed by those between it and its root. Read
    /// again on SIGHUP
    #[arg(long, env = "DKVS_TLS_CERT", value_name = "FILE")]
    tls_cert: Option<PathBuf>,

    /// The private key of that certificate, in PEM. Read again on SIGHUP
    #[arg(long, env = "DKVS_TLS_KEY", value_name = "FILE")]
    tls_key: Option<PathBuf>,

    /// With --tls-cert: let in only clients with a certificate that one of these vouches for. Read
    /// again on SIGHUP
    #[arg(long, env = "DKVS_TLS_CLIENT_CA", value_name = "FILE")]
    tls_client_ca: Option<PathBuf>,

    /// A host name by which requests reach the gateway, besides localhost and its address; several
    /// with commas, or the flag several times
    #[arg(
        long,
        env = "DKVS_ALLOWED_HOST",
        value_name = "NAME",
        value_parser = settings::parse_host,
        value_delimiter = ','
    )]
    allowed_host: Vec<String>,

    /// An origin whose pages may read and write from browsers, as in `https://app.example.org`;
    /// several as above
    #[arg(
        long,
        env = "DKVS_CORS_ORIGIN",
        value_name = "ORIGIN",
        value_parser = settings::parse_origin,
        value_delimiter = ','
    )]
    cors_origin: Vec<String>,

    /// Take HTTP from beyond this machine although nothing authenticates it
    #[arg(long, env = "DKVS_INSECURE", num_args = 0..=1, default_missing_value = "true",
          require_equals = true, value_name = "BOOL")]
    insecure: Option<bool>,

    /// What to log, as in `info` or `debug` [default: info]
    #[arg(long, env = "DKVS_LOG", value_name = "FILTER", value_parser = parse_log)]
    log: Option<LogFilter>,

    /// How to log: as lines for people, or as one JSON object a line [default: text]
    #[arg(long, env = "DKVS_LOG_FORMAT", value_name = "text|json")]
    log_format: Option<LogFormat>,

    /// Export spans of requests to this OpenTelemetry collector, by OTLP over plain HTTP
    #[cfg(feature = "otel")]
    #[arg(long, env = "DKVS_OTLP_ENDPOINT", value_name = "URL",
          value_parser = settings::parse_endpoint)]
    otlp_endpoint: Option<String>,

    /// A TOML file with any of these, under the same names with underscores
    #[arg(long, env = "DKVS_CONFIG", value_name = "FILE")]
    config: Option<PathBuf>,

    /// Read everything that the settings name, say what is wrong, and start nothing
    #[arg(long)]
    pub(crate) check_config: bool,

    #[command(flatten)]
    pub(crate) about: About,

    /// What to do in place of serving.
    #[command(subcommand)]
    pub(crate) command: Option<Command>,
}

/// What the program does besides serving.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Print a new access token, and the line for the token file. Nothing is written anywhere
    Token(NewToken),

    /// Ask the gateway at an address, by plain HTTP, whether it is ready. If not, say why, and end
    /// with status 1
    Ready {
        /// Its address and port; that of a gateway in the same container, say
        addr: SocketAddr,
    },
}

/// What a new token is to be.
#[derive(Debug, Args)]
pub(crate) struct NewToken {
    /// What to call it, in the file and in logs
    #[arg(long, value_parser = parse_name)]
    pub(crate) name: String,

    /// What it is good for: read, write and admin, with commas between
    #[arg(long, value_name = "SCOPES", value_parser = parse_scopes)]
    pub(crate) scope: Scopes,

    /// Only for keys that begin so; several times for several
    #[arg(long, value_name = "TEXT", value_parser = NonEmptyStringValueParser::new())]
    pub(crate) prefix: Vec<String>,
}

fn parse_name(name: &str) -> Result<String, &'static str> {
    tokens::is_name(name)
        .then(|| name.to_owned())
        .ok_or("it is 1 to 64 letters, digits, dots, hyphens and underscores")
}

fn parse_scopes(words: &str) -> Result<Scopes, &'static str> {
    Scopes::parse(words).ok_or("it is a list of read, write and admin, each once, with commas")
}

/// The same in a file.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    #[serde(default, deserialize_with = "settings::path")]
    servers: Option<PathBuf>,
    #[serde(default, deserialize_with = "settings::whole::<1, 255, _, _>")]
    embedded: Option<NonZeroU8>,
    embedded_v1: Option<Switch>,
    #[serde(default, deserialize_with = "settings::path")]
    data_dir: Option<PathBuf>,
    durability: Option<DurabilityName>,
    #[serde(default, deserialize_with = "settings::listen")]
    listen: Option<SocketAddr>,
    #[serde(default, deserialize_with = "settings::whole::<1, 255, _, _>")]
    replication: Option<NonZeroU8>,
    #[serde(
        default,
        deserialize_with = "settings::whole::<1, TIMEOUT_MS_MAX, _, _>"
    )]
    timeout: Option<u64>,
    #[serde(default, deserialize_with = "settings::whole::<1, WORKERS_MAX, _, _>")]
    workers: Option<NonZeroUsize>,
    #[serde(default, deserialize_with = "settings::whole::<1, COUNT_MAX, _, _>")]
    max_in_flight: Option<NonZeroUsize>,
    #[serde(default, deserialize_with = "settings::whole::<1, COUNT_MAX, _, _>")]
    max_connections: Option<NonZeroUsize>,
    #[serde(
        default,
        deserialize_with = "settings::whole::<0, SHUTDOWN_NOTICE_MS_MAX, _, _>"
    )]
    shutdown_notice: Option<u64>,
    protocol: Option<ProtocolName>,
    #[serde(default, deserialize_with = "settings::path")]
    key_file: Option<PathBuf>,
    #[serde(
        default,
        deserialize_with = "settings::whole::<DATAGRAM_MIN, DATAGRAM_MAX, _, _>"
    )]
    max_datagram: Option<u16>,
    #[serde(default, deserialize_with = "settings::whole::<0, VALUE_MAX, _, _>")]
    max_value: Option<u32>,
    udp_offload: Option<Switch>,
    #[serde(default, deserialize_with = "settings::path")]
    tokens: Option<PathBuf>,
    #[serde(default, deserialize_with = "settings::path")]
    tls_cert: Option<PathBuf>,
    #[serde(default, deserialize_with = "settings::path")]
    tls_key: Option<PathBuf>,
    #[serde(default, deserialize_with = "settings::path")]
    tls_client_ca: Option<PathBuf>,
    #[serde(default, deserialize_with = "settings::hosts")]
    allowed_host: Option<Vec<String>>,
    #[serde(default, deserialize_with = "settings::origins")]
    cors_origin: Option<Vec<String>>,
    insecure: Option<bool>,
    #[serde(default, deserialize_with = "settings::log")]
    log: Option<LogFilter>,
    log_format: Option<LogFormat>,
    #[cfg(feature = "otel")]
    #[serde(default, deserialize_with = "settings::endpoint")]
    otlp_endpoint: Option<String>,
}

/// [`DurabilityChoice`], as it is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum, Deserialize)]
#[serde(rename_all = "lowercase")]
enum DurabilityName {
    Fsync,
    Buffered,
    Memory,
}

/// [`Protocol`], as it is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum, Deserialize)]
#[serde(rename_all = "lowercase")]
enum ProtocolName {
    Auto,
    V1,
    V2,
}

/// Whether something is done.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Switch {
    On,
    Off,
}

/// Where the servers are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Servers {
    /// Listed in a file.
    File(PathBuf),
    /// Inside the gateway.
    Embedded(Embedded),
}

/// Servers inside the gateway.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Embedded {
    /// How many; none where that is not said.
    pub servers: Option<NonZeroU8>,
    /// Where they keep what they hold, if they do.
    pub data_dir: Option<PathBuf>,
    /// What a confirmed write survives.
    pub durability: Durability,
    /// What the operator says of those that cannot be opened otherwise.
    pub declaration: Option<Declaration>,
    /// Whether they answer DKVS/1 to anyone, besides DKVS/2 to who has their key.
    pub is_v1_on: bool,
}

/// Everything, decided.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    /// Where the servers are.
    pub servers: Servers,
    /// Where HTTP is taken.
    pub listen: SocketAddr,
    /// Copies of each key; none where the cluster's size decides.
    pub replication: Option<NonZeroU8>,
    /// How long a request waits unless it says otherwise.
    pub timeout: Duration,
    /// Threads; none for one per core.
    pub workers: Option<NonZeroUsize>,
    /// Requests in flight per worker.
    pub max_in_flight: usize,
    /// HTTP connections per worker.
    pub max_connections: usize,
    /// How long it goes on serving, and says that it is not ready, when told to end.
    pub shutdown_notice: Duration,
    /// Which protocol to speak to the servers.
    pub protocol: Protocol,
    /// The cluster's keys.
    pub key_file: Option<PathBuf>,
    /// The longest DKVS/2 datagram to send, in bytes.
    pub datagram_bytes_max: usize,
    /// The longest value to take, in bytes.
    pub value_bytes_max: usize,
    /// Whether many datagrams go by one system call.
    pub udp_offload: bool,
    /// The access tokens that callers need, if they need any.
    pub tokens: Option<PathBuf>,
    /// What TLS is spoken with, if it is.
    pub tls: Option<tls::Paths>,
    /// What browsers may be made to do.
    pub policy: Policy,
    /// What to log.
    pub log: LogFilter,
    /// How.
    pub log_format: LogFormat,
    /// Where spans are exported to.
    #[cfg(feature = "otel")]
    pub otlp_endpoint: Option<String>,
}

impl Config {
    /// Decides, from the flags (which have taken in the environment) and the file they name.
    pub fn new(flags: Flags) -> anyhow::Result<Self> {
        let file = match &flags.config {
            Some(path) => read(path)?,
            None => File::default(),
        };
        let data_dir = flags.data_dir.or(file.data_dir);
        let durability = flags.durability.or(file.durability);
        let durability = durability.map(|name| match name {
            DurabilityName::Fsync => DurabilityChoice::Fsync,
            DurabilityName::Buffered => DurabilityChoice::Buffered,
            DurabilityName::Memory => DurabilityChoice::Memory,
        });
        let mut servers = match (
            flags.servers.or(file.servers),
            flags.embedded.or(file.embedded),
        ) {
            (Some(_), None) if data_dir.is_some() || durability.is_some() => bail!(
                "`data_dir` and `durability` are of the servers inside the gateway, and `servers` \
                 lists others; give --data-dir to each of those"
            ),
            (Some(_), Some(_)) => bail!(
                "both `servers` and `embedded` are set: the cluster is either listed in a file or \
                 runs inside the gateway"
            ),
            (Some(path), None) => Servers::File(path),
            (None, servers) => Servers::Embedded(Embedded {
                servers,
                durability: DurabilityChoice::resolve(durability, data_dir.is_some())
                    .map_err(anyhow::Error::msg)?,
                data_dir,
                declaration: flags.declare.map(Declaration::from),
                is_v1_on: false,
            }),
        };
        let timeout = flags.timeout.or(file.timeout).unwrap_or(1_000);
        let notice = flags.shutdown_notice.or(file.shutdown_notice).unwrap_or(0);
        let listen = flags.listen.or(file.listen);
        let listen = listen.unwrap_or_else(|| SocketAddr::from(([127, 0, 0, 1], 8080)));
        let insecure = flags.insecure.or(file.insecure).unwrap_or(false);
        let tokens = flags.tokens.or(file.tokens);
        let tls = tls_paths(
            flags.tls_cert.or(file.tls_cert),
            flags.tls_key.or(file.tls_key),
            flags.tls_client_ca.or(file.tls_client_ca),
        )?;
        let knows_clients = tls.as_ref().is_some_and(|tls| tls.client_roots.is_some());
        ensure!(
            listen.ip().is_loopback() || tokens.is_some() || knows_clients || insecure,
            "{listen} can be reached from other machines, and anyone there could read and write \
             every key; give --tokens FILE, or --tls-client-ca FILE, so that callers have to say \
             who they are, or listen on 127.0.0.1, or say --insecure if the network is yours alone"
        );
        let policy = Policy {
            hosts: Hosts::new(
                listen,
                &parse_all(
                    or_file(flags.allowed_host, file.allowed_host),
                    parse_host,
                    "`allowed_host` has {}, which is no host name or address; leave out scheme, \
                     port and path",
                )?,
            ),
            origins: parse_all(
                or_file(flags.cors_origin, file.cors_origin),
                parse_origin,
                "`cors_origin` has {}, which is no origin as browsers send it, such as \
                 https://app.example.org or http://localhost:3000, in lower case",
            )?,
        };
        let key_file = flags.key_file.or(file.key_file);
        let protocol = flags.protocol.or(file.protocol);
        let protocol = match (protocol, &key_file) {
            (Some(ProtocolName::V1 | ProtocolName::Auto), Some(_)) => bail!(
                "`protocol` is v1 or auto and a key file is given: DKVS/1 cannot prove anything; \
                 leave one of them out"
            ),
            (Some(ProtocolName::V2) | None, _) => Protocol::V2,
            (Some(ProtocolName::V1), None) => Protocol::V1,
            (Some(ProtocolName::Auto), None) => Protocol::Auto,
        };
        let embedded_v1 = flags.embedded_v1.or(file.embedded_v1);
        let protocol = doors(&mut servers, embedded_v1, protocol)?;
        let datagram_bytes_max = flags.max_datagram.or(file.max_datagram).map(usize::from);
        let datagram_bytes_max = datagram_bytes_max.unwrap_or(match servers {
            Servers::File(_) => DATAGRAM_BYTES_DEFAULT,
            Servers::Embedded(_) => DATAGRAM_BYTES_MAX,
        });
        let value_bytes_max = flags
            .max_value
            .or(file.max_value)
            .map(|bytes| bytes as usize);
        let value_bytes_max = value_bytes_max.unwrap_or(VALUE_BYTES_DEFAULT);
        let or_default =
            |set: Option<NonZeroUsize>, default| set.map_or(default, NonZeroUsize::get);
        Ok(Self {
            servers,
            listen,
            replication: flags.replication.or(file.replication),
            timeout: Duration::from_millis(timeout),
            workers: flags.workers.or(file.workers),
            max_in_flight: or_default(flags.max_in_flight.or(file.max_in_flight), 1_024),
            max_connections: or_default(flags.max_connections.or(file.max_connections), 4_096),
            shutdown_notice: Duration::from_millis(notice),
            protocol,
            key_file,
            datagram_bytes_max,
            value_bytes_max,
            udp_offload: flags.udp_offload.or(file.udp_offload) != Some(Switch::Off),
            tokens,
            tls,
            policy,
            log: flags.log.or(file.log).unwrap_or_default(),
            log_format: flags.log_format.or(file.log_format).unwrap_or_default(),
            #[cfg(feature = "otel")]
            otlp_endpoint: flags.otlp_endpoint.or(file.otlp_endpoint),
        })
    }
}

/// Decides whether embedded servers answer DKVS/1, and by what they are then asked: they have a key,
/// so by DKVS/2 unless it is to be DKVS/1.
fn doors(
    servers: &mut Servers,
    v1: Option<Switch>,
    protocol: Protocol,
) -> anyhow::Result<Protocol> {
    let Servers::Embedded(embedded) = servers else {
        ensure!(
            v1.is_none(),
            "`embedded_v1` is of the servers inside the gateway, and `servers` lists others; give \
             --v1 to each of those"
        );
        return Ok(protocol);
    };
    let is_asked_by_v1 = protocol == Protocol::V1;
    ensure!(
        !is_asked_by_v1 || v1 != Some(Switch::Off),
        "`protocol` is v1 and `embedded_v1` is off: the gateway would ask its own servers by what \
         they do not answer; leave out one of them"
    );
    embedded.is_v1_on = is_asked_by_v1 || v1 == Some(Switch::On);
    Ok(match is_asked_by_v1 {
        true => Protocol::V1,
        false => Protocol::V2,
    })
}

/// The files of TLS, if it is to be spoken: then a certificate and its key are both there.
fn tls_paths(
    certificates: Option<PathBuf>,
    key: Option<PathBuf>,
    client_roots: Option<PathBuf>,
) -> anyhow::Result<Option<tls::Paths>> {
    match (certificates, key) {
        (Some(certificates), Some(key)) => Ok(Some(tls::Paths {
            certificates,
            key,
            client_roots,
        })),
        (None, None) if client_roots.is_none() => Ok(None),
        _ => bail!(
            "of `tls_cert`, `tls_key` and `tls_client_ca` one needs another: a certificate and its \
             key belong together, and clients are asked for theirs by TLS alone"
        ),
    }
}

/// A list of the flags, or of the file where they have none.
fn or_file(flags: Vec<String>, file: Option<Vec<String>>) -> Vec<String> {
    match flags[..] {
        [] => file.unwrap_or_default(),
        _ => flags,
    }
}

/// Reads each of some texts, or fails with `refusal`, in which {} stands for the text.
fn parse_all<T>(
    texts: Vec<String>,
    parse: impl Fn(&str) -> Option<T>,
    refusal: &str,
) -> anyhow::Result<Vec<T>> {
    let parse = |text: &String| {
        let refused = || anyhow::Error::msg(refusal.replace("{}", &format!("{text:?}")));
        parse(text).ok_or_else(refused)
    };
    texts.iter().map(parse).collect()
}

fn read(path: &Path) -> anyhow::Result<File> {
    let text =
        fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
    toml::from_str(&text).with_context(|| format!("{} is refused", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory as _;

    fn flags(arguments: &[&str]) -> Flags {
        Flags::parse_from([&["dkvs-gateway"], arguments].concat())
    }

    fn refusal(arguments: &[&str]) -> String {
        let flags = Flags::try_parse_from([&["dkvs-gateway"], arguments].concat());
        match flags.map(Config::new) {
            Ok(config) => format!("{:#}", config.unwrap_err()),
            Err(error) => error.to_string(),
        }
    }

    #[test]
    fn defaults_are_an_embedded_cluster_on_loopback() {
        let config = Config::new(flags(&[])).unwrap();
        assert_eq!(
            config.servers,
            Servers::Embedded(Embedded {
                servers: None,
                data_dir: None,
                durability: Durability::Memory,
                declaration: None,
                is_v1_on: false,
            })
        );
        assert_eq!(config.listen.to_string(), "127.0.0.1:8080");
        assert_eq!(config.timeout, Duration::from_secs(1));
    }

    #[test]
    fn a_contradiction_or_an_impossible_value_is_refused() {
        assert!(refusal(&["--servers", "f", "--embedded", "3"]).contains("both `servers` and"));
        assert!(refusal(&["--servers", "f", "--data-dir", "d"]).contains("to each of those"));
        assert!(refusal(&["--durability", "fsync"]).contains("--data-dir DIR"));
        let both = ["--durability", "memory", "--data-dir", "d"];
        assert!(refusal(&both).contains("leave out one of them"));
        assert!(refusal(&["--timeout", "0"]).contains("from 1 to 30000"));
        assert!(refusal(&["--timeout", "30001"]).contains("from 1 to 30000"));
        assert!(refusal(&["--shutdown-notice", "600001"]).contains("from 0 to 600000"));
        assert!(refusal(&["--listen", "0.0.0.0:80"]).contains("--insecure"));
        assert!(Config::new(flags(&["--listen", "0.0.0.0:80", "--insecure"])).is_ok());
        let listen = ["--listen", "0.0.0.0:80"];
        let beyond = |more: &[&'static str]| [&listen, more].concat();
        let tls = ["--tls-cert", "c", "--tls-key", "k"];
        assert!(refusal(&beyond(&tls)).contains("--tokens FILE"));
        assert!(Config::new(flags(&beyond(&["--tokens", "t"]))).is_ok());
        let clients = [&tls[..], &["--tls-client-ca", "a"]].concat();
        assert!(Config::new(flags(&beyond(&clients))).is_ok());
        for part in [
            &tls[..2],
            &tls[2..],
            &clients[4..],
            &clients[2..],
            &clients[..2],
        ] {
            assert!(refusal(part).contains("belong together"), "{part:?}");
        }
        assert!(refusal(&["--allowed-host", "a,http://b"]).contains("'http://b'"));
        assert!(refusal(&["--cors-origin", "*"]).contains("'*'"));
        assert!(refusal(&["--max-datagram", "511"]).contains("from 512 to 65507"));
        assert!(refusal(&["--max-value", "16777217"]).contains("from 0 to 16777216"));
        for protocol in ["v1", "auto"] {
            let arguments = ["--protocol", protocol, "--key-file", "f"];
            assert!(refusal(&arguments).contains("prove"));
        }
        assert!(Flags::try_parse_from(["dkvs-gateway", "--replication", "0"]).is_err());
        assert!(Flags::try_parse_from(["dkvs-gateway", "--replicas", "3"]).is_err());
    }

    #[test]
    fn lists_are_given_with_commas_or_one_by_one_or_in_the_file() {
        let policy = |arguments: &[&str]| Config::new(flags(arguments)).unwrap().policy;
        let expected = policy(&["--allowed-host", "a", "--allowed-host", "b"]);
        assert_eq!(policy(&["--allowed-host", "a,b"]), expected);
        assert_ne!(policy(&["--allowed-host", "a"]), expected);
        let file: File = toml::from_str("allowed_host = ['a', 'b']").unwrap();
        let both = or_file(Vec::new(), file.allowed_host.clone());
        assert_eq!(both, ["a", "b"]);
        assert_eq!(or_file(vec!["c".into()], file.allowed_host), ["c"]);
    }

    #[test]
    fn a_token_is_asked_for_with_nothing_else() {
        let parse = |arguments: &[&str]| {
            let arguments = [&["dkvs-gateway"], arguments].concat();
            Flags::try_parse_from(arguments).map(|flags| flags.command)
        };
        assert!(parse(&[]).unwrap().is_none());
        let asked = [
            "token",
            "--name",
            "a",
            "--scope",
            "read,write",
            "--prefix",
            "a,b",
        ];
        let Some(Command::Token(told)) = parse(&asked).unwrap() else {
            panic!("a token is asked for");
        };
        assert_eq!(told.prefix, ["a,b"]);
        for wrong in [
            &["token"][..],
            &["token", "--name", "a"],
            &["token", "--name", "a b", "--scope", "read"],
            &["token", "--name", "a", "--scope", "all"],
            &["token", "--name", "a", "--scope", "read", "--prefix", ""],
            &["--embedded", "3", "token", "--name", "a", "--scope", "read"],
        ] {
            assert!(parse(wrong).is_err(), "{wrong:?}");
        }
    }

    #[test]
    fn dkvs_1_is_spoken_only_where_that_is_asked_for_and_never_with_keys() {
        let protocol = |arguments: &[&str]| Config::new(flags(arguments)).unwrap().protocol;
        let listed = |more: &[&'static str]| protocol(&[&["--servers", "s"], more].concat());
        assert_eq!(listed(&[]), Protocol::V2);
        assert_eq!(listed(&["--protocol", "auto"]), Protocol::Auto);
        assert_eq!(listed(&["--key-file", "f"]), Protocol::V2);
        assert_eq!(listed(&["--protocol", "v1"]), Protocol::V1);
    }

    #[test]
    fn embedded_servers_have_keys_and_answer_the_first_version_only_if_asked_to() {
        let (on, off) = (["--embedded-v1", "on"], ["--embedded-v1", "off"]);
        let (auto, v1) = (["--protocol", "auto"], ["--protocol", "v1"]);
        for (arguments, expected) in [
            (&[][..], (Protocol::V2, false)),
            (&off, (Protocol::V2, false)),
            (&auto, (Protocol::V2, false)),
            (&["--protocol", "v2"], (Protocol::V2, false)),
            (&["--key-file", "f"], (Protocol::V2, false)),
            (&["--tokens", "t"], (Protocol::V2, false)),
            (&on, (Protocol::V2, true)),
            (&[on, auto].concat(), (Protocol::V2, true)),
            (&[on, ["--key-file", "f"]].concat(), (Protocol::V2, true)),
            (&v1, (Protocol::V1, true)),
            (&[on, v1].concat(), (Protocol::V1, true)),
        ] {
            let config = Config::new(flags(arguments)).unwrap();
            let Servers::Embedded(embedded) = config.servers else {
                panic!("an embedded cluster");
            };
            let decided = (config.protocol, embedded.is_v1_on);
            assert_eq!(decided, expected, "{arguments:?}");
        }
        assert!(refusal(&[off, v1].concat()).contains("leave out one"));
        for switch in [on, off] {
            let refused = refusal(&[["--servers", "s"], switch].concat());
            assert!(refused.contains("--v1 to each of those"), "{refused}");
        }
    }

    #[test]
    fn every_flag_has_a_name_in_the_environment_and_in_the_file() {
        for argument in Flags::command().get_arguments() {
            let name = argument.get_id().as_str();
            // What is declared is said once, and not left anywhere.
            let said_once = ["config", "declare", "check_config", "completions", "man"];
            if said_once.contains(&name) || ["help", "version"].contains(&name) {
                continue;
            }
            assert_eq!(argument.get_long(), Some(&*name.replace('_', "-")));
            let env = format!("DKVS_{}", name.to_uppercase());
            assert_eq!(argument.get_env(), Some(env.as_ref()));
            // A wrong type is refused as a wrong type: the name is known.
            let error = toml::from_str::<File>(&format!("{name} = [1]")).unwrap_err();
            assert!(!error.message().contains("unknown field"), "{error}");
        }
        assert!(toml::from_str::<File>("config = 'x'").is_err());
    }
}
