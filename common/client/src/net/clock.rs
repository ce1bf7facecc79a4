//! The clocks.

use std::time::{Instant, SystemTime, UNIX_EPOCH};

use crate::core::Now;

/// What the clocks show.
pub fn now() -> Now {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    // Before 1970 the clock shows nothing of use, and tags do not rely on it.
    let unix_ms = since.map_or(0, |since| u64::try_from(since.as_millis()).unwrap_or(0));
    Now {
        at: Instant::now(),
        unix_ms,
    }
}
