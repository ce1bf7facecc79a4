//! Histories written by hand, each named after the fact it shows.

use super::super::Operation;
use super::super::by_hand::{delete, read, write};
use super::{Violation, check};

fn accepted(history: &[Operation]) {
    if let Err(violation) = check(history) {
        panic!("{violation}");
    }
}

/// The violation, and the beginning of it in words.
fn rejected(history: &[Operation], words: &str) -> Violation {
    let violation = check(history).expect_err("no register does so");
    let text = violation.to_string();
    assert!(text.starts_with(words), "{text}");
    violation
}

#[test]
fn an_empty_history_is_one_of_a_register() {
    assert_eq!(check(&[]), Ok(super::Checked::default()));
}

#[test]
fn what_was_looked_at_is_counted() {
    let history = [
        write(1, 1..=2, 17),
        read(2, 3..=4, Some(17)),
        read(2, 5..=6, Some(17)).unknown(),
        read(2, 5..=6, None).on(2),
    ];
    let checked = check(&history).unwrap();
    assert_eq!((checked.operations, checked.keys, checked.reads), (4, 2, 2));
}

#[test]
fn a_read_sees_the_last_write() {
    accepted(&[
        read(2, 1..=2, None),
        write(1, 3..=4, 17),
        read(2, 5..=6, Some(17)),
        write(1, 7..=8, 18),
        read(2, 9..=10, Some(18)),
        delete(1, 11..=12),
        read(2, 13..=14, None),
    ]);
}

#[test]
fn a_stale_read_is_none_of_a_register() {
    rejected(
        &[
            write(1, 1_000..=2_000, 17),
            write(1, 3_000..=4_000, 18),
            read(2, 5_000..=6_000, Some(17)),
        ],
        "key 1 is no register: client 2 read 17 from 0.005 ms to 0.006 ms, although client 1's \
         write of 18 was done at 0.004 ms and nothing wrote 17 since; client 1's write of 18 \
         began at 0.003 ms, after client 1's write of 17 was done at 0.002 ms; around it:",
    );
}

#[test]
fn a_done_write_is_not_lost() {
    rejected(
        &[write(1, 1_000..=2_000, 17), read(2, 3_000..=4_000, None)],
        "key 1 is no register: client 2 found no value from 0.003 ms to 0.004 ms, although client \
         1's write of 17 was done at 0.002 ms, and no delete can have come after that; around it:",
    );
}

#[test]
fn of_several_values_that_were_there_the_last_is_reported() {
    let history = |last: [Operation; 2]| {
        let reads = [
            read(2, 4_000..=6_000, Some(17)),
            read(2, 9_000..=10_000, None),
        ];
        [&[write(1, 1..=2, 17)], &last[..], &reads].concat()
    };
    let not_read = [
        write(1, 3..=6_000, 18).unknown(),
        write(1, 7_000..=8_000, 19),
    ];
    let violation = check(&history(not_read)).unwrap_err().to_string();
    assert!(
        violation.contains("write of 19 was done at 0.008 ms"),
        "{violation}"
    );
    let held = [
        write(1, 7_000..=7_500, 18),
        read(3, 8_000..=8_500, Some(18)),
    ];
    let violation = check(&history(held)).unwrap_err().to_string();
    assert!(
        violation.contains("write of 18 was done at 0.007500 ms"),
        "{violation}"
    );
}

#[test]
fn one_of_two_writes_in_turn_is_not_lost() {
    rejected(
        &[
            write(1, 1..=2, 17),
            write(2, 3..=4, 18),
            read(3, 3..=8, Some(18)),
            read(1, 5..=6, Some(17)),
        ],
        "key 1 is no register: client 1 read 17",
    );
}

#[test]
fn two_reads_do_not_go_back() {
    let first = write(1, 1..=2, 17);
    let second = write(1, 3_000..=9_000, 18);
    accepted(&[
        first.clone(),
        second.clone(),
        read(2, 4_000..=5_000, Some(17)),
        read(3, 6_000..=7_000, Some(18)),
    ]);
    let violation = rejected(
        &[
            first,
            second,
            read(2, 4_000..=5_000, Some(18)),
            read(3, 6_000..=7_000, Some(17)),
        ],
        "key 1 is no register: client 3 read 17 from 0.006 ms to 0.007 ms, although client 2 had \
         read 18 by 0.005 ms and nothing wrote 17 since; client 1's write of 18 began at",
    );
    assert_eq!(violation.read.client, 3);
}

#[test]
fn an_unfinished_write_is_reported_by_the_reads_that_saw_it() {
    rejected(
        &[
            write(1, 1_000..=20_000, 17),
            read(2, 2_000..=3_000, Some(17)),
            write(3, 5_000..=6_000, 18),
            read(2, 8_000..=9_000, Some(17)),
        ],
        "key 1 is no register: client 2 read 17 from 0.008 ms to 0.009 ms, although client 3's \
         write of 18 was done at 0.006 ms and nothing wrote 17 since; client 3's write of 18 \
         began at 0.005 ms, after client 2 had read 17 by 0.003 ms; around it:",
    );
    rejected(
        &[
            write(1, 1_000..=20_000, 18),
            write(3, 2_000..=3_000, 17),
            read(2, 5_000..=6_000, Some(18)),
            read(2, 8_000..=9_000, Some(17)),
        ],
        "key 1 is no register: client 2 read 17 from 0.008 ms to 0.009 ms, although client 2 had \
         read 18 by 0.006 ms and nothing wrote 17 since; client 2's read of 18 began at 0.005 ms, \
         after client 3's write of 17 was done at 0.003 ms; around it:",
    );
}

#[test]
fn a_read_can_leave_an_earlier_read_without_an_explanation() {
    rejected(
        &[
            write(1, 100..=200, 16),
            write(1, 1_000..=2_000, 17),
            delete(2, 3_000..=3_500).unknown(),
            read(3, 1_000..=5_000, None),
            read(4, 6_000..=7_000, Some(17)),
        ],
        "key 1 is no register: client 4 read 17 from 0.006 ms to 0.007 ms, which leaves no \
         explanation why client 3 found no value from 0.001 ms to 0.005 ms, although client 1's \
         write of 16 was done at 0.000200 ms, 17 was there from 0.002 ms to 0.006 ms, and no \
         delete can have come after the one and until 0.002 ms; around it:",
    );
    rejected(
        &[
            write(1, 1_000..=2_000, 17).unknown(),
            delete(1, 3_000..=4_000),
            read(2, 1_000..=6_000, Some(17)),
            read(3, 6_500..=7_000, None),
            read(4, 5_000..=9_000, Some(17)),
        ],
        "key 1 is no register: client 4 read 17 from 0.005 ms to 0.009 ms, which leaves no \
         explanation why client 3 found no value from 0.006500 ms to 0.007 ms, although client 2 \
         had read 17 by 0.006 ms, 17 was there at some time from 0.005 ms to 0.006 ms, and no \
         delete can have come after the one and until 0.007 ms; around it:",
    );
}

#[test]
fn two_reads_under_way_together_may_differ() {
    accepted(&[
        write(1, 1..=2, 17),
        write(1, 3..=9, 18),
        read(2, 4..=6, Some(18)),
        read(3, 5..=7, Some(17)),
    ]);
}

#[test]
fn a_value_that_nothing_wrote_is_not_read() {
    rejected(
        &[write(1, 1..=2, 17), read(2, 1_000..=2_000, Some(18))],
        "key 1 is no register: client 2 read 18 from 0.001 ms to 0.002 ms, although nothing ever \
         wrote that; around it:",
    );
}

#[test]
fn a_value_of_another_key_is_not_read() {
    let write = write(1, 1..=2, 17).on(2);
    rejected(
        &[write, read(2, 3_000..=4_000, Some(17))],
        "key 1 is no register: client 2 read 17 from 0.003 ms to 0.004 ms, although client 1's \
         write of 17 was to key 2; around it:",
    );
}

#[test]
fn a_value_that_was_said_not_to_be_written_is_not_read() {
    let write = write(1, 1..=9, 17).never_done();
    accepted(&[write.clone(), read(2, 3..=4, None)]);
    rejected(
        &[write, read(2, 3_000..=4_000, Some(17))],
        "key 1 is no register: client 2 read 17 from 0.003 ms to 0.004 ms, although client 1's \
         write of 17 certainly was not done; around it:",
    );
}

#[test]
fn a_delete_that_was_said_not_to_be_done_removes_nothing() {
    let history = |delete| [write(1, 1..=2, 17), delete, read(2, 5..=6, None)];
    accepted(&history(delete(1, 3..=4)));
    rejected(&history(delete(1, 3..=4).never_done()), "key 1 is");
}

#[test]
fn a_value_is_not_read_before_its_write_begins() {
    let read = |time| read(2, time, Some(17));
    accepted(&[read(1_000..=3_000), write(1, 3_000..=4_000, 17)]);
    rejected(
        &[read(1_000..=2_999), write(1, 3_000..=4_000, 17)],
        "key 1 is no register: client 2 read 17 from 0.001 ms to 0.002999 ms, although client 1's \
         write of 17 began only at 0.003 ms; around it:",
    );
}

#[test]
fn a_deleted_value_does_not_come_back() {
    rejected(
        &[
            write(2, 800_000..=900_000, 17),
            delete(1, 1_000_000..=1_100_000),
            read(3, 1_200_000..=1_500_000, Some(17)),
        ],
        "key 1 is no register: client 3 read 17 from 1.200 ms to 1.500 ms, although client 1's \
         delete was done at 1.100 ms and nothing wrote 17 since; client 1's delete began at \
         1.000 ms, after client 2's write of 17 was done at 0.900 ms; around it:",
    );
}

#[test]
fn a_value_does_not_come_back_after_it_was_seen_gone() {
    rejected(
        &[
            write(1, 1..=2, 17),
            delete(1, 3..=4).unknown(),
            read(2, 5_000..=6_000, None),
            read(3, 7_000..=8_000, Some(17)),
        ],
        "key 1 is no register: client 3 read 17 from 0.007 ms to 0.008 ms, although client 2 had \
         found no value by 0.006 ms and nothing wrote 17 since; client 2's read of no value began",
    );
}

#[test]
fn concurrent_writes_come_in_either_order_but_in_one() {
    let writes = [write(1, 1..=5, 17), write(2, 1..=5, 18)];
    let read = |client, time, value| read(client, time, Some(value));
    let with = |reads: &[Operation]| [&writes, reads].concat();
    accepted(&with(&[read(3, 6..=7, 17), read(3, 8..=9, 17)]));
    accepted(&with(&[read(3, 6..=7, 18), read(3, 8..=9, 18)]));
    accepted(&with(&[read(3, 2..=3, 18), read(3, 6..=7, 17)]));
    rejected(&with(&[read(3, 6..=7, 17), read(3, 8..=9, 18)]), "key 1 is");
    rejected(&with(&[read(3, 6..=7, 18), read(4, 8..=9, 17)]), "key 1 is");
}

#[test]
fn a_write_and_a_delete_under_way_together_come_in_either_order_but_in_one() {
    let both = [write(1, 1..=5, 17), delete(2, 1..=5)];
    let read = |time, value| read(3, time, value);
    let with = |reads: &[Operation]| [&both, reads].concat();
    accepted(&with(&[read(6..=7, None), read(8..=9, None)]));
    accepted(&with(&[read(6..=7, Some(17)), read(8..=9, Some(17))]));
    accepted(&with(&[read(2..=3, Some(17)), read(6..=7, None)]));
    rejected(&with(&[read(6..=7, Some(17)), read(8..=9, None)]), "key 1");
    rejected(&with(&[read(6..=7, None), read(8..=9, Some(17))]), "key 1");
}

#[test]
fn an_operation_ends_before_another_only_if_its_reply_is_strictly_earlier() {
    let history = |end| [write(1, 1..=end, 17), read(2, 4..=5, None)];
    accepted(&history(4));
    rejected(&history(3), "key 1 is");
}

#[test]
fn a_write_of_unknown_outcome_may_never_take_effect() {
    let none = |client, time| read(client, time, None);
    accepted(&[write(1, 1..=2, 17).unknown(), none(2, 3..=4)]);
    accepted(&[write(1, 1..=2, 17).unanswered(), none(2, 3..=4)]);
}

#[test]
fn a_write_of_unknown_outcome_may_take_effect_long_after_its_reply() {
    accepted(&[
        write(1, 1..=2, 17).unknown(),
        write(2, 3..=4, 18),
        read(3, 5..=6, Some(18)),
        read(3, 700..=800, Some(17)),
        read(3, 900..=1_000, Some(17)),
    ]);
}

#[test]
fn a_write_of_unknown_outcome_that_was_seen_stays() {
    let begun = [
        write(1, 1..=2, 17),
        write(1, 3..=4, 18).unknown(),
        read(2, 5..=6, Some(18)),
    ];
    accepted(&[&begun[..], &[read(2, 7..=8, Some(18))]].concat());
    rejected(
        &[&begun[..], &[read(2, 7..=8, Some(17))]].concat(),
        "key 1 is no register: client 2 read 17",
    );
    rejected(
        &[&begun[..], &[read(2, 7..=8, None)]].concat(),
        "key 1 is no register: client 2 found no value",
    );
}

#[test]
fn a_write_of_unknown_outcome_takes_effect_once() {
    rejected(
        &[
            write(1, 1..=2, 17).unanswered(),
            read(2, 3..=4, Some(17)),
            write(2, 5..=6, 18),
            read(2, 7..=8, Some(17)),
        ],
        "key 1 is no register: client 2 read 17",
    );
}

#[test]
fn a_delete_of_unknown_outcome_may_take_effect_long_after_its_reply() {
    accepted(&[
        write(1, 1..=2, 17),
        delete(1, 3..=4).unknown(),
        read(2, 5..=6, Some(17)),
        write(1, 7..=8, 18),
        read(2, 9..=10, Some(18)),
        read(2, 900..=1_000, None),
    ]);
}

#[test]
fn a_delete_of_unknown_outcome_takes_effect_once() {
    let history = [
        write(1, 1..=2, 17),
        delete(1, 3..=4).unknown(),
        read(2, 5..=6, None),
        write(1, 7_000..=8_000, 18),
        read(3, 9_000..=10_000, None),
    ];
    let words = "key 1 is no register: client 3 found no value from 0.009 ms to 0.010 ms, although \
                 client 1's write of 18 was done at 0.008 ms, and no delete is left that can have \
                 come after that: client 1's delete is needed for client 2's read of no value; \
                 around it:";
    rejected(&history, words);
    accepted(&[&history[..], &[delete(4, 9..=10).unanswered()]].concat());
}

#[test]
fn a_delete_serves_a_read_only_while_it_is_under_way() {
    let history = |delete| [write(1, 3..=4, 17), delete, read(2, 7..=8, None)];
    accepted(&history(delete(3, 1..=4)));
    rejected(&history(delete(3, 1..=2)), "key 1 is no register");
    accepted(&history(delete(3, 8..=9)));
    rejected(&history(delete(3, 9..=10)), "key 1 is no register");
}

/// Twice there was a value and then none, so one delete is not enough.
#[test]
fn a_write_that_nobody_read_still_ends_an_absence() {
    let history = [
        write(1, 1..=2, 17),
        delete(2, 3..=4),
        read(3, 5..=6, None),
        write(1, 7..=8, 18),
        read(3, 9..=10, None),
    ];
    rejected(&history, "key 1 is no register: client 3 found no value");
    accepted(&[&history[..], &[delete(4, 1..=9)]].concat());
    let mut unread = history;
    unread[3] = unread[3].clone().unknown();
    accepted(&unread);
}

/// When the delete ends, nothing yet tells that the write came before it.
#[test]
fn a_delete_may_have_removed_the_value_of_a_write_that_ends_after_it() {
    accepted(&[delete(1, 1..=4), write(2, 3..=6, 17), read(3, 7..=8, None)]);
}

#[test]
fn of_two_deletes_the_one_that_ends_first_is_used_first() {
    accepted(&[
        write(1, 1..=2, 17),
        delete(2, 3..=100),
        delete(3, 3..=7),
        read(4, 5..=6, None),
        write(1, 8..=9, 18),
        read(4, 10..=11, None),
    ]);
}

#[test]
fn each_key_is_a_register_of_its_own() {
    let history = [
        write(1, 1..=2, 17),
        read(2, 3..=4, None).on(2),
        write(1, 5..=6, 18).on(2),
        read(2, 7..=8, Some(17)),
        read(2, 9..=10, Some(18)).on(2),
    ];
    accepted(&history);
}

#[test]
fn the_earliest_violation_of_all_keys_is_reported() {
    let history = [
        write(1, 1..=2, 17),
        read(2, 8..=9, None),
        read(3, 10..=11, None),
        write(1, 3..=4, 18).on(2),
        read(2, 5..=6, None).on(2),
        read(2, 7..=8, None).on(2),
    ];
    let violation = check(&history).unwrap_err();
    assert_eq!(violation.read, history[4]);
}

#[test]
fn a_read_without_a_result_proves_nothing() {
    accepted(&[
        write(1, 1..=2, 17),
        read(2, 3..=4, None).unknown(),
        read(2, 5..=6, Some(18)).unanswered(),
        read(2, 5..=6, Some(19)).never_done(),
    ]);
}

#[test]
fn a_reply_that_never_came_says_nothing() {
    let unawaited = |operation| Operation {
        returned: None,
        ..operation
    };
    accepted(&[
        unawaited(write(1, 1..=2, 17)),
        unawaited(delete(2, 1..=2).never_done()),
        unawaited(read(3, 3..=4, Some(18))),
        read(4, 5..=6, Some(17)),
        read(4, 7..=8, None),
    ]);
    accepted(&[unawaited(write(1, 1..=2, 17)), read(4, 5..=6, None)]);
}

#[test]
fn what_is_around_the_read_is_reported_in_its_order() {
    let history = [
        write(1, 1_000..=2_000, 17),
        write(2, 3_000..=4_000, 18),
        read(3, 5_000..=9_000, Some(18)),
        read(4, 6_000..=8_000, Some(17)),
        write(1, 8_000..=10_000, 19),
        write(2, 8_001..=10_000, 20),
    ];
    let text = check(&history).unwrap_err().to_string();
    let around = text.split_once("around it:\n").unwrap().1;
    assert_eq!(
        around,
        "   client 1 wrote 17 from 0.001 ms to 0.002 ms\n   \
            client 2 wrote 18 from 0.003 ms to 0.004 ms\n   \
            client 3 read 18 from 0.005 ms to 0.009 ms\n\
         -> client 4 read 17 from 0.006 ms to 0.008 ms\n   \
            client 1 wrote 19 from 0.008 ms to 0.010 ms"
    );
}

#[test]
#[should_panic(expected = "no register was asked or answered so")]
fn a_reply_before_its_request_is_no_history() {
    let mut reversed = write(1, 2..=2, 17);
    reversed.returned = Some(1);
    let _ = check(&[reversed]);
}

#[test]
#[should_panic(expected = "a value is written once")]
fn a_value_written_twice_is_no_history() {
    let _ = check(&[write(1, 1..=2, 17), write(1, 3..=4, 17)]);
}
