//! The operations of the API: one table, from which everything else about them follows.
//!
//! * `table`: every operation with its method, path, access, parameters and statuses
//! * `parameter`: every parameter with its kind, range, default and description
//! * `pattern`: which paths the path of an operation stands for
//!
//! The router is built from the table, parameters are parsed and refused by it, counts are kept for
//! it, and a test holds openapi.yaml to it. Nothing here knows a handler.

pub(super) mod parameter;
mod pattern;
mod table;

pub use parameter::{Boolean, Choice, Integer, Location, Parameter, Schema, TIMEOUT_MS_MAX, Text};
pub(super) use pattern::matches;
pub use table::{Access, OPERATIONS, Operation, OperationId};
pub(super) use table::{
    BATCH_PATH, GET_PARAMETERS, KEY_PATH, LIST_PARAMETERS, LIST_PATH, NO_PARAMETERS,
    PREFERENCE_LIST_PARAMETERS, WRITE_PARAMETERS,
};
