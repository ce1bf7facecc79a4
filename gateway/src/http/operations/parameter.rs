//! Every parameter of the API: its name, where it stands, its kind, range and default.
//!
//! A parameter is typed by its schema, so that a number cannot be read as text. The tables of
//! operations hold them without that type ([`Parameter::untyped`]).

use dkvs_client::Wait;
use dkvs_common::kv::KEY_BYTES_MAX;
use dkvs_common::quorum::Level;
use dkvs_common::quorum::params::REQUEST_TIMEOUT_MAX;

/// The longest a request may take, in milliseconds.
pub const TIMEOUT_MS_MAX: u64 = REQUEST_TIMEOUT_MAX.as_millis() as u64;

/// A parameter.
#[derive(Debug, Clone, Copy)]
pub struct Parameter<S = Schema> {
    /// Its name, in a path the one between braces.
    pub name: &'static str,
    /// Where it stands.
    pub location: Location,
    /// The values that it takes.
    pub schema: S,
    /// What it says, as the description in openapi.yaml begins.
    pub description: &'static str,
}

/// Where a parameter stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Location {
    /// In the path; required.
    Path,
    /// In the query; optional.
    Query,
    /// In a header; optional.
    Header,
}

/// The values that a parameter takes.
#[derive(Debug, Clone, Copy)]
pub enum Schema {
    /// A whole number.
    Integer(Integer),
    /// One of a few values.
    Choice {
        /// Their names.
        choices: &'static [&'static str],
        /// The choice that holds where none is given.
        default: Option<&'static str>,
    },
    /// `true` or `false`.
    Boolean(Boolean),
    /// Text, or bytes that need not be text.
    Text(Text),
}

/// A whole number.
#[derive(Debug, Clone, Copy)]
pub struct Integer {
    /// The least.
    pub min: u64,
    /// The greatest.
    pub max: u64,
    /// The number that holds where none is given; none if that depends on the cluster.
    pub default: Option<u64>,
}

/// One of a few values.
#[derive(Debug, Clone, Copy)]
pub struct Choice<T: 'static> {
    choices: &'static [&'static str],
    values: &'static [T],
    default: Option<usize>,
}

/// `true` or `false`.
#[derive(Debug, Clone, Copy)]
pub struct Boolean {
    /// What holds where nothing is given.
    pub default: bool,
}

/// Text, or bytes that need not be text.
#[derive(Debug, Clone, Copy)]
pub struct Text {
    /// The fewest bytes.
    pub bytes_min: usize,
    /// The most bytes; none where the form of the text decides.
    pub bytes_max: Option<usize>,
}

impl<T: Copy> Choice<T> {
    /// `choices` with what each stands for, and the place of the default among them.
    const fn new(
        choices: &'static [&'static str],
        values: &'static [T],
        default: Option<usize>,
    ) -> Self {
        assert!(choices.len() == values.len(), "each choice has a value");
        Self {
            choices,
            values,
            default,
        }
    }

    /// Their names.
    pub(in crate::http) fn names(&self) -> &'static [&'static str] {
        self.choices
    }

    /// What a choice stands for.
    pub(in crate::http) fn value_of(&self, choice: &str) -> Option<T> {
        let place = self.choices.iter().position(|known| *known == choice)?;
        self.values.get(place).copied()
    }

    /// What holds where no choice is given.
    pub(in crate::http) fn default_value(&self) -> Option<T> {
        self.values.get(self.default?).copied()
    }
}

impl<S> Parameter<S> {
    const fn query(name: &'static str, schema: S, description: &'static str) -> Self {
        Self {
            name,
            location: Location::Query,
            schema,
            description,
        }
    }

    /// Whether every request of its operation has it.
    pub fn is_required(&self) -> bool {
        self.location == Location::Path
    }
}

impl Parameter {
    const fn path(name: &'static str, schema: Text, description: &'static str) -> Self {
        Self {
            name,
            location: Location::Path,
            schema: Schema::Text(schema),
            description,
        }
    }

    const fn header(name: &'static str, description: &'static str) -> Self {
        Self {
            name,
            location: Location::Header,
            schema: Schema::Text(ANY_TEXT),
            description,
        }
    }

    const fn typed<S: Copy>(parameter: &Parameter<S>, schema: Schema) -> Self {
        Self {
            name: parameter.name,
            location: parameter.location,
            schema,
            description: parameter.description,
        }
    }
}

impl Parameter<Integer> {
    /// The parameter as tables hold it.
    pub(in crate::http) const fn untyped(&self) -> Parameter {
        Parameter::typed(self, Schema::Integer(self.schema))
    }
}

impl<T: Copy> Parameter<Choice<T>> {
    /// The parameter as tables hold it.
    pub(in crate::http) const fn untyped(&self) -> Parameter {
        let Choice {
            choices, default, ..
        } = self.schema;
        let default = match default {
            Some(place) => Some(choices[place]),
            None => None,
        };
        Parameter::typed(self, Schema::Choice { choices, default })
    }
}

impl Parameter<Boolean> {
    /// The parameter as tables hold it.
    pub(in crate::http) const fn untyped(&self) -> Parameter {
        Parameter::typed(self, Schema::Boolean(self.schema))
    }
}

impl Parameter<Text> {
    /// The parameter as tables hold it.
    pub(in crate::http) const fn untyped(&self) -> Parameter {
        Parameter::typed(self, Schema::Text(self.schema))
    }
}

const ANY_TEXT: Text = Text {
    bytes_min: 0,
    bytes_max: None,
};

const KEY_BYTES: Text = Text {
    bytes_min: 1,
    bytes_max: Some(KEY_BYTES_MAX),
};

/// Longest delimiter, in bytes: it is looked for at each byte of a key.
const DELIMITER_BYTES_MAX: usize = 64;

/// A count of replicas, which the cluster limits further.
const REPLICA_COUNT: Integer = Integer {
    min: 1,
    max: u8::MAX as u64,
    default: None,
};

pub(super) const KEY: Parameter = Parameter::path("key", KEY_BYTES, "The key");

pub(super) const SERVER: Parameter = Parameter::path("server", ANY_TEXT, "The server's address");

pub(super) const CONSOLE_FILE: Parameter = Parameter::path("file", ANY_TEXT, "The file's name");

pub(in crate::http) const N: Parameter<Integer> = Parameter::query(
    "n",
    REPLICA_COUNT,
    "How many servers of the preference list are asked",
);

pub(in crate::http) const W: Parameter<Integer> =
    Parameter::query("w", REPLICA_COUNT, "How many servers have to confirm");

pub(in crate::http) const R: Parameter<Integer> =
    Parameter::query("r", REPLICA_COUNT, "How many servers have to agree");

pub(in crate::http) const CONSISTENCY: Parameter<Choice<Level>> = Parameter::query(
    "consistency",
    Choice::new(
        &["agreement", "linearizable"],
        &[Level::Agreement, Level::Linearizable],
        None,
    ),
    "What is promised.",
);

pub(in crate::http) const TIMEOUT_MS: Parameter<Integer> = Parameter::query(
    "timeout_ms",
    Integer {
        min: 1,
        max: TIMEOUT_MS_MAX,
        default: None,
    },
    "How long the servers are waited for, in milliseconds.",
);

pub(in crate::http) const WAIT: Parameter<Choice<Wait>> = Parameter::query(
    "wait",
    Choice::new(&["quorum", "all"], &[Wait::Quorum, Wait::All], Some(0)),
    "When to answer.",
);

pub(in crate::http) const TAG: Parameter<Text> = Parameter::query(
    "tag",
    ANY_TEXT,
    "The tag of a write whose outcome is unknown",
);

pub(in crate::http) const RAW: Parameter<Boolean> = Parameter::query(
    "raw",
    Boolean { default: false },
    "`true` asks for the value's bytes",
);

pub(in crate::http) const REPLICAS: Parameter<Boolean> = Parameter::query(
    "replicas",
    Boolean { default: false },
    "`true` asks the replicas what they hold",
);

pub(in crate::http) const PREFIX: Parameter<Text> = Parameter::query(
    "prefix",
    Text {
        bytes_min: 0,
        bytes_max: Some(KEY_BYTES_MAX),
    },
    "Only keys that begin with these bytes",
);

pub(in crate::http) const START: Parameter<Text> = Parameter::query(
    "start",
    Text {
        bytes_min: 0,
        bytes_max: Some(KEY_BYTES_MAX),
    },
    "The list begins with this key",
);

pub(in crate::http) const DELIMITER: Parameter<Text> = Parameter::query(
    "delimiter",
    Text {
        bytes_min: 0,
        bytes_max: Some(DELIMITER_BYTES_MAX),
    },
    "What folders end with",
);

pub(in crate::http) const REVERSE: Parameter<Boolean> = Parameter::query(
    "reverse",
    Boolean { default: false },
    "`true` asks for the keys from the greatest to the smallest",
);

pub(in crate::http) const VALUES: Parameter<Boolean> = Parameter::query(
    "values",
    Boolean { default: false },
    "`true` asks for the values as well",
);

pub(in crate::http) const LIMIT: Parameter<Integer> = Parameter::query(
    "limit",
    Integer {
        min: 1,
        max: 1_000,
        default: Some(100),
    },
    "Most keys and folders in the answer.",
);

pub(in crate::http) const CURSOR: Parameter<Text> =
    Parameter::query("cursor", ANY_TEXT, "Where to begin");

pub(super) const IF_NONE_MATCH: Parameter = Parameter::header(
    "If-None-Match",
    "Entity tags of versions that the caller has",
);

pub(super) const IF_MATCH: Parameter =
    Parameter::header("If-Match", "Entity tags of versions that the caller wants");

pub(super) const IF_UNMODIFIED_SINCE: Parameter =
    Parameter::header("If-Unmodified-Since", "A date");

pub(super) const RANGE: Parameter =
    Parameter::header("Range", "Which of the value's bytes are wanted");

pub(super) const IF_RANGE: Parameter = Parameter::header(
    "If-Range",
    "The entity tag of the version of which `Range` wants a part",
);
