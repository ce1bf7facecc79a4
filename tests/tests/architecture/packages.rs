//! Which package may depend on which, and on what of others.
//!
//! Dependencies of tests (`[dev-dependencies]`) do not count: a package may be tested against those
//! that use it.

use std::collections::BTreeSet;

use crate::files::read;

/// A package of the workspace.
struct Package {
    manifest: &'static str,
    /// The packages of the workspace that it depends on.
    knows: &'static [&'static str],
    /// Packages of others that it has to do without.
    does_without: &'static [&'static str],
}

/// Runtimes, sockets, sources of randomness, clocks.
const OUTSIDE: &[&str] = &[
    "async-std",
    "chrono",
    "fastrand",
    "futures-timer",
    "getrandom",
    "mio",
    "nix",
    "quinn-udp",
    "rand",
    "rustix",
    "smol",
    "socket2",
    "time",
    "tokio",
    "tokio-util",
];

/// HTTP, and what only the gateway speaks with.
const HTTP: &[&str] = &[
    "axum",
    "http",
    "http-body",
    "http-body-util",
    "hyper",
    "hyper-util",
    "reqwest",
    "rustls",
    "tower",
];

const PACKAGES: &[Package] = &[
    Package {
        manifest: "common/Cargo.toml",
        knows: &[],
        does_without: OUTSIDE,
    },
    Package {
        manifest: "common/client/Cargo.toml",
        knows: &["dkvs-common"],
        does_without: HTTP,
    },
    Package {
        manifest: "common/runtime/Cargo.toml",
        knows: &["dkvs-common"],
        does_without: &["axum", "quinn-udp", "redb", "rustls"],
    },
    Package {
        manifest: "storage-node/Cargo.toml",
        knows: &["dkvs-client", "dkvs-common", "dkvs-log", "dkvs-runtime"],
        does_without: &["axum", "rustls"],
    },
    Package {
        manifest: "storage-node/log/Cargo.toml",
        knows: &[],
        does_without: &[
            "chrono",
            "fastrand",
            "getrandom",
            "mio",
            "nix",
            "rand",
            "redb",
            "serde",
            "socket2",
            "time",
            "tokio",
            "tokio-util",
            "tracing",
        ],
    },
    Package {
        manifest: "gateway/Cargo.toml",
        knows: &[
            "dkvs-client",
            "dkvs-common",
            "dkvs-runtime",
            "dkvs-storage-node",
        ],
        does_without: &["redb"],
    },
    Package {
        manifest: "tests/Cargo.toml",
        knows: &[
            "dkvs-client",
            "dkvs-common",
            "dkvs-gateway",
            "dkvs-log",
            "dkvs-runtime",
            "dkvs-storage-node",
        ],
        does_without: &[],
    },
    Package {
        manifest: "tests/fuzz/Cargo.toml",
        knows: &["dkvs-common", "dkvs-log"],
        does_without: OUTSIDE,
    },
];

/// The dependencies in a manifest, with their lines, without those of tests.
fn dependencies(manifest: &str) -> Vec<(usize, String)> {
    let (mut found, mut is_inside) = (Vec::new(), false);
    for (line, text) in (1..).zip(manifest.lines()) {
        if let Some(section) = text.strip_prefix('[') {
            let section = section.trim_end_matches(']');
            is_inside = section == "dependencies"
                || section == "build-dependencies"
                || section.starts_with("target.") && section.ends_with(".dependencies");
        } else if is_inside && !text.starts_with('#') {
            let name = text.split(['.', ' ', '=']).next().unwrap_or_default();
            if !name.is_empty() {
                found.push((line, name.to_owned()));
            }
        }
    }
    found
}

#[test]
fn packages_depend_on_those_below_them_alone() {
    let mut wrong = Vec::new();
    for package in PACKAGES {
        for (line, name) in dependencies(&read(package.manifest)) {
            let place = format!("{}:{line}", package.manifest);
            if name.starts_with("dkvs-") && !package.knows.contains(&&*name) {
                wrong.push(format!(
                    "{place}: depends on {name}; move what it needs of that into a package below both"
                ));
            }
            if package.does_without.contains(&&*name) {
                wrong.push(format!(
                    "{place}: depends on {name}, which this package has to do without; leave that to a \
                     package above it"
                ));
            }
        }
    }
    assert!(wrong.is_empty(), "\n{}\n", wrong.join("\n"));
}

#[test]
fn every_package_of_the_workspace_has_a_row_here() {
    let workspace = read("Cargo.toml");
    let members = workspace
        .lines()
        .find_map(|it| it.strip_prefix("members = "));
    let members = members.expect("the workspace lists its members").split('"');
    let members: BTreeSet<String> = members
        .skip(1)
        .step_by(2)
        .map(|it| format!("{it}/Cargo.toml"))
        .collect();
    let rows: BTreeSet<String> = PACKAGES.iter().map(|it| it.manifest.to_owned()).collect();
    assert_eq!(members, rows);
}
