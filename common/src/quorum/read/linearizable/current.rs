//! What a read has found to be there, without its value.

use super::LinearizableRead;
use super::choosing::Newest;
use crate::record::Attributes;
use crate::tag::Tag;

impl LinearizableRead {
    /// What is to be returned: its tag, [`Tag::ZERO`] if there never was anything; whether it is a value; and
    /// what the record says beside its content. None as long as too few replicas have responded.
    pub fn newest(&self) -> Option<(Tag, bool, Attributes)> {
        let newest = self.newest?;
        let is_value = matches!(newest, Newest::Record(..));
        Some((newest.tag(), is_value, self.attributes(newest)))
    }
}
