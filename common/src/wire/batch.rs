//! For how many datagrams to make room in one call of the system.

/// At the start, and at least.
const BATCH_MIN: usize = 4;

/// How many datagrams are expected together. To prepare room for one costs something, whether it
/// comes or not: so there is room for many only while many come.
#[derive(Debug, Clone)]
pub struct BatchSize {
    size: usize,
    max: usize,
}

impl BatchSize {
    /// At most `max`, which is not 0.
    pub fn new(max: usize) -> Self {
        let size = BATCH_MIN.min(max);
        Self { size, max }
    }

    /// The room for the next call.
    pub fn get(&self) -> usize {
        self.size
    }

    /// So many came by a call: twice the room if it was full, half if most of it stayed empty.
    pub fn received(&mut self, count: usize) {
        if count >= self.size {
            self.size = (self.size * 2).min(self.max);
        } else if count < self.size / 4 {
            self.size = (self.size / 2).max(BATCH_MIN.min(self.max));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_room_follows_what_comes_within_its_bounds() {
        let mut size = BatchSize::new(32);
        let mut after = |count| {
            size.received(count);
            size.get()
        };
        // Full, full, full, full; few, some, few: what is used at least by a quarter stays.
        for (count, expected) in [
            (1, 4),
            (4, 8),
            (8, 16),
            (16, 32),
            (32, 32),
            (8, 32),
            (7, 16),
            (4, 16),
            (1, 8),
            (1, 4),
            (1, 4),
            (0, 4),
        ] {
            assert_eq!(after(count), expected, "{count}");
        }
        let mut one = BatchSize::new(1);
        for count in [1, 0, 1] {
            one.received(count);
            assert_eq!(one.get(), 1);
        }
    }
}
