//! DKVS/2 towards one server.

pub mod fetch;
pub mod link;
pub mod peer;
pub mod rtt;
#[cfg(test)]
mod tests;
mod upload;
pub mod window;

pub use upload::put_key_bytes_max;
