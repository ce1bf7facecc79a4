//! What clients requested and what the replies were, and whether a register could have answered so.
//!
//! The checkers know nothing of tags, servers or protocols: they look at requests, replies and
//! times alone. Every value that is written is written once, so the value of a read shows
//! which write it saw.

pub mod agreement;
#[cfg(test)]
mod by_hand;
pub mod linearizable;
pub mod provenance;
mod words;

/// One request of a client, with its reply. A write that was sent again under its own tag
/// is one operation, from the first request to the last reply.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Operation {
    /// Which client asked; it has one operation under way at a time.
    pub client: u32,
    /// On which key.
    pub key: u32,
    /// What the client requested.
    pub action: Action,
    /// When it was requested, in nanoseconds since some moment before the first.
    pub invoked: u64,
    /// When the reply came, by the same clock; none if none ever came.
    pub returned: Option<u64>,
    /// What the reply said.
    pub reply: Reply,
}

impl Operation {
    /// What a read returned; none for a read without a result, and for a write or a delete.
    pub fn seen(&self) -> Option<Option<u64>> {
        match (self.action, self.returned, self.reply) {
            (Action::Read, Some(_), Reply::Holds(value)) => Some(value),
            _ => None,
        }
    }

    /// Whether this is a write or a delete that took effect before its reply.
    pub fn is_done(&self) -> bool {
        self.is_a_change() && self.returned.is_some() && self.reply == Reply::Done
    }

    /// Whether this is a write or a delete that never takes effect.
    pub fn is_never_done(&self) -> bool {
        self.is_a_change() && self.returned.is_some() && self.reply == Reply::NotDone
    }

    /// Whether it ended after it began, with a reply that is one to such an action. Anything else
    /// is a fault of the recorder of the history.
    fn is_coherent(&self) -> bool {
        let in_time = self.returned.is_none_or(|at| at >= self.invoked);
        let to_the_point = match self.reply {
            Reply::Holds(_) => !self.is_a_change(),
            Reply::Done => self.is_a_change(),
            Reply::NotDone | Reply::Unknown => true,
        };
        in_time && to_the_point
    }

    fn is_a_change(&self) -> bool {
        self.action != Action::Read
    }
}

/// What a client can do to a register.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Action {
    /// Its value.
    Read,
    /// To hold this value, which no other operation of the history writes.
    Write(u64),
    /// To hold none.
    Delete,
}

/// What a reply can say.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Reply {
    /// To a read: the value, or that there is none.
    Holds(Option<u64>),
    /// To a write or a delete: it is done.
    Done,
    /// To a write or a delete: it is certainly not done, and never will be.
    NotDone,
    /// To a write or a delete: it may be done, now or later or never. To a read: nothing.
    Unknown,
}
