//! Which of the reasons that replicas gave for refusing is the one that a problem names.

use std::cmp::Reverse;
use std::mem::discriminant;

use dkvs_common::kv::Key;
use dkvs_common::quorum::Refusal;
use dkvs_common::quorum::params::Quorum;
use dkvs_common::record::Content;

use crate::http::key_value::{invalid_key, invalid_value, key_too_long};
use crate::http::problem::Problem;

/// The reason that most replicas gave, the first of them among equals. A limit in it is the one in
/// force: enough replicas accept whatever is no longer than that.
pub(super) fn in_force(refusals: &[Refusal], quorum: Quorum) -> Option<Refusal> {
    let is_like = |one: &Refusal, other: &Refusal| discriminant(one) == discriminant(other);
    let count = |refusal: &&Refusal| refusals.iter().filter(|it| is_like(it, refusal)).count();
    // `max_by_key` takes the last among equals.
    let commonest = refusals.iter().rev().max_by_key(count)?;
    let mut alike = refusals.to_vec();
    alike.retain(|refusal| is_like(refusal, commonest));
    alike.sort_by_key(|refusal| Reverse(limit(*refusal)));
    let spare = usize::from(quorum.n()) - usize::from(quorum.required());
    // The quorum lacks so many of the replicas that refused.
    let missing = refusals.len().saturating_sub(spare).max(1);
    alike.get(missing - 1).or(alike.last()).copied()
}

/// Whether the key cannot travel to the servers, whatever the request.
pub(super) fn is_about_key(refusal: Refusal) -> bool {
    matches!(refusal, Refusal::KeyTooLong { .. } | Refusal::HasNul)
}

/// The problem of a key, or of what was to be stored under it, that cannot travel to the servers. A
/// read has no content.
pub(super) fn not_carried(refusal: Refusal, key: &Key, content: Option<&Content>) -> Problem {
    let bytes = key.as_bytes().len();
    match refusal {
        Refusal::KeyTooLong { key_bytes_max } => key_too_long(format!(
            "the key is {bytes} bytes long; with datagrams to the servers as short as they \
             are{}, the limit is {key_bytes_max}",
            match content {
                Some(Content::Value { .. }) => ", and this value and content type",
                _ => "",
            }
        )),
        _ if key.as_bytes().contains(&0) => {
            invalid_key("the key has a NUL byte, which the servers cannot take: they speak DKVS/1")
        }
        _ => invalid_value(
            "the value has a NUL byte, which the servers cannot take: they speak DKVS/1",
        ),
    }
}

fn limit(refusal: Refusal) -> u32 {
    match refusal {
        Refusal::TooLarge { value_bytes_max } => value_bytes_max,
        Refusal::KeyTooLong { key_bytes_max } => key_bytes_max,
        _ => 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn too_large(value_bytes_max: u32) -> Refusal {
        Refusal::TooLarge { value_bytes_max }
    }

    fn too_long(key_bytes_max: u32) -> Refusal {
        Refusal::KeyTooLong { key_bytes_max }
    }

    #[test]
    fn the_reason_is_the_commonest_and_its_limit_the_one_that_holds() {
        for (n, needed, refusals, expected) in [
            (3, 2, &[][..], None),
            (3, 2, &[Refusal::Full, Refusal::Busy], Some(Refusal::Full)),
            (
                3,
                2,
                &[Refusal::Full, Refusal::Busy, Refusal::Busy],
                Some(Refusal::Busy),
            ),
            // One more has to take it: a value of 20 bytes would have been taken.
            (3, 2, &[too_large(10), too_large(20)], Some(too_large(20))),
            (3, 2, &[too_large(20), too_large(10)], Some(too_large(20))),
            // Two more have to.
            (
                3,
                2,
                &[too_large(30), too_large(10), too_large(20)],
                Some(too_large(20)),
            ),
            (
                3,
                3,
                &[too_large(30), too_large(10), too_large(20)],
                Some(too_large(10)),
            ),
            (
                3,
                1,
                &[too_long(30), too_long(10), too_long(20)],
                Some(too_long(30)),
            ),
            // Different limits are one reason all the same.
            (
                5,
                3,
                &[
                    Refusal::Full,
                    Refusal::Full,
                    too_long(1),
                    too_long(2),
                    too_long(3),
                ],
                Some(too_long(1)),
            ),
        ] {
            let quorum = Quorum::new(n, needed).unwrap();
            assert_eq!(
                in_force(refusals, quorum),
                expected,
                "{n} {needed} {refusals:?}"
            );
        }
    }
}
