//! HTTP as RFC 9110 (sections 8, 13 and 14) and RFC 9112 (sections 3, 5, 6 and 9) say, for an origin
//! server: each MUST and SHOULD in [`table`], with the test that shows it or why it does not apply.
//!
//! * [`representations`]: RFC 9110, section 8: what is sent, what is stored, in which form it is given
//! * [`preconditions`]: section 13
//! * [`ranges`]: section 14
//! * [`requests`]: RFC 9112, sections 3 and 5: request lines, targets, hosts and field lines
//! * [`bodies`]: section 6: where a body ends
//! * [`connections`]: section 9: what becomes of a connection

mod bodies;
mod connections;
mod preconditions;
mod ranges;
mod representations;
mod requests;
mod table;

use dkvs_tests::http::{Reply, exchange};
use dkvs_tests::process::Gateway;

/// The reply to a request of these header lines, each ended, and this body.
async fn ask(gateway: &Gateway, line: &str, headers: &str, body: &str) -> Reply {
    let head = format!("{line} HTTP/1.1\r\nhost: localhost\r\n{headers}\r\n{body}");
    exchange(gateway.addr, head).await
}

/// The status of a reply, and the name of its problem, or nothing.
fn shown(reply: &Reply) -> (u16, &str) {
    let status = reply.status.as_u16();
    let is_problem = reply.header("content-type") == "application/problem+json";
    match is_problem && !reply.body.is_empty() {
        true => (status, reply.problem()),
        false => (status, ""),
    }
}

/// Puts a value under a key, with a content type, and returns its tag.
async fn stored(gateway: &Gateway, key: &str, content_type: &str, value: &str) -> String {
    let length = value.len();
    let headers = format!("content-type: {content_type}\r\ncontent-length: {length}\r\n");
    let put = ask(gateway, &format!("PUT /kv/{key}"), &headers, value).await;
    assert_eq!(put.status, 200, "{put:?}");
    put.json["tag"].as_str().unwrap().to_owned()
}
