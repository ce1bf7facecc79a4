//! Who lists keys, page by page, and what is asked for and answered.

use std::time::Duration;

use bytes::Bytes;
use dkvs_common::model::{Direction, KeyPosition};
use dkvs_common::quorum::list::{List, Listing};
use dkvs_common::quorum::params::majority;

use super::chance::Chance;
use super::moment::Moment;
use super::plan::Plan;
use crate::random::Random;

/// Who lists.
pub struct Lister {
    pub(super) random: Random,
    /// What is listed, from where the next page begins; none if a new list is to begin.
    pub(super) listing: Option<Listing>,
    /// The number of the page that was asked for last, what it is of, and when that was.
    pub(super) page: usize,
    pub(super) asked_for: Option<Listing>,
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
            listing: None,
            page: 0,
            asked_for: None,
            asked: Moment::START,
        })
    }

    /// What the next page is of: of the list under way, or of a new one.
    pub(super) fn next_listing(&mut self, plan: &Plan) -> Listing {
        let random = &mut self.random;
        let listing = self
            .listing
            .get_or_insert_with(|| draw_listing(plan, random));
        listing.items_max = random.one_of(&[1, 2, 5, 1_000]);
        listing.clone()
    }
}

fn draw_listing(plan: &Plan, random: &mut Random) -> Listing {
    let text = |text: &'static str| Bytes::from_static(text.as_bytes());
    let direction = random.one_of(&[Direction::Ascending, Direction::Descending]);
    let prefix = text(random.one_of(&["", "", "", "d", "d/"]));
    let start = match random.below(4) {
        0 => {
            let key = &plan.keys[random.below(plan.keys.len())].key;
            KeyPosition::at(key.clone().into_bytes(), direction)
        }
        _ => KeyPosition::first_of(&prefix, direction),
    };
    Listing {
        prefix,
        start,
        direction,
        delimiter: text(random.one_of(&["", "/"])),
        items_max: 1,
        silent_max: usize::from(plan.replication - majority(plan.replication)),
    }
}
