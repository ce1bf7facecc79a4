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

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

/// What does not hold yet: a rule, and the file that breaks it. A file that keeps the rule by now
/// fails the test until it is taken out of here.
const UNTIL_MENDED: &[(Rule, &str)] = &[];

/// A rule that [`UNTIL_MENDED`] may except a file from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Rule {
    Absence,
    Circle,
    Document,
    Room,
    Size,
}

/// A file that breaks a rule, and what to say of it.
struct Violation {
    file: PathBuf,
    what: String,
}

/// The packages, and the files of their root modules.
const PACKAGES: &[(&str, &str)] = &[
    ("dkvs_common", "common/src/lib.rs"),
    ("dkvs_client", "common/client/src/lib.rs"),
    ("dkvs_runtime", "common/runtime/src/lib.rs"),
    ("dkvs_storage_node", "storage-node/src/lib.rs"),
    ("dkvs_gateway", "gateway/src/lib.rs"),
    ("dkvs_tests", "tests/src/lib.rs"),
];

/// Fails with all violations of a rule but the excepted ones, and with exceptions that none needs.
fn check(rule: Rule, violations: &[Violation]) {
    let excepted = UNTIL_MENDED.iter().filter(|(it, _)| *it == rule);
    let excepted: BTreeSet<&Path> = excepted.map(|(_, file)| Path::new(*file)).collect();
    let broken: BTreeSet<&Path> = violations.iter().map(|it| it.file.as_path()).collect();
    let mut wrong: Vec<String> = violations
        .iter()
        .filter(|it| !excepted.contains(it.file.as_path()))
        .map(|it| it.what.clone())
        .collect();
    for file in excepted.difference(&broken) {
        wrong.push(format!(
            "{}: keeps the rule; take ({rule:?}, {file:?}) out of UNTIL_MENDED in {}",
            file.display(),
            file!(),
        ));
    }
    assert!(wrong.is_empty(), "\n{}\n", wrong.join("\n"));
}
