use super::fixture::*;
use crate::cluster::ServerId;
use crate::model::{ReplicaCommand, ReplicaResponse};
use crate::quorum::read::ReadOutcome;
use crate::quorum::read::linearizable::LinearizableRead;
use crate::record::{Attributes, Digest, OperationId};
use crate::tag::Tag;

const ATTRIBUTES: Attributes = Attributes {
    born: 5,
    expires_ms: Some(1_000),
    operation: Some(OperationId([7; 16])),
};

/// The record under this tag, with the value, of this age.
fn whole_of_age(tag: Tag, born: u32) -> ReplicaResponse {
    let attributes = Attributes { born, ..ATTRIBUTES };
    let digest = Digest {
        attributes,
        ..digest(tag)
    };
    record(digest, &tag.time.to_string())
}

fn tombstone_of_age(tag: Tag, born: u32) -> ReplicaResponse {
    let attributes = Attributes { born, ..ATTRIBUTES };
    ReplicaResponse::Absent { tag, attributes }
}

/// What replicas are given, with the age of each.
fn written_back(read: &mut LinearizableRead) -> Vec<(ServerId, Attributes)> {
    let transmits = std::iter::from_fn(|| read.poll_transmit());
    let puts = transmits.filter_map(|transmit| match transmit.command {
        ReplicaCommand::Put { key, record } => {
            assert!(record.is_sound(&key));
            Some((transmit.to, record.attributes))
        }
        _ => None,
    });
    puts.collect()
}

#[test]
fn what_is_written_back_has_the_attributes_that_were_reported() {
    for newest in [whole_of_age(NEW, 5), tombstone_of_age(NEW, 5)] {
        let (mut read, now) = read(2);
        read.handle_response(SERVERS[0], get(0), newest, now);
        read.handle_response(SERVERS[1], get(0), whole(OLD), now);
        read.handle_response(SERVERS[2], get(0), absent(), now);
        let given = [(SERVERS[1], ATTRIBUTES), (SERVERS[2], ATTRIBUTES)];
        assert_eq!(written_back(&mut read), given);
    }
}

#[test]
fn copies_of_different_ages_are_one_record_and_the_greatest_is_written_back() {
    let of_age = [whole_of_age, tombstone_of_age];
    for (of_age, is_value) in of_age.into_iter().zip([true, false]) {
        for ages in [[5, 8], [8, 5]] {
            let (mut read, now) = read(2);
            for (server, born) in SERVERS.into_iter().zip(ages) {
                read.handle_response(server, get(0), of_age(NEW, born), now);
            }
            assert_eq!(read.agreeing(), 2);
            let outcome = read.outcome();
            assert_eq!(
                outcome.is_some_and(|it| matches!(it, ReadOutcome::Found(..))),
                is_value,
                "{outcome:?}"
            );
            assert_eq!(written_back(&mut read), []);
            read.handle_response(SERVERS[2], get(0), whole(OLD), now);
            let greatest = Attributes {
                born: 8,
                ..ATTRIBUTES
            };
            assert_eq!(written_back(&mut read), [(SERVERS[2], greatest)]);
        }
    }
}

#[test]
fn an_age_that_is_reported_late_is_that_of_what_is_written_back_from_there_on() {
    let (mut read, now) = read(2);
    read.handle_response(SERVERS[0], get(0), whole_of_age(NEW, 5), now);
    read.handle_response(SERVERS[1], get(0), whole(OLD), now);
    assert_eq!(written_back(&mut read), [(SERVERS[1], ATTRIBUTES)]);
    read.handle_response(SERVERS[2], get(0), whole_of_age(NEW, 8), now);
    let record = read.write_back().unwrap();
    assert_eq!(record.attributes.born, 8);
}

#[test]
fn values_that_differ_in_their_attributes_are_two_records() {
    let other = Attributes {
        operation: None,
        ..ATTRIBUTES
    };
    let digest = Digest {
        attributes: other,
        ..digest(NEW)
    };
    let (mut read, now) = read(2);
    read.handle_response(SERVERS[0], get(0), whole_of_age(NEW, 5), now);
    read.handle_response(SERVERS[1], get(0), record(digest, "2"), now);
    assert_eq!(read.outcome(), None);
    read.handle_unreachable(SERVERS[2], get(0), true, now);
    assert_eq!(read.outcome(), Some(&ReadOutcome::Disagree));
}
