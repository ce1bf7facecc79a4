//! DKVS/2 towards one server: [`peer`] sends requests that fit a datagram; [`link`] adds values of
//! any length.

pub mod link;
pub mod peer;
#[cfg(test)]
mod tests;
