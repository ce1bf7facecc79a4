//! Attempts, answer by answer.

use super::*;
use crate::record::Content;
use crate::ring::{Position, RingPoint};

const BASE: Tag = Tag {
    time: 5,
    op: 7 << 32,
};

fn ballot(number: u64) -> Ballot {
    Ballot {
        number,
        proposer: 9,
    }
}

fn record(value: &'static str) -> Record {
    let key = Key::new("k").unwrap();
    let content = Content::Value {
        content_type: crate::record::ContentType::default(),
        value: crate::kv::Value::new(value).unwrap(),
    };
    Record::new(&key, BASE.successor().unwrap(), content)
}

fn proposal() -> Proposal {
    let point = |server| RingPoint {
        position: Position([server as u8; 20]),
        server: ServerId(server),
    };
    let list: PreferenceList = [0, 1, 2].map(point).to_vec();
    let quorum = Quorum::new(3, 2).unwrap();
    let own = (record("own"), false);
    let key = Key::new("k").unwrap();
    Proposal::new(key, BASE, ballot(2), own, (&list, quorum), 4)
}

fn promised(accepted: Option<(u64, &'static str)>) -> ReplicaResponse {
    ReplicaResponse::Promised {
        grant: 77,
        is_tombstone: false,
        accepted: accepted.map(|(number, value)| Accepted {
            ballot: ballot(number),
            record: record(value),
        }),
    }
}

/// What is sent: to whom, and what for.
fn sent(proposal: &mut Proposal) -> Vec<(u16, Purpose)> {
    let sent = std::iter::from_fn(|| proposal.poll_transmit());
    sent.map(|it| (it.to.0, it.id.purpose)).collect()
}

fn answer(proposal: &mut Proposal, from: u16, purpose: Purpose, response: ReplicaResponse) {
    proposal.handle_response(ServerId(from), purpose, response);
}

#[test]
fn a_record_is_stored_once_a_majority_has_accepted_it() {
    use Purpose::{Accept, Commit, Prepare, Put};
    let mut it = proposal();
    assert_eq!(sent(&mut it), [(0, Prepare), (1, Prepare), (2, Prepare)]);
    answer(&mut it, 0, Prepare, promised(None));
    assert_eq!(sent(&mut it), []);
    answer(&mut it, 1, Prepare, promised(None));
    assert_eq!(sent(&mut it), [(0, Accept), (1, Accept)]);
    assert!(it.has_sent_own());
    // A late promise changes nothing, and is included.
    answer(&mut it, 2, Prepare, promised(None));
    assert_eq!(sent(&mut it), [(2, Accept)]);
    answer(&mut it, 0, Accept, ReplicaResponse::Done);
    assert_eq!(sent(&mut it), []);
    answer(&mut it, 2, Accept, ReplicaResponse::Done);
    assert_eq!(sent(&mut it), [(0, Commit), (1, Commit), (2, Commit)]);
    answer(&mut it, 0, Commit, ReplicaResponse::Done);
    answer(&mut it, 1, Commit, ReplicaResponse::absent(BASE));
    assert_eq!(sent(&mut it), [(1, Put)]);
    assert_eq!(it.outcome(), None);
    answer(&mut it, 1, Put, ReplicaResponse::Done);
    let is_own = true;
    assert_eq!(it.outcome(), Some(ProposalOutcome::Committed { is_own }));
}

#[test]
fn what_was_accepted_under_the_greatest_ballot_is_proposed() {
    use Purpose::{Accept, Prepare};
    let mut it = proposal();
    let _ = sent(&mut it);
    answer(&mut it, 0, Prepare, promised(None));
    answer(&mut it, 2, Prepare, promised(Some((1, "theirs"))));
    let transmit = it.poll_transmit().unwrap();
    let ReplicaCommand::Accept {
        record: proposed,
        grant: 77,
        ..
    } = transmit.command
    else {
        panic!("{transmit:?}");
    };
    assert_eq!(proposed, record("theirs"));
    assert!(!it.has_sent_own());
    let _ = sent(&mut it);
    for server in [0, 2] {
        answer(&mut it, server, Accept, ReplicaResponse::Done);
    }
    let _ = sent(&mut it);
    for server in [0, 1, 2] {
        answer(&mut it, server, Purpose::Commit, ReplicaResponse::Done);
    }
    let is_own = false;
    assert_eq!(it.outcome(), Some(ProposalOutcome::Committed { is_own }));
}

#[test]
fn a_late_promise_of_what_would_have_changed_the_choice_is_left_out() {
    let mut it = proposal();
    let _ = sent(&mut it);
    for server in [0, 1] {
        answer(&mut it, server, Purpose::Prepare, promised(None));
    }
    let _ = sent(&mut it);
    answer(&mut it, 2, Purpose::Prepare, promised(Some((1, "theirs"))));
    assert_eq!(sent(&mut it), []);
    // It is given the record, and told nothing of what it has accepted.
    for server in [0, 1] {
        answer(&mut it, server, Purpose::Accept, ReplicaResponse::Done);
    }
    let expected = [
        (0, Purpose::Commit),
        (1, Purpose::Commit),
        (2, Purpose::Put),
    ];
    assert_eq!(sent(&mut it), expected);
}

#[test]
fn another_version_or_ballot_ends_it_and_a_silent_replica_does_not() {
    let newer = Tag { time: 6, ..BASE };
    let superseded = ReplicaResponse::Superseded { tag: newer };
    let preempted = ReplicaResponse::Preempted {
        promised: ballot(3),
    };
    for (responses, outcome) in [
        (
            vec![superseded.clone()],
            Some(ProposalOutcome::OtherVersion),
        ),
        (
            vec![preempted.clone()],
            Some(ProposalOutcome::Preempted(ballot(3))),
        ),
        (vec![ReplicaResponse::absent(Tag::ZERO)], None),
        (
            vec![ReplicaResponse::absent(Tag::ZERO); 2],
            Some(ProposalOutcome::OtherVersion),
        ),
        (vec![ReplicaResponse::Refused(Refusal::Busy)], None),
        (
            vec![ReplicaResponse::Refused(Refusal::Busy); 2],
            Some(ProposalOutcome::Failed),
        ),
    ] {
        let mut it = proposal();
        let _ = sent(&mut it);
        for (server, response) in (0..).zip(responses.clone()) {
            answer(&mut it, server, Purpose::Prepare, response);
        }
        assert_eq!(it.outcome(), outcome, "{responses:?}");
    }
    // Once it is sent, too.
    for (response, outcome) in [
        (superseded, ProposalOutcome::OtherVersion),
        (preempted, ProposalOutcome::Preempted(ballot(3))),
    ] {
        let mut it = proposal();
        let _ = sent(&mut it);
        for server in [0, 1] {
            answer(&mut it, server, Purpose::Prepare, promised(None));
        }
        let _ = sent(&mut it);
        answer(&mut it, 0, Purpose::Accept, response);
        assert_eq!((it.outcome(), it.has_sent_own()), (Some(outcome), true));
    }
}

#[test]
fn a_version_that_is_deleted_has_no_successor_for_who_expects_a_value() {
    let mut it = proposal();
    let _ = sent(&mut it);
    for server in [0, 1] {
        let deleted = ReplicaResponse::Promised {
            grant: 1,
            is_tombstone: true,
            accepted: None,
        };
        answer(&mut it, server, Purpose::Prepare, deleted);
    }
    assert_eq!(it.outcome(), Some(ProposalOutcome::Tombstone));
}
