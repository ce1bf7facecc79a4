//! What goes wrong with servers, networks and clients, and what the gateway makes of it.

mod clients;
mod idle;
mod late;
mod processes;
mod replies;
mod shutdown;
