//! Who was asked, and what each has said.
//!
//! Keeps one invariant: only the servers of the preference list count, each once. Words from
//! strangers and second words change nothing.

use std::time::{Duration, Instant};

use crate::cluster::ServerId;
use crate::mutants::{self, Mutant};
use crate::ring::{Position, PreferenceList, RingPoint};

/// What is known of one replica; `A` is what a replica can answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Word<A> {
    /// Nothing yet.
    Pending,
    /// It answered.
    Answer(A),
    /// The request certainly did not reach it.
    Unreachable,
    /// It can be reached no more, and whether the request reached it is not known.
    CutOff,
    /// It was silent until the deadline.
    TimedOut,
}

/// One replica of a request.
#[derive(Debug, Clone)]
pub struct Replica<A> {
    /// Whose it is.
    pub server: ServerId,
    /// The ring point at which the key's walk met it.
    pub ring_point: Position,
    /// What is known of it.
    pub word: Word<A>,
    /// How long after the request's start the word came; none while pending or when it timed out.
    pub latency: Option<Duration>,
}

/// Whether a word changed anything.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Recorded {
    /// The first word of a replica.
    Counted,
    /// This replica had its word before.
    Repeated,
    /// This server was never asked.
    Stranger,
}

/// The replicas of one request, in preference order.
#[derive(Debug, Clone)]
pub struct Tally<A> {
    replicas: Vec<Replica<A>>,
    started: Instant,
    pending: usize,
}

impl<A> Tally<A> {
    /// Nobody has said anything.
    pub fn new(list: PreferenceList, started: Instant) -> Self {
        let replica = |point: RingPoint| Replica {
            server: point.server,
            ring_point: point.position,
            word: Word::Pending,
            latency: None,
        };
        Self {
            pending: list.len(),
            replicas: list.into_iter().map(replica).collect(),
            started,
        }
    }

    /// Takes the word of `from`. A word of [`Word::Pending`] is none and counts as repeated.
    pub fn record(&mut self, from: ServerId, word: Word<A>, now: Instant) -> Recorded {
        let mut replicas = self.replicas.iter_mut();
        let Some(replica) = replicas.find(|replica| replica.server == from) else {
            return Recorded::Stranger;
        };
        if !matches!(replica.word, Word::Pending) || matches!(word, Word::Pending) {
            if mutants::is_on(Mutant::RepeatsCounted) {
                return self.count_repeat(from, word, now);
            }
            return Recorded::Repeated;
        }
        replica.word = word;
        replica.latency = Some(now.saturating_duration_since(self.started));
        self.pending -= 1;
        Recorded::Counted
    }

    /// [`Mutant::RepeatsCounted`]: takes it for the word of whoever is pending.
    fn count_repeat(&mut self, from: ServerId, word: Word<A>, now: Instant) -> Recorded {
        let is_pending = |replica: &&Replica<A>| matches!(replica.word, Word::Pending);
        let other = self.replicas.iter().find(is_pending);
        match other.map(|replica| replica.server) {
            Some(other) if other != from => self.record(other, word, now),
            _ => Recorded::Repeated,
        }
    }

    /// Whoever is still pending has timed out.
    pub fn expire(&mut self) {
        for replica in &mut self.replicas {
            if matches!(replica.word, Word::Pending) {
                replica.word = Word::TimedOut;
            }
        }
        self.pending = 0;
    }

    /// How many replicas have not been heard of yet.
    pub fn pending(&self) -> usize {
        self.pending
    }

    /// The preference list that it began with.
    pub fn list(&self) -> PreferenceList {
        let point = |replica: &Replica<A>| RingPoint {
            position: replica.ring_point,
            server: replica.server,
        };
        self.replicas.iter().map(point).collect()
    }

    /// The replicas, in preference order.
    pub fn replicas(&self) -> &[Replica<A>] {
        &self.replicas
    }

    /// What `server` answered, if it has.
    pub fn answer_of(&self, server: ServerId) -> Option<&A> {
        match &self.replica(server)?.word {
            Word::Answer(answer) => Some(answer),
            _ => None,
        }
    }

    /// Whether `server` is a replica that has not responded yet.
    pub fn is_pending(&self, server: ServerId) -> bool {
        let word = self.replica(server).map(|replica| &replica.word);
        matches!(word, Some(Word::Pending))
    }

    /// The replicas that have not responded yet.
    pub fn pending_servers(&self) -> impl Iterator<Item = ServerId> {
        let replicas = self.replicas.iter();
        let pending = replicas.filter(|replica| matches!(replica.word, Word::Pending));
        pending.map(|replica| replica.server)
    }

    fn replica(&self, server: ServerId) -> Option<&Replica<A>> {
        let mut replicas = self.replicas.iter();
        replicas.find(|replica| replica.server == server)
    }

    /// What the replicas answered, in preference order.
    pub fn answers(&self) -> impl Iterator<Item = &A> + Clone {
        self.replicas
            .iter()
            .filter_map(|replica| match &replica.word {
                Word::Answer(answer) => Some(answer),
                _ => None,
            })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::start_of_time;

    const ASKED: [u16; 3] = [4, 2, 9];

    fn tally_at(now: Instant) -> Tally<u8> {
        let point = |server| RingPoint {
            position: Position([server as u8; 20]),
            server: ServerId(server),
        };
        Tally::new(ASKED.map(point).to_vec(), now)
    }

    #[test]
    fn first_word_counts_repeats_and_strangers_do_not() {
        let now = start_of_time();
        let mut tally = tally_at(now);
        let later = now + Duration::from_micros(150);
        assert_eq!(
            tally.record(ServerId(2), Word::Answer(7), later),
            Recorded::Counted
        );
        assert_eq!(
            tally.record(ServerId(2), Word::Answer(8), later),
            Recorded::Repeated
        );
        assert_eq!(
            tally.record(ServerId(2), Word::Unreachable, later),
            Recorded::Repeated
        );
        assert_eq!(
            tally.record(ServerId(3), Word::Answer(9), later),
            Recorded::Stranger
        );
        assert_eq!(
            tally.record(ServerId(4), Word::Pending, later),
            Recorded::Repeated
        );
        assert_eq!(tally.answers().collect::<Vec<_>>(), [&7]);
        assert_eq!(tally.pending(), 2);
        assert_eq!(
            tally.replicas()[1].latency,
            Some(Duration::from_micros(150))
        );

        tally.expire();
        assert_eq!(tally.pending(), 0);
        assert_eq!(
            tally.record(ServerId(4), Word::Answer(1), later),
            Recorded::Repeated
        );
        assert_eq!(tally.replicas()[0].word, Word::TimedOut);
        assert_eq!(tally.replicas()[0].latency, None);
    }

    /// Every sequence of up to six words over three replicas and a stranger, each an answer or
    /// unreachable: the tally equals the map of first words.
    #[test]
    fn every_sequence_of_six_words_keeps_first_words_only() {
        let now = start_of_time();
        let words: Vec<(u16, Word<u8>)> = [4, 2, 9, 5]
            .into_iter()
            .flat_map(|server| {
                [
                    (server, Word::Answer(server as u8)),
                    (server, Word::Unreachable),
                ]
            })
            .collect();
        let length = 6;
        for code in 0..words.len().pow(length) {
            let mut tally = tally_at(now);
            let mut first_words = [Word::Pending; 3];
            let mut rest = code;
            for _ in 0..length {
                let (server, word) = words[rest % words.len()];
                rest /= words.len();
                tally.record(ServerId(server), word, now);
                if let Some(place) = ASKED.iter().position(|&asked| asked == server)
                    && first_words[place] == Word::Pending
                {
                    first_words[place] = word;
                }
            }
            let kept: Vec<_> = tally
                .replicas()
                .iter()
                .map(|replica| replica.word)
                .collect();
            assert_eq!(kept, first_words);
            let pending = first_words
                .iter()
                .filter(|word| **word == Word::Pending)
                .count();
            assert_eq!(tally.pending(), pending);
        }
    }
}
