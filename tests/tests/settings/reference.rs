//! The reference of all settings, `docs/operations/settings.md`, is what the programs say of
//! themselves: `--help`, and the names that the gateway's file may have. `REWRITE=1` in the
//! environment writes it anew. The tables of `docs/operations/configure.md` have the same names.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use dkvs_tests::process::ServersFile;

use crate::PROGRAMS;

/// A flag or an argument, as `--help` has it.
#[derive(Debug, Default)]
struct Entry {
    /// With the name of its value.
    flag: String,
    variable: Option<String>,
    meaning: String,
    values: Vec<String>,
    default: Option<String>,
}

impl Entry {
    /// The flag alone, without dashes, as the file would name it.
    fn name(&self) -> String {
        let name = self.flag.trim_start_matches("--");
        let end = name.find([' ', '[', '=']).unwrap_or(name.len());
        name[..end].replace('-', "_")
    }
}

/// What a program's `--help` lists.
fn entries(program: &str) -> Vec<Entry> {
    let (status, help, _) = PROGRAMS.run_to_end({
        let mut command = Command::new(program);
        command.arg("--help");
        command
    });
    assert!(status.success());
    let (mut found, mut is_list) = (Vec::<Entry>::new(), false);
    for line in help.lines() {
        let text = line.trim();
        let begins = text.starts_with("--")
            || text.starts_with('-')
            || text.starts_with('<')
            || text.starts_with('[');
        let indent = line.len() - line.trim_start().len();
        if begins && (1..=6).contains(&indent) {
            // A letter for the flag comes first.
            let flag = text.split_once(", ").map_or(text, |(_, flag)| flag);
            found.push(Entry {
                flag: flag.to_owned(),
                ..Entry::default()
            });
            is_list = false;
            continue;
        }
        let Some(entry) = found.last_mut().filter(|_| indent >= 10) else {
            continue;
        };
        let marked = |mark: &str| text.strip_prefix(mark)?.strip_suffix(']');
        if let Some(variable) = marked("[env: ") {
            let end = variable.find('=').unwrap_or(variable.len());
            entry.variable = Some(variable[..end].to_owned());
        } else if let Some(values) = marked("[possible values: ") {
            entry.values = values.split(", ").map(str::to_owned).collect();
        } else if let Some(default) = marked("[default: ") {
            entry.default = Some(default.to_owned());
        } else if text == "Possible values:" {
            is_list = true;
        } else if is_list {
            let value = text.trim_start_matches("- ").split(':').next();
            entry
                .values
                .extend(value.filter(|it| !it.is_empty()).map(str::to_owned));
        } else if !text.is_empty() {
            if !entry.meaning.is_empty() {
                entry.meaning.push(' ');
            }
            entry.meaning += text;
        }
    }
    for entry in &mut found {
        // Defaults that depend on something stand in the text.
        if let Some((meaning, default)) = entry.meaning.clone().rsplit_once(" [default: ") {
            meaning.clone_into(&mut entry.meaning);
            entry.default = Some(default.trim_end_matches(']').to_owned());
        }
    }
    found
}

/// The names that the gateway's file may have, as it says when there is another one.
fn names_in_file() -> BTreeSet<String> {
    let file = ServersFile::with_text("no_such_name = 1\n");
    let mut command = PROGRAMS.gateway_command();
    command.args(["--check-config", "--config", file.path()]);
    let (_, _, said) = PROGRAMS.run_to_end(command);
    let (_, names) = said
        .split_once("expected one of ")
        .unwrap_or_else(|| panic!("{said}"));
    let names = names.split('`').skip(1).step_by(2);
    names.map(str::to_owned).collect()
}

/// A cell of a table.
fn cell(text: &str) -> String {
    text.replace('|', "\\|")
}

fn code(text: &str) -> String {
    format!("`{}`", cell(text))
}

fn page() -> String {
    let mut page = String::from(
        "# Settings\n\n\
         What both programs say of their settings, generated from `--help`. [Configuring](configure.md)\n\
         explains them. A value that a setting does not take is refused with the reason.\n\n\
         ## The gateway\n\n\
         A flag wins over the environment, the environment over the file that `--config` names, the file\n\
         over the default. `--otlp-endpoint` exists only in a gateway that was built with the feature\n\
         `otel`.\n\n\
         | flag | environment | in the file | meaning | default |\n|---|---|---|---|---|\n",
    );
    let names = names_in_file();
    let row = |page: &mut String, entry: &Entry, more: &[String]| {
        let mut meaning = cell(&entry.meaning);
        let is_told = entry.flag.contains(&entry.values.join("|"));
        if !entry.values.is_empty() && !is_told {
            let values: Vec<String> = entry.values.iter().map(|it| code(it)).collect();
            write!(meaning, ": {}", values.join(", ")).expect("a text takes it");
        }
        let default = entry.default.as_deref().map(cell).unwrap_or_default();
        let flag = code(&entry.flag);
        let cells: Vec<&str> = [&*flag]
            .into_iter()
            .chain(more.iter().map(|it| &**it))
            .chain([&*meaning, &*default])
            .collect();
        let line = format!("| {} |", cells.join(" | "));
        // An empty cell has one space.
        *page += &line.replace("|  |", "| |").replace("|  |", "| |");
        page.push('\n');
    };
    for entry in entries(PROGRAMS.gateway) {
        let variable = entry.variable.as_deref().map(code).unwrap_or_default();
        let name = Some(entry.name()).filter(|it| names.contains(it));
        let name = name.as_deref().map(code).unwrap_or_default();
        row(&mut page, &entry, &[variable, name]);
    }
    page += "\n## The storage server\n\n\
        It has no environment variables and no file. Without a default, a setting is off or absent.\n\n\
        | argument | meaning | default |\n|---|---|---|\n";
    for entry in entries(PROGRAMS.storage_node) {
        row(&mut page, &entry, &[]);
    }
    page
}

fn operations() -> PathBuf {
    let tests = Path::new(env!("CARGO_MANIFEST_DIR"));
    tests
        .parent()
        .expect("the workspace is above")
        .join("docs/operations")
}

#[test]
fn the_reference_is_what_the_programs_say() {
    let path = operations().join("settings.md");
    let page = page();
    if std::env::var_os("REWRITE").is_some() {
        fs::write(&path, &page).unwrap();
    }
    let there = fs::read_to_string(&path).unwrap_or_default();
    for (number, (there, said)) in (1..).zip(there.lines().zip(page.lines())) {
        assert_eq!(
            there, said,
            "docs/operations/settings.md:{number} is not what the programs say; write the page anew \
             with REWRITE=1 cargo test -p dkvs-tests --test settings reference"
        );
    }
    assert_eq!(there.lines().count(), page.lines().count());
}

/// The code in the first cells of a table's rows, below a heading.
fn rows(document: &str, heading: &str) -> Vec<Vec<String>> {
    let (_, section) = document.split_once(heading).unwrap();
    let section = section.split("\n## ").next().unwrap();
    let rows = section.lines().filter(|it| it.starts_with("| `"));
    let rows = rows.map(|row| {
        let row = row.replace("\\|", "!");
        let cells = row
            .split('|')
            .skip(1)
            .map(|cell| cell.trim().trim_matches('`').to_owned());
        cells.collect()
    });
    rows.collect()
}

#[test]
fn what_explains_the_settings_has_each_of_them() {
    let document = fs::read_to_string(operations().join("configure.md")).unwrap();
    let name = |flag: &str| {
        let end = flag.find([' ', '[', '=']).unwrap_or(flag.len());
        flag[..end].to_owned()
    };
    // They stand in a section of their own.
    let others = [
        "--check-config",
        "--completions",
        "--man",
        "--help",
        "--version",
    ];
    let is_setting = |entry: &Entry| !others.contains(&&*name(&entry.flag));
    let names = names_in_file();

    let mut explained: BTreeSet<[String; 3]> = rows(&document, "\n## The gateway\n")
        .into_iter()
        .filter(|row| row[0].starts_with("--"))
        .map(|row| [name(&row[0]), row[1].clone(), row[2].clone()])
        .collect();
    explained.retain(|[flag, ..]| flag != "--otlp-endpoint" && flag.len() > 2);
    let limits = ["--max-in-flight", "--max-connections"];
    explained
        .retain(|[flag, variable, _]| !limits.contains(&&**flag) || variable.starts_with("DKVS_"));
    let said: BTreeSet<[String; 3]> = entries(PROGRAMS.gateway)
        .into_iter()
        .filter(is_setting)
        .map(|entry| {
            let in_file = Some(entry.name()).filter(|it| names.contains(it));
            [
                name(&entry.flag),
                entry.variable.unwrap_or_default(),
                in_file.unwrap_or_default(),
            ]
        })
        .collect();
    assert_eq!(explained, said, "docs/operations/configure.md, The gateway");

    let explained: BTreeSet<String> = rows(&document, "\n## The storage server\n")
        .iter()
        .map(|row| name(&row[0]))
        .filter(|flag| flag.starts_with("--"))
        .collect();
    let said: BTreeSet<String> = entries(PROGRAMS.storage_node)
        .iter()
        .filter(|entry| entry.flag.starts_with("--") && is_setting(entry))
        .map(|entry| name(&entry.flag))
        .collect();
    assert_eq!(
        explained, said,
        "docs/operations/configure.md, The storage server"
    );
}
