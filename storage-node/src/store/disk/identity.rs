//! Whose records a data directory holds: the file `identity.json`.

use std::fmt;
use std::fs;
use std::io;
use std::net::SocketAddrV4;
use std::path::Path;

use dkvs_common::cluster::{Cluster, Server};
use dkvs_common::epoch::Epoch;
use dkvs_common::ring::Ring;
use dkvs_log::History;
use serde::{Deserialize, Serialize};
use thiserror::Error;

use super::files::write_synced;

/// The format that this version writes, and the newest that it reads.
pub(super) const FORMAT: u32 = 2;

pub(super) const IDENTITY: &str = "identity.json";

/// Whose records a directory holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Owner {
    /// The server's address, by which the ring knows it.
    pub server: SocketAddrV4,
    /// The servers of its ring, if the server knows.
    pub cluster: Option<Cluster>,
    /// How many replicas each key has.
    pub replication: u8,
    /// Whether only members of its configuration are to be served from now on. A directory that is new is so
    /// anyhow; one that a version made which knew no configurations is not, until it is said once.
    pub is_numbered: bool,
}

/// What `identity.json` says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Identity {
    pub(super) format: u32,
    pub(super) server: String,
    pub(super) ring: Option<String>,
    /// The lines of the servers file; older versions wrote none.
    #[serde(default)]
    pub(super) servers: Option<Vec<String>>,
    /// The configuration; none if older clients are served, which know none, or if its cluster is not known.
    #[serde(default)]
    pub(super) epoch: Option<String>,
    /// The history of the log, in hexadecimal digits; none before format 2.
    #[serde(default)]
    pub(super) log: Option<String>,
    /// Whether it is a copy of the past, which its server has left behind.
    #[serde(default)]
    pub(super) is_backup: bool,
}

/// `identity.json` is not read.
#[derive(Debug, Error)]
pub(super) enum IdentityError {
    #[error("{0}")]
    Io(#[from] io::Error),
    #[error("{0}")]
    NotOne(String),
}

impl Identity {
    pub(super) fn of(owner: &Owner, history: History) -> Self {
        let cluster = owner.cluster.as_ref();
        let lines = |cluster: &Cluster| {
            let servers = cluster.servers().iter();
            servers.map(Server::to_string).collect()
        };
        Self {
            format: FORMAT,
            server: owner.server.to_string(),
            ring: owner.ring(),
            servers: cluster.map(lines),
            epoch: owner.epoch().map(|epoch| epoch.to_string()),
            log: Some(history.to_string()),
            is_backup: false,
        }
    }

    /// One of an older format as it is with a log of this history.
    pub(super) fn converted(&self, history: History) -> Self {
        Self {
            format: FORMAT,
            log: Some(history.to_string()),
            ..self.clone()
        }
    }

    /// That of a directory, if it has one.
    pub(super) fn read(directory: &Path) -> Result<Option<Self>, IdentityError> {
        let text = match fs::read(directory.join(IDENTITY)) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error.into()),
        };
        let identity: Self = serde_json::from_slice(&text)
            .map_err(|error| IdentityError::NotOne(error.to_string()))?;
        let has_history = identity.format == 1 || identity.history().is_some();
        match has_history || identity.format > FORMAT {
            true => Ok(Some(identity)),
            false => Err(IdentityError::NotOne(
                "it does not say which log is its own".into(),
            )),
        }
    }

    pub(super) fn write(&self, directory: &Path) -> io::Result<()> {
        write_synced(&directory.join(IDENTITY), self.text().as_bytes())
    }

    /// The history of the log.
    pub(super) fn history(&self) -> Option<History> {
        let digits = self.log.as_ref()?;
        let mut history = [0; 16];
        if digits.len() != 32 {
            return None;
        }
        for (byte, at) in history.iter_mut().zip((0..).step_by(2)) {
            *byte = u8::from_str_radix(digits.get(at..at + 2)?, 16).ok()?;
        }
        Some(History(history))
    }

    /// The servers of its ring, if they are known.
    pub(super) fn cluster(&self) -> Option<Cluster> {
        let text = self.servers.as_ref()?.join("\n");
        Cluster::parse(IDENTITY, text.as_bytes()).ok()
    }

    fn text(&self) -> String {
        let quoted = |text: &Option<String>| match text {
            Some(text) => format!("\"{text}\""),
            None => "null".into(),
        };
        let servers = match &self.servers {
            Some(lines) => {
                let line = |line: &String| format!("    \"{line}\"");
                let lines: Vec<_> = lines.iter().map(line).collect();
                format!("[\n{}\n  ]", lines.join(",\n"))
            }
            None => "null".into(),
        };
        format!(
            "{{\n  \"format\": {},\n  \"server\": \"{}\",\n  \"ring\": {},\n  \"log\": {},\n  \
             \"is_backup\": {},\n  \"epoch\": {},\n  \"servers\": {servers}\n}}\n",
            self.format,
            self.server,
            quoted(&self.ring),
            quoted(&self.log),
            self.is_backup,
            quoted(&self.epoch),
        )
    }
}

impl Owner {
    /// Its configuration, if it knows its cluster.
    pub(super) fn epoch(&self) -> Option<Epoch> {
        let cluster = self.cluster.as_ref()?;
        Some(Epoch::of_file(cluster, self.replication))
    }

    /// The ring of its cluster.
    pub(super) fn ring(&self) -> Option<String> {
        let cluster = self.cluster.as_ref()?;
        Some(format!("{:08x}", Ring::new(cluster).epoch()))
    }
}

impl fmt::Display for Owner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_name(f, &self.server.to_string(), self.ring().as_deref())
    }
}

impl fmt::Display for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_name(f, &self.server, self.ring.as_deref())
    }
}

fn write_name(f: &mut fmt::Formatter<'_>, server: &str, ring: Option<&str>) -> fmt::Result {
    write!(f, "server {server}")?;
    match ring {
        Some(ring) => write!(f, " of ring {ring}"),
        None => Ok(()),
    }
}

/// A history that no other log has.
pub(super) fn new_history() -> io::Result<History> {
    let mut history = [0; 16];
    getrandom::fill(&mut history).map_err(io::Error::other)?;
    Ok(History(history))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read_again() {
        let cluster = Cluster::parse("servers", b"127.0.0.1 4000 2\n127.0.0.1 4001 1\n").unwrap();
        let mut owner = Owner {
            server: "127.0.0.1:4000".parse().unwrap(),
            cluster: Some(cluster),
            replication: 3,
            is_numbered: false,
        };
        for is_backup in [true, false] {
            let identity = Identity {
                is_backup,
                ..Identity::of(&owner, History([0xa5; 16]))
            };
            let read: Identity = serde_json::from_str(&identity.text()).unwrap();
            assert_eq!(read, identity);
            assert_eq!(read.history(), Some(History([0xa5; 16])));
            owner.cluster = None;
        }
    }

    #[test]
    fn one_of_the_first_format_has_no_history() {
        let text = r#"{"format": 1, "server": "127.0.0.1:4000", "ring": null}"#;
        let identity: Identity = serde_json::from_str(text).unwrap();
        assert_eq!(identity.history(), None);
        let text = r#"{"format": 2, "server": "s", "ring": null, "log": "a5é5a5a5a5a5a5a5a5a5a5a5a5a5a5a"}"#;
        let identity: Identity = serde_json::from_str(text).unwrap();
        assert_eq!(identity.history(), None);
    }
}
