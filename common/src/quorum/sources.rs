//! Whom a long value is fetched from: one of its holders at a time.
//!
//! A holder that cannot give it is not asked again. One that is merely slow, because its disk is, say,
//! makes room for the others and is asked again after them, with twice the patience: whoever is the
//! only holder left is waited for until the deadline.

use crate::cluster::ServerId;
use crate::record::Digest;

/// A long value that is to be fetched.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FetchStart {
    /// The server that holds it.
    pub from: ServerId,
    /// Of which record.
    pub digest: Digest,
    /// How often that server has stalled already; each time it is waited for twice as long.
    pub stalls: u32,
}

/// Why a server did not give a value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FetchFailure {
    /// It has sent nothing for some time. It may yet.
    Stalled,
    /// It answered without the value: it holds another record by now, say.
    Gone,
    /// It cannot be reached, or sent something else.
    Failed,
}

/// What became of the holders of one value so far.
#[derive(Debug, Default)]
pub(super) struct Sources {
    /// The one that it is being fetched from.
    from: Option<ServerId>,
    /// Those that cannot give it.
    failed: Vec<ServerId>,
    /// Whether one of these answered without it.
    is_gone: bool,
    /// Each as often as it stalled.
    stalled: Vec<ServerId>,
}

impl Sources {
    pub(super) fn is_being_fetched(&self) -> bool {
        self.from.is_some()
    }

    /// Whether one of the holders has not failed to give the value.
    pub(super) fn is_any_left(&self, mut holders: impl Iterator<Item = ServerId>) -> bool {
        holders.any(|holder| !self.failed.contains(&holder))
    }

    /// The same, but once a holder has answered without the value, one that is slow counts for nothing:
    /// it may well have been replaced there, too.
    pub(super) fn is_any_likely(&self, mut holders: impl Iterator<Item = ServerId>) -> bool {
        holders.any(|holder| {
            let is_doubtful = self.is_gone && self.stalls(holder) > 0;
            !is_doubtful && !self.failed.contains(&holder)
        })
    }

    /// Begins to fetch the value from the first of the holders that stalled least often; none while
    /// it is being fetched, or if all of them failed.
    pub(super) fn begin(
        &mut self,
        holders: impl Iterator<Item = ServerId>,
        digest: &Digest,
    ) -> Option<FetchStart> {
        if self.is_being_fetched() {
            return None;
        }
        let left = holders.filter(|holder| !self.failed.contains(holder));
        let (stalls, from) = left
            .map(|holder| (self.stalls(holder), holder))
            .min_by_key(|(stalls, _)| *stalls)?;
        self.from = Some(from);
        Some(FetchStart {
            from,
            digest: digest.clone(),
            stalls,
        })
    }

    /// `server` did not give the value. False if it is not being fetched from there.
    pub(super) fn handle_failed(&mut self, server: ServerId, failure: FetchFailure) -> bool {
        if self.from != Some(server) {
            return false;
        }
        self.from = None;
        match failure {
            FetchFailure::Stalled => self.stalled.push(server),
            FetchFailure::Gone | FetchFailure::Failed => self.failed.push(server),
        }
        self.is_gone |= failure == FetchFailure::Gone;
        true
    }

    /// The value has arrived.
    pub(super) fn handle_fetched(&mut self) {
        self.from = None;
    }

    fn stalls(&self, server: ServerId) -> u32 {
        let stalls = self.stalled.iter().filter(|it| **it == server).count();
        u32::try_from(stalls).unwrap_or(u32::MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::{Attributes, ContentType};
    use crate::tag::Tag;

    const HOLDERS: [ServerId; 2] = [ServerId(0), ServerId(1)];

    fn next(sources: &mut Sources) -> Option<(u16, u32)> {
        let digest = Digest {
            tag: Tag { time: 1, op: 0 },
            attributes: Attributes::NONE,
            content_type: ContentType::default(),
            value_bytes: 4,
            checksum: 1,
        };
        let start = sources.begin(HOLDERS.into_iter(), &digest)?;
        Some((start.from.0, start.stalls))
    }

    #[test]
    fn a_slow_holder_is_asked_again_after_the_others_and_one_that_failed_is_not() {
        let mut sources = Sources::default();
        assert_eq!(next(&mut sources), Some((0, 0)));
        assert_eq!(next(&mut sources), None, "one at a time");
        assert!(!sources.handle_failed(HOLDERS[1], FetchFailure::Failed));
        assert!(sources.handle_failed(HOLDERS[0], FetchFailure::Stalled));
        assert_eq!(next(&mut sources), Some((1, 0)));
        sources.handle_failed(HOLDERS[1], FetchFailure::Stalled);
        assert_eq!(next(&mut sources), Some((0, 1)));
        sources.handle_failed(HOLDERS[0], FetchFailure::Failed);
        for stalls in 1..9 {
            assert_eq!(next(&mut sources), Some((1, stalls)));
            sources.handle_failed(HOLDERS[1], FetchFailure::Stalled);
        }
        assert!(sources.is_any_likely(HOLDERS.into_iter()));
        assert_eq!(next(&mut sources), Some((1, 9)));
        sources.handle_failed(HOLDERS[1], FetchFailure::Failed);
        assert_eq!(next(&mut sources), None);
        assert!(!sources.is_any_left(HOLDERS.into_iter()));
    }

    #[test]
    fn what_is_gone_at_one_holder_is_not_waited_for_at_a_slow_one() {
        for is_slow_first in [false, true] {
            let mut sources = Sources::default();
            let mut failures = [FetchFailure::Gone, FetchFailure::Stalled];
            if is_slow_first {
                failures.reverse();
            }
            for failure in failures {
                assert!(sources.is_any_likely(HOLDERS.into_iter()));
                let (from, _) = next(&mut sources).unwrap();
                sources.handle_failed(ServerId(from), failure);
            }
            assert!(!sources.is_any_likely(HOLDERS.into_iter()));
            assert!(sources.is_any_left(HOLDERS.into_iter()));
        }
    }
}
