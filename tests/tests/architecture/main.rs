//! What `docs/architecture.md` says of the code, as far as reading sources and manifests can show it.
//!
//! * [`packages`]: which package may depend on which
//! * [`absences`]: what a room does not know
//! * [`circles`]: no circle between the files of a package
//! * [`sizes`]: no long files
//! * [`documents`], [`limits`]: names and numbers in the documents
//! * [`log_modules`]: the names that a log filter may use
//!
//! Code that is compiled for tests alone may know anything, so it is not read, except for its length.

mod absences;
mod circles;
mod documents;
mod files;
mod limits;
mod log_modules;
mod modules;
mod packages;
mod sizes;
mod tokens;

/// The packages, and the files of their root modules.
const PACKAGES: &[(&str, &str)] = &[
    ("dkvs_common", "common/src/lib.rs"),
    ("dkvs_client", "common/client/src/lib.rs"),
    ("dkvs_runtime", "common/runtime/src/lib.rs"),
    ("dkvs_storage_node", "storage-node/src/lib.rs"),
    ("dkvs_log", "storage-node/log/src/lib.rs"),
    ("dkvs_gateway", "gateway/src/lib.rs"),
    ("dkvs_tests", "tests/src/lib.rs"),
];

/// Fails with all that breaks a rule: file, line, what, and what to do about it.
fn check(violations: &[String]) {
    assert!(violations.is_empty(), "\n{}\n", violations.join("\n"));
}
