//! HTTP: the operations of the API in one table, and what serves them. From the ground up:
//!
//! * `problem`: a failure as a problem document; `key_value`, `client_error`, `quorum_problem` and
//!   `no_such_path`: problems that several endpoints share. All others are beside their endpoint
//! * [`operations`]: every operation with its path, access, parameters and statuses
//! * `request_id`, `trace`: by what a request is known
//! * `parameters`, `path`, `accept`, `conditional`, `ranges`, `body`: what a request asks for
//! * [`hosts`], `validity`, [`gate`], [`access`]: which requests pass, and what a token permits
//! * `fair`: how callers share what there is little of
//! * `counts`, `feed`, `checks`, `liveness`, `app`: the state of a worker, and of the gateway
//! * `object`, `report`, `json`, `document`: what a request came to, as JSON, and the memory that this takes;
//!   `repeatable`: the same of many reads
//! * endpoints: `kv`, `list`, `batch`, `ring`, `servers`, `switch`, `health`, `metrics`, `events` with
//!   `snapshot`, `console`, `docs` with `archive`
//! * `guard`, `router`: each operation with the check of its caller and its handler
//! * [`serve`]: connections, with time-outs and limits
//!
//! Handlers know nothing of sockets or wire formats, and the client knows nothing of HTTP.

mod accept;
pub mod access;
mod app;
mod archive;
mod batch;
mod body;
mod checks;
mod client_error;
mod conditional;
mod console;
mod counts;
mod docs;
mod document;
mod events;
mod fair;
mod feed;
pub mod gate;
mod guard;
mod health;
pub mod hosts;
mod json;
mod key_value;
mod kv;
mod list;
mod liveness;
mod metrics;
mod no_such_path;
mod object;
pub mod operations;
mod parameters;
mod path;
mod problem;
mod quorum_problem;
mod ranges;
mod repeatable;
mod report;
mod request_id;
mod ring;
mod router;
pub mod serve;
mod servers;
mod snapshot;
mod switch;
mod trace;
mod validity;

pub use app::{App, GatewayState};
pub use batch::batch_bytes_held;
pub use operations::{Access, OPERATIONS, Operation, OperationId, TIMEOUT_MS_MAX};
