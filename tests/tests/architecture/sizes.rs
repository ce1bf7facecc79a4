//! No source file is long, its tests included.

use crate::check;
use crate::files::{read, sources};

/// The greatest number of lines of a file.
const LINES_MAX: usize = 600;

#[test]
fn no_source_file_is_longer_than_600_lines() {
    let folders = [
        "common/src",
        "common/tests",
        "common/client/src",
        "common/runtime/src",
        "storage-node/src",
        "storage-node/log/src",
        "storage-node/log/tests",
        "storage-node/log/examples",
        "gateway/src",
        "tests/src",
        "tests/tests",
        "tests/fuzz",
    ];
    let mut violations = Vec::new();
    for file in folders.into_iter().flat_map(sources) {
        let lines = read(&file).lines().count();
        if lines > LINES_MAX {
            let what = format!(
                "{}:{LINES_MAX}: the file has {lines} lines; split it where one idea ends and another begins",
                file.display(),
            );
            violations.push(what);
        }
    }
    check(&violations);
}
