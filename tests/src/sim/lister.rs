//! Who lists all keys, page by page, and what is asked for and answered.

use std::time::Duration;

use dkvs_common::quorum::list::{List, ListPosition, Listing};

use super::chance::Chance;
use super::moment::Moment;
use crate::random::Random;

/// Who lists.
pub struct Lister {
    pub(super) random: Random,
    /// Where the next page begins.
    pub(super) start: ListPosition,
    /// The number of the page that was asked for last, and when.
    pub(super) page: usize,
    pub(super) asked: Moment,
}

/// A page that a gateway lists.
#[derive(Debug, Clone)]
pub struct PageOrder {
    pub page: usize,
    pub listing: Listing,
    pub timeout: Duration,
}

/// The end of a page; no list if it was not even begun.
pub struct PageAnswer {
    pub page: usize,
    pub list: Option<List>,
}

/// In how many worlds there are lists.
const IN_WORLDS: Chance = Chance::percent(40);

impl Lister {
    /// The one of a world, if it has one.
    pub fn of(seed: u64) -> Option<Self> {
        let mut random = Random::of(seed, "lists");
        let is_there = IN_WORLDS.happens(&mut random);
        is_there.then_some(Self {
            random,
            start: ListPosition::START,
            page: 0,
            asked: Moment::START,
        })
    }
}
