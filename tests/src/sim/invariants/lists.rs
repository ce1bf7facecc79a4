//! A list has every key whose newest write was confirmed before it began, and none that was deleted
//! before, as far as its pages go; each once, and none that nobody ever wrote.
//!
//! Of a key that is written or deleted while it is listed, or whose last write has an unknown outcome,
//! nothing is promised; nor of keys that were not written to a majority of the cluster's replication, nor
//! where clients or servers speak DKVS/1.

use dkvs_common::quorum::level::Level;
use dkvs_common::quorum::list::{List, ListPosition};

use super::Violation;
use crate::history::{Action, Reply};
use crate::sim::ledger::{Entry, Ledger};
use crate::sim::moment::Moment;
use crate::sim::plan::{KeyPlan, Plan};

/// Looks at a page that begins at `start` and was asked for at `asked`. Returns of how many keys it was
/// certain whether they are in it.
pub fn check(
    plan: &Plan,
    ledger: &Ledger,
    list: &List,
    start: &ListPosition,
    asked: Moment,
) -> Result<u64, Violation> {
    let mut certain = 0;
    let mut listed = 0;
    for (number, key) in plan.keys.iter().enumerate() {
        let place = ListPosition::after(key.key.clone());
        let is_covered = place > *start && list.next().is_none_or(|next| place <= *next);
        let times = list
            .keys()
            .iter()
            .filter(|other| **other == key.key)
            .count();
        listed += times;
        let name = number + 1;
        if times > usize::from(is_covered) {
            let what =
                format!("k{name} is listed {times} times in a page that begins at {start:?}");
            return Err(Violation::new("lists", what));
        }
        let is_there = expected(plan, ledger, number, key, asked);
        if let Some(is_there) = is_there.filter(|_| is_covered) {
            certain += 1;
            if is_there != (times == 1) {
                let what = format!("k{name}: is there: {is_there}, is listed: {}", times == 1);
                return Err(Violation::new("lists", what));
            }
        }
    }
    // Servers of the version before take damaged datagrams for DKVS/1, and store what they seem to say.
    match listed == list.keys().len() || plan.v1.is_some() {
        true => Ok(certain),
        false => Err(Violation::new(
            "lists",
            "a key is listed that nobody ever wrote",
        )),
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
            Reply::NotDone => {}
            Reply::Done => {
                let tag = entry.tag?;
                if newest.is_none_or(|newest| Some(tag) > newest.tag) {
                    newest = Some(entry);
                }
            }
            _ => return None,
        }
    }
    let newest = newest.map(|entry| entry.operation.action);
    Some(matches!(newest, Some(Action::Write(_))))
}
