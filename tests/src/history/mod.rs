//! What clients asked and what they were told, and whether a register could have answered so.
//!
//! The checkers know nothing of tags, servers or protocols: they look at requests, replies and
//! times alone. Every value that is written is written once, so a read tells which write it saw.

pub mod agreement;
#[cfg(test)]
mod by_hand;
pub mod linearizable;
pub mod provenance;
mod words;

/// One request of a client, with what it was told. A write that was sent again under its own tag
/// is one operation, from the first request to the last reply.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Operation {
    /// Which client asked; it has one operation under way at a time.
    pub client: u32,
    /// On which key.
    pub key: u32,
    /// What was asked.
    pub action: Action,
    /// When it was asked, in nanoseconds since some moment before the first.
    pub invoked: u64,
    /// When the reply came, by the same clock; none if none ever came.
    pub returned: Option<u64>,
    /// What the reply said.
    pub reply: Reply,
}

impl Operation {
    /// What a read was told; none for one that was told nothing, and for what is no read.
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
    /// is a fault of whoever recorded the history.
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

/// What a client can ask of a register.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Action {
    /// Its value.
    Read,
    /// To hold this value, which no other operation of the history writes.
    Write(u64),
    /// To hold none.
    Delete,
}

/// What a client can be told.
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
