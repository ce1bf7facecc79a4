use super::fixture::*;
use crate::cluster::ServerId;
use crate::model::{Refusal, ReplicaResponse};
use crate::quorum::read::{ReadOutcome, ReadResponse};
use crate::quorum::tally::ReplicaState;
use crate::tag::Tag;

/// Every order of responses, and every way their repairs end: what is returned is at least as new
/// as everything among the first r responses, and r replicas hold it by then.
#[test]
fn whatever_the_responses_what_is_returned_is_the_newest_of_r_and_held_by_r() {
    let responses = [
        Some(absent()),
        Some(whole(OLD)),
        Some(whole(NEW)),
        Some(deleted(Tag { time: 3, op: 0 })),
        Some(refused(Refusal::Busy)),
        Some(CORRUPT),
        None,
    ];
    for r in [2u8, 3] {
        for code in 0..responses.len().pow(3) * 8 {
            let repair_succeeds = |server: ServerId| code >> server.index() & 1 == 1;
            let (mut read, now) = read(r);
            let mut held: Vec<Option<Tag>> = Vec::new();
            let mut rest = code >> 3;
            for server in SERVERS {
                let response = responses[rest % responses.len()].clone();
                rest /= responses.len();
                let is_open = read.outcome().is_none();
                match response {
                    None => drop(read.handle_unreachable(server, get(0), true, now)),
                    Some(response) => {
                        if is_open {
                            held.push(match &response {
                                ReplicaResponse::Record { digest, .. } => Some(digest.tag),
                                ReplicaResponse::Absent { tag, .. } => Some(*tag),
                                _ => None,
                            });
                        }
                        read.handle_response(server, get(0), response, now);
                    }
                }
                while let Some((to, what)) = next_sent(&mut read) {
                    let (tag, _) = given(&mut read).unwrap();
                    let state = read.replicas()[to.index()].state;
                    let is_corrupt =
                        state == ReplicaState::Responded(ReadResponse::Refused(Refusal::Corrupt));
                    if what == (Sent::Attest { tag }) {
                        assert!(is_corrupt);
                        attested(&mut read, to, 0, true);
                        continue;
                    }
                    assert_eq!(what, Sent::Put);
                    let stored = repair_succeeds(to);
                    if stored && !is_corrupt && read.outcome().is_none() {
                        held.push(Some(tag));
                    }
                    written(&mut read, to, 0, stored.then_some(STORED));
                }
            }
            let returned = match read.outcome() {
                Some(ReadOutcome::Found(_, version)) => version.tag.unwrap(),
                Some(ReadOutcome::Absent) => read.tombstone().unwrap_or(Tag::ZERO),
                Some(ReadOutcome::Unreachable) => continue,
                other => panic!("{other:?}"),
            };
            let r = usize::from(r);
            let tags: Vec<Tag> = held.into_iter().flatten().collect();
            assert!(tags[..r].iter().all(|tag| *tag <= returned), "{code}");
            assert!(tags.iter().filter(|tag| **tag >= returned).count() >= r);
            assert!(read.agreeing() >= r && read.is_complete());
        }
    }
}
