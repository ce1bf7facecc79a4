//! The parameters of a request, parsed by the table of operations.
//!
//! * `query`: the query string against the declarations; everything that is wrong with it at once
//! * `request`: what the parameters of a read or a write of a key ask the client for

mod query;
mod request;

pub(super) use query::{InvalidParameter, Query, RequestDefaults, invalid_parameters, none};
pub(super) use request::{KeyParameters, PreferenceListParameters, timeout};
