//! The numbers in the tables of limits are those of the constants in the sources.
//!
//! A cell of the column "constant" has entries such as
//! `` `VALUE_BYTES_MAX` = 16 MiB in `common/src/kv.rs` ``. An entry that names a function or a type has
//! no number, as in `` `take_room` in `storage-node/src/store/memory.rs` ``.

use std::path::Path;
use std::time::Duration;

use crate::files::{read, root};

const DOCUMENT: &str = "docs/architecture/limits.md";

/// An entry of the document.
struct Entry {
    line: usize,
    name: String,
    /// In bytes, or nanoseconds, or as a plain number. None for what is no constant.
    value: Option<u128>,
    file: String,
}

/// The entries of the column "constant".
fn entries(document: &str) -> Vec<Entry> {
    let mut found = Vec::new();
    for (line, text) in (1..).zip(document.lines()) {
        let Some(cell) = text.split(" | ").nth(2).filter(|_| text.starts_with("| ")) else {
            continue;
        };
        for entry in cell.split("; ") {
            let Some((entry, file)) = entry.split_once(" in `") else {
                continue;
            };
            let (name, value) = match entry.split_once(" = ") {
                Some((name, value)) => (name, Some(value)),
                None => (entry, None),
            };
            let number = |text: &str| {
                number(text).unwrap_or_else(|| {
                    panic!("{DOCUMENT}:{line}: {text:?} is no number with a unit")
                })
            };
            let name = name.trim_matches('`');
            found.push(Entry {
                line,
                name: name.rsplit("::").next().unwrap_or(name).to_owned(),
                value: value.map(number),
                file: file.trim_end_matches('`').to_owned(),
            });
        }
    }
    found
}

/// A number as the document writes it.
fn number(text: &str) -> Option<u128> {
    let (digits, unit) = text.split_once(' ').unwrap_or((text, ""));
    let number: u128 = digits.replace(',', "").parse().ok()?;
    let factor = match unit {
        "" | "bytes" => 1,
        "KiB" => 1 << 10,
        "MiB" => 1 << 20,
        "GiB" => 1 << 30,
        "ms" => Duration::from_millis(1).as_nanos(),
        "s" => Duration::from_secs(1).as_nanos(),
        _ => return None,
    };
    Some(number * factor)
}

/// The value of a constant of a file.
fn constant(source: &str, name: &str) -> Option<u128> {
    let begin = source.find(&format!("const {name}:"))?;
    let (_, definition) = source[begin..].split_once('=')?;
    let (expression, _) = definition.split_once(';')?;
    value(source, expression.trim())
}

/// The value of an expression: numbers, other constants of the file, `<<`, `*`, `+`, and durations.
fn value(source: &str, expression: &str) -> Option<u128> {
    let unit = |name: &str, unit: Duration| {
        let inner = expression.strip_prefix(name)?.strip_suffix(')')?;
        Some(value(source, inner)? * unit.as_nanos())
    };
    if let Some(value) = unit("Duration::from_secs(", Duration::from_secs(1))
        .or_else(|| unit("Duration::from_millis(", Duration::from_millis(1)))
        .or_else(|| unit("Duration::from_micros(", Duration::from_micros(1)))
    {
        return Some(value);
    }
    if let Some((left, right)) = expression.split_once(" << ") {
        let shift = u32::try_from(value(source, right)?).ok()?;
        return value(source, left)?.checked_shl(shift);
    }
    if let Some((left, right)) = expression.split_once(" + ") {
        return Some(value(source, left)? + value(source, right)?);
    }
    if let Some((left, right)) = expression.split_once(" * ") {
        return Some(value(source, left)? * value(source, right)?);
    }
    let expression = expression.split(" as ").next()?;
    match expression.starts_with(|it: char| it.is_ascii_digit()) {
        true => expression.replace('_', "").parse().ok(),
        false => constant(source, expression),
    }
}

#[test]
fn the_limits_in_the_document_are_those_in_the_sources() {
    let entries = entries(&read(DOCUMENT));
    assert!(entries.len() > 75, "{} entries", entries.len());
    let mut wrong = Vec::new();
    for Entry {
        line,
        name,
        value,
        file,
    } in entries
    {
        let place = format!("{DOCUMENT}:{line}: {name}");
        if !Path::new(root()).join(&file).is_file() {
            wrong.push(format!(
                "{place}: there is no {file}; name the file that it is in"
            ));
            continue;
        }
        let source = read(&file);
        let Some(value) = value else {
            let kinds = ["fn", "struct", "enum", "const"];
            if !kinds
                .iter()
                .any(|kind| source.contains(&format!("{kind} {name}")))
            {
                wrong.push(format!(
                    "{place}: {file} has nothing of that name; name where it is"
                ));
            }
            continue;
        };
        match constant(&source, &name) {
            None => wrong.push(format!(
                "{place}: {file} has no such constant, or none that this test can compute; name where it is"
            )),
            Some(there) if there != value => wrong.push(format!(
                "{place}: it is {there} in {file}, and {value} in the document; correct the document"
            )),
            Some(_) => {}
        }
    }
    assert!(wrong.is_empty(), "\n{}\n", wrong.join("\n"));
}

#[test]
fn expressions_are_computed() {
    let source = "pub const A: usize = 3 << 10;\nconst B: Duration = Duration::from_millis(20);\n\
        const C: usize = 2 * A + 1;\nconst D: u64 = A as u64;\nconst E: usize = f();";
    let value = |name| constant(source, name);
    assert_eq!(value("A"), number("3 KiB"));
    assert_eq!(value("B"), number("20 ms"));
    assert_eq!(value("C"), number("6,145"));
    assert_eq!(value("D"), number("3,072 bytes"));
    assert_eq!(value("E"), None);
    assert_eq!(value("F"), None);
}
