//! How durable a confirmed put is.

/// What a confirmed put survives.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Durability {
    /// Not the end of the server process.
    Memory = 0,
    /// The end of the process, not that of the machine.
    Buffered = 1,
    /// Power loss.
    Fsync = 2,
}
