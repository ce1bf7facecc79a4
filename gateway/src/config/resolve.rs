//! Resolves the settings: defaults, and combinations that are refused.

use std::net::SocketAddr;
use std::num::{NonZeroU8, NonZeroUsize};
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{bail, ensure};
use dkvs_client::Protocol;
use dkvs_common::wire::v2::{DATAGRAM_BYTES_DEFAULT, DATAGRAM_BYTES_MAX, VALUE_BYTES_DEFAULT};
use dkvs_runtime::hosts::Hosts;
use dkvs_runtime::log::LogFormat;
use dkvs_runtime::log::filter::LogFilter;

use super::choices::OnOff;
use super::flags::Flags;
use super::settings::Settings;
use crate::embedded::{Declaration, DurabilityChoice, EmbeddedOptions};
use crate::http::hosts::BrowserPolicy;
use crate::tls;

/// Where the servers are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Servers {
    /// Listed in a file.
    File(PathBuf),
    /// Inside the gateway.
    Embedded(EmbeddedOptions),
}

/// A listener for health and metrics alone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AdminListener {
    /// Where it listens.
    pub listen: SocketAddr,
    /// Which hosts its requests may name.
    pub policy: BrowserPolicy,
}

/// Every setting with the value that it has in the end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    /// Where the servers are.
    pub servers: Servers,
    /// Where HTTP is taken.
    pub listen: SocketAddr,
    /// Where health and metrics have a listener of their own.
    pub admin: Option<AdminListener>,
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
    /// How long a connection may be idle, or its reply make no progress.
    pub idle_timeout: Duration,
    /// How long it goes on serving, no longer ready, after the signal to end.
    pub shutdown_notice: Duration,
    /// The protocol towards the servers.
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
    /// The files of TLS, if it is on.
    pub tls: Option<tls::Paths>,
    /// Which hosts and origins requests may name.
    pub policy: BrowserPolicy,
    /// What to log.
    pub log: LogFilter,
    /// The form of the log.
    pub log_format: LogFormat,
    /// The collector that spans are exported to.
    #[cfg(feature = "otel")]
    pub otlp_endpoint: Option<String>,
}

impl Config {
    /// Takes each setting from the flags, else from the environment (which the flags have read), else
    /// from the file that they name, else its default.
    ///
    /// # Errors
    ///
    /// If the file cannot be read, or two settings contradict each other.
    pub fn new(flags: Flags) -> anyhow::Result<Self> {
        let file = flags.config().map(Settings::read).transpose()?;
        let file = file.unwrap_or_default();
        Self::resolve(flags.into_settings().or(file))
    }

    fn resolve(mut settings: Settings) -> anyhow::Result<Self> {
        let mut servers = servers(&mut settings)?;
        let listen = settings.listen;
        let listen = listen.unwrap_or_else(|| SocketAddr::from(([127, 0, 0, 1], 8080)));
        let tls = tls_paths(settings.tls_cert, settings.tls_key, settings.tls_client_ca)?;
        let knows_clients = tls.as_ref().is_some_and(|tls| tls.client_roots.is_some());
        let insecure = settings.insecure.unwrap_or(false);
        ensure!(
            listen.ip().is_loopback() || settings.tokens.is_some() || knows_clients || insecure,
            "{listen} can be reached from other machines, and anyone there could read and write \
             every key; give --tokens FILE, or --tls-client-ca FILE, so that callers have to say \
             who they are, or listen on 127.0.0.1, or say --insecure if the network is yours alone"
        );
        let allowed_hosts = settings.allowed_host.unwrap_or_default();
        let admin = settings.admin_listen.map(|listen| AdminListener {
            listen,
            policy: BrowserPolicy {
                hosts: Hosts::new(listen, &allowed_hosts),
                origins: Vec::new(),
            },
        });
        if let Some(AdminListener { listen, .. }) = &admin {
            ensure!(
                listen.ip().is_loopback() || settings.tokens.is_some() || insecure,
                "{listen}, which is for health and metrics, can be reached from other machines, and \
                 anyone there could read the metrics; give --tokens FILE, or listen on 127.0.0.1, or \
                 say --insecure if the network is yours alone"
            );
        }
        let policy = BrowserPolicy {
            hosts: Hosts::new(listen, &allowed_hosts),
            origins: settings.cors_origin.unwrap_or_default(),
        };
        let protocol = settings.protocol.map(Protocol::from);
        ensure!(
            matches!(protocol, None | Some(Protocol::V2)) || settings.key_file.is_none(),
            "`protocol` is v1 or auto and a key file is given: DKVS/1 cannot prove anything; \
             leave one of them out"
        );
        let protocol = protocol.unwrap_or(Protocol::V2);
        let protocol = resolve_v1(&mut servers, settings.embedded_v1, protocol)?;
        let datagram_bytes_default = match servers {
            Servers::File(_) => DATAGRAM_BYTES_DEFAULT,
            Servers::Embedded(_) => DATAGRAM_BYTES_MAX,
        };
        let datagram_bytes_max = settings.max_datagram.map(usize::from);
        let value_bytes_max = settings.max_value.map(|bytes| bytes as usize);
        let or_default =
            |set: Option<NonZeroUsize>, default| set.map_or(default, NonZeroUsize::get);
        Ok(Self {
            servers,
            listen,
            admin,
            replication: settings.replication,
            timeout: Duration::from_millis(settings.timeout.unwrap_or(1_000)),
            workers: settings.workers,
            max_in_flight: or_default(settings.max_in_flight, 1_024),
            max_connections: or_default(settings.max_connections, 4_096),
            idle_timeout: Duration::from_secs(settings.idle_timeout.unwrap_or(60)),
            shutdown_notice: Duration::from_millis(settings.shutdown_notice.unwrap_or(0)),
            protocol,
            key_file: settings.key_file,
            datagram_bytes_max: datagram_bytes_max.unwrap_or(datagram_bytes_default),
            value_bytes_max: value_bytes_max.unwrap_or(VALUE_BYTES_DEFAULT),
            udp_offload: settings.udp_offload != Some(OnOff::Off),
            tokens: settings.tokens,
            tls,
            policy,
            log: settings.log.unwrap_or_default(),
            log_format: settings.log_format.unwrap_or_default(),
            #[cfg(feature = "otel")]
            otlp_endpoint: settings.otlp_endpoint,
        })
    }
}

/// Takes the settings of where the servers are, and of those inside the gateway.
fn servers(settings: &mut Settings) -> anyhow::Result<Servers> {
    let (data_dir, durability) = (settings.data_dir.take(), settings.durability);
    match (settings.servers.take(), settings.embedded) {
        (Some(_), None) if data_dir.is_some() || durability.is_some() => bail!(
            "`data_dir` and `durability` are of the servers inside the gateway, and `servers` \
             lists others; give --data-dir to each of those"
        ),
        (Some(_), Some(_)) => bail!(
            "both `servers` and `embedded` are set: the cluster is either listed in a file or \
             runs inside the gateway"
        ),
        (Some(path), None) => Ok(Servers::File(path)),
        (None, servers) => {
            let durability = durability.map(DurabilityChoice::from);
            let durability = DurabilityChoice::resolve(durability, data_dir.is_some());
            Ok(Servers::Embedded(EmbeddedOptions {
                servers,
                replication: settings.replication,
                durability: durability.map_err(anyhow::Error::msg)?,
                data_dir,
                declaration: settings.declare.map(Declaration::from),
                is_v1_on: false,
            }))
        }
    }
}

/// Decides whether embedded servers answer DKVS/1, and returns the protocol that they are asked by:
/// they have a key, so DKVS/2 unless the settings demand DKVS/1.
fn resolve_v1(
    servers: &mut Servers,
    v1: Option<OnOff>,
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
        !is_asked_by_v1 || v1 != Some(OnOff::Off),
        "`protocol` is v1 and `embedded_v1` is off: the gateway would ask its own servers by what \
         they do not answer; leave out one of them"
    );
    embedded.is_v1_on = is_asked_by_v1 || v1 == Some(OnOff::On);
    Ok(match is_asked_by_v1 {
        true => Protocol::V1,
        false => Protocol::V2,
    })
}

/// The files of TLS, or none if TLS is off. A certificate and its key come together.
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

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser as _;
    use dkvs_common::model::Durability;

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
            Servers::Embedded(EmbeddedOptions {
                servers: None,
                replication: None,
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
}
