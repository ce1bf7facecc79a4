//! The settings of the gateway: flags, then the environment, then a TOML file, then defaults.
//!
//! ```text
//!   command line, environment --flags--\
//!                                       settings --resolve--> Config
//!   TOML file ----------------settings-/
//! ```
//!
//! * `flags`: the command line, and the commands besides serving
//! * `environment`: variables that are no settings, and the origin of a wrong value
//! * `settings`: what a source may give, and which source wins
//! * `choices`, `values`: the choices and values that single settings take
//! * `resolve`: defaults, and combinations that are refused
//!
//! Each name exists once: `--max-in-flight`, `DKVS_MAX_IN_FLIGHT` and `max_in_flight`. A name
//! that does not exist is refused wherever it stands.

mod choices;
pub(crate) mod environment;
mod flags;
mod resolve;
mod settings;
mod values;

pub use flags::Flags;
pub(crate) use flags::{Command, NewToken};
pub use resolve::{AdminListener, Config, Servers};
