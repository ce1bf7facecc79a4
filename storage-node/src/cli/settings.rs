//! What the arguments amount to: the checks before anything starts, and the server's settings.

use std::sync::Arc;

use anyhow::{Context, ensure};
use dkvs_common::cluster::Cluster;
use dkvs_common::view::ClusterView;
use dkvs_runtime::about;
use dkvs_runtime::key_file::KeyFile;

use super::arguments::{Arguments, DurabilityChoice, Epochs};
use crate::config::Served;
use crate::leaves::Membership;
use crate::service::ServiceConfig;
use crate::store::disk::directory::DataDirectory;

/// Checks the arguments, and the files that they name, without serving.
pub(super) fn check(arguments: &Arguments) -> anyhow::Result<()> {
    let addr = arguments.addr();
    check_exposure(arguments)?;
    let cluster = cluster(arguments)?;
    let config = config(arguments, cluster.as_ref())?;
    let key_file = arguments.key_file.as_deref();
    let key_file = key_file.map(KeyFile::open).transpose()?;
    let durability = DurabilityChoice::resolve(arguments.durability, arguments.data_dir.is_some())
        .map_err(anyhow::Error::msg)?;
    let keys = key_file.as_ref().map_or(0, |file| file.ids().len());
    let served = config.served.map_or_else(
        || "ring any".to_owned(),
        |served| format!("ring {:08x}, configuration {}", served.ring, served.epoch),
    );
    let text = format!(
        "the settings are good, and nothing was started\n  address {addr}, {served}, {keys} keys, \
         durability {}\n",
        format!("{durability:?}").to_lowercase()
    );
    Ok(about::print(text.as_bytes())?)
}

/// Beyond loopback, requests have to be authenticated, unless `--insecure` says otherwise.
pub(super) fn check_exposure(arguments: &Arguments) -> anyhow::Result<()> {
    let addr = arguments.addr();
    ensure!(
        arguments.bind.is_none() || addr.port() != 0,
        "with --bind the server needs the port that it is known by, which is not 0"
    );
    if let Some(metrics) = arguments.metrics {
        ensure!(
            metrics.ip().is_loopback() || arguments.insecure,
            "metrics on {metrics} can be read from other machines, and nothing authenticates who \
             asks; serve them on 127.0.0.1, or say --insecure if the network is yours alone"
        );
    }
    // What forwards datagrams from the one address to the other may forward those of unknown senders.
    let is_local = addr.ip().is_loopback() && arguments.bound().ip().is_loopback();
    if is_local || arguments.insecure {
        return Ok(());
    }
    ensure!(
        arguments.key_file.is_some(),
        "{addr} can be reached from other machines, and anyone there could read and write every \
         pair; give the cluster's keys with --key-file FILE, or bind to 127.0.0.1, or say \
         --insecure if the network is yours alone"
    );
    ensure!(
        !arguments.is_v1_on(),
        "{addr} can be reached from other machines, and the keys do not keep anyone there from \
         reading and writing every pair by DKVS/1; leave out --v1 on, or bind to 127.0.0.1, or say \
         --insecure if the network is yours alone"
    );
    Ok(())
}

pub(super) const NO_RANDOM: &str = "the system has no random bytes";

pub(super) fn config(
    arguments: &Arguments,
    cluster: Option<&Cluster>,
) -> anyhow::Result<ServiceConfig> {
    let boot_id = getrandom::u64().context(NO_RANDOM)?;
    Ok(ServiceConfig {
        datagram_bytes_max: arguments.max_datagram.into(),
        value_bytes_max: arguments.max_value.0,
        served: cluster.map(|cluster| {
            let takes_rings = arguments.epochs == Some(Epochs::Either);
            Served::of(cluster, arguments.replication, takes_rings)
        }),
        is_v1_on: arguments.is_v1_on(),
        ..ServiceConfig::new(boot_id)
    })
}

/// The same settings, with what a data directory knows.
pub(super) fn with_directory(
    arguments: &Arguments,
    config: ServiceConfig,
    directory: &DataDirectory,
) -> ServiceConfig {
    let takes_rings = match arguments.epochs {
        Some(epochs) => epochs == Epochs::Either,
        None => !directory.is_numbered(),
    };
    if takes_rings && arguments.epochs.is_none() && config.served.is_some() {
        tracing::warn!(
            "the directory is of a version that knew no configurations: clients that state their ring alone are \
             served. Once all gateways are of this version, start the server once with --epochs numbered"
        );
    }
    ServiceConfig {
        served: config.served.map(|served| Served {
            takes_rings,
            ..served
        }),
        store_id: directory.store_id(),
        ..config
    }
}

/// The servers file, if there is one, in which the server itself has to be.
pub(super) fn cluster(arguments: &Arguments) -> anyhow::Result<Option<Cluster>> {
    let Some(path) = &arguments.servers else {
        return Ok(None);
    };
    let addr = arguments.addr();
    let name = path.display().to_string();
    let text = std::fs::read(path).with_context(|| format!("cannot read {name}"))?;
    let cluster = Cluster::parse(&name, &text)?;
    ensure!(
        cluster.find(addr).is_some(),
        "{name} does not list {addr}: no client would ask this server; add a line, or start it at \
         an address that is listed"
    );
    Ok(Some(cluster))
}

/// What the server is in its cluster; none if no servers file names it.
pub(super) fn membership(arguments: &Arguments, cluster: Option<&Cluster>) -> Option<Membership> {
    let cluster = cluster?;
    let Some(own) = cluster.find(arguments.addr()) else {
        tracing::warn!(
            addr = %arguments.addr(),
            "the servers file does not have this server, which compares itself with no other"
        );
        return None;
    };
    Some(Membership {
        view: Arc::new(ClusterView::first(cluster.clone())),
        own,
        replication: arguments.replication,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    #[test]
    fn dkvs_1_is_off_with_keys_unless_it_is_asked_for() {
        let is_v1_on = |flags: &[&str]| {
            let fixed = ["dkvs-storage-node", "127.0.0.1", "4000"];
            let arguments = Arguments::parse_from(fixed.iter().chain(flags));
            config(&arguments, None).unwrap().is_v1_on
        };
        assert!(is_v1_on(&[]));
        assert!(!is_v1_on(&["--v1", "off"]));
        assert!(!is_v1_on(&["--key-file", "keys"]));
        assert!(is_v1_on(&["--key-file", "keys", "--v1", "on"]));
    }

    #[test]
    fn either_address_beyond_loopback_needs_keys() {
        let is_refused = |addr: [&str; 2], flags: &[&str]| {
            let arguments = ["dkvs-storage-node"].iter().chain(&addr).chain(flags);
            check_exposure(&Arguments::parse_from(arguments)).is_err()
        };
        let (near, far) = (["127.0.0.1", "4000"], ["10.0.0.1", "4000"]);
        assert!(!is_refused(near, &["--bind", "127.0.0.2:4000"]));
        assert!(is_refused(near, &["--bind", "0.0.0.0:4000"]));
        assert!(is_refused(far, &["--bind", "127.0.0.1:4000"]));
        let keys = ["--bind", "0.0.0.0:4000", "--key-file", "keys"];
        assert!(!is_refused(far, &keys));
        assert!(is_refused(["10.0.0.1", "0"], &keys), "known by no port");
    }
}
