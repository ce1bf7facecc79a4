//! Whether the workers move: each beats once a second, and one task of another thread looks on.
//!
//! Seconds are counted by the beats of that task. So a process that stood still as a whole, or a
//! machine that slept, shows no worker as stalled.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use tokio::time::MissedTickBehavior;

/// Between two beats.
const BEAT: Duration = Duration::from_secs(1);

/// A worker that has not beaten for so many of the beats of the task that looks on is stalled.
const STALLED_BEATS: u32 = 10;

/// How often a worker has beaten.
#[derive(Debug, Default)]
pub(super) struct Heart(AtomicU64);

impl Heart {
    /// Beats for as long as the worker lets it.
    pub(super) async fn beat(&self) {
        let mut beats = beats();
        loop {
            beats.tick().await;
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }
}

/// What is known of the workers of a gateway.
#[derive(Debug, Default)]
pub(super) struct Liveness {
    stalled: AtomicUsize,
}

/// What was seen of a worker last, and how often it was the same.
#[derive(Clone, Copy, Default)]
struct Seen {
    beats: u64,
    unchanged: u32,
}

impl Liveness {
    /// How many workers have not moved for ten seconds.
    pub(super) fn stalled(&self) -> usize {
        self.stalled.load(Ordering::Relaxed)
    }

    /// Looks on.
    pub(super) async fn watch(&self, hearts: &[&Heart]) {
        let mut seen = vec![Seen::default(); hearts.len()];
        let mut beats = beats();
        loop {
            beats.tick().await;
            self.look(hearts, &mut seen);
        }
    }

    fn look(&self, hearts: &[&Heart], seen: &mut [Seen]) {
        for (heart, seen) in hearts.iter().zip(&mut *seen) {
            let beats = heart.0.load(Ordering::Relaxed);
            let unchanged = match beats == seen.beats {
                true => seen.unchanged.saturating_add(1),
                false => 0,
            };
            *seen = Seen { beats, unchanged };
        }
        let stalled = seen.iter().filter(|it| it.unchanged >= STALLED_BEATS);
        self.stalled.store(stalled.count(), Ordering::Relaxed);
    }
}

fn beats() -> tokio::time::Interval {
    let mut beats = tokio::time::interval(BEAT);
    beats.set_missed_tick_behavior(MissedTickBehavior::Delay);
    beats
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_worker_is_stalled_after_ten_beats_without_its_own_and_until_its_next() {
        let (moves, stands) = (Heart::default(), Heart::default());
        let (liveness, mut seen) = (Liveness::default(), vec![Seen::default(); 2]);
        let mut look = |of_one: u64, of_other: u64| {
            moves.0.fetch_add(of_one, Ordering::Relaxed);
            stands.0.fetch_add(of_other, Ordering::Relaxed);
            liveness.look(&[&moves, &stands], &mut seen);
            liveness.stalled()
        };
        assert_eq!(look(1, 1), 0);
        for _ in 0..9 {
            assert_eq!(look(1, 0), 0);
        }
        assert_eq!(look(1, 0), 1);
        assert_eq!(look(0, 0), 1);
        assert_eq!(look(1, 1), 0);
    }
}
