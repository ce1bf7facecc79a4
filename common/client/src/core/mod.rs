//! A cluster's client without sockets, tasks or clocks: requests in, datagrams out; datagrams in,
//! outcomes out.
//!
//! ```text
//!   read, write, ... --> [ operations ] --commands--> [ routing ] --> DKVS/2: poll_transmit
//!                             ^    |                      |     '--> DKVS/1: poll_exchange
//!   on_end(outcome) <---------+----+                      |
//!                             +------- responses ---------+<-- handle_datagram, handle_exchange
//! ```
//!
//! * [`operation`]: the kinds of request, one a file
//! * `admission`: whether a write can succeed, before it is begun
//! * `routing`: by which protocol a command goes, and what follows where a server speaks DKVS/1 only
//! * `driving`: a request from its begin to its end, and its follow-ups; `without_quorum`: how those begin
//!   that need none; `conditional`: how conditional writes do; `request`: one in flight
//! * `caller`: on whose behalf a request is made; `by_caller`: what each of them holds; `places`: how many
//!   requests of whom are in flight; `budget`: the memory that each caller may take
//! * `random`: names of operations and attempts
//! * `attestations`: what follows a read that has ended; `missed`, `nudges`: who is told what a write has not
//!   reached
//! * `state`: all that a core holds; `events`: what reaches it, and what it wants sent
//! * `servers`: the links; `deadlines`: when requests end at the latest; `counts`: what is counted
//!
//! Production runs it over sockets, the simulator over a network of its own. Invariants: a request
//! ends exactly once, at its deadline at the latest, unless it is cancelled; a response to what was
//! sent in an earlier round or attempt changes nothing, nor does one that comes at the deadline or
//! later; a request keeps the view of the cluster with which it began.

mod admission;
mod attestations;
mod budget;
mod by_caller;
mod caller;
mod conditional;
mod config;
mod counts;
mod deadlines;
mod driving;
mod events;
mod missed;
mod nudges;
pub mod operation;
mod places;
mod random;
mod request;
mod routing;
mod servers;
mod state;
#[cfg(test)]
mod tests;
mod v1_only;
mod without_quorum;

pub use budget::{
    MemoryAccount, MemoryBudget, MemoryError, MemoryPermit, MemoryRefusals, SHARES,
    UNCOUNTED_BYTES_MAX,
};
pub use by_caller::{ByCaller, Holding};
pub use caller::CallerId;
pub use conditional::ConditionalRequest;
pub use config::{
    AdmissionError, CoreConfig, DECIDED_PER_PLACE, Endpoint, Limits, Now, Protocol, RequestOptions,
    Wait,
};
pub use counts::{Limit, RequestKind, RequestOutcome, RoundTrips, ServerCounts, Totals};
pub use driving::{ReadRequest, WriteRequest};
pub use events::OTHER_CONFIGURATION;
pub use operation::{
    ConditionalResult, InspectResult, ListResult, ReadResult, Statistics, WriteResult,
};
pub use request::{RequestId, Token};
pub use servers::LinkStatus;
pub use state::Core;
pub use v1_only::V1Only;
