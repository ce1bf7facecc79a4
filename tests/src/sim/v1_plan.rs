//! What speaks DKVS/1 in a world, and what a seed decides of it.

use super::chance::Chance;
use crate::random::Random;

/// What speaks DKVS/1.
#[derive(Debug, Clone)]
pub struct V1Plan {
    /// Whether gateways speak it to servers that answer nothing else.
    pub is_auto: bool,
    /// By server: what it speaks.
    pub servers: Vec<Dialect>,
    /// By server: by how much its wall clock is ahead of the true time, in milliseconds.
    pub ahead_ms: Vec<i64>,
    /// How many clients ask servers by DKVS/1, without a gateway.
    pub clients: usize,
    /// By key: whether they use it.
    pub is_shared: Vec<bool>,
    /// How likely one of their operations is a read.
    pub reads: Chance,
    /// How likely a request to a gateway may do with the level agreement.
    pub falls_back: Chance,
    /// Whether they write every key that they use once more when nothing goes wrong any more.
    pub has_final_write: bool,
}

/// What a server speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Dialect {
    /// Both protocols.
    Both,
    /// Both, as servers did that took whatever does not begin with the magic of DKVS/2 for DKVS/1.
    Lenient,
    /// DKVS/1 only.
    V1,
}

impl V1Plan {
    /// What this seed decides for so many servers and keys; nothing speaks DKVS/1 in about half of them.
    pub fn draw(random: &mut Random, servers: usize, keys: usize) -> Option<Self> {
        let (has_servers, has_clients) = match random.below(100) {
            0..50 => return None,
            50..75 => (false, true),
            75..80 => (false, false),
            80..90 => (true, false),
            _ => (true, true),
        };
        let is_lenient = Chance::percent(30).happens(random);
        let is_auto = has_servers || !has_clients || Chance::percent(50).happens(random);
        let one = random.below(servers);
        let likely = random.one_of(&[Chance::NEVER, Chance::percent(30), Chance::percent(60)]);
        let other = random.below(servers - 1);
        let dialect = |random: &mut Random, number: usize| {
            let is_v1 = number == one || likely.happens(random);
            match has_servers && is_v1 && number != (one + 1 + other) % servers {
                true => Dialect::V1,
                false if is_lenient => Dialect::Lenient,
                false => Dialect::Both,
            }
        };
        let hours = random.one_of(&[0, 0, 1, 3]);
        let ahead = |random: &mut Random| {
            let most_ms = hours * 3_600_000;
            random.below(2 * most_ms + 1) as i64 - most_ms as i64
        };
        let shared = random.below(keys);
        let is_shared = |random: &mut Random, key: usize| {
            has_clients && (key == shared || Chance::percent(40).happens(random))
        };
        Some(Self {
            is_auto,
            servers: (0..servers).map(|number| dialect(random, number)).collect(),
            ahead_ms: (0..servers).map(|_| ahead(random)).collect(),
            clients: if has_clients { 1 + random.below(3) } else { 0 },
            is_shared: (0..keys).map(|key| is_shared(random, key)).collect(),
            reads: Chance::percent(20 + random.below(50) as u32),
            falls_back: random.one_of(&[Chance::percent(100), Chance::percent(60)]),
            has_final_write: Chance::percent(50).happens(random),
        })
    }
}
