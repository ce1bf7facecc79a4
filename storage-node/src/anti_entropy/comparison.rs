//! Finding the leaves in which a peer differs: sums over many leaves first, then over parts of those
//! that differ, down to single leaves; and once more after a while, since what differs for a moment is a
//! write on its way.

use std::time::{Duration, Instant};

use dkvs_common::model::LeafSum;
use dkvs_common::mutants::{self, Mutant};

/// Most leaves that one comparison finds. Where there are more, the rest is found by the next.
const DIFFERING_MAX: usize = 1_024;

/// How often a leaf is looked at whose difference keeps changing. Then it is taken as it is.
const LOOKS_MAX: u32 = 3;

/// Sums to ask a peer for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Question {
    pub(super) first: u32,
    pub(super) leaves_per_sum: u32,
    pub(super) sums_max: u8,
}

/// What is next.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Next {
    /// To ask this.
    Ask(Question),
    /// To wait until then.
    Wait(Instant),
    /// It has ended: these leaves differ, in ascending order.
    Differ(Vec<u32>),
}

/// Some leaves, from one to before another.
#[derive(Debug, Clone, Copy)]
struct Span {
    first: u32,
    end: u32,
}

impl Span {
    fn leaves(self) -> u32 {
        self.end - self.first
    }

    /// How many of its leaves each sum is of, so that one answer has room for all sums.
    fn leaves_per_sum(self) -> u32 {
        self.leaves().div_ceil(LeafSum::COUNT_MAX.into())
    }
}

/// By how much a peer has more than this server: the sum, modulo 2^64, and how many records.
type Difference = (u64, i64);

/// One comparison with one peer.
#[derive(Debug)]
pub(super) struct Comparison {
    /// What is still to be asked for, the next last.
    spans: Vec<Span>,
    differing: Vec<(u32, Difference)>,
    looks: u32,
    /// When those that differ are looked at again.
    again_at: Option<Instant>,
    /// Which of them are still to be.
    again: Vec<(u32, Difference)>,
    confirmed: Vec<u32>,
    /// Whether there may be more.
    is_cut: bool,
    /// The leaf behind the last that was found to differ.
    behind: u32,
    /// Whether the peer holds nothing at all where this server holds something.
    is_ahead: bool,
    /// Whether it looks for leaves in which the peer has nothing that this server lacks, and answers for all
    /// keys.
    finds_answered: bool,
    /// Those that it has found, as the first and how many.
    answered: Vec<(u32, u32)>,
}

impl Comparison {
    /// A comparison of so many leaves, from one on and then those before it. With `finds_answered` it looks
    /// as well for [leaves that the peer answers for](Self::take_answered).
    pub(super) fn new(leaves: u32, from: u32, finds_answered: bool) -> Self {
        let from = from.min(leaves);
        let parts = [
            Span {
                first: 0,
                end: from,
            },
            Span {
                first: from,
                end: leaves,
            },
        ];
        let spans = parts.into_iter().filter(|span| span.first < span.end);
        Self {
            spans: spans.collect(),
            differing: Vec::new(),
            looks: 0,
            again_at: None,
            again: Vec::new(),
            confirmed: Vec::new(),
            is_cut: false,
            behind: 0,
            is_ahead: false,
            finds_answered,
            answered: Vec::new(),
        }
    }

    /// Leaves, as the first and how many, in which the peer held nothing that this server does not hold, and for
    /// all keys of which it answers: those that were found since this was called last.
    pub(super) fn take_answered(&mut self) -> Vec<(u32, u32)> {
        std::mem::take(&mut self.answered)
    }

    /// The leaf behind the last that it found, from which on another comparison finds others.
    pub(super) fn behind(&self) -> u32 {
        self.behind
    }

    /// Whether there may be more leaves that differ than it has found.
    pub(super) fn is_cut(&self) -> bool {
        self.is_cut
    }

    /// Whether this server holds something where the peer holds nothing. Such leaves are not among those that
    /// it has found: there is nothing to pull.
    pub(super) fn is_ahead(&self) -> bool {
        self.is_ahead
    }

    /// What is next. Leaves that differ are looked at again after `pause`.
    pub(super) fn next(&mut self, now: Instant, pause: Duration) -> Next {
        loop {
            if let Some(span) = self.spans.last() {
                let leaves_per_sum = span.leaves_per_sum();
                let sums = span.leaves().div_ceil(leaves_per_sum);
                return Next::Ask(Question {
                    first: span.first,
                    leaves_per_sum,
                    sums_max: sums as u8,
                });
            }
            if self.looks == 0 && (self.differing.is_empty() || self.is_cut) {
                // Writes that are on their way do not make so many differ.
                let mut leaves: Vec<u32> = self.differing.drain(..).map(|it| it.0).collect();
                leaves.sort_unstable();
                return Next::Differ(leaves);
            }
            if self.looks == 0 {
                self.look_again(now + pause);
            }
            if let Some(at) = self.again_at.filter(|at| now < *at) {
                return Next::Wait(at);
            }
            if let Some((first, _)) = self.again.last() {
                // As many as follow each other.
                let run = self.again.iter().rev().zip(*first..);
                let run = run.take_while(|((leaf, _), expected)| leaf == expected);
                let count = run.count().min(LeafSum::COUNT_MAX.into());
                return Next::Ask(Question {
                    first: *first,
                    leaves_per_sum: 1,
                    sums_max: count as u8,
                });
            }
            if self.differing.is_empty() || self.looks >= LOOKS_MAX {
                let changing = self.differing.drain(..).map(|(leaf, _)| leaf);
                self.confirmed.extend(changing);
                self.confirmed.sort_unstable();
                return Next::Differ(std::mem::take(&mut self.confirmed));
            }
            self.look_again(now + pause);
        }
    }

    fn look_again(&mut self, at: Instant) {
        self.looks += 1;
        self.again_at = Some(at);
        self.again = std::mem::take(&mut self.differing);
        self.again
            .sort_unstable_by_key(|(leaf, _)| std::cmp::Reverse(*leaf));
    }

    /// The peer has answered the last question; `own` is what this server holds in so many leaves from
    /// one on. Returns false if that was no answer to it.
    pub(super) fn handle_sums(
        &mut self,
        sums: &[LeafSum],
        own: impl Fn(u32, u32) -> LeafSum,
    ) -> bool {
        if self.looks > 0 {
            return self.handle_again(sums, own);
        }
        let (Some(span), false) = (self.spans.pop(), sums.is_empty()) else {
            return false;
        };
        let mut first = span.first;
        let mut parts = Vec::new();
        for theirs in sums {
            if first >= span.end {
                return false;
            }
            // The last sum may be of leaves behind the span as well.
            let per_sum = span.leaves_per_sum();
            let count = per_sum.min(span.end - first);
            let difference = difference(own(first, per_sum), *theirs);
            let has_no_more = difference == (0, 0) || theirs.keys == 0;
            let is_mixed = theirs.has_answered && theirs.has_unanswered;
            if has_no_more && is_answered(theirs) {
                self.answered.push((first, count));
            }
            let is_sought = !has_no_more || is_mixed && self.finds_answered;
            if is_sought && per_sum > 1 {
                parts.push(Span {
                    first,
                    end: first + count,
                });
            } else if !has_no_more && self.differing.len() >= DIFFERING_MAX {
                self.is_cut = true;
            } else if !has_no_more {
                self.differing.push((first, difference));
                self.behind = first + 1;
            } else if difference != (0, 0) {
                self.is_ahead = true;
            }
            first += count;
        }
        if first < span.end {
            // The peer has answered a part of the question.
            parts.push(Span { first, ..span });
        }
        self.spans.extend(parts.into_iter().rev());
        if self.is_cut {
            self.spans.clear();
        }
        true
    }

    fn handle_again(&mut self, sums: &[LeafSum], own: impl Fn(u32, u32) -> LeafSum) -> bool {
        if sums.is_empty() {
            return false;
        }
        for theirs in sums {
            let Some((leaf, before)) = self.again.pop() else {
                return false;
            };
            match difference(own(leaf, 1), *theirs) {
                (0, 0) if is_answered(theirs) => self.answered.push((leaf, 1)),
                (0, 0) => {}
                same if same == before => self.confirmed.push(leaf),
                other => self.differing.push((leaf, other)),
            }
        }
        true
    }
}

fn is_answered(theirs: &LeafSum) -> bool {
    theirs.is_answered() || mutants::is_on(Mutant::CompletedByIncomplete)
}

fn difference(ours: LeafSum, theirs: LeafSum) -> Difference {
    (
        theirs.sum.wrapping_sub(ours.sum),
        i64::from(theirs.keys) - i64::from(ours.keys),
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const PAUSE: Duration = Duration::from_secs(2);

    fn sum_of(leaves: &[u64], first: u32, count: u32) -> LeafSum {
        let end = (first.saturating_add(count) as usize).min(leaves.len());
        let mut sum = LeafSum::default();
        for leaf in leaves.get(first as usize..end).unwrap_or_default() {
            sum += LeafSum {
                sum: *leaf,
                keys: u32::from(*leaf > 0),
                ..LeafSum::default()
            };
        }
        sum
    }

    /// What a peer answers that holds this, with so many sums at most.
    fn answer(theirs: &[u64], question: Question, sums_max: usize) -> Vec<LeafSum> {
        let Question {
            first,
            leaves_per_sum,
            sums_max: wanted,
        } = question;
        let firsts = (first..theirs.len() as u32).step_by(leaves_per_sum as usize);
        let firsts = firsts.take(sums_max.min(wanted.into()));
        firsts
            .map(|first| sum_of(theirs, first, leaves_per_sum))
            .collect()
    }

    /// The leaves that a comparison finds, and how long it took. `change` may change what the peer holds
    /// whenever it was asked.
    fn compare(
        ours: &[u64],
        (mut theirs, from): (Vec<u64>, u32),
        sums_max: usize,
        mut change: impl FnMut(&mut [u64]),
    ) -> (Vec<u32>, bool, Duration) {
        let start = Instant::now();
        let (mut now, mut questions) = (start, 0);
        let mut comparison = Comparison::new(ours.len() as u32, from, false);
        loop {
            match comparison.next(now, PAUSE) {
                Next::Ask(question) => {
                    questions += 1;
                    assert!(questions < 100_000, "it goes in circles");
                    let sums = answer(&theirs, question, sums_max);
                    let own = |first, count| sum_of(ours, first, count);
                    assert!(comparison.handle_sums(&sums, own));
                    change(&mut theirs);
                }
                Next::Wait(at) => {
                    assert!(at > now);
                    now = at;
                }
                Next::Differ(leaves) => return (leaves, comparison.is_cut(), now - start),
            }
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(60))]

        #[test]
        fn exactly_what_differs_is_found_however_few_sums_come_at_a_time(
            ours in prop::collection::vec(0..4u64, 0..5_000),
            changes in prop::collection::vec((any::<prop::sample::Index>(), 4..9u64), 0..40),
            sums_max in 1..70usize,
            from in 0..6_000u32,
        ) {
            let mut theirs = ours.clone();
            for (index, value) in changes.iter().filter(|_| !ours.is_empty()) {
                theirs[index.index(ours.len())] = *value;
            }
            let (all, differ) = (0..ours.len(), |leaf: &usize| ours[*leaf] != theirs[*leaf]);
            let expected: Vec<u32> = all.filter(differ).map(|leaf| leaf as u32).collect();
            let (found, is_cut, took) = compare(&ours, (theirs, from), sums_max, |_| {});
            prop_assert_eq!(&found, &expected);
            prop_assert!(!is_cut);
            prop_assert_eq!(took > Duration::ZERO, !expected.is_empty(), "it looks again");
        }
    }

    #[test]
    fn what_differs_for_a_moment_is_not_found_and_what_keeps_changing_is_in_the_end() {
        let (ours, mut theirs) = (vec![1; 60], vec![1; 60]);
        theirs[7] = 2;
        let (found, _, took) = compare(&ours, (theirs.clone(), 0), 64, |theirs| theirs[7] = 1);
        assert_eq!((found, took), (Vec::new(), PAUSE));
        let (found, _, took) = compare(&ours, (theirs, 0), 64, |theirs| theirs[7] += 1);
        assert_eq!((found, took), (vec![7], PAUSE * LOOKS_MAX));
    }

    #[test]
    fn where_nearly_everything_differs_a_part_is_found_at_once() {
        let (ours, theirs) = (vec![0; 10_000], vec![1; 10_000]);
        let (found, is_cut, took) = compare(&ours, (theirs, 0), 64, |_| {});
        assert_eq!(
            (found.len(), is_cut, took),
            (DIFFERING_MAX, true, Duration::ZERO)
        );
        assert!(found.is_sorted());
    }

    #[test]
    fn where_the_peer_holds_nothing_there_is_nothing_to_find() {
        let (ours, mut theirs) = (vec![1; 10_000], vec![0; 10_000]);
        theirs[700] = 2;
        let (found, is_cut, _) = compare(&ours, (theirs, 0), 64, |_| {});
        assert_eq!((found, is_cut), (vec![700], false));
        let mut comparison = Comparison::new(10, 0, false);
        comparison.next(Instant::now(), PAUSE);
        let own = |first, count| sum_of(&[1; 10], first, count);
        assert!(comparison.handle_sums(&[LeafSum::default(); 10], own));
        assert!(comparison.is_ahead());
    }

    #[test]
    fn it_begins_where_it_is_told_to() {
        let (ours, theirs) = (vec![0; 10_000], vec![1; 10_000]);
        let (found, is_cut, _) = compare(&ours, (theirs, 9_500), 64, |_| {});
        let expected: Vec<u32> = (0..524).chain(9_500..10_000).collect();
        assert!(found == expected && is_cut);
    }

    #[test]
    fn what_is_no_answer_ends_it() {
        let own = |_, _| LeafSum::default();
        let mut comparison = Comparison::new(10, 3, false);
        assert!(!comparison.handle_sums(&[], own));
        let mut comparison = Comparison::new(10, 3, false);
        assert!(
            !comparison.handle_sums(&[LeafSum::default(); 11], own),
            "one too many"
        );
        let nothing = Comparison::new(0, 0, false).next(Instant::now(), PAUSE);
        assert_eq!(nothing, Next::Differ(Vec::new()));
    }

    #[test]
    fn leaves_that_the_peer_answers_for_are_found_though_it_does_not_for_their_neighbours() {
        // It answers for all but every seventh. One leaf has something newer there, one is empty there.
        let (mut ours, mut theirs) = (vec![1; 3_000], vec![1; 3_000]);
        theirs[100] = 2;
        (ours[200], theirs[200]) = (3, 0);
        let is_answered = |leaf: u32| !leaf.is_multiple_of(7);
        for finds_answered in [true, false] {
            let mut comparison = Comparison::new(3_000, 0, finds_answered);
            let (mut now, mut found) = (Instant::now(), vec![false; 3_000]);
            let differing = loop {
                match comparison.next(now, PAUSE) {
                    Next::Ask(question) => {
                        let mut sums = answer(&theirs, question, 64);
                        let firsts = (question.first..).step_by(question.leaves_per_sum as usize);
                        for (sum, first) in sums.iter_mut().zip(firsts) {
                            let end = (first + question.leaves_per_sum).min(3_000);
                            sum.has_answered = (first..end).any(is_answered);
                            sum.has_unanswered = !(first..end).all(is_answered);
                        }
                        let own = |first, count| sum_of(&ours, first, count);
                        assert!(comparison.handle_sums(&sums, own));
                        for (first, count) in comparison.take_answered() {
                            found[first as usize..(first + count) as usize].fill(true);
                        }
                    }
                    Next::Wait(at) => now = at,
                    Next::Differ(leaves) => break leaves,
                }
            };
            assert_eq!(differing, [100]);
            let expected = |leaf: u32| finds_answered && is_answered(leaf) && leaf != 100;
            for (leaf, is_found) in (0..).zip(found) {
                // Beside what differs it comes to single leaves anyway.
                assert!(is_found == expected(leaf) || !finds_answered, "{leaf}");
                assert!(!is_found || is_answered(leaf) && leaf != 100, "{leaf}");
            }
        }
    }
}
