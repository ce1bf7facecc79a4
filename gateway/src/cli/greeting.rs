//! What the gateway prints once it serves: its cluster, and how to talk to it.

use std::net::SocketAddr;

use dkvs_common::view::ClusterView;

use crate::config::{Config, Servers};
use crate::embedded::EmbeddedOptions;

/// Most servers that the greeting lists.
const SERVERS_MAX: usize = 20;

/// The text for the person who started the gateway.
pub(super) fn greeting(
    config: &Config,
    listen: SocketAddr,
    view: &ClusterView,
    replication: u8,
) -> String {
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
    for (id, server) in view.cluster().iter().take(SERVERS_MAX) {
        let share = shares.get(id).copied().unwrap_or(0.0);
        let (addr, points) = (server.addr.to_string(), server.ring_points);
        let percent = share * 100.0;
        text += &format!("  {addr:<21}  {points:>4} ring points  {percent:5.1} % of the keys\n");
    }
    if servers.len() > SERVERS_MAX {
        text += &format!("  and {} more: see /ring\n", servers.len() - SERVERS_MAX);
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
        Servers::Embedded(EmbeddedOptions { data_dir: None, .. }) => {
            text += "\nThe servers run inside this process, in memory: nothing is kept when it \
                     ends.\nWith --data-dir DIR they keep it, and with --servers FILE the gateway \
                     uses a cluster of real ones.\n";
        }
        Servers::Embedded(EmbeddedOptions {
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
