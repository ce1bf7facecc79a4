//! Counts of what went to a server and came from it.

/// Counts since the peer was created.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct PeerCounters {
    /// Requests sent for the first time.
    pub sent: u64,
    /// Requests sent again.
    pub retransmitted: u64,
    /// Retransmissions that were due and were withheld because the retry budget was spent.
    pub over_budget: u64,
    /// Requests that were sent and ended without a reply.
    pub unanswered: u64,
    /// Replies to open requests.
    pub replies: u64,
    /// How often the system reported that nothing listens at the server's port.
    pub unreachable: u64,
    /// Datagrams sent.
    pub datagrams_sent: u64,
    /// Replies that matched no open request.
    pub unmatched: u64,
    /// Datagrams with a wrong checksum or authentication code, or with an invalid message.
    pub damaged: u64,
    /// Empty datagrams, which are answers by DKVS/1.
    pub v1_answers: u64,
}
