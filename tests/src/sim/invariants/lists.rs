//! A list has every key whose newest write was confirmed before it began, and none that was deleted
//! before, as far as its pages go; each once, in order, and none that nobody ever wrote. A folder is
//! listed for those in it.
//!
//! Of a key that is written or deleted while it is listed, or whose last write has an unknown outcome,
//! nothing is promised; nor of keys that were not written to a majority of the cluster's replication, nor
//! where clients or servers speak DKVS/1.

use std::cmp::Ordering;

use dkvs_common::kv::Key;
use dkvs_common::model::KeyPosition;
use dkvs_common::quorum::level::Level;
use dkvs_common::quorum::list::{List, ListItem, Listing};

use super::Violation;
use crate::history::{Action, Reply};
use crate::sim::ledger::{Entry, Ledger};
use crate::sim::moment::Moment;
use crate::sim::plan::{KeyPlan, Plan};

/// A page that was listed.
pub struct Page<'a> {
    /// What was asked for.
    pub listing: &'a Listing,
    /// What it came to.
    pub list: &'a List,
    /// When it was asked for.
    pub asked: Moment,
}

impl Page<'_> {
    /// Looks at the page. Returns of how many keys it was certain whether they are in it.
    pub fn check(&self, plan: &Plan, ledger: &Ledger) -> Result<u64, Violation> {
        self.check_order()?;
        let violation = |what| Err(Violation::new("lists", what));
        let mut certain = 0;
        for item in self.list.items() {
            let mut keys = plan.keys.iter().enumerate();
            let may_be_it = |(number, key): (usize, &KeyPlan)| {
                let is_there = expected(plan, ledger, number, key, self.asked);
                self.item(&key.key) == Some(item.clone()) && is_there != Some(false)
            };
            // Servers of the version before take damaged datagrams for DKVS/1, and store what they seem
            // to say.
            if !keys.any(may_be_it) && plan.v1.is_none() {
                return violation(format!("{item:?} is listed, and has no value"));
            }
        }
        for (number, key) in plan.keys.iter().enumerate() {
            let Some(item) = self.item(&key.key) else {
                continue;
            };
            let is_there = expected(plan, ledger, number, key, self.asked);
            certain += u64::from(is_there.is_some());
            if is_there == Some(true) && !self.list.items().contains(&item) {
                return violation(format!("k{} is not listed", number + 1));
            }
        }
        Ok(certain)
    }

    fn check_order(&self) -> Result<(), Violation> {
        let direction = self.listing.direction;
        let items = self.list.items();
        let is_before = |one: &ListItem, next: &ListItem| {
            direction.compare(one.as_bytes(), next.as_bytes()) == Ordering::Less
        };
        match items.is_sorted_by(is_before) {
            true => Ok(()),
            false => Err(Violation::new(
                "lists",
                format!("{items:?} are not in order"),
            )),
        }
    }

    /// What a key is listed as, if the page goes over it.
    fn item(&self, key: &Key) -> Option<ListItem> {
        let Listing {
            prefix,
            start,
            direction,
            delimiter,
            ..
        } = self.listing;
        let at = KeyPosition::at(key.clone().into_bytes(), *direction);
        let is_before = |one: &KeyPosition, other: &KeyPosition| {
            direction.compare(one, other) == Ordering::Less
        };
        let is_covered =
            !is_before(&at, start) && self.list.next().is_none_or(|next| is_before(&at, next));
        let key_bytes = key.as_bytes();
        let below = key_bytes.strip_prefix(&prefix[..]).filter(|_| is_covered)?;
        let mut ends = (1..=below.len()).filter(|end| below[..*end].ends_with(delimiter));
        Some(match ends.next().filter(|_| !delimiter.is_empty()) {
            Some(end) => {
                let folder = key_bytes[..prefix.len() + end].to_vec();
                ListItem::Folder(folder.into())
            }
            None => ListItem::Key(key.clone()),
        })
    }
}

/// Whether a key has a value all the time from then until now, or none; nothing if that is not certain.
fn expected(
    plan: &Plan,
    ledger: &Ledger,
    number: usize,
    key: &KeyPlan,
    asked: Moment,
) -> Option<bool> {
    let is_promised = key.level == Level::Linearizable
        && key.write.n() == plan.replication
        && 2 * key.write.required() > plan.replication
        && plan.v1.is_none()
        && !plan.is_forgetful;
    if !is_promised {
        return None;
    }
    let is_change = |entry: &&Entry| {
        let operation = &entry.operation;
        operation.key as usize == number && operation.action != Action::Read
    };
    let mut newest: Option<&Entry> = None;
    for entry in ledger.entries().iter().filter(is_change) {
        let returned = entry.operation.returned?;
        if returned >= asked.0 {
            return None;
        }
        match entry.operation.reply {
            Reply::NotDone | Reply::Failed(_) => {}
            Reply::Done => {
                let tag = entry.tag?;
                if newest.is_none_or(|newest| Some(tag) > newest.tag) {
                    newest = Some(entry);
                }
            }
            _ => return None,
        }
    }
    Some(newest.is_some_and(|entry| entry.operation.written().is_some()))
}
