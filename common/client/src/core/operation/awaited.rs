//! An operation with its caller, whatever the type of its outcome.

use super::contract::{Completion, Operation};

/// An operation with the caller that waits for its outcome.
pub(in crate::core) trait Awaited: Send {
    fn operation(&self) -> &dyn Operation;
    fn operation_mut(&mut self) -> &mut dyn Operation;
    /// Hands the outcome to the caller.
    fn complete(self: Box<Self>, puts_by_v2: bool);
}

/// The one implementation of [`Awaited`].
pub(in crate::core) struct WithCaller<O, F> {
    pub(in crate::core) operation: O,
    pub(in crate::core) on_end: F,
}

impl<O, F> Awaited for WithCaller<O, F>
where
    O: Completion,
    F: FnOnce(O::Outcome) + Send,
{
    fn operation(&self) -> &dyn Operation {
        &self.operation
    }

    fn operation_mut(&mut self) -> &mut dyn Operation {
        &mut self.operation
    }

    fn complete(self: Box<Self>, puts_by_v2: bool) {
        let Self { operation, on_end } = *self;
        on_end(operation.into_outcome(puts_by_v2));
    }
}
