//! What is logged: a level, or levels by module, as in `info,dkvs_gateway::tls=debug`.
//!
//! A word that is no level would be taken for the name of a module that logs nothing, and nothing
//! would be logged. So a filter may name only modules that log something.

use tracing_subscriber::filter::{LevelFilter, Targets};

const LEVELS: [(&str, LevelFilter); 6] = [
    ("error", LevelFilter::ERROR),
    ("warn", LevelFilter::WARN),
    ("info", LevelFilter::INFO),
    ("debug", LevelFilter::DEBUG),
    ("trace", LevelFilter::TRACE),
    ("off", LevelFilter::OFF),
];

/// Which events are logged.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogFilter {
    /// Of everything that no module below is said for.
    level: LevelFilter,
    modules: Vec<(String, LevelFilter)>,
}

impl LogFilter {
    /// The filter that some words say, for a program with these modules.
    ///
    /// # Errors
    ///
    /// If they say none; the text says what is wrong, and what would be right.
    pub fn parse(words: &str, modules: &[&str]) -> Result<Self, String> {
        let mut level = None;
        let mut of_modules: Vec<(String, LevelFilter)> = Vec::new();
        for word in words.split(',').map(str::trim) {
            let Some((module, said)) = word.split_once('=') else {
                if is_module(word, modules) {
                    return Err(format!(
                        "{word:?} has no level; say {word}=debug, for example"
                    ));
                }
                match level.replace(parse_level(word)?) {
                    None => continue,
                    Some(_) => return Err("it has two levels for everything; leave out one".into()),
                }
            };
            let said = parse_level(said)?;
            if !is_module(module, modules) {
                return Err(unknown(module, modules));
            }
            if of_modules.iter().any(|(other, _)| other == module) {
                return Err(format!("it has {module:?} twice; leave out one"));
            }
            of_modules.push((module.to_owned(), said));
        }
        Ok(Self {
            level: level.unwrap_or(LevelFilter::OFF),
            modules: of_modules,
        })
    }

    /// The same for the library that logs.
    pub(super) fn targets(&self) -> Targets {
        let modules = self.modules.iter().cloned();
        Targets::new()
            .with_default(self.level)
            .with_targets(modules)
    }
}

impl Default for LogFilter {
    fn default() -> Self {
        Self {
            level: LevelFilter::INFO,
            modules: Vec::new(),
        }
    }
}

fn parse_level(word: &str) -> Result<LevelFilter, String> {
    let known = LEVELS
        .iter()
        .find(|(name, _)| word.eq_ignore_ascii_case(name));
    known.map(|(_, level)| *level).ok_or_else(|| {
        let levels = LEVELS.map(|(name, _)| name);
        let all = "the levels are error, warn, info, debug, trace and off";
        let modules = "one for a single module is written as in info,dkvs_storage_node=debug";
        match nearest(&word.to_lowercase(), levels) {
            Some(meant) => format!("{word:?} is no level; did you mean {meant}? {all}"),
            None => format!("{word:?} is no level; {all}, and {modules}"),
        }
    })
}

/// Whether it is one of the modules, or has one in it.
fn is_module(name: &str, modules: &[&str]) -> bool {
    modules.iter().any(|module| {
        let below = module.strip_prefix(name);
        !name.is_empty() && below.is_some_and(|below| below.is_empty() || below.starts_with("::"))
    })
}

fn unknown(name: &str, modules: &[&str]) -> String {
    let crates = modules
        .iter()
        .map(|it| it.split_once("::").map_or(*it, |(it, _)| it));
    let mut crates: Vec<&str> = crates.collect();
    crates.dedup();
    let all = crates.join(", ");
    match nearest(name, modules.iter().copied().chain(crates.iter().copied())) {
        Some(meant) => format!("no module {name:?} logs anything; did you mean {meant}?"),
        None => format!("no module {name:?} logs anything; the modules are those of {all}"),
    }
}

/// The name that a misspelt one is most likely to stand for, if there is any.
pub fn nearest<'a>(word: &str, names: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let alike = |name: &&str| strsim::jaro_winkler(word, name);
    let nearest = names
        .into_iter()
        .max_by(|a, b| alike(a).total_cmp(&alike(b)));
    nearest.filter(|name| alike(name) > 0.85)
}

#[cfg(test)]
mod tests {
    use super::*;
    use tracing::Level;

    const MODULES: &[&str] = &[
        "dkvs_common",
        "dkvs_storage_node::cli",
        "dkvs_storage_node::store::disk::log",
        "dkvs_storage_node::udp",
        "dkvs_storage_node::udp::send",
    ];

    fn parse(words: &str) -> Result<Targets, String> {
        LogFilter::parse(words, MODULES).map(|filter| filter.targets())
    }

    #[test]
    fn a_filter_is_a_level_or_levels_by_module() {
        for (words, module, level) in [
            ("info", "anything", Some(Level::INFO)),
            ("WARN", "anything", Some(Level::WARN)),
            ("off", "anything", None),
            (
                "info, dkvs_storage_node=trace",
                "dkvs_storage_node::udp",
                Some(Level::TRACE),
            ),
            (
                "info,dkvs_storage_node=trace",
                "anything",
                Some(Level::INFO),
            ),
            (
                "dkvs_storage_node::udp=debug",
                "dkvs_storage_node::udp::send",
                Some(Level::DEBUG),
            ),
            (
                "dkvs_storage_node::udp=debug",
                "dkvs_storage_node::cli",
                None,
            ),
            (
                "debug,dkvs_storage_node::store::disk=off",
                "dkvs_storage_node::store::disk::log",
                None,
            ),
            ("info,dkvs_common=trace", "dkvs_common", Some(Level::TRACE)),
        ] {
            let targets = parse(words).unwrap();
            for each in [
                Level::ERROR,
                Level::WARN,
                Level::INFO,
                Level::DEBUG,
                Level::TRACE,
            ] {
                let expected = level.is_some_and(|level| each <= level);
                assert_eq!(
                    targets.would_enable(module, &each),
                    expected,
                    "{words} {each}"
                );
            }
        }
    }

    #[test]
    fn what_would_silence_the_log_is_refused_with_what_was_meant() {
        for (words, said) in [
            ("warning", "\"warning\" is no level; did you mean warn?"),
            ("inof", "did you mean info?"),
            ("Debgu", "did you mean debug?"),
            (
                "verbose",
                "\"verbose\" is no level; the levels are error, warn,",
            ),
            ("", "\"\" is no level"),
            ("info,", "\"\" is no level"),
            (",", "\"\" is no level"),
            ("3", "\"3\" is no level"),
            ("loud==", "\"=\" is no level"),
            ("dkvs_storage_node=", "\"\" is no level"),
            ("=info", "no module \"\""),
            ("dkvs_storage_node=warning", "did you mean warn?"),
            ("dkvs_storage_node", "\"dkvs_storage_node\" has no level"),
            ("dkvs_storage_nod=info", "did you mean dkvs_storage_node?"),
            (
                "dkvs_storage_node::upd=info",
                "did you mean dkvs_storage_node::udp?",
            ),
            ("dkvs_gateway=debug", "no module \"dkvs_gateway\""),
            (
                "hyper=debug",
                "the modules are those of dkvs_common, dkvs_storage_node",
            ),
            ("info,debug", "two levels"),
            ("dkvs_common=info,dkvs_common=debug", "twice"),
            ("[request]=debug", "no module \"[request]\""),
            ("info;debug", "is no level"),
        ] {
            let refusal = parse(words).unwrap_err();
            assert!(refusal.contains(said), "{words}: {refusal}");
        }
    }
}
