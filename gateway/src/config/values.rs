//! The values that single settings take, and why others are refused, whatever their source.

use std::fmt;
use std::marker::PhantomData;
use std::net::SocketAddr;
use std::num::{NonZeroU8, NonZeroU64, NonZeroUsize};
use std::path::PathBuf;

use axum::http::HeaderValue;
use dkvs_client::transport::peer::DATAGRAM_BYTES_MIN;
use dkvs_common::kv::VALUE_BYTES_MAX;
use dkvs_common::wire::v2::DATAGRAM_BYTES_MAX;
use dkvs_runtime::hosts::{Host, parse_host};
use dkvs_runtime::log::filter::LogFilter;
use serde::de::{Deserialize, Deserializer, Error, Visitor};

use crate::embedded::STORAGE_LOG_MODULES;
use crate::http::hosts;
use crate::log_modules::LOG_MODULES;

/// The longest time between the request to end and the end, in milliseconds.
pub(super) const SHUTDOWN_NOTICE_MS_MAX: u64 = 600_000;

/// The longest time that a connection may be idle, or its reply make no progress, in seconds.
pub(super) const IDLE_TIMEOUT_SECONDS_MAX: u64 = 3_600;

/// The limits of a datagram to a server, in bytes.
pub(super) const DATAGRAM_MIN: u64 = DATAGRAM_BYTES_MIN as u64;
pub(super) const DATAGRAM_MAX: u64 = DATAGRAM_BYTES_MAX as u64;

/// The longest value that can be allowed, in bytes.
pub(super) const VALUE_MAX: u64 = VALUE_BYTES_MAX as u64;

/// Most threads, and so listeners.
pub(super) const WORKERS_MAX: u64 = 1_024;

/// The most that a limit on requests or connections can be set to.
pub(super) const COUNT_MAX: u64 = 1 << 20;

/// The type of a whole number.
pub(super) trait Whole: Sized {
    /// None if the type cannot hold it.
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
pub(super) fn parse_whole<const MIN: u64, const MAX: u64, T: Whole>(
    text: &str,
) -> Result<T, String> {
    let is_plain = text.bytes().all(|byte| byte.is_ascii_digit());
    let number = is_plain.then(|| text.parse().ok()).flatten();
    number
        .and_then(within::<MIN, MAX, T>)
        .ok_or_else(range::<MIN, MAX>)
}

/// The same in the file.
pub(super) fn whole<'de, const MIN: u64, const MAX: u64, T: Whole, D: Deserializer<'de>>(
    from: D,
) -> Result<Option<T>, D::Error> {
    let range = Range::<MIN, MAX, T>(PhantomData);
    from.deserialize_i64(range).map(Some)
}

struct Range<const MIN: u64, const MAX: u64, T>(PhantomData<T>);

impl<const MIN: u64, const MAX: u64, T: Whole> Visitor<'_> for Range<MIN, MAX, T> {
    type Value = T;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "a whole number from {MIN} to {MAX}")
    }

    fn visit_i64<E: Error>(self, number: i64) -> Result<T, E> {
        let number = number.try_into().ok();
        let number = number.and_then(within::<MIN, MAX, T>);
        number.ok_or_else(|| E::custom(range::<MIN, MAX>()))
    }
}

fn within<const MIN: u64, const MAX: u64, T: Whole>(number: u64) -> Option<T> {
    let is_within = (MIN..=MAX).contains(&number);
    is_within.then(|| T::from_u64(number)).flatten()
}

fn range<const MIN: u64, const MAX: u64>() -> String {
    format!("it is a whole number from {MIN} to {MAX}")
}

/// A path in the file.
pub(super) fn path<'de, D: Deserializer<'de>>(from: D) -> Result<Option<PathBuf>, D::Error> {
    let path = PathBuf::deserialize(from)?;
    match path.as_os_str().is_empty() {
        false => Ok(Some(path)),
        true => Err(D::Error::custom(
            "the path is empty; give one, or leave out the line",
        )),
    }
}

/// Where to listen, on the command line or in the environment.
pub(super) fn parse_listen(text: &str) -> Result<SocketAddr, &'static str> {
    text.parse().map_err(
        |_| "it is an IP address and a port from 0 to 65535, as in 127.0.0.1:8080 or [::1]:8080",
    )
}

/// The same in the file.
pub(super) fn listen<'de, D: Deserializer<'de>>(from: D) -> Result<Option<SocketAddr>, D::Error> {
    let text = String::deserialize(from)?;
    parse_listen(&text).map(Some).map_err(D::Error::custom)
}

/// A list of them in the file.
pub(super) fn hosts<'de, D: Deserializer<'de>>(from: D) -> Result<Option<Vec<Host>>, D::Error> {
    list(from, parse_host)
}

/// An origin whose pages may read and write, on the command line or in the environment.
pub(super) fn parse_origin(text: &str) -> Result<HeaderValue, &'static str> {
    hosts::parse_origin(text).ok_or(
        "it is no origin as browsers send it, such as https://app.example.org or \
         http://localhost:3000, in lower case",
    )
}

/// A list of them in the file.
pub(super) fn origins<'de, D: Deserializer<'de>>(
    from: D,
) -> Result<Option<Vec<HeaderValue>>, D::Error> {
    list(from, parse_origin)
}

fn list<'de, T, D: Deserializer<'de>>(
    from: D,
    parse: fn(&str) -> Result<T, &'static str>,
) -> Result<Option<Vec<T>>, D::Error> {
    let texts = Vec::<String>::deserialize(from)?;
    let parse =
        |text: &String| parse(text).map_err(|why| D::Error::custom(format!("{text:?}: {why}")));
    texts.iter().map(parse).collect::<Result<_, _>>().map(Some)
}

/// Where a collector of spans is, on the command line or in the environment.
#[cfg(feature = "otel")]
pub(super) fn parse_endpoint(text: &str) -> Result<String, &'static str> {
    let url: Option<axum::http::Uri> = text.parse().ok();
    let is_right = url.is_some_and(|url| {
        url.scheme_str() == Some("http") && url.host().is_some_and(|host| !host.is_empty())
    });
    is_right.then(|| text.to_owned()).ok_or(
        "it is the URL of a collector that takes OTLP by plain HTTP, as in http://127.0.0.1:4318",
    )
}

/// The same in the file.
#[cfg(feature = "otel")]
pub(super) fn endpoint<'de, D: Deserializer<'de>>(from: D) -> Result<Option<String>, D::Error> {
    let text = String::deserialize(from)?;
    parse_endpoint(&text).map(Some).map_err(D::Error::custom)
}

/// What to log, on the command line or in the environment.
pub(super) fn parse_log(words: &str) -> Result<LogFilter, String> {
    let modules = [
        LOG_MODULES,
        dkvs_client::LOG_MODULES,
        dkvs_runtime::LOG_MODULES,
        STORAGE_LOG_MODULES,
        &["dkvs_common"],
    ];
    let modules = modules.concat();
    LogFilter::parse(words, &modules)
}

/// The same in the file.
pub(super) fn log<'de, D: Deserializer<'de>>(from: D) -> Result<Option<LogFilter>, D::Error> {
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
            "info,dkvs_client=debug",
        ] {
            assert!(parse_log(words).is_ok(), "{words}");
        }
        assert!(parse_log("dkvs_gateway::htp=debug").is_err());
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
