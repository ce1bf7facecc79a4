//! Lists: somebody lists keys, page by page, at one gateway after the other, beside the clients: all of
//! them or some, up or down, with folders or without.
//!
//! In some worlds only, so that others are what they would be without.

use std::time::Duration;

use dkvs_common::quorum::list::{ListOutcome, Listing};

use super::gateway::Stimulus;
use super::invariants::lists;
use super::lister::{PageAnswer, PageOrder};
use super::log::Line;
use super::statistics::Count;
use super::world::{Event, Phase, World};

/// Between the end of a page and the next.
const PAUSE: Duration = Duration::from_millis(2);

impl World {
    /// The page after this one is asked for, unless it was, for as long as the clients ask for anything.
    pub(super) fn take_lister_turn(&mut self, page: usize) {
        let up = |gateway: &usize| self.gateways[*gateway].is_up();
        let up: Vec<usize> = (0..self.plan.gateways.len()).filter(up).collect();
        let Some(lister) = self.lister.as_mut().filter(|_| self.phase == Phase::Chaos) else {
            return;
        };
        if lister.page != page {
            return;
        }
        let page = page + 1;
        let timeout = Duration::from_millis(lister.random.one_of(&[20, 100, 500]));
        let listing = lister.next_listing(&self.plan);
        let items_max = listing.items_max;
        let place = lister.random.below(up.len().max(1));
        lister.page = page;
        lister.asked_for = Some(listing.clone());
        lister.asked = self.now;
        // Whether there is an answer by then or not.
        let at = self.now + timeout + PAUSE;
        self.queue.enter(at, Event::ListerTurn { page });
        let Some(gateway) = up.get(place).copied() else {
            return;
        };
        let order = PageOrder {
            page,
            listing,
            timeout,
        };
        let numbers = [page as u64, gateway as u64];
        self.log.enter(self.now, Line::Requested, &numbers, || {
            format!(
                "page {} of {items_max} items is asked for at gw{gateway}",
                numbers[0]
            )
        });
        self.stimulate_gateway(gateway, Stimulus::List(order));
    }

    /// A gateway has listed a page.
    pub(super) fn handle_page(&mut self, answer: PageAnswer) {
        let Some(lister) = self.lister.as_mut().filter(|it| it.page == answer.page) else {
            return;
        };
        let page = answer.page;
        self.queue
            .enter(self.now + PAUSE, Event::ListerTurn { page });
        let Some(list) = answer.list else { return };
        let numbers = [page as u64, list.items().len() as u64];
        let outcome = list.outcome();
        self.log.enter(self.now, Line::Answered, &numbers, || {
            format!("page {} has {} items: {outcome:?}", numbers[0], numbers[1])
        });
        if outcome != Some(ListOutcome::Listed) {
            return;
        }
        let Some(listing) = lister.asked_for.take() else {
            return;
        };
        lister.listing = list.next().map(|next| Listing {
            start: next.clone(),
            ..listing.clone()
        });
        let page = lists::Page {
            listing: &listing,
            list: &list,
            asked: lister.asked,
        };
        let checked = page.check(&self.plan, &self.ledger);
        match checked {
            Ok(keys) => self.statistics.add(Count::ListedKeysChecked, keys),
            Err(violation) => self.report(Err(violation)),
        }
    }
}
