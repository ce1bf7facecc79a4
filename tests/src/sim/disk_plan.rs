//! What a seed decides of disks.

use dkvs_storage_node::scrub::Pace;

use super::chance::{Chance, Span};
use crate::random::Random;

/// How disks are, of which each server has one.
#[derive(Debug, Clone, Copy)]
pub struct DiskPlan {
    /// How long a commit takes.
    pub commit: Span,
    /// The same of the disks that may be lost, if these are others.
    pub victims_commit: Option<Span>,
    /// How long it takes to read a value.
    pub read: Span,
    /// Most memory for values, in bytes.
    pub cache_bytes_max: usize,
    /// How likely it is the machine that goes down when a server crashes, so that what was not
    /// synced may be lost.
    pub power_loss: Chance,
    /// The server from which on disks may be lost or damaged, and of how many: never of so many
    /// that a majority of any key's replicas is hit.
    pub victims: (usize, usize),
    /// At which pace servers read again what is on them, if they do.
    pub scrub: Option<Pace>,
}

impl DiskPlan {
    /// Those of so many servers, if they have any.
    pub fn draw(random: &mut Random, servers: usize, replication: u8) -> Option<Self> {
        if Chance::percent(50).happens(random) {
            return None;
        }
        Some(Self {
            commit: random.one_of(&[
                Span::us(100, 1_000),
                Span::us(100, 1_000),
                Span::ms(1, 10),
                Span::ms(5, 100),
            ]),
            victims_commit: None,
            power_loss: random.one_of(&[Chance::NEVER, Chance::percent(50), Chance::percent(100)]),
            victims: (random.below(servers), usize::from(replication / 2)),
            read: random.one_of(&[Span::us(20, 200), Span::us(100, 5_000), Span::ms(1, 50)]),
            cache_bytes_max: random.one_of(&[0, 0, 1_000, 1 << 20]),
            scrub: None,
        })
    }

    /// As it is for this server, of so many.
    pub fn of(self, server: usize, servers: usize) -> Self {
        let is_victim = self.may_hit(server, servers);
        let commit = self.victims_commit.filter(|_| is_victim);
        Self {
            commit: commit.unwrap_or(self.commit),
            ..self
        }
    }

    /// Whether the disk of this server, of so many, may be lost or damaged.
    pub fn may_hit(&self, server: usize, servers: usize) -> bool {
        let (first, count) = self.victims;
        (server + servers - first) % servers < count
    }
}

/// At which pace servers read their disks again, if they do.
pub fn draw_scrub(random: &mut Random) -> Option<Pace> {
    let pace = Pace {
        bytes_per_second: random.one_of(&[100_000, 1 << 20, 64 << 20]),
        round_min: Span::ms(100, 2_000).draw(random),
    };
    Chance::percent(75).happens(random).then_some(pace)
}
