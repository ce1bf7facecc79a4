//! The tombstones that replicas reported, with what each says beside that.

use crate::record::Attributes;
use crate::tag::Tag;

/// The distinct tombstones, in the order of their arrival: at most one for each response.
#[derive(Debug, Default)]
pub(super) struct SeenTombstones(Vec<(Tag, Attributes)>);

impl SeenTombstones {
    /// Keeps what a replica reported of a tombstone. Of two under one tag it is the first, but for
    /// the age, which is the greatest.
    pub(super) fn insert(&mut self, tag: Tag, reported: Attributes) {
        match self.0.iter_mut().find(|(seen, _)| *seen == tag) {
            Some((_, attributes)) => *attributes = attributes.born_at_least(reported.born),
            None => self.0.push((tag, reported)),
        }
    }

    /// What the tombstone with this tag says beside that.
    pub(super) fn attributes(&self, tag: Tag) -> Attributes {
        let seen = self.0.iter().find(|(seen, _)| *seen == tag);
        seen.map_or(Attributes::NONE, |(_, attributes)| *attributes)
    }

    pub(super) fn clear(&mut self) {
        self.0.clear();
    }
}
