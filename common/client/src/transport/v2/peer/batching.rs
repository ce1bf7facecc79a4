//! Many messages in one datagram.

use std::time::Instant;

use super::requests::OpenRequests;
use super::retransmission::RetransmissionTimer;
use super::session::Session;
use dkvs_common::wire::v2::envelope::Builder;

/// A datagram with as many of the waiting messages as it holds and the window allows; none if
/// nothing can be sent now.
pub(super) fn next_datagram<T: Copy>(
    requests: &mut OpenRequests<T>,
    session: &mut Session,
    timer: &mut RetransmissionTimer,
    datagram_bytes_max: usize,
    now: Instant,
) -> Option<Builder> {
    let mut datagram: Option<Builder> = None;
    while let Some(id) = requests.next_to_send() {
        let Some(request) = requests.sendable(id) else {
            break;
        };
        let trace = request.trace.take();
        let message = request.message_at(now);
        let builder = datagram.get_or_insert_with(|| session.begin(datagram_bytes_max));
        let is_written = builder.push(|datagram| {
            if let Some(trace) = &trace {
                trace.append_to(datagram);
            }
            message.append_to(datagram);
        });
        if is_written {
            requests.handle_sent(id, timer, now);
        } else if !builder.is_empty() {
            // It goes into the next datagram.
            request.trace = trace;
            break;
        } else if trace.is_some() {
            // The message may fit without its trace. It is still the next to send.
            continue;
        } else {
            // It was opened before the server announced its limit.
            requests.handle_too_long(id);
        }
    }
    if datagram.is_none() {
        requests.schedule_held_back();
    }
    datagram.filter(|builder| !builder.is_empty())
}
