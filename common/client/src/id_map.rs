//! Maps by numbers that this client has given itself.

use foldhash::fast::FixedState;

/// A map by such numbers: no peer chooses the keys, so a fast hash without a seed is good enough. Its
/// order says nothing.
#[expect(clippy::disallowed_types, reason = "its hasher is named")]
pub(crate) type IdMap<K, V> = std::collections::HashMap<K, V, FixedState>;
