//! What happened in a world, in order, for someone to follow.
//!
//! Every line goes into a hash, by its numbers; its words are made only where they are kept. So
//! two runs of a seed can be compared at no cost, and the one that is of interest is read.
//! Invariant: keeping the words changes nothing else.

use super::moment::Moment;

/// The lines of a world.
#[derive(Debug, Default)]
pub struct Log {
    hash: u64,
    lines: Option<Vec<String>>,
}

/// What a line is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Line {
    World,
    Sent,
    NotSent,
    Arrived,
    Dropped,
    Served,
    Noticed,
    Requested,
    Answered,
    Fault,
    Recovered,
    Checked,
    Synced,
    Read,
}

impl Log {
    /// An empty log that keeps words, or not.
    pub fn new(keeps_words: bool) -> Self {
        Self {
            hash: 0,
            lines: keeps_words.then(Vec::new),
        }
    }

    /// Enters a line: its numbers, and the words for them.
    pub fn enter(
        &mut self,
        at: Moment,
        line: Line,
        numbers: &[u64],
        words: impl FnOnce() -> String,
    ) {
        let numbers = [at.0, line as u64]
            .into_iter()
            .chain(numbers.iter().copied());
        self.hash = numbers.fold(self.hash, mix);
        if let Some(lines) = &mut self.lines {
            lines.push(format!("{at:>16}  {}", words()));
        }
    }

    /// One number for all lines so far.
    pub fn hash(&self) -> u64 {
        self.hash
    }

    /// The words that were kept.
    pub fn into_lines(self) -> Vec<String> {
        self.lines.unwrap_or_default()
    }
}

/// One number for some bytes.
pub fn digest(bytes: &[u8]) -> u64 {
    let (words, rest) = bytes.as_chunks::<8>();
    let words = words.iter().map(|word| u64::from_le_bytes(*word));
    let hash = words.fold(bytes.len() as u64, mix);
    rest.iter().map(|byte| u64::from(*byte)).fold(hash, mix)
}

/// One step: a multiplication that carries every bit upwards, and a fold that brings them down.
fn mix(hash: u64, number: u64) -> u64 {
    let wide =
        u128::from(hash ^ 0x9e37_79b9_7f4a_7c15) * u128::from(number ^ 0xd1b5_4a32_d192_ed03);
    (wide as u64) ^ ((wide >> 64) as u64) ^ number.rotate_left(23)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entered(keeps_words: bool, lines: &[(u64, Line, u64)]) -> Log {
        let mut log = Log::new(keeps_words);
        for (at, line, number) in lines {
            log.enter(Moment(*at), *line, &[*number], || format!("line {number}"));
        }
        log
    }

    #[test]
    fn the_hash_depends_on_every_number_and_their_order_and_not_on_the_words() {
        let lines = [(1, Line::Sent, 7), (2, Line::Arrived, 8)];
        let hash = entered(false, &lines).hash();
        assert_eq!(entered(true, &lines).hash(), hash);
        for other in [
            [(1, Line::Sent, 7), (2, Line::Arrived, 9)],
            [(1, Line::Sent, 7), (3, Line::Arrived, 8)],
            [(1, Line::Requested, 7), (2, Line::Arrived, 8)],
            [lines[1], lines[0]],
        ] {
            assert_ne!(entered(false, &other).hash(), hash);
        }
        assert_ne!(entered(false, &lines[..1]).hash(), hash);
    }

    #[test]
    fn words_are_kept_only_where_they_are_wanted() {
        let lines = [(1_500_000, Line::Sent, 7)];
        assert!(entered(false, &lines).into_lines().is_empty());
        assert_eq!(
            entered(true, &lines).into_lines(),
            ["        1.500 ms  line 7"]
        );
    }

    #[test]
    fn a_digest_depends_on_every_byte() {
        let bytes: Vec<u8> = (0..100).collect();
        let all = digest(&bytes);
        for place in 0..bytes.len() {
            let mut other = bytes.clone();
            other[place] ^= 1;
            assert_ne!(digest(&other), all);
        }
        assert_ne!(digest(&bytes[..99]), all);
    }
}
