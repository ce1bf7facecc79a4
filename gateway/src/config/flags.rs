//! The command line, with the environment as its fallback.

use std::net::SocketAddr;
use std::num::{NonZeroU8, NonZeroUsize};
use std::path::{Path, PathBuf};

use axum::http::HeaderValue;
use clap::builder::NonEmptyStringValueParser;
use clap::{Args, Parser, Subcommand};
use dkvs_runtime::about::About;
use dkvs_runtime::hosts::{Host, parse_host};
use dkvs_runtime::log::LogFormat;
use dkvs_runtime::log::filter::LogFilter;

use super::choices::{DurabilityName, OnOff, ProtocolName};
use super::settings::Settings;
use super::values::{
    self, COUNT_MAX, DATAGRAM_MAX, DATAGRAM_MIN, IDLE_TIMEOUT_SECONDS_MAX, SHUTDOWN_NOTICE_MS_MAX,
    VALUE_MAX, WORKERS_MAX, parse_listen, parse_log, parse_whole,
};
use crate::embedded::DeclarationChoice;
use crate::http::TIMEOUT_MS_MAX;
use crate::tokens::{self, Scopes};

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
    embedded_v1: Option<OnOff>,

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

    /// Where to take HTTP for health and metrics alone, by connections and a thread of their own; plain
    /// HTTP, whatever the other speaks
    #[arg(long, env = "DKVS_ADMIN_LISTEN", value_name = "ADDR", value_parser = parse_listen)]
    admin_listen: Option<SocketAddr>,

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

    /// Most HTTP connections per worker; past it, one that is idle makes room, or 503 [default: 4096]
    #[arg(long, env = "DKVS_MAX_CONNECTIONS", value_name = "N",
          value_parser = parse_whole::<1, COUNT_MAX, NonZeroUsize>)]
    max_connections: Option<NonZeroUsize>,

    /// How long an HTTP connection may be idle between requests, and a reply make no progress, in
    /// seconds, at most 3600; longer than a load balancer in front keeps its own, and than the
    /// timeout_ms of batches [default: 60]
    #[arg(long, env = "DKVS_IDLE_TIMEOUT", value_name = "SECONDS",
          value_parser = parse_whole::<1, IDLE_TIMEOUT_SECONDS_MAX, u64>)]
    idle_timeout: Option<u64>,

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
    udp_offload: Option<OnOff>,

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
        value_parser = parse_host,
        value_delimiter = ','
    )]
    allowed_host: Vec<Host>,

    /// An origin whose pages may read and write from browsers, as in `https://app.example.org`;
    /// several as above
    #[arg(
        long,
        env = "DKVS_CORS_ORIGIN",
        value_name = "ORIGIN",
        value_parser = values::parse_origin,
        value_delimiter = ','
    )]
    cors_origin: Vec<HeaderValue>,

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
          value_parser = values::parse_endpoint)]
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

impl Flags {
    /// The file of settings that they name.
    pub(super) fn config(&self) -> Option<&Path> {
        self.config.as_deref()
    }

    /// The settings among them.
    pub(super) fn into_settings(self) -> Settings {
        Settings {
            servers: self.servers,
            embedded: self.embedded,
            embedded_v1: self.embedded_v1,
            data_dir: self.data_dir,
            durability: self.durability,
            declare: self.declare,
            listen: self.listen,
            admin_listen: self.admin_listen,
            replication: self.replication,
            timeout: self.timeout,
            workers: self.workers,
            max_in_flight: self.max_in_flight,
            max_connections: self.max_connections,
            idle_timeout: self.idle_timeout,
            shutdown_notice: self.shutdown_notice,
            protocol: self.protocol,
            key_file: self.key_file,
            max_datagram: self.max_datagram,
            max_value: self.max_value,
            udp_offload: self.udp_offload,
            tokens: self.tokens,
            tls_cert: self.tls_cert,
            tls_key: self.tls_key,
            tls_client_ca: self.tls_client_ca,
            allowed_host: Some(self.allowed_host).filter(|it| !it.is_empty()),
            cors_origin: Some(self.cors_origin).filter(|it| !it.is_empty()),
            insecure: self.insecure,
            log: self.log,
            log_format: self.log_format,
            #[cfg(feature = "otel")]
            otlp_endpoint: self.otlp_endpoint,
        }
    }
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

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory as _;

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
            let error = toml::from_str::<Settings>(&format!("{name} = [1]")).unwrap_err();
            assert!(!error.message().contains("unknown field"), "{error}");
        }
        assert!(toml::from_str::<Settings>("config = 'x'").is_err());
    }
}
