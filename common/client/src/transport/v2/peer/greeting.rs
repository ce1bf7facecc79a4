//! Who the server is: its protocol, its limits and its process, as greetings show them.
//!
//! ```text
//!               greeting answered
//!   Unknown -------------------------> V2
//!      |  ^                             |
//!      |  +---- port unreachable -------+
//!      |
//!      +--- greetings in a row answered by DKVS/1 ---> V1 --- greeting answered ---> V2
//! ```
//!
//! A server of DKVS/1 answers a greeting with an empty datagram. That is weak evidence: it has no
//! checksum and no request id, and a server of DKVS/2 may send one in answer to a damaged greeting.
//! A server therefore counts as DKVS/1 only after [`V1_GREETINGS`] greetings in a row had that
//! answer and no other. One that has spoken DKVS/2 never does, until its port is unreachable: then
//! another program may have been started there.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use super::encoding::EncodedRequest;
use super::requests::RequestIds;
use super::retransmission::RetransmissionTimer;
use dkvs_common::model::Description;
use dkvs_common::mutants::{self, Mutant};
use dkvs_common::wire::v2::message::RequestId;
use dkvs_common::wire::v2::reply::{Greeting, Reply};
use dkvs_common::wire::v2::request::Request;

/// How often a server in use is greeted, so that a restart, even in another version, is noticed
/// within a second.
pub const GREETING_INTERVAL: Duration = Duration::from_millis(500);

/// How many greetings in a row DKVS/1 has to answer, and DKVS/2 not, before the server counts as one
/// that speaks DKVS/1 only.
pub const V1_GREETINGS: u32 = 4;

/// From such an answer to the next greeting. A copy of the answer, which names no greeting, has
/// usually arrived by then.
pub const V1_PAUSE: Duration = Duration::from_millis(3);

/// How long requests to a server are refused after its port was unreachable.
pub const UNREACHABLE_PAUSE: Duration = Duration::from_millis(10);

/// The protocol that a server speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PeerVersion {
    /// It has not answered a greeting yet.
    Unknown,
    /// DKVS/2, with what the server announced.
    V2(Greeting),
    /// DKVS/1 only: it answered [`V1_GREETINGS`] greetings in a row as puts with an empty key.
    V1,
}

/// One run of the server's process, as the client observes it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Incarnation {
    /// The random number that the process chose at its start.
    pub boot_id: u64,
    /// When the first answer with this number arrived. The process was running by then; when the
    /// greeting was sent, it may not have been.
    pub known_since: Instant,
}

/// Greets a server and keeps what the answers show.
#[derive(Debug)]
pub(super) struct Greeter {
    version: PeerVersion,
    under_way: Option<Attempt>,
    /// The question for a description whose answer may still come: in the datagram that answers the greeting.
    describe: Option<RequestId>,
    /// When a server in use has to be greeted again.
    next_at: Instant,
    /// How many greetings in a row were answered by DKVS/1 and not by DKVS/2.
    v1_greetings: u32,
    /// The last of these. A late answer by DKVS/2 to any of them counts.
    v1_answered: VecDeque<RequestId>,
    /// What the process that answered last has said of itself; none of one that does not.
    description: Option<Description>,
    /// The last one seen.
    incarnation: Option<Incarnation>,
    unreachable_until: Option<Instant>,
}

/// One greeting, with its retransmissions.
#[derive(Debug)]
struct Attempt {
    id: RequestId,
    /// That of the question for a description, in the same datagram.
    describe: RequestId,
    transmissions: u32,
    first_sent: Option<Instant>,
    /// Whether DKVS/1 answered it. The answer by DKVS/2 may still follow.
    is_answered_by_v1: bool,
    /// The next transmission; none if it would come after the end.
    send_at: Option<Instant>,
    ends: Instant,
}

/// What an answer to a greeting shows.
pub(super) struct Answer {
    /// The round trip, if it can be measured.
    pub(super) round_trip: Option<Duration>,
    /// The session that the server opened.
    pub(super) session: u64,
    /// Whether another process answered before.
    pub(super) has_restarted: bool,
}

impl Greeter {
    pub(super) fn new(now: Instant) -> Self {
        Self {
            version: PeerVersion::Unknown,
            under_way: None,
            next_at: now,
            v1_greetings: 0,
            v1_answered: VecDeque::new(),
            describe: None,
            description: None,
            incarnation: None,
            unreachable_until: None,
        }
    }

    pub(super) fn version(&self) -> PeerVersion {
        self.version
    }

    pub(super) fn is_v2(&self) -> bool {
        matches!(self.version, PeerVersion::V2(_))
    }

    /// Whether a server that spoke DKVS/2, and was reachable ever since, now answers by DKVS/1.
    pub(super) fn is_downgraded(&self) -> bool {
        self.is_v2() && self.v1_greetings >= V1_GREETINGS
    }

    pub(super) fn incarnation(&self) -> Option<Incarnation> {
        self.incarnation
    }

    /// Whether the port was unreachable less than [`UNREACHABLE_PAUSE`] ago.
    pub(super) fn is_unreachable(&self, now: Instant) -> bool {
        self.unreachable_until.is_some_and(|until| now < until)
    }

    /// Greets the server if it was not greeted for [`GREETING_INTERVAL`].
    pub(super) fn greet_if_due(&mut self, ids: &mut RequestIds, now: Instant) {
        if now >= self.next_at {
            self.greet_at(now, ids);
        }
    }

    /// Greets the server for a new request. A server of DKVS/1 is greeted for each one, since
    /// nothing else would show that it has been upgraded.
    pub(super) fn greet_for_request(&mut self, ids: &mut RequestIds, now: Instant) {
        if self.version == PeerVersion::V1 && self.under_way.is_none() {
            self.greet_at(now, ids);
        } else {
            self.greet_if_due(ids, now);
        }
    }

    /// Starts a greeting, in place of one that may be under way.
    pub(super) fn greet_at(&mut self, at: Instant, ids: &mut RequestIds) {
        let ends = at + GREETING_INTERVAL;
        self.under_way = Some(Attempt {
            id: ids.next(),
            describe: ids.next(),
            transmissions: 0,
            first_sent: None,
            is_answered_by_v1: false,
            send_at: Some(at),
            ends,
        });
        self.next_at = ends;
    }

    /// What the server has said of itself, if it is one that does.
    pub(super) fn description(&self) -> Option<Description> {
        self.description
    }

    /// The greeting's messages, if it has to be sent now.
    pub(super) fn poll_messages(
        &mut self,
        datagram_bytes_max: usize,
        timer: &mut RetransmissionTimer,
        now: Instant,
    ) -> Option<[EncodedRequest; 2]> {
        let attempt = self.under_way.as_mut()?;
        attempt.send_at.filter(|at| *at <= now)?;
        let datagram_bytes_max = u16::try_from(datagram_bytes_max).unwrap_or(u16::MAX);
        let greet = EncodedRequest::new(attempt.id, Request::Greet { datagram_bytes_max });
        let describe = EncodedRequest::new(attempt.describe, Request::Describe);
        let mut messages = [greet, describe];
        for message in &mut messages {
            message.write_wait(attempt.ends, now);
        }
        self.describe = Some(attempt.describe);

        attempt.transmissions += 1;
        attempt.first_sent.get_or_insert(now);
        let wait = timer.wait_after(attempt.transmissions);
        attempt.send_at = Some(now + wait).filter(|at| *at < attempt.ends);
        Some(messages)
    }

    /// Takes a reply to the question for a description; whether it is one.
    pub(super) fn handle_description(&mut self, id: RequestId, reply: &Reply) -> bool {
        let is_asked = self.describe == Some(id);
        if is_asked && let Reply::Description(description) = reply {
            self.description = Some(*description);
        }
        is_asked
    }

    /// Whether a reply with this id answers a greeting.
    pub(super) fn awaits(&self, id: RequestId) -> bool {
        let is_under_way = self.under_way.as_ref().is_some_and(|sent| sent.id == id);
        is_under_way || (!self.is_v2() && self.v1_answered.contains(&id))
    }

    /// Handles a reply that [`Self::awaits`] expects. Returns `None` if it is no greeting: the
    /// valid answer may still follow.
    pub(super) fn handle_reply(
        &mut self,
        id: RequestId,
        reply: &Reply,
        now: Instant,
    ) -> Option<Answer> {
        let Reply::Greeting(greeting) = reply else {
            return None;
        };
        let sent_once = self.under_way.take().filter(|sent| {
            // A reply to a retransmission is ambiguous (Karn's algorithm).
            sent.id == id && sent.transmissions == 1
        });
        let first_sent = sent_once.and_then(|sent| sent.first_sent);
        self.v1_greetings = 0;
        self.v1_answered.clear();
        let before = self.incarnation;
        let is_new = before.is_none_or(|before| before.boot_id != greeting.boot_id);
        if is_new {
            self.description = None;
            self.incarnation = Some(Incarnation {
                boot_id: greeting.boot_id,
                known_since: now,
            });
        }
        self.version = PeerVersion::V2(*greeting);
        Some(Answer {
            round_trip: first_sent.map(|sent| now.saturating_duration_since(sent)),
            session: greeting.session,
            has_restarted: is_new && before.is_some(),
        })
    }

    /// Handles an empty datagram. The greeting that is under way counts as answered by DKVS/1,
    /// once. Returns whether that shows the server to speak DKVS/1 only.
    pub(super) fn handle_v1_answer(&mut self, ids: &mut RequestIds, now: Instant) -> bool {
        let Some(attempt) = &mut self.under_way else {
            return false;
        };
        if attempt.transmissions == 0 || attempt.is_answered_by_v1 {
            return false;
        }
        attempt.is_answered_by_v1 = true;
        let id = attempt.id;
        self.v1_greetings = self.v1_greetings.saturating_add(1);
        if self.v1_answered.len() == V1_GREETINGS as usize {
            self.v1_answered.pop_front();
        }
        self.v1_answered.push_back(id);
        let is_believed = mutants::is_on(Mutant::V1AnswerBelieved);
        if self.is_v2() && !is_believed {
            return false;
        }
        if self.v1_greetings < V1_GREETINGS && self.version != PeerVersion::V1 && !is_believed {
            // DKVS/2 may still answer this greeting, or the next one.
            self.greet_at(now + V1_PAUSE, ids);
            return false;
        }
        self.version = PeerVersion::V1;
        self.under_way = None;
        true
    }

    /// Nothing listens at the port: the next process there may be another program.
    pub(super) fn handle_unreachable(&mut self, now: Instant) {
        self.version = PeerVersion::Unknown;
        self.v1_greetings = 0;
        self.v1_answered.clear();
        self.under_way = None;
        self.next_at = now;
        self.unreachable_until = Some(now + UNREACHABLE_PAUSE);
    }

    /// When a greeting has to be sent, or ends.
    pub(super) fn poll_timeout(&self) -> Option<Instant> {
        let attempt = self.under_way.as_ref()?;
        Some(attempt.send_at.unwrap_or(attempt.ends))
    }

    /// Ends a greeting whose time is over; returns whether it did.
    pub(super) fn handle_timeout(&mut self, now: Instant) -> bool {
        self.under_way
            .take_if(|attempt| attempt.ends <= now)
            .is_some()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::start_of_time;
    use dkvs_common::model::Durability;

    /// A greeter that has greeted its server, and what it needs.
    struct Greeted {
        greeter: Greeter,
        ids: RequestIds,
        timer: RetransmissionTimer,
        now: Instant,
    }

    impl Greeted {
        fn new() -> Self {
            let now = start_of_time();
            let mut greeted = Self {
                greeter: Greeter::new(now),
                ids: RequestIds::starting_at(1),
                timer: RetransmissionTimer::new(1),
                now,
            };
            greeted.greeter.greet_if_due(&mut greeted.ids, now);
            assert!(greeted.send());
            greeted
        }

        fn send(&mut self) -> bool {
            let messages = self.greeter.poll_messages(1_200, &mut self.timer, self.now);
            messages.is_some()
        }

        fn id(&self) -> RequestId {
            self.greeter.under_way.as_ref().unwrap().id
        }

        fn answer(&mut self, boot_id: u64) -> Answer {
            let id = self.id();
            assert!(self.greeter.awaits(id));
            let reply = Reply::Greeting(greeting(boot_id));
            self.greeter.handle_reply(id, &reply, self.now).unwrap()
        }

        fn greet_later(&mut self) {
            self.now += GREETING_INTERVAL;
            self.greeter.greet_if_due(&mut self.ids, self.now);
            assert!(self.send());
        }
    }

    fn greeting(boot_id: u64) -> Greeting {
        Greeting {
            boot_id,
            session: boot_id + 100,
            datagram_bytes_max: 1_200,
            value_bytes_max: 1 << 20,
            durability: Durability::Memory,
        }
    }

    #[test]
    fn another_boot_id_is_a_restart_and_the_first_is_none() {
        let mut greeted = Greeted::new();
        let first = greeted.answer(1);
        assert!(!first.has_restarted);
        assert_eq!(first.session, 101);
        greeted.greet_later();
        assert!(!greeted.answer(1).has_restarted);
        greeted.greet_later();
        assert!(greeted.answer(2).has_restarted);
        let incarnation = greeted.greeter.incarnation().unwrap();
        assert_eq!(incarnation.known_since, greeted.now);
    }

    #[test]
    fn round_trip_of_a_greeting_that_was_sent_twice_is_not_measured() {
        let mut greeted = Greeted::new();
        greeted.now += Duration::from_millis(1);
        let once = greeted.answer(1).round_trip;
        assert_eq!(once, Some(Duration::from_millis(1)));
        greeted.greet_later();
        greeted.now += 2 * greeted.timer.timeout();
        assert!(greeted.send());
        assert_eq!(greeted.answer(1).round_trip, None);
    }

    #[test]
    fn a_reply_that_is_no_greeting_leaves_the_greeting_open() {
        let mut greeted = Greeted::new();
        let id = greeted.id();
        let done = Reply::Response(dkvs_common::model::ReplicaResponse::Done);
        assert!(
            greeted
                .greeter
                .handle_reply(id, &done, greeted.now)
                .is_none()
        );
        assert_eq!(greeted.greeter.version(), PeerVersion::Unknown);
        assert!(greeted.greeter.awaits(id));
    }

    #[test]
    fn v1_is_shown_by_its_answers_to_enough_greetings_in_a_row() {
        let mut greeted = Greeted::new();
        for answered in 1..=V1_GREETINGS {
            let Greeted {
                greeter, ids, now, ..
            } = &mut greeted;
            let is_v1 = greeter.handle_v1_answer(ids, *now);
            assert_eq!(is_v1, answered == V1_GREETINGS);
            assert!(!greeter.handle_v1_answer(ids, *now), "a copy");
            greeted.now += V1_PAUSE;
            assert_eq!(greeted.send(), !is_v1);
        }
        assert_eq!(greeted.greeter.version(), PeerVersion::V1);
    }

    #[test]
    fn greeting_is_due_once_an_interval() {
        let mut greeted = Greeted::new();
        let first = greeted.id();
        greeted.now += GREETING_INTERVAL - Duration::from_millis(1);
        greeted.greeter.greet_if_due(&mut greeted.ids, greeted.now);
        assert_eq!(greeted.id(), first);
        assert!(!greeted.greeter.handle_timeout(greeted.now));
        greeted.now += Duration::from_millis(1);
        assert!(greeted.greeter.handle_timeout(greeted.now));
        greeted.greeter.greet_if_due(&mut greeted.ids, greeted.now);
        assert_ne!(greeted.id(), first);
    }
}
