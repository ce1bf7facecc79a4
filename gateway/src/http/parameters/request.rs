//! What the parameters of a read or a write of a key ask the client for.

use std::time::Duration;

use axum::http::Uri;
use dkvs_client::{CallerId, RequestOptions, Wait};
use dkvs_common::quorum::Level;
use dkvs_common::quorum::params::{Quorum, QuorumError};
use dkvs_common::tag::{CLOCK_MS_MAX, Tag};

use super::query::{Query, RequestDefaults};
use crate::http::operations::parameter::{CONSISTENCY, N, R, RAW, REPLICAS, TAG, TIMEOUT_MS, WAIT};
use crate::http::operations::{Integer, PREFERENCE_LIST_PARAMETERS, Parameter};
use crate::http::problem::Problem;

/// The parameters of a read or a write of a key.
#[derive(Debug, Clone, Copy)]
pub(in crate::http) struct KeyParameters {
    pub(in crate::http) options: RequestOptions,
    /// The tag of a write that is sent again.
    pub(in crate::http) tag: Option<Tag>,
    pub(in crate::http) raw: bool,
}

impl KeyParameters {
    /// Parses a query. `required` is the parameter that names the size of the quorum, `w` or `r`.
    pub(in crate::http) fn parse(
        defaults: &RequestDefaults,
        mut query: Query,
        required: &Parameter<Integer>,
    ) -> Result<Self, Problem> {
        let quorum = quorum(&mut query, defaults, required);
        let (level, may_fall_back) = level(&mut query, defaults.replication, quorum);
        let parameters = Self {
            options: RequestOptions {
                quorum,
                level,
                may_fall_back,
                timeout: timeout(&mut query, defaults),
                wait: query.choice(&WAIT).unwrap_or_default(),
                caller: CallerId::Internal,
                trace: None,
            },
            tag: tag(&mut query),
            raw: query.flag(&RAW),
        };
        query.finish()?;
        Ok(parameters)
    }
}

/// The parameters of `/ring/{key}`.
#[derive(Debug, Clone, Copy)]
pub(in crate::http) struct PreferenceListParameters {
    /// How many replicas, and how long they are waited for.
    pub(in crate::http) options: RequestOptions,
    /// Whether they are asked what they hold.
    pub(in crate::http) replicas: bool,
}

impl PreferenceListParameters {
    /// Parses the query of `uri`.
    pub(in crate::http) fn parse(defaults: &RequestDefaults, uri: &Uri) -> Result<Self, Problem> {
        let mut query = Query::new(uri, PREFERENCE_LIST_PARAMETERS);
        let parameters = Self {
            options: RequestOptions {
                // The query has no `r`; the default allows any n.
                quorum: quorum(&mut query, defaults, &R),
                level: Level::Agreement,
                may_fall_back: false,
                timeout: timeout(&mut query, defaults),
                wait: Wait::All,
                caller: CallerId::Internal,
                trace: None,
            },
            replicas: query.flag(&REPLICAS),
        };
        query.finish()?;
        Ok(parameters)
    }
}

/// How long the request may take.
pub(in crate::http) fn timeout(query: &mut Query, defaults: &RequestDefaults) -> Duration {
    let ms = query.number(&TIMEOUT_MS);
    ms.map_or(defaults.timeout, Duration::from_millis)
}

/// n and w, or n and r, by the rules of the cluster. Returns some quorum in any case;
/// [`Query::finish`] fails if it is not the one that the query has.
fn quorum(query: &mut Query, defaults: &RequestDefaults, required: &Parameter<Integer>) -> Quorum {
    let RequestDefaults {
        servers,
        replication,
        ..
    } = *defaults;
    let mut count = |parameter| u8::try_from(query.number(parameter)?).ok();
    let (n, least) = (count(&N), count(required));
    let errors = match Quorum::resolve(n, least, servers, replication) {
        Ok(quorum) => return quorum,
        Err(errors) => errors,
    };
    for error in errors {
        let (parameter, max) = match error {
            QuorumError::NExceedsServers { servers, .. } => (&N, servers),
            QuorumError::RequiredExceedsServers { servers, .. } => (required, servers),
            QuorumError::RequiredExceedsN { n, .. } => (required, n.into()),
            QuorumError::Zero => (required, u8::MAX.into()),
        };
        let limit = if max == servers {
            "the number of servers"
        } else {
            "n"
        };
        query.refuse(
            parameter,
            format!("it is a whole number from 1 to {max}, {limit}"),
        );
    }
    Quorum::new(1, 1).expect("one of one is a quorum")
}

/// The level to give, and whether it may be less where servers cannot give that.
fn level(query: &mut Query, replication: u8, quorum: Quorum) -> (Level, bool) {
    let Some(level) = query.choice(&CONSISTENCY) else {
        return (Level::strongest(quorum, replication), true);
    };
    // A quorum that is refused itself is not checked further.
    if level == Level::Linearizable
        && query.is_valid()
        && let Err(error) = Level::check_linearizable(quorum, replication)
    {
        query.refuse(&CONSISTENCY, format!("it cannot be linearizable: {error}"));
    }
    (level, false)
}

/// The tag of a write that is sent again. The gateway that gave it may have a clock that is far
/// ahead of this one, so only a tag that no clock can have shown is refused: after it, the key
/// would soon have no tag left.
fn tag(query: &mut Query) -> Option<Tag> {
    let parsed = query.text(&TAG)?.parse::<Tag>();
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
    query.refuse(&TAG, reason);
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::operations::parameter::W;

    const DEFAULTS: RequestDefaults = RequestDefaults {
        servers: 5,
        replication: 3,
        timeout: Duration::from_secs(1),
    };

    /// The parameters of a read and of a write together.
    const DECLARED: &[Parameter] = &[
        N.untyped(),
        W.untyped(),
        CONSISTENCY.untyped(),
        TIMEOUT_MS.untyped(),
        WAIT.untyped(),
        TAG.untyped(),
        RAW.untyped(),
    ];

    fn parse(query: &str) -> Result<KeyParameters, Vec<(String, String)>> {
        let uri: Uri = format!("/kv/k?{query}").parse().unwrap();
        let query = Query::new(&uri, DECLARED);
        KeyParameters::parse(&DEFAULTS, query, &W).map_err(|problem| {
            let invalid = problem.member("invalid_parameters").as_array().unwrap();
            let text = |member: &serde_json::Value| member.as_str().unwrap().to_owned();
            let invalid = invalid.iter();
            invalid
                .map(|it| (text(&it["name"]), text(&it["reason"])))
                .collect()
        })
    }

    #[test]
    fn good_parameters_are_taken() {
        let given = "n=4&w=3&timeout_ms=30000&wait=all&consistency=agreement&raw=true\
                     &tag=0192f0c4a1b20001-9f3c21d400000007";
        let parameters = parse(given).unwrap();
        let options = parameters.options;
        assert_eq!((options.quorum.n(), options.quorum.required()), (4, 3));
        assert_eq!(options.timeout, Duration::from_secs(30));
        assert_eq!(options.wait, Wait::All);
        assert_eq!(
            (options.level, options.may_fall_back),
            (Level::Agreement, false)
        );
        assert!(parameters.raw);
        assert_eq!(parameters.tag.unwrap().op, 0x9f3c_21d4_0000_0007);
        let parameters = parse("").unwrap();
        let options = parameters.options;
        assert_eq!((options.quorum.n(), options.quorum.required()), (3, 2));
        assert_eq!(options.timeout, Duration::from_secs(1));
        assert_eq!((options.wait, parameters.raw), (Wait::Quorum, false));
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
            let options = parse(query).unwrap().options;
            let given = (options.level, options.may_fall_back);
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
