//! The conditions of a link, and the fate of a datagram under them. Knows no sockets and no clock:
//! chance comes in as an argument, and delays go out as durations.

use std::time::Duration;

use crate::random::Random;

/// The least that a datagram is held back when it is.
const DELAY_MIN: Duration = Duration::from_millis(1);

/// How often a delay may double: one of 2,048 times the least is the longest.
const DOUBLINGS_MAX: u32 = 11;

/// What happens on one way between a gateway and a server.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Conditions {
    /// Nothing passes.
    pub is_cut: bool,
    /// Datagrams of more bytes are lost, as on a path that takes less than anybody knows.
    /// Gets pass such a path, and puts do not.
    pub datagram_bytes_max: Option<usize>,
    /// How many of a hundred datagrams are lost.
    pub lost_percent: u8,
    /// How many of a hundred that are not lost arrive twice.
    pub repeated_percent: u8,
    /// How many of a hundred copies are held back, most for milliseconds and some for seconds, so
    /// that others overtake them.
    pub delayed_percent: u8,
}

impl Conditions {
    /// Everything passes, once and at once.
    pub const CLEAR: Self = Self {
        is_cut: false,
        datagram_bytes_max: None,
        lost_percent: 0,
        repeated_percent: 0,
        delayed_percent: 0,
    };

    /// Nothing passes.
    pub const CUT: Self = Self {
        is_cut: true,
        ..Self::CLEAR
    };

    /// Both at a time: of each the worse.
    pub fn with(self, other: Self) -> Self {
        Self {
            is_cut: self.is_cut || other.is_cut,
            datagram_bytes_max: match (self.datagram_bytes_max, other.datagram_bytes_max) {
                (Some(one), Some(other)) => Some(one.min(other)),
                (one, other) => one.or(other),
            },
            lost_percent: self.lost_percent.max(other.lost_percent),
            repeated_percent: self.repeated_percent.max(other.repeated_percent),
            delayed_percent: self.delayed_percent.max(other.delayed_percent),
        }
    }

    /// The fate of the next datagram, which has so many bytes.
    pub(super) fn fate(&self, bytes: usize, random: &mut Random) -> Fate {
        let is_too_long = self.datagram_bytes_max.is_some_and(|max| bytes > max);
        if self.is_cut || is_too_long || is_one_of(self.lost_percent, random) {
            return Fate::Lost;
        }
        let first = self.delay(random);
        if is_one_of(self.repeated_percent, random) {
            return Fate::Twice(first, self.delay(random));
        }
        Fate::Once(first)
    }

    /// For how long a copy is held back. Each doubling is two thirds as likely as the one before,
    /// which makes for the heavy tail that delays on networks have.
    fn delay(&self, random: &mut Random) -> Option<Duration> {
        if !is_one_of(self.delayed_percent, random) {
            return None;
        }
        let doublings = (0..DOUBLINGS_MAX).take_while(|_| random.below(3) < 2);
        let least = DELAY_MIN * (1 << doublings.count());
        let more = random.below(least.as_micros() as usize);
        Some(least + Duration::from_micros(more as u64))
    }
}

/// The fate of one datagram: for how long each of its copies is held back, if it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fate {
    Lost,
    Once(Option<Duration>),
    Twice(Option<Duration>, Option<Duration>),
}

fn is_one_of(percent: u8, random: &mut Random) -> bool {
    random.below(100) < percent.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fates(conditions: Conditions) -> Vec<Fate> {
        let mut random = Random::new(1);
        let fate = |_| conditions.fate(100, &mut random);
        (0..10_000).map(fate).collect()
    }

    fn count(fates: &[Fate], counts: impl Fn(&Fate) -> bool) -> usize {
        fates.iter().filter(|fate| counts(fate)).count()
    }

    #[test]
    fn everything_passes_once_and_at_once_when_it_is_clear() {
        let fates = fates(Conditions::CLEAR);
        assert_eq!(count(&fates, |fate| *fate == Fate::Once(None)), 10_000);
    }

    #[test]
    fn nothing_passes_a_cut() {
        let conditions = Conditions {
            repeated_percent: 100,
            ..Conditions::CUT
        };
        let fates = fates(conditions);
        assert_eq!(count(&fates, |fate| *fate == Fate::Lost), 10_000);
    }

    #[test]
    fn as_many_are_lost_repeated_and_delayed_as_was_said() {
        let fates = fates(Conditions {
            lost_percent: 20,
            repeated_percent: 50,
            delayed_percent: 10,
            ..Conditions::CLEAR
        });
        let lost = count(&fates, |fate| *fate == Fate::Lost);
        assert!((1_900..2_100).contains(&lost), "{lost}");
        let twice = count(&fates, |fate| matches!(fate, Fate::Twice(..)));
        assert!((3_850..4_150).contains(&twice), "{twice}");
        let late = count(&fates, |fate| {
            matches!(fate, Fate::Once(Some(_)) | Fate::Twice(Some(_), _))
        });
        assert!((700..900).contains(&late), "{late}");
    }

    #[test]
    fn most_delays_are_short_and_some_are_long() {
        let fates = fates(Conditions {
            delayed_percent: 100,
            ..Conditions::CLEAR
        });
        let longer = |limit: Duration| {
            count(
                &fates,
                |fate| matches!(fate, Fate::Once(Some(delay)) if *delay >= limit),
            )
        };
        assert_eq!(longer(DELAY_MIN), 10_000);
        assert_eq!(longer(Duration::from_millis(4_096)), 0);
        let late = longer(Duration::from_millis(10));
        assert!((2_000..4_000).contains(&late), "{late}");
        let later = longer(Duration::from_millis(500));
        assert!((100..500).contains(&later), "{later}");
    }

    #[test]
    fn what_is_longer_than_the_path_takes_is_lost() {
        let conditions = Conditions {
            datagram_bytes_max: Some(100),
            ..Conditions::CLEAR
        };
        let mut random = Random::new(1);
        for (bytes, fate) in [
            (1, Fate::Once(None)),
            (100, Fate::Once(None)),
            (101, Fate::Lost),
        ] {
            assert_eq!(conditions.fate(bytes, &mut random), fate, "{bytes}");
        }
    }

    #[test]
    fn two_conditions_together_have_the_worse_of_each() {
        let lossy = Conditions {
            datagram_bytes_max: Some(300),
            lost_percent: 5,
            repeated_percent: 30,
            ..Conditions::CLEAR
        };
        let late = Conditions {
            lost_percent: 10,
            delayed_percent: 20,
            ..Conditions::CLEAR
        };
        let both = Conditions {
            is_cut: false,
            datagram_bytes_max: Some(300),
            lost_percent: 10,
            repeated_percent: 30,
            delayed_percent: 20,
        };
        assert_eq!(lossy.with(late), both);
        assert_eq!(late.with(lossy), both);
        let shorter = Conditions {
            datagram_bytes_max: Some(200),
            ..Conditions::CUT
        };
        let all = both.with(shorter);
        assert_eq!((all.is_cut, all.datagram_bytes_max), (true, Some(200)));
    }
}
