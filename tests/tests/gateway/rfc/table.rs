//! Every MUST and SHOULD of these sections, shortly, with the tests that show it.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use Level::{Must, Should};
use Shown::{By, NotOurs};

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Level {
    /// MUST and MUST NOT.
    Must,
    /// SHOULD and SHOULD NOT.
    Should,
}

enum Shown {
    /// By these tests: `file::test` in this folder.
    By(&'static [&'static str]),
    /// It is not for the gateway, for this reason.
    NotOurs(&'static str),
}

/// The number of the RFC and the section, the level, what is demanded, and what shows it.
type Requirement = (&'static str, Level, &'static str, Shown);

const CLIENT: &str = "a client does it";
const PROXY: &str = "a proxy does it";

#[rustfmt::skip]
const REQUIREMENTS: &[Requirement] = &[
    ("9110 8.3", Should, "a message with content has a Content-Type",
        By(&["representations::every_reply_with_a_body_has_its_type_and_length_and_its_date"])),
    ("9110 8.3.3", Must, "CRLF between the parts of a multipart body",
        NotOurs("the gateway sends none")),
    ("9110 8.4", Must, "who applies a content coding says so",
        By(&["representations::a_body_that_is_coded_is_refused_and_says_what_is_taken"])),
    ("9110 8.4", Should, "identity is not sent as a Content-Encoding",
        By(&["representations::a_body_that_is_coded_is_refused_and_says_what_is_taken"])),
    ("9110 8.4.1", Should, "x-gzip and x-compress are gzip and compress",
        By(&["representations::a_body_that_is_coded_is_refused_and_says_what_is_taken"])),
    ("9110 8.6", Must, "the Content-Length of a HEAD is that of the GET",
        By(&["representations::a_head_has_the_headers_of_its_get"])),
    ("9110 8.6", Must, "a 304 has no other Content-Length than the 200",
        By(&["preconditions::a_304_has_what_a_cache_needs_and_no_length_of_its_own"])),
    ("9110 8.6", Must, "a 1xx or 204 has no Content-Length",
        By(&["representations::a_reply_without_content_has_no_length", "requests::an_expectation_that_is_not_met_is_417_and_continue_is"])),
    ("9110 8.6", Must, "a 2xx to CONNECT has no Content-Length",
        NotOurs("there is no 2xx to CONNECT")),
    ("9110 8.6", Should, "a known length is sent",
        By(&["representations::every_reply_with_a_body_has_its_type_and_length_and_its_date"])),
    ("9110 8.6", Must, "large lengths do not overflow",
        By(&["bodies::a_length_is_one_number_or_nothing_is_stored"])),
    ("9110 8.6", Must, "a wrong Content-Length is not forwarded",
        NotOurs("nothing is forwarded")),
    ("9110 8.6", Should, "a request with content has its length",
        NotOurs(CLIENT)),
    ("9110 8.7", Must, "the Content-Location of a request is not saved",
        By(&["representations::a_content_location_of_a_put_changes_nothing_and_is_not_kept"])),
    ("9110 8.7", Must, "nor does it change what the request means",
        By(&["representations::a_content_location_of_a_put_changes_nothing_and_is_not_kept"])),
    ("9110 8.8.1", Should, "a weak entity tag changes with what it stands for",
        By(&["representations::an_entity_tag_is_strong_for_the_bytes_and_weak_for_what_differs_each_time"])),
    ("9110 8.8.2.1", Should, "Last-Modified where a date is consistently determined",
        NotOurs("it is not: where a clock lags, two versions have one date (decision 021)")),
    ("9110 8.8.2.1", Should, "Last-Modified is obtained close to Date",
        NotOurs("none is sent")),
    ("9110 8.8.2.1", Must, "Last-Modified is not after Date",
        NotOurs("none is sent")),
    ("9110 8.8.2.1", Must, "one in the future is replaced by Date",
        NotOurs("none is sent")),
    ("9110 8.8.2.1", Must, "without a clock there is none",
        NotOurs("none is sent")),
    ("9110 8.8.3", Must, "an entity tag that is not strong is marked as weak",
        By(&["representations::an_entity_tag_is_strong_for_the_bytes_and_weak_for_what_differs_each_time"])),
    ("9110 8.8.3.1", Should, "an ETag where changes are consistently determined",
        By(&["representations::an_entity_tag_is_strong_for_the_bytes_and_weak_for_what_differs_each_time"])),
    ("9110 13.1.1", Must, "If-Match by the strong comparison",
        By(&["preconditions::preconditions_of_a_read_are_evaluated_in_their_order"])),
    ("9110 13.1.1", Must, "If-Match is evaluated before the method is performed",
        By(&["preconditions::preconditions_of_a_read_are_evaluated_in_their_order", "preconditions::a_write_that_depends_on_a_version_is_refused_and_not_done", "preconditions::what_has_no_version_is_there_and_is_none_that_is_named"])),
    ("9110 13.1.1", Must, "the method is not performed if it is false",
        By(&["preconditions::preconditions_of_a_read_are_evaluated_in_their_order", "preconditions::a_write_that_depends_on_a_version_is_refused_and_not_done", "preconditions::what_has_no_version_is_there_and_is_none_that_is_named", "preconditions::a_download_in_parts_never_splices_two_versions"])),
    ("9110 13.1.2", Must, "If-None-Match by the weak comparison",
        By(&["preconditions::preconditions_of_a_read_are_evaluated_in_their_order"])),
    ("9110 13.1.2", Should, "stored responses are revalidated by their entity tags",
        NotOurs(CLIENT)),
    ("9110 13.1.2", Must, "If-None-Match is evaluated before the method is performed",
        By(&["preconditions::preconditions_of_a_read_are_evaluated_in_their_order", "preconditions::a_write_that_depends_on_a_version_is_refused_and_not_done", "preconditions::what_has_no_version_is_there_and_is_none_that_is_named"])),
    ("9110 13.1.2", Must, "if it is false: 304 for GET and HEAD",
        By(&["preconditions::preconditions_of_a_read_are_evaluated_in_their_order", "preconditions::what_has_no_version_is_there_and_is_none_that_is_named"])),
    ("9110 13.1.2", Must, "if it is false: 412 for others, or they are not performed",
        By(&["preconditions::a_write_that_depends_on_a_version_is_refused_and_not_done"])),
    ("9110 13.1.3", Must, "If-Modified-Since is ignored beside If-None-Match",
        By(&["preconditions::preconditions_of_a_read_are_evaluated_in_their_order"])),
    ("9110 13.1.3", Must, "it is ignored if it is no date, or for other methods",
        By(&["preconditions::preconditions_of_a_read_are_evaluated_in_their_order", "preconditions::a_write_that_depends_on_a_version_is_refused_and_not_done"])),
    ("9110 13.1.3", Must, "it is ignored where there is no modification date",
        By(&["preconditions::preconditions_of_a_read_are_evaluated_in_their_order", "preconditions::what_has_no_version_is_there_and_is_none_that_is_named"])),
    ("9110 13.1.3", Must, "its date is by the clock of the server",
        NotOurs("it is ignored")),
    ("9110 13.1.3", Should, "it is evaluated, and answered 304",
        NotOurs("it is ignored (decision 021)")),
    ("9110 13.1.4", Must, "If-Unmodified-Since is ignored beside If-Match",
        By(&["preconditions::preconditions_of_a_read_are_evaluated_in_their_order"])),
    ("9110 13.1.4", Must, "it is ignored if it is no date",
        By(&["preconditions::preconditions_of_a_read_are_evaluated_in_their_order"])),
    ("9110 13.1.4", Must, "it is ignored where there is no modification date",
        By(&["preconditions::what_has_no_version_is_there_and_is_none_that_is_named"])),
    ("9110 13.1.4", Must, "its date is by the clock of the server, as tags are",
        By(&["preconditions::preconditions_of_a_read_are_evaluated_in_their_order"])),
    ("9110 13.1.4", Must, "it is evaluated before the method is performed",
        By(&["preconditions::preconditions_of_a_read_are_evaluated_in_their_order", "preconditions::a_write_that_depends_on_a_version_is_refused_and_not_done"])),
    ("9110 13.1.4", Must, "the method is not performed if it is false",
        By(&["preconditions::preconditions_of_a_read_are_evaluated_in_their_order", "preconditions::a_write_that_depends_on_a_version_is_refused_and_not_done", "preconditions::a_download_in_parts_never_splices_two_versions"])),
    ("9110 13.1.5", Must, "If-Range is sent with Range alone, and is strong",
        NotOurs(CLIENT)),
    ("9110 13.1.5", Must, "If-Range without Range is ignored",
        By(&["ranges::a_range_is_given_only_of_the_very_version_that_if_range_names"])),
    ("9110 13.1.5", Must, "it is ignored where there are no ranges",
        By(&["ranges::a_range_is_given_only_of_the_very_version_that_if_range_names"])),
    ("9110 13.1.5", Must, "it is evaluated",
        By(&["ranges::a_range_is_given_only_of_the_very_version_that_if_range_names", "preconditions::a_download_in_parts_never_splices_two_versions"])),
    ("9110 13.1.5", Must, "Range is ignored if it is false",
        By(&["ranges::a_range_is_given_only_of_the_very_version_that_if_range_names", "preconditions::a_download_in_parts_never_splices_two_versions"])),
    ("9110 13.1.5", Should, "Range is processed if it is true",
        By(&["ranges::a_range_is_given_only_of_the_very_version_that_if_range_names"])),
    ("9110 13.2.1", Must, "preconditions are evaluated after the normal checks and before the action",
        By(&["preconditions::preconditions_of_a_read_are_evaluated_in_their_order", "preconditions::preconditions_do_not_matter_where_the_reply_is_no_success_without_them", "preconditions::a_write_that_depends_on_a_version_is_refused_and_not_done", "preconditions::what_has_no_version_is_there_and_is_none_that_is_named"])),
    ("9110 13.2.1", Must, "they are ignored if the response were no 2xx or 412 without them",
        By(&["preconditions::preconditions_do_not_matter_where_the_reply_is_no_success_without_them"])),
    ("9110 13.2.1", Must, "a server in between forwards them",
        NotOurs(PROXY)),
    ("9110 13.2.1", Must, "they are ignored for CONNECT, OPTIONS and TRACE",
        By(&["preconditions::preconditions_do_not_matter_where_the_reply_is_no_success_without_them"])),
    ("9110 13.2.2", Must, "preconditions are evaluated in a certain order",
        By(&["preconditions::preconditions_of_a_read_are_evaluated_in_their_order", "preconditions::preconditions_do_not_matter_where_the_reply_is_no_success_without_them"])),
    ("9110 14.1.2", Must, "large positions do not overflow",
        By(&["ranges::one_range_of_bytes_is_given_in_part_and_anything_else_in_whole"])),
    ("9110 14.2", Must, "Range is ignored with methods other than GET",
        By(&["ranges::a_range_is_for_a_get_of_the_bytes_alone"])),
    ("9110 14.2", Must, "Range with an unknown unit is ignored",
        By(&["ranges::one_range_of_bytes_is_given_in_part_and_anything_else_in_whole", "ranges::an_empty_value_has_no_part_but_its_end_is_all_of_it"])),
    ("9110 14.2", Should, "several ranges are few and in order",
        NotOurs(CLIENT)),
    ("9110 14.2", Should, "a satisfiable range is answered 206",
        By(&["ranges::one_range_of_bytes_is_given_in_part_and_anything_else_in_whole"])),
    ("9110 14.2", Should, "an unsatisfiable one is answered 416",
        By(&["ranges::one_range_of_bytes_is_given_in_part_and_anything_else_in_whole", "ranges::an_empty_value_has_no_part_but_its_end_is_all_of_it"])),
    ("9110 14.3", Must, "Accept-Ranges promises nothing",
        NotOurs(CLIENT)),
    ("9110 14.4", Must, "parts of an unknown unit are not combined",
        NotOurs(CLIENT)),
    ("9110 14.4", Should, "a proxy forwards them",
        NotOurs(PROXY)),
    ("9110 14.4", Must, "Content-Range is ignored with methods that have no use for it",
        By(&["ranges::a_put_of_a_part_is_refused_and_changes_nothing"])),
    ("9110 14.4", Should, "Content-Range has the complete length",
        By(&["ranges::one_range_of_bytes_is_given_in_part_and_anything_else_in_whole"])),
    ("9110 14.4", Must, "invalid parts are not combined",
        NotOurs(CLIENT)),
    ("9110 14.4", Should, "a 416 has the complete length",
        By(&["ranges::one_range_of_bytes_is_given_in_part_and_anything_else_in_whole", "ranges::an_empty_value_has_no_part_but_its_end_is_all_of_it"])),
    ("9110 14.5", Should, "a PUT with Content-Range is answered 400",
        By(&["ranges::a_put_of_a_part_is_refused_and_changes_nothing"])),
    ("9112 3", Should, "a method longer than any that is implemented is answered 501",
        By(&["requests::a_target_has_one_of_the_forms_that_its_method_takes"])),
    ("9112 3", Must, "a target that is too long is answered 414",
        By(&["requests::a_target_that_is_too_long_is_414"])),
    ("9112 3.2", Should, "an invalid request line is answered 400",
        By(&["requests::a_request_line_that_is_not_one_is_400", "requests::a_target_has_one_of_the_forms_that_its_method_takes"])),
    ("9112 3.2", Should, "it is not corrected",
        By(&["requests::a_request_line_that_is_not_one_is_400", "requests::a_fragment_names_no_other_key_whatever_comes_before_it"])),
    ("9112 3.2", Must, "a request has a Host like its target",
        NotOurs(CLIENT)),
    ("9112 3.2", Must, "no Host, more than one, or an invalid one is answered 400",
        By(&["requests::a_request_has_exactly_one_host_and_that_is_one"])),
    ("9112 3.2.1", Must, "a path is sent, and / for an empty one",
        NotOurs(CLIENT)),
    ("9112 3.2.2", Must, "a proxy is sent a URL, and replaces Host",
        NotOurs(PROXY)),
    ("9112 3.2.2", Must, "the host of a URL as target counts, and not Host",
        By(&["requests::a_request_has_exactly_one_host_and_that_is_one", "requests::a_target_has_one_of_the_forms_that_its_method_takes"])),
    ("9112 3.2.2", Must, "a URL is accepted as the target",
        By(&["requests::a_target_has_one_of_the_forms_that_its_method_takes"])),
    ("9112 3.2.3", Must, "CONNECT has a host and port as its target",
        NotOurs(CLIENT)),
    ("9112 3.2.4", Must, "* is sent for OPTIONS of the server as a whole",
        NotOurs(CLIENT)),
    ("9112 5.1", Must, "white space before the colon of a field is answered 400",
        By(&["requests::a_field_line_that_is_not_one_is_400"])),
    ("9112 5.1", Must, "white space there is removed from responses",
        NotOurs(PROXY)),
    ("9112 5.2", Must, "a folded line is answered 400",
        By(&["requests::a_field_line_that_is_not_one_is_400"])),
    ("9112 5.2", Must, "no line is folded, nor are those of responses taken",
        NotOurs("the library has no such lines to send, and nothing is forwarded")),
    ("9112 6.1", Must, "chunked is parsed",
        By(&["bodies::a_chunked_body_is_its_chunks_and_nothing_else"])),
    ("9112 6.1", Must, "chunked is not applied twice",
        By(&["bodies::a_transfer_coding_that_is_not_known_is_501_and_one_that_is_wrong_400"])),
    ("9112 6.1", Must, "chunked is the last coding of a request",
        NotOurs(CLIENT)),
    ("9112 6.1", Must, "and of a response",
        NotOurs("no other coding is applied")),
    ("9112 6.1", Must, "a 1xx or 204 has no Transfer-Encoding",
        By(&["representations::a_reply_without_content_has_no_length"])),
    ("9112 6.1", Must, "nor has a 2xx to CONNECT",
        NotOurs("there is none")),
    ("9112 6.1", Should, "an unknown transfer coding is answered 501",
        By(&["bodies::a_transfer_coding_that_is_not_known_is_501_and_one_that_is_wrong_400"])),
    ("9112 6.1", Must, "Transfer-Encoding is sent to HTTP/1.1 only",
        NotOurs(CLIENT)),
    ("9112 6.1", Must, "nor is it in a response to an older version",
        By(&["bodies::a_stream_without_a_length_ends_with_its_connection_where_chunks_are_not_known"])),
    ("9112 6.1", Must, "the connection closes after Transfer-Encoding with Content-Length",
        By(&["bodies::after_a_request_with_two_lengths_or_of_an_older_version_the_connection_ends"])),
    ("9112 6.1", Must, "and after Transfer-Encoding of HTTP/1.0, which is faulty",
        By(&["bodies::after_a_request_with_two_lengths_or_of_an_older_version_the_connection_ends"])),
    ("9112 6.2", Must, "no message is sent with both",
        By(&["representations::every_reply_with_a_body_has_its_type_and_length_and_its_date"])),
    ("9112 6.3", Must, "lengths of 1xx, 204 and 304 are ignored",
        NotOurs(CLIENT)),
    ("9112 6.3", Must, "Content-Length is removed beside Transfer-Encoding",
        NotOurs(PROXY)),
    ("9112 6.3", Must, "a request whose last coding is not chunked is answered 400, and the connection closes",
        By(&["bodies::a_transfer_coding_that_is_not_known_is_501_and_one_that_is_wrong_400", "connections::a_reply_after_which_the_connection_ends_says_so"])),
    ("9112 6.3", Must, "an invalid Content-Length is answered 400, and the connection closes",
        By(&["bodies::a_length_is_one_number_or_nothing_is_stored", "connections::a_reply_after_which_the_connection_ends_says_so"])),
    ("9112 6.3", Must, "a body that ends early is incomplete, and the connection closes",
        By(&["bodies::a_body_that_ends_early_is_not_stored"])),
    ("9112 6.3", Should, "responses have a length or are chunked where that is possible",
        By(&["representations::every_reply_with_a_body_has_its_type_and_length_and_its_date", "bodies::a_stream_without_a_length_ends_with_its_connection_where_chunks_are_not_known"])),
    ("9112 6.3", Must, "requests say where they end, and extra data is no response",
        NotOurs(CLIENT)),
    ("9112 9.2", Must, "responses belong to requests in their order",
        NotOurs(CLIENT)),
    ("9112 9.3", Should, "connections persist",
        By(&["connections::a_connection_persists_as_its_version_and_its_options_say"])),
    ("9112 9.3", Must, "close is sent by who supports no persistence",
        NotOurs("it is supported")),
    ("9112 9.3", Must, "the whole body is read, or the connection closes",
        By(&["connections::after_a_refusal_the_rest_of_its_body_is_no_request"])),
    ("9112 9.3", Must, "a proxy keeps none with a client of HTTP/1.0",
        NotOurs(PROXY)),
    ("9112 9.3.2", Must, "pipelined requests are answered in their order",
        By(&["connections::pipelined_requests_are_answered_in_their_order"])),
    ("9112 9.3.2", Should, "what was not answered is sent again with care",
        NotOurs(CLIENT)),
    ("9112 9.5", Should, "a time-out closes gracefully",
        By(&["../../faults/clients::a_body_that_stops_is_answered_with_that_and_a_head_that_stops_is_closed"])),
    ("9112 9.5", Should, "a closure by the other side is noticed",
        By(&["../../faults/clients::a_client_that_goes_away_gives_up_its_place"])),
    ("9112 9.5", Should, "overload by requests does not close connections",
        By(&["../problems::past_the_limit_of_requests_in_flight_a_request_is_refused_with_the_reason"])),
    ("9112 9.5", Should, "nor does overload by connections",
        NotOurs("those without a request under way make room for newcomers (decision 023)")),
    ("9112 9.5", Should, "a client watches for a response while it sends",
        NotOurs(CLIENT)),
    ("9112 9.6", Should, "who closes says close",
        By(&["connections::a_reply_after_which_the_connection_ends_says_so", "connections::a_connection_persists_as_its_version_and_its_options_say"])),
    ("9112 9.6", Must, "the connection closes after the response to a request with close",
        By(&["connections::a_connection_persists_as_its_version_and_its_options_say"])),
    ("9112 9.6", Should, "that response says close",
        By(&["connections::a_connection_persists_as_its_version_and_its_options_say", "connections::nothing_that_follows_the_last_request_is_processed"])),
    ("9112 9.6", Must, "no further request is processed",
        By(&["connections::nothing_that_follows_the_last_request_is_processed"])),
    ("9112 9.6", Must, "after a response with close the connection closes",
        By(&["connections::a_connection_persists_as_its_version_and_its_options_say", "connections::a_reply_after_which_the_connection_ends_says_so"])),
    ("9112 9.6", Must, "a client that receives close sends nothing more",
        NotOurs(CLIENT)),
    ("9112 9.7", Must, "HTTP over TLS is application data",
        By(&["../../access/tls::requests_are_served_by_tls_and_by_nothing_else"])),
    ("9112 9.8", Must, "a client sends a closure alert",
        NotOurs(CLIENT)),
    ("9112 9.8", Should, "an incomplete close is no failure",
        By(&["../../access/tls::a_connection_ends_with_a_closure_alert_and_may_end_without_the_clients"])),
    ("9112 9.8", Must, "closure alerts are exchanged before closing",
        By(&["../../access/tls::a_connection_ends_with_a_closure_alert_and_may_end_without_the_clients"])),
];

/// The tests in a file of tests, by their names.
fn tests_in(text: &str) -> Vec<&str> {
    let asynchronous = text.split("#[tokio::test]").skip(1);
    let parts = asynchronous.chain(text.split("#[test]").skip(1));
    let names = parts.filter_map(|part| {
        let (_, name) = part.split_once("fn ")?;
        name.split_once('(').map(|(name, _)| name)
    });
    names.collect()
}

#[test]
fn every_requirement_has_a_test_that_there_is_or_a_reason_for_none() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/gateway/rfc");
    let mut counts = BTreeMap::<_, usize>::new();
    for (section, level, what, shown) in REQUIREMENTS {
        assert!(!what.is_empty());
        *counts
            .entry((
                &section[..section.find('.').unwrap_or(section.len())],
                level,
            ))
            .or_default() += 1;
        let tests = match shown {
            NotOurs(reason) => {
                assert!(!reason.is_empty(), "{section}: {what}");
                continue;
            }
            By(tests) => tests,
        };
        assert!(!tests.is_empty(), "{section}: {what}");
        for test in *tests {
            let (file, name) = test.split_once("::").expect("a file and a test");
            let path = folder.join(format!("{file}.rs"));
            let text = fs::read_to_string(&path).unwrap_or_else(|_| panic!("{}", path.display()));
            assert!(
                tests_in(&text).contains(&name),
                "{section}: {test} is no test"
            );
        }
    }
    // Each of the sections has some of either level.
    let sections = [
        "9110 8", "9110 13", "9110 14", "9112 3", "9112 5", "9112 6", "9112 9",
    ];
    for section in sections {
        assert!(counts.contains_key(&(section, &Must)), "{section}");
        assert_eq!(
            counts.contains_key(&(section, &Should)),
            section != "9112 5",
            "{section}"
        );
    }
    assert_eq!(
        counts
            .keys()
            .map(|(section, _)| section)
            .collect::<std::collections::BTreeSet<_>>()
            .len(),
        sections.len()
    );
}

#[test]
fn every_test_of_this_folder_shows_a_requirement() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/gateway/rfc");
    let named: Vec<&str> = REQUIREMENTS
        .iter()
        .filter_map(|(.., shown)| match shown {
            By(tests) => Some(*tests),
            NotOurs(_) => None,
        })
        .flatten()
        .copied()
        .collect();
    for file in [
        "bodies",
        "connections",
        "preconditions",
        "ranges",
        "representations",
        "requests",
    ] {
        let text = fs::read_to_string(folder.join(format!("{file}.rs"))).unwrap();
        for test in tests_in(&text) {
            let is_beyond = BEYOND.contains(&test);
            let test = format!("{file}::{test}");
            assert!(
                is_beyond || named.contains(&&*test),
                "{test} shows none of them"
            );
        }
    }
}

/// Tests of what other sections demand.
const BEYOND: &[&str] = &[
    // RFC 9110, section 12.5.1.
    "a_value_is_given_as_its_own_type_where_that_is_what_the_caller_accepts",
];
