//! What `docs/architecture.md` says of the code, as far as reading the code can show it.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

/// The root of the workspace.
fn root() -> PathBuf {
    let tests = Path::new(env!("CARGO_MANIFEST_DIR"));
    tests.parent().expect("the workspace is above").to_owned()
}

/// Every source file below a directory of the workspace, with the name of its module.
fn modules(package: &str, source: &str) -> Vec<(String, String)> {
    let mut left = vec![(root().join(source), package.to_owned())];
    let mut found = Vec::new();
    while let Some((directory, module)) = left.pop() {
        for entry in fs::read_dir(&directory).expect("it is a directory") {
            let path = entry.expect("it can be listed").path();
            let name = path.file_stem().and_then(|name| name.to_str());
            let name = name.expect("names of modules are text");
            let inner = format!("{module}::{name}");
            if path.is_dir() {
                left.push((path, inner));
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let text = fs::read_to_string(&path).expect("sources are text");
                let is_outer = ["mod", "lib"].contains(&name);
                found.push((if is_outer { module.clone() } else { inner }, text));
            }
        }
    }
    found
}

#[test]
fn the_modules_that_a_log_filter_may_name_are_those_that_log_something() {
    let packages = [
        ("dkvs_client", "common/client/src", dkvs_client::LOG_MODULES),
        (
            "dkvs_runtime",
            "common/runtime/src",
            dkvs_runtime::LOG_MODULES,
        ),
        (
            "dkvs_storage_node",
            "storage-node/src",
            dkvs_storage_node::LOG_MODULES,
        ),
        ("dkvs_gateway", "gateway/src", dkvs_gateway::LOG_MODULES),
    ];
    for (package, source, named) in packages {
        let logs = |(_, text): &(String, String)| {
            let levels = ["error", "warn", "info", "debug", "trace"];
            let mut levels = levels.iter();
            levels.any(|level| text.contains(&format!("tracing::{level}!(")))
        };
        let there = modules(package, source).into_iter().filter(logs);
        let mut there: BTreeSet<String> = there.map(|(module, _)| module).collect();
        if package == "dkvs_gateway" {
            // What it logs, it logs only with the feature.
            there.insert(String::from("dkvs_gateway::otel"));
        }
        assert!(there.iter().eq(named), "{there:#?}");
    }
}

#[test]
fn the_gateway_names_the_storage_server_inside_embedded_alone() {
    // A text may name its modules, as a log filter does.
    let is_code = |line: &&str| !line.contains('"');
    let mentions = |line: &str| line.contains("dkvs_storage_node::");
    let names = |text: &str| text.lines().filter(is_code).any(mentions);
    let modules = modules("dkvs_gateway", "gateway/src");
    let (embedded, others): (Vec<_>, Vec<_>) = modules
        .into_iter()
        .partition(|(module, _)| module.starts_with("dkvs_gateway::embedded"));
    assert!(embedded.iter().any(|(_, text)| names(text)));
    let wrong: Vec<_> = others.iter().filter(|(_, text)| names(text)).collect();
    let wrong: Vec<_> = wrong.iter().map(|(module, _)| module).collect();
    assert!(wrong.is_empty(), "{wrong:?}");
}
