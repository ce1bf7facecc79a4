use std::time::Duration;

use super::fixture::*;
use crate::model::ReplicaCommand;
use crate::quorum::level::Level;
use crate::quorum::params::Quorum;
use crate::quorum::write::Write;
use crate::record::{Attributes, OperationId, Record};
use crate::testing::start_of_time;

const ATTRIBUTES: Attributes = Attributes {
    born: 5,
    expires_ms: Some(1_000),
    operation: Some(OperationId([7; 16])),
};

/// The records that are sent.
fn records(write: &mut Write) -> Vec<Record> {
    let transmits = std::iter::from_fn(|| write.poll_transmit());
    let records = transmits.filter_map(|transmit| match transmit.command {
        ReplicaCommand::Put { record, .. } => Some(record),
        _ => None,
    });
    records.collect()
}

#[test]
fn the_record_of_every_round_and_of_a_repeat_has_the_attributes() {
    let now = start_of_time();
    let (quorum, level) = (Quorum::new(3, 2).unwrap(), Level::Agreement);
    let deadline = now + Duration::from_secs(1);
    let expected = |time| Record::with_attributes(&key(), tag(time), ATTRIBUTES, content());
    let write = Write::new(key(), content(), list(), quorum, level, now, deadline);
    let mut write = write.with_attributes(ATTRIBUTES);
    for time in [1, 2] {
        write.begin_round(tag(time));
        assert_eq!(records(&mut write), [0; 3].map(|_| expected(time)));
    }
    let (list, tag) = (list(), tag(2));
    let again = Write::resubmit(key(), content(), tag, list, quorum, level, now, deadline);
    let mut again = again.with_attributes(ATTRIBUTES);
    assert_eq!(records(&mut again), [0; 3].map(|_| expected(2)));
}
