//! What the pages about the architecture name in code is there: files, folders, types, functions.
//!
//! Of the texts in backticks these are looked up:
//!
//! * `common/src/ring.rs`, `storage-node/src/store/`: a file or folder of the workspace;
//! * `Service::handle`, `serve::run`: a type or module, and what it has;
//! * `ReplicaCommand`: a type or trait;
//! * `poll_transmit()`: a function.
//!
//! Of the other documents, files and folders are looked up; decisions may name what was there when
//! they were taken.

use std::fs;
use std::path::{Path, PathBuf};

use crate::check;
use crate::files::{read, root, sources};

/// The pages about the architecture.
fn pages() -> Vec<PathBuf> {
    let mut pages = in_folder("docs/architecture");
    pages.extend(["docs/architecture.md", "CONTRIBUTING.md"].map(PathBuf::from));
    pages
}

/// All other documents but decisions and the changelog.
fn other_pages() -> Vec<PathBuf> {
    let mut pages = in_folder("docs");
    pages.retain(|page| page != Path::new("docs/architecture.md"));
    pages.extend(in_folder("docs/operations"));
    pages.extend(in_folder("docs/sdks"));
    pages.push(PathBuf::from("README.md"));
    pages
}

/// The documents in a folder, but not in folders below it.
fn in_folder(folder: &str) -> Vec<PathBuf> {
    let entries = fs::read_dir(root().join(folder)).expect("there is such a folder");
    let paths = entries.map(|entry| entry.expect("it can be listed").path());
    let paths = paths.filter(|path| path.extension().is_some_and(|it| it == "md"));
    let mut pages: Vec<PathBuf> = paths
        .map(|path| path.strip_prefix(root()).expect("it is below").to_owned())
        .collect();
    pages.sort();
    pages
}

/// What stands in backticks, with its line, but not what stands in fenced blocks.
fn codes(page: &str) -> Vec<(usize, &str)> {
    let (mut found, mut is_fenced) = (Vec::new(), false);
    for (line, text) in (1..).zip(page.lines()) {
        if text.trim_start().starts_with("```") {
            is_fenced = !is_fenced;
        }
        if !is_fenced {
            let codes = text.split('`').skip(1).step_by(2);
            found.extend(codes.map(|code| (line, code)));
        }
    }
    found
}

/// All sources, to look names up in.
struct Sources {
    texts: Vec<(PathBuf, String)>,
}

impl Sources {
    fn read() -> Self {
        let folders = [
            "common/src",
            "common/client/src",
            "common/runtime/src",
            "storage-node/src",
            "storage-node/log/src",
            "gateway/src",
            "tests/src",
            "tests/tests",
        ];
        let files = folders.into_iter().flat_map(sources);
        Self {
            texts: files.map(|file| (file.clone(), read(&file))).collect(),
        }
    }

    fn has(&self, names: &[String]) -> bool {
        let mut texts = self.texts.iter();
        texts.any(|(_, text)| names.iter().any(|name| has_word(text, name)))
    }

    /// Whether there is such a type or trait.
    fn has_type(&self, name: &str) -> bool {
        self.has(&["struct", "enum", "trait", "type", "union"].map(|kind| format!("{kind} {name}")))
    }

    fn has_function(&self, name: &str) -> bool {
        self.has(&[format!("fn {name}")])
    }

    /// Whether a type or module has such a function, type, variant or constant.
    fn has_member(&self, owner: &str, member: &str) -> bool {
        let is_type = owner.starts_with(char::is_uppercase);
        let mut texts = self.texts.iter().filter(|(file, text)| {
            if is_type {
                // The block of the type, or of what it implements.
                let kinds = ["impl", "struct", "enum", "trait", "for"];
                let mut kinds = kinds.iter();
                kinds.any(|kind| has_word(text, &format!("{kind} {owner}")))
                    || text.contains(&format!("> {owner}"))
            } else {
                let mut names = file.iter().filter_map(|it| it.to_str());
                names.any(|it| it.trim_end_matches(".rs") == owner)
            }
        });
        let kinds = ["fn", "struct", "enum", "trait", "const", "static", "type"];
        let names: Vec<String> = kinds
            .iter()
            .map(|kind| format!("{kind} {member}"))
            .collect();
        let is_variant = is_type && member.starts_with(char::is_uppercase);
        texts.any(|(_, text)| {
            names.iter().any(|name| has_word(text, name))
                || is_variant && has_word(text, &format!("    {member}"))
        })
    }
}

/// Whether a text has a name that does not go on.
fn has_word(text: &str, name: &str) -> bool {
    text.match_indices(name).any(|(at, _)| {
        let next = text[at + name.len()..].chars().next();
        next.is_none_or(|next| !next.is_alphanumeric() && next != '_')
    })
}

fn is_name(text: &str) -> bool {
    text.starts_with(|it: char| it.is_ascii_alphabetic())
        && text
            .chars()
            .all(|it| it.is_ascii_alphanumeric() || it == '_')
}

/// Whether a text in backticks names a file or folder of the workspace, and that is not there.
fn is_wrong_path(code: &str) -> bool {
    let tops = [
        "common/",
        "gateway/",
        "storage-node/",
        "tests/",
        "docs/",
        "packaging/",
        ".ci/",
    ];
    let is_path = tops.iter().any(|top| code.starts_with(top));
    is_path && !code.contains(['*', ' ', '{', '<']) && !root().join(code).exists()
}

/// What is wrong with a text in backticks, if it names something that is not there.
fn wrong(sources: &Sources, code: &str) -> Option<&'static str> {
    if is_wrong_path(code) {
        return Some("there is no such file or folder");
    }
    if code.contains('/') {
        return None;
    }
    let bare = code.strip_suffix("()").unwrap_or(code);
    if let Some((owner, member)) = bare.rsplit_once("::") {
        let owner = owner.rsplit("::").next().unwrap_or(owner);
        let is_ours = is_name(owner) && is_name(member) && !code.starts_with("std::");
        let is_wrong = is_ours && !sources.has_member(owner, member);
        return is_wrong
            .then_some("there is no such type or module, or it has nothing of that name");
    }
    if code.ends_with("()") && is_name(bare) {
        return (!sources.has_function(bare)).then_some("there is no such function");
    }
    let is_type = is_name(code)
        && code.starts_with(char::is_uppercase)
        && code.contains(char::is_lowercase)
        && !code.contains('_');
    (is_type && !sources.has_type(code)).then_some("there is no such type")
}

#[test]
fn what_the_pages_name_is_in_the_sources() {
    let sources = Sources::read();
    let mut violations = Vec::new();
    for path in pages() {
        for (line, code) in codes(&read(&path)) {
            if let Some(wrong) = wrong(&sources, code) {
                let what = format!(
                    "{}:{line}: `{code}`: {wrong}; name what took its place",
                    path.display()
                );
                violations.push(what);
            }
        }
    }
    for path in other_pages() {
        for (line, code) in codes(&read(&path)) {
            if is_wrong_path(code) {
                let what = format!(
                    "{}:{line}: `{code}`: there is no such file or folder; name what took its place",
                    path.display()
                );
                violations.push(what);
            }
        }
    }
    check(&violations);
}

#[test]
fn a_name_that_is_not_there_is_found() {
    let sources = Sources::read();
    for right in [
        "common/src/ring.rs",
        "storage-node/src/store/",
        "ReplicaCommand",
        "ReplicaCommand::Attest",
        "Refusal::is_certain",
        "LISTEN",
        "--listen",
        "std::fs::File",
        "503 `overloaded`",
    ] {
        assert_eq!(wrong(&sources, right), None, "{right}");
    }
    for not in [
        "common/src/wring.rs",
        "ReplicaQuestion",
        "ReplicaCommand::Vouchsafe",
        "Refusal::is_uncertain",
        "poll_nothing()",
    ] {
        assert!(wrong(&sources, not).is_some(), "{not}");
    }
}
