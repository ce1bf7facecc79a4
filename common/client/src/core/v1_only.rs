//! Servers that answer by DKVS/1 alone, and what the operator should know about that.

use super::config::Protocol;

/// Why a server counts as one that answers by DKVS/1 alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum V1Only {
    /// It has not answered in any other way since it was first asked, or started anew.
    SinceMet,
    /// It spoke DKVS/2 before, and its end was not seen.
    Downgraded,
}

impl V1Only {
    /// What that means, and what the operator can do about it; for the log.
    pub fn advice(self, protocol: Protocol) -> &'static str {
        match (self, protocol) {
            (Self::SinceMet, Protocol::V2) => {
                "it answers by DKVS/1 only, and this gateway speaks DKVS/2: it is not asked. Upgrade \
                 the server, or start the gateway with --protocol auto if the server is to be used \
                 as it is"
            }
            (Self::SinceMet, _) => {
                "it answers by DKVS/1 only: requests for its keys have the level agreement"
            }
            (Self::Downgraded, _) => {
                "it spoke DKVS/2 and answers by DKVS/1 now, which is not believed: it is not asked. \
                 If another program has taken its place for good, restart the gateway with \
                 --protocol auto"
            }
        }
    }
}
