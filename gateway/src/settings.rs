//! Single settings: which values they take, and what is said of others, wherever they stand.

use std::num::{NonZeroU8, NonZeroU64, NonZeroUsize};
use std::path::PathBuf;

use dkvs_storage_node::log::filter::{self, LogFilter};
use serde::de::{Deserialize, Deserializer, Error};

/// Most threads, and so listeners.
pub(crate) const WORKERS_MAX: u64 = 1_024;

/// Most requests in flight, or connections, that can be asked for.
pub(crate) const COUNT_MAX: u64 = 1 << 20;

/// The modules of the gateway that log something.
const MODULES: &[&str] = &[
    "dkvs_gateway::cli",
    "dkvs_gateway::coordinator::core",
    "dkvs_gateway::coordinator::sockets",
    "dkvs_gateway::coordinator::v1",
    "dkvs_gateway::embedded",
    "dkvs_gateway::embedded::directory",
    "dkvs_gateway::embedded::node",
    "dkvs_gateway::http::serve",
    "dkvs_gateway::http::switch",
    "dkvs_gateway::otel",
    "dkvs_gateway::tls",
    "dkvs_gateway::tokens",
];

/// A whole number as it is kept.
pub(crate) trait Whole: Sized {
    /// None if it cannot be kept so.
    fn from_u64(number: u64) -> Option<Self>;
}

impl Whole for u16 {
    fn from_u64(number: u64) -> Option<Self> {
        number.try_into().ok()
    }
}

impl Whole for u32 {
    fn from_u64(number: u64) -> Option<Self> {
        number.try_into().ok()
    }
}

impl Whole for u64 {
    fn from_u64(number: u64) -> Option<Self> {
        Some(number)
    }
}

impl Whole for NonZeroU8 {
    fn from_u64(number: u64) -> Option<Self> {
        NonZeroU64::new(number)?.try_into().ok()
    }
}

impl Whole for NonZeroUsize {
    fn from_u64(number: u64) -> Option<Self> {
        NonZeroU64::new(number)?.try_into().ok()
    }
}

/// A number from `MIN` to `MAX` on the command line or in the environment.
pub(crate) fn parse_whole<const MIN: u64, const MAX: u64, T: Whole>(
    text: &str,
) -> Result<T, String> {
    let is_plain = text.bytes().all(|byte| byte.is_ascii_digit());
    let number = is_plain.then(|| text.parse().ok()).flatten();
    number
        .and_then(within::<MIN, MAX, T>)
        .ok_or_else(range::<MIN, MAX>)
}

/// The same in the file.
pub(crate) fn whole<'de, const MIN: u64, const MAX: u64, T: Whole, D: Deserializer<'de>>(
    from: D,
) -> Result<Option<T>, D::Error> {
    let number = i64::deserialize(from)?.try_into().ok();
    let number = number.and_then(within::<MIN, MAX, T>);
    number
        .map(Some)
        .ok_or_else(|| D::Error::custom(range::<MIN, MAX>()))
}

fn within<const MIN: u64, const MAX: u64, T: Whole>(number: u64) -> Option<T> {
    let is_within = (MIN..=MAX).contains(&number);
    is_within.then(|| T::from_u64(number)).flatten()
}

fn range<const MIN: u64, const MAX: u64>() -> String {
    format!("it is a whole number from {MIN} to {MAX}")
}

/// A path in the file.
pub(crate) fn path<'de, D: Deserializer<'de>>(from: D) -> Result<Option<PathBuf>, D::Error> {
    let path = PathBuf::deserialize(from)?;
    match path.as_os_str().is_empty() {
        false => Ok(Some(path)),
        true => Err(D::Error::custom(
            "the path is empty; give one, or leave out the line",
        )),
    }
}

/// What to log, on the command line or in the environment.
pub(crate) fn parse_log(words: &str) -> Result<LogFilter, String> {
    let modules = [MODULES, filter::MODULES].concat();
    LogFilter::parse(words, &modules)
}

/// The same in the file.
pub(crate) fn log<'de, D: Deserializer<'de>>(from: D) -> Result<Option<LogFilter>, D::Error> {
    let words = String::deserialize(from)?;
    parse_log(&words).map(Some).map_err(D::Error::custom)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_gateway_logs_what_its_own_modules_and_those_of_embedded_servers_say() {
        for words in [
            "dkvs_gateway=debug",
            "info,dkvs_common=trace",
            "info,dkvs_storage_node::udp=debug",
            "info,dkvs_gateway::coordinator=debug",
        ] {
            assert!(parse_log(words).is_ok(), "{words}");
        }
        assert!(parse_log("dkvs_gateway::htp=debug").is_err());
    }

    #[test]
    fn every_module_that_is_named_is_there_and_logs_something() {
        for module in MODULES {
            let path = module.replace("dkvs_gateway", "src").replace("::", "/");
            let root = env!("CARGO_MANIFEST_DIR");
            let file = std::fs::read_to_string(format!("{root}/{path}.rs"));
            let outer = std::fs::read_to_string(format!("{root}/{path}/mod.rs"));
            let text = file.or(outer).unwrap();
            assert!(text.contains("tracing::"), "{module}");
        }
    }

    #[test]
    fn a_number_is_digits_within_its_range() {
        let parse = parse_whole::<2, 300, u16>;
        assert_eq!(
            (parse("2"), parse("300"), parse("007")),
            (Ok(2), Ok(300), Ok(7))
        );
        for text in [
            "",
            "1",
            "301",
            "+5",
            "-5",
            "5 ",
            "1e2",
            "0x5",
            "5.0",
            "99999999999999999999",
        ] {
            assert_eq!(
                parse(text),
                Err("it is a whole number from 2 to 300".into()),
                "{text}"
            );
        }
    }
}
