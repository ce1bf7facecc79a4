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
    /// What a read returned, or a conditional write that failed; none for a read without a result, and for
    /// a write or a delete.
    pub fn seen(&self) -> Option<Option<u64>> {
        match (self.returned, self.reply) {
            (Some(_), Reply::Holds(value) | Reply::Failed(value)) => Some(value),
            _ => None,
        }
    }

    /// The value that it writes, if it writes one.
    pub fn written(&self) -> Option<u64> {
        match self.action {
            Action::Write(value) => Some(value),
            Action::Conditional { then, .. } => then,
            Action::Read | Action::Delete => None,
        }
    }

    /// Whether this is a write or a delete that took effect before its reply.
    pub fn is_done(&self) -> bool {
        self.is_a_change() && self.returned.is_some() && self.reply == Reply::Done
    }

    /// Whether this is a write or a delete that never takes effect.
    pub fn is_never_done(&self) -> bool {
        let is_refused = matches!(self.reply, Reply::NotDone | Reply::Failed(_));
        self.is_a_change() && self.returned.is_some() && is_refused
    }

    /// Whether it ended after it began, with a reply that is one to such an action. Anything else
    /// is a fault of the recorder of the history.
    fn is_coherent(&self) -> bool {
        let in_time = self.returned.is_none_or(|at| at >= self.invoked);
        let to_the_point = match self.reply {
            Reply::Holds(_) => !self.is_a_change(),
            Reply::Failed(_) => matches!(self.action, Action::Conditional { .. }),
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
    /// To hold this value, which no other operation writes, or none, if it holds what is expected.
    Conditional {
        /// What is expected.
        expects: Expectation,
        /// The value; none if it deletes.
        then: Option<u64>,
    },
}

/// What a conditional write expects a register to hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Expectation {
    /// Exactly this value.
    Value(u64),
    /// A value, whichever.
    AnyValue,
    /// None.
    NoValue,
}

impl Expectation {
    /// Whether a register that holds this meets it.
    pub fn is_met_by(self, held: Option<u64>) -> bool {
        match self {
            Self::Value(value) => held == Some(value),
            Self::AnyValue => held.is_some(),
            Self::NoValue => held.is_none(),
        }
    }
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
    /// To a conditional write: what it expects is not there, but this, and it never takes effect.
    Failed(Option<u64>),
    /// To a write or a delete: it may be done, now or later or never; a conditional one only while what it
    /// expects is there. To a read: nothing.
    Unknown,
}
