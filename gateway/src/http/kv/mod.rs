//! PUT, GET, HEAD and DELETE of /kv/{key}.
//!
//! * `write`, `read`: the operations, by HTTP and for batches
//! * `write_problem`, `read_problem`: how they fail
//! * `refusal`: which of the replicas' reasons a failure names
//! * `found`: a value as a response
//! * `request`: what the head of a request asks for

mod found;
mod read;
mod read_problem;
mod refusal;
mod request;
mod write;
mod write_problem;

pub(super) use found::Found;
pub(super) use read::{get, read};
pub(super) use request::content_type_of;
pub(super) use write::{delete, put, write};
