//! The modules that a log filter may name are those that log something.

use std::collections::BTreeSet;
use std::path::Path;

use crate::files::{read, sources};

/// The name of the module in a file of a package.
fn module(package: &str, source: &str, file: &Path) -> String {
    let inner = file.strip_prefix(source).expect("it is of the package");
    let inner = inner.with_extension("");
    let names = inner.iter().filter_map(|name| name.to_str());
    let names = names.filter(|name| !["mod", "lib"].contains(name));
    let names: Vec<&str> = [package].into_iter().chain(names).collect();
    names.join("::")
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
        let logs = |file: &Path| {
            let text = read(file);
            let levels = ["error", "warn", "info", "debug", "trace"];
            let mut levels = levels.iter();
            levels.any(|level| text.contains(&format!("tracing::{level}!(")))
        };
        let files = sources(source).into_iter().filter(|file| logs(file));
        let mut there: BTreeSet<String> =
            files.map(|file| module(package, source, &file)).collect();
        if package == "dkvs_gateway" {
            // What it logs, it logs only with the feature.
            there.insert(String::from("dkvs_gateway::otel"));
        }
        assert!(
            there.iter().eq(named),
            "{source}: LOG_MODULES has to be {there:#?}"
        );
    }
}

#[test]
fn the_modules_in_the_lines_of_the_documents_are_those_that_log_something() {
    let page = read("docs/operations/observe.md");
    let all = [
        dkvs_client::LOG_MODULES,
        dkvs_runtime::LOG_MODULES,
        dkvs_storage_node::LOG_MODULES,
        dkvs_gateway::LOG_MODULES,
    ];
    let all = all.concat();
    let is_part = |it: char| it.is_ascii_alphanumeric() || it == '_' || it == ':';
    let words = page.split(|it: char| !is_part(it));
    let modules = words.filter(|it| it.starts_with("dkvs_") && it.contains("::"));
    let modules: Vec<&str> = modules.map(|it| it.trim_end_matches(':')).collect();
    assert!(!modules.is_empty());
    for module in modules {
        assert!(
            all.contains(&module),
            "docs/operations/observe.md: {module} logs nothing; name the module that does: {all:#?}"
        );
    }
}
