//! The settings of a source, whichever it is: each may be missing.

use std::fs;
use std::net::SocketAddr;
use std::num::{NonZeroU8, NonZeroUsize};
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use axum::http::HeaderValue;
use dkvs_runtime::hosts::Host;
use dkvs_runtime::log::LogFormat;
use dkvs_runtime::log::filter::LogFilter;
use serde::Deserialize;

use super::choices::{DurabilityName, OnOff, ProtocolName};
use super::values::{
    self, COUNT_MAX, DATAGRAM_MAX, DATAGRAM_MIN, IDLE_TIMEOUT_SECONDS_MAX, SHUTDOWN_NOTICE_MS_MAX,
    VALUE_MAX, WORKERS_MAX,
};
use crate::embedded::DeclarationChoice;
use crate::http::TIMEOUT_MS_MAX;

/// The settings of one source. A TOML file may have exactly those that serde reads here.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Settings {
    #[serde(default, deserialize_with = "values::path")]
    pub(super) servers: Option<PathBuf>,
    #[serde(default, deserialize_with = "values::whole::<1, 255, _, _>")]
    pub(super) embedded: Option<NonZeroU8>,
    pub(super) embedded_v1: Option<OnOff>,
    #[serde(default, deserialize_with = "values::path")]
    pub(super) data_dir: Option<PathBuf>,
    pub(super) durability: Option<DurabilityName>,
    /// Declared once, on the command line: no file has it.
    #[serde(skip)]
    pub(super) declare: Option<DeclarationChoice>,
    #[serde(default, deserialize_with = "values::listen")]
    pub(super) listen: Option<SocketAddr>,
    #[serde(default, deserialize_with = "values::listen")]
    pub(super) admin_listen: Option<SocketAddr>,
    #[serde(default, deserialize_with = "values::whole::<1, 255, _, _>")]
    pub(super) replication: Option<NonZeroU8>,
    #[serde(default, deserialize_with = "values::whole::<1, TIMEOUT_MS_MAX, _, _>")]
    pub(super) timeout: Option<u64>,
    #[serde(default, deserialize_with = "values::whole::<1, WORKERS_MAX, _, _>")]
    pub(super) workers: Option<NonZeroUsize>,
    #[serde(default, deserialize_with = "values::whole::<1, COUNT_MAX, _, _>")]
    pub(super) max_in_flight: Option<NonZeroUsize>,
    #[serde(default, deserialize_with = "values::whole::<1, COUNT_MAX, _, _>")]
    pub(super) max_connections: Option<NonZeroUsize>,
    #[serde(
        default,
        deserialize_with = "values::whole::<1, IDLE_TIMEOUT_SECONDS_MAX, _, _>"
    )]
    pub(super) idle_timeout: Option<u64>,
    #[serde(
        default,
        deserialize_with = "values::whole::<0, SHUTDOWN_NOTICE_MS_MAX, _, _>"
    )]
    pub(super) shutdown_notice: Option<u64>,
    pub(super) protocol: Option<ProtocolName>,
    #[serde(default, deserialize_with = "values::path")]
    pub(super) key_file: Option<PathBuf>,
    #[serde(
        default,
        deserialize_with = "values::whole::<DATAGRAM_MIN, DATAGRAM_MAX, _, _>"
    )]
    pub(super) max_datagram: Option<u16>,
    #[serde(default, deserialize_with = "values::whole::<0, VALUE_MAX, _, _>")]
    pub(super) max_value: Option<u32>,
    pub(super) udp_offload: Option<OnOff>,
    #[serde(default, deserialize_with = "values::path")]
    pub(super) tokens: Option<PathBuf>,
    #[serde(default, deserialize_with = "values::path")]
    pub(super) tls_cert: Option<PathBuf>,
    #[serde(default, deserialize_with = "values::path")]
    pub(super) tls_key: Option<PathBuf>,
    #[serde(default, deserialize_with = "values::path")]
    pub(super) tls_client_ca: Option<PathBuf>,
    #[serde(default, deserialize_with = "values::hosts")]
    pub(super) allowed_host: Option<Vec<Host>>,
    #[serde(default, deserialize_with = "values::origins")]
    pub(super) cors_origin: Option<Vec<HeaderValue>>,
    pub(super) insecure: Option<bool>,
    #[serde(default, deserialize_with = "values::log")]
    pub(super) log: Option<LogFilter>,
    pub(super) log_format: Option<LogFormat>,
    #[cfg(feature = "otel")]
    #[serde(default, deserialize_with = "values::endpoint")]
    pub(super) otlp_endpoint: Option<String>,
}

impl Settings {
    /// Reads a TOML file.
    ///
    /// # Errors
    ///
    /// If the file cannot be read, has a setting that does not exist, or a value that none takes.
    pub(super) fn read(path: &Path) -> anyhow::Result<Self> {
        let text =
            fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
        toml::from_str(&text).with_context(|| format!("{} is refused", path.display()))
    }

    /// These, and those of `other` that are missing here.
    pub(super) fn or(self, other: Self) -> Self {
        Self {
            servers: self.servers.or(other.servers),
            embedded: self.embedded.or(other.embedded),
            embedded_v1: self.embedded_v1.or(other.embedded_v1),
            data_dir: self.data_dir.or(other.data_dir),
            durability: self.durability.or(other.durability),
            declare: self.declare.or(other.declare),
            listen: self.listen.or(other.listen),
            admin_listen: self.admin_listen.or(other.admin_listen),
            replication: self.replication.or(other.replication),
            timeout: self.timeout.or(other.timeout),
            workers: self.workers.or(other.workers),
            max_in_flight: self.max_in_flight.or(other.max_in_flight),
            max_connections: self.max_connections.or(other.max_connections),
            idle_timeout: self.idle_timeout.or(other.idle_timeout),
            shutdown_notice: self.shutdown_notice.or(other.shutdown_notice),
            protocol: self.protocol.or(other.protocol),
            key_file: self.key_file.or(other.key_file),
            max_datagram: self.max_datagram.or(other.max_datagram),
            max_value: self.max_value.or(other.max_value),
            udp_offload: self.udp_offload.or(other.udp_offload),
            tokens: self.tokens.or(other.tokens),
            tls_cert: self.tls_cert.or(other.tls_cert),
            tls_key: self.tls_key.or(other.tls_key),
            tls_client_ca: self.tls_client_ca.or(other.tls_client_ca),
            allowed_host: self.allowed_host.or(other.allowed_host),
            cors_origin: self.cors_origin.or(other.cors_origin),
            insecure: self.insecure.or(other.insecure),
            log: self.log.or(other.log),
            log_format: self.log_format.or(other.log_format),
            #[cfg(feature = "otel")]
            otlp_endpoint: self.otlp_endpoint.or(other.otlp_endpoint),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_of_one_source_replaces_that_of_the_other() {
        let host = |name: &str| Host::Name(name.to_owned());
        let file = || toml::from_str::<Settings>("allowed_host = ['a', 'b']").unwrap();
        let both = Settings::default().or(file());
        assert_eq!(both.allowed_host.unwrap(), [host("a"), host("b")]);
        let flags = Settings {
            allowed_host: Some(vec![host("c")]),
            ..Settings::default()
        };
        assert_eq!(flags.or(file()).allowed_host.unwrap(), [host("c")]);
    }
}
