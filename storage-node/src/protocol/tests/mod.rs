//! Datagrams in, datagrams out, through protocol, handlers and store.

mod access;
mod attributes;
mod epochs;
pub(super) mod v1;
mod v2;
