//! A link against a server on virtual time, over a network that loses, repeats, reorders, delays
//! and damages datagrams.

mod authentication;
mod fixtures;
mod greetings;
mod requests;
mod server;
mod transfers;
mod world;
