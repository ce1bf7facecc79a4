//! What happened since the start.

use std::sync::atomic::{AtomicU64, Ordering};

/// Counts since the start.
#[derive(Debug, Default)]
pub struct Counters {
    /// Gets answered, with a value or without.
    pub gets: Counter,
    /// Puts stored.
    pub puts: Counter,
    /// Puts refused because memory or disk are full.
    pub puts_refused_full: Counter,
    /// Puts refused because too much waited for the disk.
    pub puts_refused_busy: Counter,
    /// Puts refused because the disk had failed, or failed under them.
    pub puts_failed: Counter,
    /// Reads answered with `corrupt`: the record is damaged, or may be lost.
    pub corrupt_answers: Counter,
    /// Dumps begun.
    pub dumps: Counter,
    /// Dumps dropped because another was under way.
    pub dumps_dropped: Counter,
    /// Dumps that ended early, because too much changed meanwhile.
    pub dumps_cut_short: Counter,
    /// Pairs left out of dumps because DKVS/1 cannot carry them, or because they are quarantined.
    pub dump_pairs_left_out: Counter,
    /// Datagrams of DKVS/2 that were authentic and whole.
    pub datagrams: Counter,
    /// Requests in them that were understood.
    pub messages: Counter,
    /// Keys left out of lists because no datagram holds them, each time.
    pub list_keys_left_out: Counter,
    /// Records looked at for lists.
    pub list_records_examined: Counter,
    /// Lists refused because too many waited for their turn.
    pub lists_refused_busy: Counter,
    /// Datagrams or messages that were no request.
    pub malformed: Counter,
    /// Datagrams and records that did not match their checksum.
    pub damaged: Counter,
    /// DKVS/2 datagrams that did not authenticate, where that is required.
    pub unauthenticated: Counter,
    /// Authentic datagrams under a session that is another's or too old.
    pub sessions_refused: Counter,
    /// Authentic datagrams without a session that held anything but one greeting.
    pub not_greetings: Counter,
    /// Authentic ones that were taken before, or are too old to know.
    pub replayed: Counter,
    /// Requests whose deadline had passed when they were looked at.
    pub expired: Counter,
    /// Datagrams that were no DKVS/2 where DKVS/1 is off.
    pub v1_refused: Counter,
    /// Replies longer than the path to their client carries.
    pub replies_too_long: Counter,
    /// Gets of values that DKVS/1 cannot carry, answered as unknown.
    pub values_unrepresentable: Counter,
    /// Servers that are replicas of some key beside this one.
    pub peers: Gauge,
    /// Those that held the same when this server compared itself with them last.
    pub peers_in_step: Gauge,
    /// Comparisons with peers that came to their end.
    pub comparisons: Counter,
    /// Leaves in which a peer differed, each time.
    pub leaves_differing: Counter,
    /// Records pulled from peers and stored.
    pub records_pulled: Counter,
    /// Their keys and values, in bytes.
    pub pulled_bytes: Counter,
    /// Records that a peer listed as newer, and did not give, or that could not be stored.
    pub pulls_failed: Counter,
    /// Datagrams that the system did not receive or send.
    pub io_errors: Counter,
}

/// A number that goes up and down.
#[derive(Debug, Default)]
pub struct Gauge(AtomicU64);

impl Gauge {
    /// It is this now.
    pub fn set(&self, number: u64) {
        self.0.store(number, Ordering::Relaxed);
    }

    /// What it is.
    pub fn number(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// A count that only grows.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

impl Counter {
    /// Counts `more`.
    pub fn add(&self, more: u64) {
        self.0.fetch_add(more, Ordering::Relaxed);
    }

    /// The count.
    pub fn count(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}
