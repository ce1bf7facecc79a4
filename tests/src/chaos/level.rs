//! The consistency level that the clients of a run ask for.

/// A consistency level, as the HTTP interface names it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Level {
    Agreement,
    Linearizable,
}

impl Level {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Agreement => "agreement",
            Self::Linearizable => "linearizable",
        }
    }
}
