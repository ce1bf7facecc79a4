//! Maps by what a core has numbered itself.

use foldhash::fast::FixedState;

/// A map by what this core has numbered itself: nobody else chooses the keys, so a fast hash without
/// a seed is good enough.
#[expect(clippy::disallowed_types, reason = "its hasher is named")]
pub(super) type IdMap<K, V> = std::collections::HashMap<K, V, FixedState>;
