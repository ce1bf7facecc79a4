use super::fixture::*;
use crate::cluster::ServerId;
use crate::quorum::read::{Answer, ReadOutcome, ReadReply};
use crate::quorum::tally::Word;
use crate::quorum::write::WriteReply;
use crate::quorum::{Ask, Refusal, Transmit};
use crate::tag::Tag;

/// Every order of answers, and every way their repairs end: what is told is at least as new
/// as everything among the first r answers, and r replicas hold it by then.
#[test]
fn whatever_the_answers_what_is_told_is_the_newest_of_r_and_held_by_r() {
    let answers = [
        Some(ReadReply::Absent(None)),
        Some(whole(OLD)),
        Some(whole(NEW)),
        Some(ReadReply::Absent(Some(Tag { time: 3, op: 0 }))),
        Some(ReadReply::Refused(Refusal::Busy)),
        Some(CORRUPT),
        None,
    ];
    for r in [2u8, 3] {
        for code in 0..answers.len().pow(3) * 8 {
            let repair_succeeds = |server: ServerId| code >> server.index() & 1 == 1;
            let (mut read, now) = read(r);
            let mut held: Vec<Option<Tag>> = Vec::new();
            let mut rest = code >> 3;
            for server in SERVERS {
                let answer = answers[rest % answers.len()].clone();
                rest /= answers.len();
                let is_open = read.outcome().is_none();
                match answer {
                    None => drop(read.handle_unreachable(server, 0, true, now)),
                    Some(reply) => {
                        if is_open {
                            held.push(match &reply {
                                ReadReply::Record(digest, _) => Some(digest.tag),
                                ReadReply::Absent(tag) => Some(tag.unwrap_or(Tag::ZERO)),
                                _ => None,
                            });
                        }
                        read.handle_reply(server, 0, reply, now);
                    }
                }
                while let Some(Transmit { to, ask }) = read.poll_transmit() {
                    let (tag, _) = read.repair().unwrap();
                    let word = read.replicas()[to.index()].word;
                    let is_corrupt = word == Word::Answer(Answer::Refused(Refusal::Corrupt));
                    if ask == (Ask::Vouch { tag }) {
                        assert!(is_corrupt);
                        read.handle_vouched(to, 0, true);
                        continue;
                    }
                    assert_eq!(ask, Ask::Put);
                    let stored = repair_succeeds(to);
                    if stored && !is_corrupt && read.outcome().is_none() {
                        held.push(Some(tag));
                    }
                    read.handle_repaired(to, 0, stored.then_some(WriteReply::Stored));
                }
            }
            let told = match read.outcome() {
                Some(ReadOutcome::Found(_, version)) => version.tag.unwrap(),
                Some(ReadOutcome::Absent) => read.tombstone().unwrap_or(Tag::ZERO),
                Some(ReadOutcome::Unreachable) => continue,
                other => panic!("{other:?}"),
            };
            let r = usize::from(r);
            let tags: Vec<Tag> = held.into_iter().flatten().collect();
            assert!(tags[..r].iter().all(|tag| *tag <= told), "{code}");
            assert!(tags.iter().filter(|tag| **tag >= told).count() >= r);
            assert!(read.agreeing() >= r && read.is_complete());
        }
    }
}
