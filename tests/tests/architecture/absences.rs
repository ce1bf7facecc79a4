//! What a room of the code does not know.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use crate::files::{read, root, sources};
use crate::modules::Modules;
use crate::{PACKAGES, check};

/// A room, and what no file of it may name.
struct Absence {
    /// The package of the room.
    package: &'static str,
    /// Folders of the workspace.
    rooms: &'static [&'static str],
    /// Folders or files in them that the rule leaves out.
    but: &'static [&'static str],
    /// What is not to be named, as beginnings of paths.
    never: &'static [&'static [&'static str]],
    /// Whether a name that leads there by a re-export counts as well.
    sees_re_exports: bool,
    /// What to do about it.
    advice: &'static str,
}

const NO_IO: &[&str] = &[
    "axum",
    "getrandom",
    "http",
    "hyper",
    "mio",
    "quinn_udp",
    "rand",
    "rustix",
    "socket2",
    "std::env",
    "std::fs",
    "std::io::stdin",
    "std::net::TcpListener",
    "std::net::TcpStream",
    "std::net::UdpSocket",
    "std::thread",
    "std::time::Instant::now",
    "std::time::SystemTime",
    "std::hash::RandomState",
    "tokio",
];

const ABSENCES: &[Absence] = &[
    Absence {
        package: "dkvs_common",
        rooms: &["common/src"],
        but: &[],
        never: &[NO_IO],
        sees_re_exports: true,
        advice: "time, randomness and I/O come in as arguments",
    },
    Absence {
        package: "dkvs_client",
        rooms: &["common/client/src/core", "common/client/src/transport"],
        but: &[],
        never: &[NO_IO, &["dkvs_client::net"]],
        sees_re_exports: true,
        advice: "time, randomness and I/O come in as arguments; sockets and tasks belong to `net`",
    },
    Absence {
        package: "dkvs_common",
        rooms: &["common/src/quorum"],
        but: &[],
        never: &[&["dkvs_common::wire"]],
        sees_re_exports: true,
        advice: "the machines speak the messages of `model`; the wire encodes them",
    },
    Absence {
        package: "dkvs_common",
        rooms: &["common/src/wire"],
        but: &[],
        never: &[&["dkvs_common::quorum"]],
        sees_re_exports: true,
        advice: "the wire encodes the messages of `model`; what they mean to a request, its machine decides",
    },
    Absence {
        package: "dkvs_common",
        rooms: &["common/src/model"],
        but: &[],
        never: &[&["dkvs_common::quorum", "dkvs_common::wire"]],
        sees_re_exports: true,
        advice: "messages are plain types, below the wire and the machines",
    },
    Absence {
        package: "dkvs_client",
        rooms: &["common/client/src/core"],
        but: &[],
        never: &[&[
            "dkvs_common::wire::v1",
            "dkvs_common::wire::v2::coding",
            "dkvs_common::wire::v2::envelope",
            "dkvs_common::wire::v2::message",
            "dkvs_common::wire::v2::reply",
            "dkvs_common::wire::v2::request",
        ]],
        sees_re_exports: true,
        advice: "operations speak the messages of `model`; `transport` knows the wire",
    },
    Absence {
        package: "dkvs_storage_node",
        rooms: &["storage-node/src/handlers"],
        but: &[],
        never: &[
            NO_IO,
            &[
                "dkvs_common::wire",
                "dkvs_storage_node::protocol",
                "dkvs_storage_node::udp",
                "std::net",
            ],
        ],
        sees_re_exports: true,
        advice: "a handler takes a command and the store, and returns a response; `protocol` knows the bytes, `udp` the sockets",
    },
    Absence {
        package: "dkvs_storage_node",
        rooms: &["storage-node/src/protocol"],
        but: &[],
        never: &[&[
            "dkvs_storage_node::udp",
            "tokio::net",
            "std::net::UdpSocket",
        ]],
        sees_re_exports: true,
        advice: "bytes come in and go out as arguments; `udp` knows the sockets",
    },
    Absence {
        package: "dkvs_storage_node",
        rooms: &["storage-node/src/store"],
        but: &[],
        never: &[&[
            "dkvs_common::quorum",
            "dkvs_common::wire",
            "dkvs_storage_node::handlers",
            "dkvs_storage_node::maintenance",
            "dkvs_storage_node::protocol",
            "dkvs_storage_node::service",
            "dkvs_storage_node::udp",
            "std::net::UdpSocket",
            "tokio",
        ]],
        sees_re_exports: true,
        advice: "the store keeps records; what a message means, its handler decides",
    },
    Absence {
        package: "dkvs_log",
        rooms: &["storage-node/log/src"],
        but: &["storage-node/log/src/directory.rs"],
        never: &[NO_IO],
        sees_re_exports: true,
        advice: "the log reaches its files through `medium`, has no thread and no clock, and draws nothing at random; its owner does",
    },
    Absence {
        package: "dkvs_gateway",
        rooms: &["gateway/src/http"],
        but: &[],
        never: &[&[
            "dkvs_client::net::socket",
            "dkvs_client::net::sockets",
            "dkvs_client::transport",
            "dkvs_common::wire",
            "quinn_udp",
            "std::net::UdpSocket",
            "tokio::net::UdpSocket",
        ]],
        sees_re_exports: false,
        advice: "an endpoint asks the client for an operation and renders its outcome; datagrams are the client's",
    },
    Absence {
        package: "dkvs_gateway",
        rooms: &["gateway/src"],
        but: &["gateway/src/embedded"],
        never: &[&["dkvs_storage_node"]],
        sees_re_exports: false,
        advice: "the gateway knows servers by their answers; let `embedded` hand on what the programs share",
    },
];

impl Absence {
    /// Whether the rule is for a file.
    fn is_for(&self, file: &Path) -> bool {
        let is_in = |folders: &[&str]| folders.iter().any(|it| file.starts_with(it));
        is_in(self.rooms) && !is_in(self.but)
    }

    /// Which of the forbidden names a path is, or leads to.
    fn broken_by(&self, path: &[String], home: Option<&[String]>) -> Option<&'static str> {
        let begins = |path: &[String], never: &str| {
            let never: Vec<&str> = never.split("::").collect();
            path.len() >= never.len() && never.iter().zip(path).all(|(never, it)| it == never)
        };
        let is_named =
            |never: &str| begins(path, never) || home.is_some_and(|it| begins(it, never));
        let mut all = self.never.iter().copied().flatten().copied();
        all.find(|never| is_named(never))
    }
}

#[test]
fn no_room_names_what_it_must_not_know() {
    let modules = Modules::read(root(), PACKAGES);
    let mut violations = Vec::new();
    for absence in ABSENCES {
        let mut told = BTreeSet::new();
        for it in modules.mentions(absence.package) {
            if !absence.is_for(&it.file) {
                continue;
            }
            let home = modules.home(&it.path).map(|(_, home)| home);
            let home = home.filter(|_| absence.sees_re_exports);
            let Some(never) = absence.broken_by(&it.path, home.as_deref()) else {
                continue;
            };
            // The first line of a file will do.
            if !told.insert((it.file.clone(), never)) {
                continue;
            }
            let what = format!(
                "{}:{}: names {}, but {} must not know {never}: {}",
                it.file.display(),
                it.line,
                it.path.join("::"),
                absence.rooms.join(" and "),
                absence.advice,
            );
            violations.push(what);
        }
    }
    check(&violations);
}

/// A room that was moved away would keep its rule by having no files.
#[test]
fn every_room_with_a_rule_is_there() {
    let rooms = ABSENCES.iter().flat_map(|it| it.rooms);
    let missing = rooms.filter(|it| !root().join(it).is_dir() || sources(it).is_empty());
    let violations = missing.map(|it| {
        format!(
            "{it}: there is no such folder; name the room's new place in ABSENCES in {}",
            file!(),
        )
    });
    check(&violations.collect::<Vec<_>>());
}

#[test]
fn a_rule_sees_through_aliases_and_re_exports() {
    let path = |text: &str| text.split("::").map(str::to_owned).collect::<Vec<_>>();
    let rule = &ABSENCES[0];
    assert_eq!(rule.broken_by(&path("tokio::net"), None), Some("tokio"));
    assert_eq!(rule.broken_by(&path("tokio_util::sync"), None), None);
    assert_eq!(rule.broken_by(&path("std::time::Instant"), None), None);
    assert_eq!(
        rule.broken_by(&path("dkvs_x::Y"), Some(&path("rand::Rng"))),
        Some("rand")
    );
    assert!(rule.is_for(Path::new("common/src/ring.rs")));
    assert!(!rule.is_for(Path::new("common/client/src/net/mod.rs")));
}

/// The same with tests included, whatever the name stands in but a text.
#[test]
fn the_gateway_names_the_storage_server_inside_embedded_alone() {
    // A text may name its modules, as a log filter does.
    let is_code = |line: &&str| !line.contains('"');
    let mentions = |line: &str| line.contains("dkvs_storage_node::");
    let names = |file: &PathBuf| read(file).lines().filter(is_code).any(mentions);
    let files = sources("gateway/src").into_iter();
    let (embedded, others): (Vec<_>, Vec<_>) =
        files.partition(|file| file.starts_with("gateway/src/embedded"));
    assert!(embedded.iter().any(names));
    let wrong: Vec<_> = others.iter().filter(|file| names(file)).collect();
    assert!(wrong.is_empty(), "{wrong:?}");
}
