//! Tags: the versions of a value, totally ordered, unique per operation; and the clock that
//! mints them.
//!
//! Right behind a tag there is room for those of conditional writes: its [`Tag::successor`], and that
//! one's. No clock mints any of these, so that no other write comes between a version and the one that
//! takes its place.
//!
//! A tag's time is a hybrid logical clock (Kulkarni et al. 2014): wall-clock milliseconds where
//! they advance, one more than whatever was seen where they do not. Two operations that mint the
//! same time differ in `op`, which is unique per operation and not merely per gateway: a gateway
//! that mints twice at one time must not make one write pass for the other.

use std::fmt;
use std::str::FromStr;

use thiserror::Error;

use crate::hex::Digits;
use crate::mutants::{self, Mutant};

/// The version of a value. Compared by time, then by operation.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Tag {
    /// 48 bits of milliseconds since 1970 and 16 bits of a counter, as a hybrid logical clock.
    pub time: u64,
    /// Unique per operation: 32 random bits per clock, and 32 bits that count the conditional writes which
    /// took effect one after the other since a tag was minted. If the upper 16 bits are all 1, a server
    /// minted it for a put by DKVS/1.
    pub op: u64,
}

impl Tag {
    /// Smaller than any tag that is minted; stands for a key that was never written.
    pub const ZERO: Self = Self { time: 0, op: 0 };

    /// Whether a server minted it for a put by DKVS/1, which has no tags. Each replica of such a
    /// put mints its own, so they do not show which of two records was written last.
    pub fn is_by_v1(self) -> bool {
        self.op >> (64 - V1_BITS) == V1_MARK && !mutants::is_on(Mutant::V1Unmarked)
    }

    /// The tag of the record that takes the place of this version by a conditional write: the next there
    /// is. None if there is no room left before the tags of others, or it [is by DKVS/1](Self::is_by_v1)
    /// and so says nothing of what is newer.
    pub fn successor(self) -> Option<Self> {
        let has_room = self.op as u32 != u32::MAX && !self.is_by_v1() && self != Self::ZERO;
        has_room.then_some(Self {
            op: self.op + 1,
            ..self
        })
    }

    /// The tag of a record that a conditional write creates where there never was one: less than any that a
    /// clock mints. `random` keeps the versions of one cluster apart from those of another, or of the same
    /// when it has lost all that it held.
    pub fn first(random: u32) -> Self {
        let TagClock { op, .. } = TagClock::new(random);
        Self {
            time: 0,
            op: op | 1,
        }
    }

    /// Whether it can be that of a record that took the place of `base` by a conditional write.
    pub fn succeeds(self, base: Self) -> bool {
        match base {
            Self::ZERO => self.time == 0 && self.op as u32 == 1,
            base => base.successor() == Some(self),
        }
    }

    /// Whether a conditional write has made it: no clock mints it, so that only a record which the replicas
    /// have agreed on may have it.
    pub fn is_by_agreement(self) -> bool {
        self.op as u32 != 0 && !self.is_by_v1()
    }

    /// The milliseconds since 1970 in its time.
    pub fn unix_ms(self) -> u64 {
        self.time >> COUNTER_BITS
    }

    /// Its text: two groups of 16 hexadecimal digits.
    pub fn text(self) -> TagText {
        let mut text = [b'-'; 33];
        text[..16].copy_from_slice(&Digits::<16>::new(&self.time.to_be_bytes()).0);
        text[17..].copy_from_slice(&Digits::<16>::new(&self.op.to_be_bytes()).0);
        TagText(text)
    }
}

/// The text of a tag, made without the cost of formatting.
#[derive(Clone, Copy)]
pub struct TagText([u8; 33]);

impl TagText {
    /// The text.
    pub fn as_str(&self) -> &str {
        std::str::from_utf8(&self.0).expect("hexadecimal digits and a dash are ASCII")
    }
}

impl AsRef<[u8]> for TagText {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}

/// Bits of a time that count within a millisecond.
const COUNTER_BITS: u32 = 16;

/// The upper bits of an operation that distinguish tags of puts by DKVS/1 from all others.
const V1_BITS: u32 = 16;
const V1_MARK: u64 = (1 << V1_BITS) - 1;

/// So many of the lowest bits of an operation count conditional writes, and are 0 in every tag that is
/// minted.
const SUCCESSORS_BITS: u32 = u32::BITS;

impl fmt::Display for Tag {
    /// Two groups of 16 hexadecimal digits.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.text().as_str())
    }
}

impl fmt::Debug for Tag {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Tag({self})")
    }
}

/// The text is no tag.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("a tag is two groups of 16 lower-case hexadecimal digits with a dash between")]
pub struct ParseTagError;

impl FromStr for Tag {
    type Err = ParseTagError;

    fn from_str(text: &str) -> Result<Self, ParseTagError> {
        let number = |digits: &str| {
            let digit = |byte: u8| matches!(byte, b'0'..=b'9' | b'a'..=b'f');
            (digits.len() == 16 && digits.bytes().all(digit))
                .then(|| u64::from_str_radix(digits, 16).ok())
                .flatten()
                .ok_or(ParseTagError)
        };
        let (time, op) = text.split_once('-').ok_or(ParseTagError)?;
        Ok(Self {
            time: number(time)?,
            op: number(op)?,
        })
    }
}

/// A tag that is further ahead than a day is exceeded where it has to be, and the clock does not
/// follow it: one record with an absurd tag must not use up the tags of all others.
pub const AHEAD_MS_MAX: u64 = 24 * 60 * 60 * 1_000;

/// The last millisecond that a clock is taken to show, however wrong it is: half of those that a
/// tag has room for, which is in the year 6429. Nobody who makes a tag up gets past it, so that a
/// key always has as many tags left.
pub const CLOCK_MS_MAX: u64 = (1 << 47) - 1;

/// Mints tags, each greater than all it minted or has seen.
#[derive(Debug)]
pub struct TagClock {
    time: u64,
    op: u64,
    /// How many tags were minted that exceed one far ahead.
    far: u16,
    /// Of `op`, the lowest of the bits that tell these apart.
    far_shift: u32,
}

/// A tag was seen whose time is the greatest there is, so that none greater can be minted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("no tag is greater than {seen}")]
pub struct Exhausted {
    /// The tag that was seen.
    pub seen: Tag,
}

impl TagClock {
    /// A clock whose operations differ from those of other clocks by `random`.
    pub fn new(random: u32) -> Self {
        let mut op = u64::from(random) << 32;
        if op >> (64 - V1_BITS) == V1_MARK {
            // What a gateway mints must not pass for what came by DKVS/1.
            op &= !(1 << 63);
        }
        Self {
            time: 0,
            op,
            far: 0,
            far_shift: SUCCESSORS_BITS,
        }
    }

    /// The clock of a server, for what comes by DKVS/1: its tags are [`Tag::is_by_v1`].
    pub fn for_v1(random: u32) -> Self {
        Self {
            time: 0,
            op: V1_MARK << (64 - V1_BITS) | u64::from(random) << 16,
            far: 0,
            far_shift: 0,
        }
    }

    /// A tag greater than `seen`, and than every tag minted so far after one that was seen less
    /// than [`AHEAD_MS_MAX`] ahead. `unix_ms` is what the wall clock shows; whatever it shows, the
    /// promise holds.
    pub fn mint(&mut self, unix_ms: u64, seen: Tag) -> Result<Tag, Exhausted> {
        let shown = unix_ms.min(u64::MAX >> COUNTER_BITS) << COUNTER_BITS;
        let ahead = AHEAD_MS_MAX << COUNTER_BITS;
        let is_far_ahead = seen.time > shown.max(self.time).saturating_add(ahead);
        let least = self.time.max(seen.time);
        let least = least.checked_add(1).ok_or(Exhausted { seen })?;
        let time = shown.max(least);
        if !is_far_ahead {
            self.time = time;
        }
        let mut op = self.op;
        // No time comes twice but above one that is far ahead.
        if is_far_ahead && !mutants::is_on(Mutant::OperationPerGateway) {
            self.far = self.far.checked_add(1).unwrap_or(1);
            op ^= u64::from(self.far) << self.far_shift;
        }
        Ok(Tag { time, op })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    #[test]
    fn time_is_compared_before_operation() {
        let tag = |time, op| Tag { time, op };
        assert!(tag(1, 9) < tag(2, 0));
        assert!(tag(2, 0) < tag(2, 1));
        assert!(Tag::ZERO < tag(0, 1));
    }

    #[test]
    fn text_survives_a_round_trip_and_nothing_else_is_a_tag() {
        let text = "0192f0c4a1b20001-9f3c21d400000007";
        assert_eq!(
            text.parse::<Tag>().map(|tag| tag.to_string()),
            Ok(text.into())
        );
        for text in [
            "",
            "-",
            "0192f0c4a1b20001",
            "0192f0c4a1b20001-9f3c21d40000007",
            "0192F0c4a1b20001-9f3c21d400000007",
            "+192f0c4a1b20001-9f3c21d400000007",
            "0192f0c4a1b20001-9f3c21d400000007-",
        ] {
            assert_eq!(text.parse::<Tag>(), Err(ParseTagError), "{text:?}");
        }
    }

    #[test]
    fn the_greatest_time_exhausts_a_clock_and_harms_nothing() {
        let mut clock = TagClock::new(7);
        let first = clock.mint(1_000, Tag::ZERO).unwrap();
        let seen = Tag {
            time: u64::MAX,
            op: 0,
        };
        assert_eq!(clock.mint(1_000, seen), Err(Exhausted { seen }));
        assert!(clock.mint(1_000, Tag::ZERO).unwrap() > first);
        assert!(TagClock::new(0).mint(u64::MAX, Tag::ZERO).is_ok());
    }

    #[test]
    fn a_tag_from_far_ahead_is_exceeded_and_not_followed() {
        let mut clock = TagClock::new(7);
        let absurd = Tag {
            time: u64::MAX - 1,
            op: 0,
        };
        let one = clock.mint(1_000, absurd).unwrap();
        assert!(one > absurd);
        let next = clock.mint(1_000, Tag::ZERO).unwrap();
        assert_eq!(next.time, 1_000 << COUNTER_BITS);
        assert!(
            clock
                .mint(
                    1_000,
                    Tag {
                        time: u64::MAX,
                        op: 0
                    }
                )
                .is_err()
        );
        assert!(clock.mint(1_000, Tag::ZERO).is_ok());
        let hour = (1_000 + 3_600_000) << COUNTER_BITS;
        clock.mint(1_000, Tag { time: hour, op: 0 }).unwrap();
        assert_eq!(clock.mint(1_000, Tag::ZERO).unwrap().time, hour + 2);
    }

    #[test]
    fn only_what_is_minted_for_dkvs_1_is_marked_so() {
        for random in [
            0,
            1,
            0xffff,
            0xffff_0000,
            0xffff_1234,
            0xffff_fffe,
            u32::MAX,
        ] {
            let (mut ours, mut v1) = (TagClock::new(random), TagClock::for_v1(random));
            let mut seen = Tag::ZERO;
            // More than its counter counts to, so that it wraps.
            for _ in 0..0x1_0002 {
                let tag = ours.mint(1_000, seen).unwrap();
                assert!(tag > seen && !tag.is_by_v1(), "{tag}");
                seen = v1.mint(1_000, tag).unwrap();
                assert!(seen > tag && seen.is_by_v1(), "{seen}");
                assert_eq!(seen.op >> 16 & 0xffff_ffff, u64::from(random));
            }
        }
        assert!(!Tag::ZERO.is_by_v1());
    }

    #[test]
    fn milliseconds_stand_in_the_upper_48_bits() {
        let tag = TagClock::new(0x9f3c_21d4)
            .mint(0x0192_f0c4_a1b2, Tag::ZERO)
            .unwrap();
        assert_eq!(tag.to_string(), "0192f0c4a1b20000-9f3c21d400000000");
    }

    #[test]
    fn nothing_is_minted_between_a_tag_and_its_successors() {
        let mut clock = TagClock::new(0x9f3c_21d4);
        let tag = clock.mint(1_000, Tag::ZERO).unwrap();
        let next = tag.successor().unwrap();
        assert!(next > tag && next.succeeds(tag) && !tag.succeeds(next));
        assert!(!tag.is_by_agreement() && next.is_by_agreement());
        assert_eq!((next.time, next.op), (tag.time, tag.op + 1));
        // As far ahead as no clock follows.
        let far = Tag {
            time: u64::MAX / 2,
            op: 7 << 32,
        };
        for seen in [Tag::ZERO, tag, next, far, far] {
            let minted = clock.mint(1_000, seen).unwrap();
            assert!(minted > seen && !minted.is_by_agreement(), "{minted}");
        }
        let first = Tag::first(0x9f3c_21d4);
        assert!(first.succeeds(Tag::ZERO) && first < TagClock::new(1).mint(0, Tag::ZERO).unwrap());
        assert!(!next.succeeds(Tag::ZERO) && !first.successor().unwrap().succeeds(Tag::ZERO));
        let last = Tag {
            op: tag.op | 0xffff_ffff,
            ..tag
        };
        assert_eq!((last.successor(), Tag::ZERO.successor()), (None, None));
        let by_v1 = TagClock::for_v1(7).mint(1_000, Tag::ZERO).unwrap();
        assert!(by_v1.successor().is_none() && !by_v1.is_by_agreement());
        for random in [0xffff_0000, u32::MAX] {
            assert!(!Tag::first(random).is_by_v1());
        }
    }

    proptest! {
        #[test]
        fn every_tag_is_greater_than_all_before_and_all_seen(
            steps in prop::collection::vec(
                (0u64..1 << 47, 0..=2 * AHEAD_MS_MAX, any::<u16>(), any::<u64>()),
                1..50,
            )
        ) {
            let mut clock = TagClock::new(1);
            let mut last = Tag::ZERO;
            for (unix_ms, off_ms, counter, op) in steps {
                // Behind by up to a day, or ahead by almost one.
                let seen_ms = (unix_ms + off_ms).saturating_sub(AHEAD_MS_MAX + 1);
                let time = seen_ms << COUNTER_BITS | u64::from(counter);
                let seen = Tag { time, op };
                let tag = clock.mint(unix_ms, seen).unwrap();
                prop_assert!(tag > last && tag > seen);
                last = tag;
            }
        }

        #[test]
        fn however_far_ahead_what_was_seen_is_exceeded_and_no_tag_comes_twice(
            steps in prop::collection::vec((0u64..1 << 50, any::<u64>(), any::<u64>()), 1..50)
        ) {
            let mut clock = TagClock::new(1);
            let mut minted = BTreeSet::new();
            for (unix_ms, time, op) in steps {
                let seen = Tag { time: time >> 1, op };
                let tag = clock.mint(unix_ms, seen).unwrap();
                prop_assert!(tag > seen);
                prop_assert!(minted.insert(tag));
            }
        }
    }
}
