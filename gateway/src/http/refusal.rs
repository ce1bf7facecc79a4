//! Which of the reasons that replicas gave is the one that the caller is told.

use std::cmp::Reverse;
use std::mem::discriminant;

use dkvs_common::quorum::Refusal;
use dkvs_common::quorum::params::Quorum;

/// The reason that most replicas gave, the first of them among equals. Where it is about a limit,
/// that is the one in force: what is no longer than that is refused by so few that the others are
/// enough.
pub(super) fn in_force(refusals: &[Refusal], quorum: Quorum) -> Option<Refusal> {
    let is_like = |one: &Refusal, other: &Refusal| discriminant(one) == discriminant(other);
    let count = |refusal: &&Refusal| refusals.iter().filter(|it| is_like(it, refusal)).count();
    // `max_by_key` takes the last among equals.
    let commonest = refusals.iter().rev().max_by_key(count)?;
    let mut alike = refusals.to_vec();
    alike.retain(|refusal| is_like(refusal, commonest));
    alike.sort_by_key(|refusal| Reverse(limit(*refusal)));
    let spare = usize::from(quorum.n()) - usize::from(quorum.required());
    // So many of those that refused would have had to do it.
    let missing = refusals.len().saturating_sub(spare).max(1);
    alike.get(missing - 1).or(alike.last()).copied()
}

/// Whether the key cannot travel, whatever is done with it.
pub(super) fn is_about_key(refusal: Refusal) -> bool {
    matches!(refusal, Refusal::KeyTooLong { .. } | Refusal::HasNul)
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
        for (n, needed, refusals, told) in [
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
                told,
                "{n} {needed} {refusals:?}"
            );
        }
    }
}
