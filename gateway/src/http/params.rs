//! Query parameters: read once, everything that is wrong with them told at once.

use std::time::Duration;

use axum::http::Uri;
use dkvs_common::quorum::Level;
use dkvs_common::quorum::params::{Quorum, QuorumError};
use dkvs_common::tag::{CLOCK_MS_MAX, Tag};
use percent_encoding::percent_decode_str;
use serde::Serialize;

use super::App;
use super::error::Problem;
use crate::config::TIMEOUT_MS_MAX;
use dkvs_client::RequestOptions;
use dkvs_client::Wait;

/// A parameter that is refused, and what would be right.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(super) struct InvalidParameter {
    /// Its name, as it was given.
    pub name: String,
    /// What is wrong, with the allowed range.
    pub reason: String,
}

/// The parameters of a request, taken out one by one.
pub(super) struct Query {
    given: Vec<(String, String)>,
    invalid: Vec<InvalidParameter>,
}

impl Query {
    /// Those in `uri`, of which none may be missing from `known` or stand twice.
    pub(super) fn new(uri: &Uri, known: &[&str]) -> Self {
        let mut query = Self {
            given: Vec::new(),
            invalid: Vec::new(),
        };
        for (name, value) in form_urlencoded::parse(uri.query().unwrap_or_default().as_bytes()) {
            if !known.contains(&&*name) {
                let reason = match known {
                    [] => "there is no such parameter; this path takes none".into(),
                    _ => format!(
                        "there is no such parameter; this path takes {}",
                        known.join(", ")
                    ),
                };
                query.refuse(&name, reason);
            } else if query.given.iter().any(|(given, _)| *given == name) {
                query.refuse(&name, "it is given more than once");
            } else {
                query.given.push((name.into_owned(), value.into_owned()));
            }
        }
        query
    }

    /// Parameters that were given elsewhere than in a query.
    pub(super) fn given<const N: usize>(
        given: [(&str, Option<String>); N],
        known: &[&str],
    ) -> Self {
        debug_assert!(
            given
                .iter()
                .all(|(name, value)| value.is_none() || known.contains(name))
        );
        let given = given.into_iter();
        let given = given.filter_map(|(name, value)| Some((name.to_owned(), value?)));
        Self {
            given: given.collect(),
            invalid: Vec::new(),
        }
    }

    /// The end of it: fails if anything was refused.
    pub(super) fn finish(self) -> Result<(), Problem> {
        if self.invalid.is_empty() {
            Ok(())
        } else {
            Err(Problem::invalid_parameters(self.invalid))
        }
    }

    pub(super) fn value(&self, name: &str) -> Option<&str> {
        let mut given = self.given.iter();
        given
            .find(|(given, _)| given == name)
            .map(|(_, value)| &**value)
    }

    /// The value of a parameter that need not be text, percent-decoded.
    pub(super) fn bytes(&self, uri: &Uri, name: &str) -> Option<Vec<u8>> {
        // Where it is no text, `form_urlencoded` has put something else in its place.
        let pairs = uri.query().unwrap_or_default().split('&');
        let mut pairs = pairs.map(|pair| pair.split_once('=').unwrap_or((pair, "")));
        let (_, value) = pairs.find(|(given, _)| percent_decode_str(given).eq(name.bytes()))?;
        Some(percent_decode_str(&value.replace('+', " ")).collect())
    }

    pub(super) fn refuse(&mut self, name: &str, reason: impl Into<String>) {
        let (name, reason) = (name.to_owned(), reason.into());
        // A repeated parameter may be wrong as well; once is enough.
        if !self.invalid.iter().any(|invalid| invalid.name == name) {
            self.invalid.push(InvalidParameter { name, reason });
        }
    }

    /// A whole number in `1..=max`. `str::parse` alone would let a `+` pass.
    pub(super) fn number(&mut self, name: &str, max: u64) -> Option<u64> {
        let text = self.value(name)?;
        let number = text.parse::<u64>().ok().filter(|number| {
            text.bytes().all(|byte| byte.is_ascii_digit()) && (1..=max).contains(number)
        });
        if number.is_none() {
            self.refuse(name, format!("it is a whole number from 1 to {max}"));
        }
        number
    }

    fn count(&mut self, name: &str) -> Option<u8> {
        let number = self.number(name, u8::MAX.into())?;
        u8::try_from(number).ok()
    }

    /// n and w, or n and r, by the rules of the cluster. Some quorum comes back in any case;
    /// [`Self::finish`] tells whether it is one that was asked for.
    fn quorum(&mut self, app: &App, needed_name: &str) -> Quorum {
        let servers = app.0.client.view().servers().len();
        let (n, needed) = (self.count("n"), self.count(needed_name));
        match Quorum::resolve(n, needed, servers, app.0.replication) {
            Ok(quorum) => quorum,
            Err(errors) => {
                for error in errors {
                    let (name, max) = match error {
                        QuorumError::NExceedsServers { servers, .. } => ("n", servers),
                        QuorumError::RequiredExceedsServers { servers, .. } => {
                            (needed_name, servers)
                        }
                        QuorumError::RequiredExceedsN { n, .. } => (needed_name, n.into()),
                        QuorumError::Zero => (needed_name, u8::MAX.into()),
                    };
                    let limit = if max == servers {
                        "the number of servers"
                    } else {
                        "n"
                    };
                    self.refuse(
                        name,
                        format!("it is a whole number from 1 to {max}, {limit}"),
                    );
                }
                Quorum::new(1, 1).expect("one of one is a quorum")
            }
        }
    }

    pub(super) fn timeout(&mut self, app: &App) -> Duration {
        let ms = self.number("timeout_ms", TIMEOUT_MS_MAX);
        ms.map_or(app.0.timeout, Duration::from_millis)
    }

    fn wait(&mut self) -> Wait {
        match self.value("wait") {
            None | Some("quorum") => Wait::Quorum,
            Some("all") => Wait::All,
            Some(_) => {
                self.refuse("wait", "it is quorum or all");
                Wait::Quorum
            }
        }
    }

    /// The level to give, and whether it may be less where servers cannot give that.
    fn consistency(&mut self, app: &App, quorum: Quorum) -> (Level, bool) {
        let replication = app.0.replication;
        match self.value("consistency") {
            None => (Level::strongest(quorum, replication), true),
            Some("agreement") => (Level::Agreement, false),
            Some("linearizable") => {
                // Of a quorum that is refused itself there is nothing to say.
                if self.invalid.is_empty()
                    && let Err(error) = Level::check_linearizable(quorum, replication)
                {
                    self.refuse("consistency", format!("it cannot be linearizable: {error}"));
                }
                (Level::Linearizable, false)
            }
            Some(_) => {
                self.refuse("consistency", "it is agreement or linearizable");
                (Level::Agreement, false)
            }
        }
    }

    /// The tag of a write that is sent again. The gateway that gave it may have a clock that is far
    /// ahead of this one, so only one that no clock can have shown is refused: after it, the key
    /// would soon have no tag left.
    fn tag(&mut self) -> Option<Tag> {
        let parsed = self.value("tag")?.parse::<Tag>();
        let reason = match parsed {
            Err(error) => format!("{error}, as a reply gave it"),
            Ok(tag) if tag.unix_ms() > CLOCK_MS_MAX => {
                "its time is thousands of years ahead, which no clock shows; take the tag that a \
                 reply gave"
                    .to_owned()
            }
            Ok(tag) if tag.is_by_v1() => {
                "it is the tag of a record that came by DKVS/1, and of no write by HTTP".to_owned()
            }
            Ok(tag) if tag.time == 0 => {
                "no write has this tag; take the tag that a reply gave".to_owned()
            }
            Ok(tag) => return Some(tag),
        };
        self.refuse("tag", reason);
        None
    }

    fn flag(&mut self, name: &str) -> bool {
        match self.value(name) {
            None | Some("false") => false,
            Some("true") => true,
            Some(_) => {
                self.refuse(name, "it is true or false");
                false
            }
        }
    }
}

/// What a read or a write of a key was asked to be.
#[derive(Debug)]
pub(super) struct KvParameters {
    pub(super) wish: RequestOptions,
    /// Of a write that is sent again.
    pub(super) tag: Option<Tag>,
    pub(super) raw: bool,
}

impl KvParameters {
    /// `needed` is `w` or `r`.
    pub(super) fn parse(
        app: &App,
        uri: &Uri,
        known: &[&str],
        needed: &str,
    ) -> Result<Self, Problem> {
        Self::of(app, Query::new(uri, known), needed)
    }

    /// `needed` is `w` or `r`.
    pub(super) fn of(app: &App, mut query: Query, needed: &str) -> Result<Self, Problem> {
        let quorum = query.quorum(app, needed);
        let (level, may_fall_back) = query.consistency(app, quorum);
        let parameters = Self {
            wish: RequestOptions {
                quorum,
                level,
                may_fall_back,
                timeout: query.timeout(app),
                wait: query.wait(),
                trace: None,
            },
            tag: query.tag(),
            raw: query.flag("raw"),
        };
        query.finish()?;
        Ok(parameters)
    }
}

/// The `n` of `/ring/{key}`.
pub(super) fn replicas(app: &App, uri: &Uri, known: &[&str]) -> Result<usize, Problem> {
    let mut query = Query::new(uri, known);
    let quorum = query.quorum(app, "");
    query.finish()?;
    Ok(quorum.n().into())
}

/// For paths that take no parameters.
pub(super) fn none(uri: &Uri) -> Result<(), Problem> {
    Query::new(uri, &[]).finish()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::Common;
    use crate::http::gate::{Gate, Policy};
    use crate::http::hosts::Hosts;
    use std::sync::Arc;

    use dkvs_common::cluster::Cluster;
    use tokio_util::sync::CancellationToken;

    use dkvs_client::{Client, ClientConfig, Limits, Protocol, Shared};

    /// Five servers, replication 3. No request is made.
    fn app() -> App {
        let text: String = (1..=5)
            .map(|port| format!("127.0.0.1 {port} 1\n"))
            .collect();
        let cluster = Cluster::parse("test", text.as_bytes()).unwrap();
        let client_config = ClientConfig {
            protocol: Protocol::Auto,
            datagram_bytes_max: 1_200,
            value_bytes_max: 1 << 20,
            offload: true,
            keys: None,
            timeout_max: Duration::from_secs(1),
            limits: Limits {
                requests_max: 1,
                sockets_max: 1,
                value_bytes_in_flight_max: 0,
            },
        };
        let client = Client::new(Arc::new(Shared::new(cluster)), client_config).unwrap();
        let timeout = Duration::from_secs(1);
        let policy = Policy {
            hosts: Hosts::new(([127, 0, 0, 1], 80).into(), &[]),
            origins: Vec::new(),
        };
        let gate = Gate::new(None, Arc::new(policy));
        let common = Arc::new(Common::new(None));
        App::new(client, 3, timeout, CancellationToken::new(), gate, common).unwrap()
    }

    const KNOWN: &[&str] = &["n", "w", "consistency", "timeout_ms", "wait", "tag", "raw"];

    fn parse(query: &str) -> Result<KvParameters, Vec<(String, String)>> {
        let uri: Uri = format!("/kv/k?{query}").parse().unwrap();
        KvParameters::parse(&app(), &uri, KNOWN, "w").map_err(|problem| {
            let invalid = problem.invalid_parameters_told();
            invalid
                .iter()
                .map(|i| (i.name.clone(), i.reason.clone()))
                .collect()
        })
    }

    #[test]
    fn good_parameters_are_taken() {
        let given = "n=4&w=3&timeout_ms=30000&wait=all&consistency=agreement&raw=true\
                     &tag=0192f0c4a1b20001-9f3c21d400000007";
        let parameters = parse(given).unwrap();
        let wish = parameters.wish;
        assert_eq!((wish.quorum.n(), wish.quorum.required()), (4, 3));
        assert_eq!(wish.timeout, Duration::from_secs(30));
        assert_eq!(wish.wait, Wait::All);
        assert_eq!((wish.level, wish.may_fall_back), (Level::Agreement, false));
        assert!(parameters.raw);
        assert_eq!(parameters.tag.unwrap().op, 0x9f3c_21d4_0000_0007);
        let parameters = parse("").unwrap();
        let wish = parameters.wish;
        assert_eq!((wish.quorum.n(), wish.quorum.required()), (3, 2));
        assert_eq!(wish.timeout, Duration::from_secs(1));
        assert_eq!((wish.wait, parameters.raw), (Wait::Quorum, false));
        assert_eq!(parameters.tag, None);
    }

    #[test]
    fn the_level_is_the_strongest_that_the_quorum_allows_unless_one_is_asked_for() {
        for (query, level, may_fall_back) in [
            ("", Level::Linearizable, true),
            ("n=3&w=3", Level::Linearizable, true),
            ("w=1", Level::Agreement, true),
            ("n=4", Level::Agreement, true),
            ("n=5&w=5", Level::Agreement, true),
            ("consistency=linearizable", Level::Linearizable, false),
            ("consistency=agreement", Level::Agreement, false),
        ] {
            let wish = parse(query).unwrap().wish;
            let given = (wish.level, wish.may_fall_back);
            assert_eq!(given, (level, may_fall_back), "{query}");
        }
    }

    #[test]
    fn each_bad_parameter_is_named_with_its_range() {
        for (query, name, reason) in [
            ("n=0", "n", "from 1 to 255"),
            ("n=256", "n", "from 1 to 255"),
            ("n=+3", "n", "from 1 to 255"),
            ("n=3.0", "n", "from 1 to 255"),
            ("n=", "n", "from 1 to 255"),
            ("n", "n", "from 1 to 255"),
            ("n=six", "n", "from 1 to 255"),
            ("w=-1", "w", "from 1 to 255"),
            ("n=6", "n", "from 1 to 5, the number of servers"),
            ("w=6", "w", "from 1 to 5, the number of servers"),
            ("n=2&w=3", "w", "from 1 to 2, n"),
            ("n=2&n=2", "n", "more than once"),
            ("r=1", "r", "no such parameter; this path takes n, w,"),
            ("N=1", "N", "no such parameter"),
            ("timeout_ms=0", "timeout_ms", "from 1 to 30000"),
            ("timeout_ms=30001", "timeout_ms", "from 1 to 30000"),
            ("wait=some", "wait", "quorum or all"),
            ("raw=1", "raw", "true or false"),
            (
                "consistency=strong",
                "consistency",
                "agreement or linearizable",
            ),
            (
                "consistency=linearizable&n=4",
                "consistency",
                "only the cluster's replication, 3",
            ),
            (
                "consistency=linearizable&w=1",
                "consistency",
                "1 of 3 is no majority; at least 2",
            ),
            ("tag=7", "tag", "two groups of 16"),
            (
                "tag=ffffffffffffffff-0000000000000001",
                "tag",
                "which no clock shows",
            ),
            (
                "tag=8000000000000000-0000000000000000",
                "tag",
                "take the tag that a reply gave",
            ),
            (
                "tag=0000000000000000-0000000000000001",
                "tag",
                "no write has this tag",
            ),
            (
                "tag=0192f0c4a1b20001-ffff21d400000007",
                "tag",
                "came by DKVS/1",
            ),
        ] {
            let invalid = parse(query).unwrap_err();
            assert_eq!(invalid.len(), 1, "{query}: {invalid:?}");
            assert_eq!(invalid[0].0, name, "{query}");
            assert!(invalid[0].1.contains(reason), "{query}: {invalid:?}");
        }
    }

    #[test]
    fn a_tag_is_taken_however_wrong_the_clock_was_that_it_is_from() {
        let this_year = 1_764_000_000_000u64 << 16;
        let day = (24 * 60 * 60 * 1_000) << 16;
        for time in [
            1,
            this_year - 365 * day,
            this_year,
            this_year + 2 * day,
            this_year + 36_500 * day,
            (CLOCK_MS_MAX << 16) | 0xffff,
        ] {
            let tag = Tag { time, op: 1 };
            let parameters = parse(&format!("tag={tag}")).unwrap();
            assert_eq!(parameters.tag, Some(tag));
        }
    }

    #[test]
    fn all_bad_parameters_are_named_at_once() {
        let invalid = parse("n=9&w=8&wait=x&timeout_ms=x&colour=red&colour=red").unwrap_err();
        let mut names: Vec<_> = invalid.into_iter().map(|(name, _)| name).collect();
        names.sort();
        assert_eq!(names, ["colour", "n", "timeout_ms", "w", "wait"]);
    }
}
