//! DKVS/2 towards one server.

pub mod link;
pub mod peer;
#[cfg(test)]
mod tests;
