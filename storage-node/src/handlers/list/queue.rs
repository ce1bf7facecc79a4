//! Lists that wait for their turn.
//!
//! A worker answers everything else that has arrived before it does a slice of a page. The accounts
//! take [turns](Turns), within an account its peers do, and a peer's lists follow each other. So a list
//! waits for as many slices as others list, whatever they ask for, and a get for one.
//!
//! The queue is bounded. When it is full, whoever has most lists in it gives way to whoever would
//! have fewer ([`Turns::who_gives_way`]), and is answered `busy`.

use std::collections::VecDeque;
use std::time::Instant;

use dkvs_common::model::{Refusal, ReplicaResponse};

use super::page::{PageQuery, PageScan};
use crate::handlers::caller::{Caller, Responder};
use crate::handlers::replica::Replica;
use crate::peer::{Account, Peer};
use crate::turns::Turns;

/// Most lists that wait for a worker.
pub(crate) const LISTS_WAITING_MAX: usize = 256;

/// Most records that a worker looks at for lists before it answers everything else that has arrived.
pub(crate) const RECORDS_PER_SLICE_MAX: usize = 256;

/// The lists that wait for one worker.
#[derive(Default)]
pub(crate) struct ListQueue {
    lists: Turns<WaitingList>,
}

struct WaitingList {
    /// The number by which its peer knows it.
    request: u64,
    arrived: Instant,
    deadline: Instant,
    scan: PageScan,
    respond: Responder,
}

impl ListQueue {
    /// Whether none waits.
    pub(crate) fn is_empty(&self) -> bool {
        self.lists.is_empty()
    }

    /// Since when the list waits whose turn is next.
    pub(crate) fn next_turn(&self) -> Option<Instant> {
        self.lists.first().map(|next| next.arrived)
    }

    /// Takes a list, which is answered in its turn. A repeat of one that waits is that one. Returns a
    /// refusal if there is no room.
    pub(in crate::handlers) fn push(
        &mut self,
        query: PageQuery,
        caller: Caller,
        replica: &Replica,
        responder: impl FnOnce() -> Responder,
    ) -> Option<ReplicaResponse> {
        let (account, peer) = (caller.account(), caller.peer);
        let waits = |list: &WaitingList| list.request == caller.request;
        if self.lists.of(account, peer).any(waits) {
            return None;
        }
        if self.lists.len() == LISTS_WAITING_MAX && !self.make_room_for(account, peer, replica) {
            replica.counters.lists_refused_busy.add(1);
            return Some(ReplicaResponse::Refused(Refusal::Busy));
        }
        let list = WaitingList {
            request: caller.request,
            arrived: caller.now,
            deadline: caller.deadline(),
            scan: PageScan::new(query),
            respond: responder(),
        };
        self.lists.push(account, peer, list);
        None
    }

    /// Lets the next list have its turn: a slice of it, after which it is answered or waits for the
    /// next. A list whose client has stopped waiting is dropped.
    pub(crate) fn take_turn(&mut self, replica: &Replica, now: Instant) {
        self.lists.take_turn(|lists| {
            let Some(mut list) = lists.pop_front() else {
                return;
            };
            if now >= list.deadline {
                return replica.counters.expired.add(1);
            }
            match replica.scan_slice(&mut list.scan, RECORDS_PER_SLICE_MAX) {
                Some(response) => (list.respond)(response),
                None => lists.push_front(list),
            }
        });
    }

    /// Refuses the last list of whoever is to give way; returns whether there is room then.
    fn make_room_for(&mut self, account: Account, peer: Peer, replica: &Replica) -> bool {
        let Some(giving) = self.lists.who_gives_way(account, peer) else {
            return false;
        };
        let Some(last) = self.lists.remove(giving, VecDeque::pop_back) else {
            return false;
        };
        replica.counters.lists_refused_busy.add(1);
        (last.respond)(ReplicaResponse::Refused(Refusal::Busy));
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::ServiceConfig;
    use crate::handlers::caller::ResponseRoom;
    use crate::store::{MemoryStore, RecordStore as _, Store};
    use bytes::Bytes;
    use dkvs_common::kv::Key;
    use dkvs_common::model::{Direction, KeyPosition};
    use dkvs_common::record::{Content, Record};
    use dkvs_common::tag::Tag;
    use std::sync::{Arc, Mutex};
    use std::time::Duration;

    /// A replica with so many records that a page of all of them takes three slices.
    fn replica() -> Replica {
        let store = Store::Memory(MemoryStore::new(usize::MAX));
        let replica = Replica::new(store, ServiceConfig::new(1));
        for number in 0..3 * RECORDS_PER_SLICE_MAX - 1 {
            let key = Key::new(number.to_string()).unwrap();
            let record = Record::new(&key, Tag { time: 1, op: 2 }, Content::Tombstone);
            let put = replica.store.apply(&key, &record, || Box::new(drop));
            put.unwrap().unwrap();
        }
        replica
    }

    fn query() -> PageQuery {
        PageQuery {
            prefix: Bytes::new(),
            start: KeyPosition::START,
            direction: Direction::Ascending,
            keys_max: usize::MAX,
            room: ResponseRoom {
                value_bytes: 0,
                accepted_bytes: 0,
                page_bytes: usize::MAX,
                page_entry_bytes: 19,
                leaf: crate::handlers::LeafRoom::default(),
            },
        }
    }

    /// Lists by host, port and number, and what they are answered, in order.
    #[derive(Clone, Default)]
    struct Answers(Arc<Mutex<Vec<(Who, bool)>>>);

    type Who = (u8, u16, u64);

    impl Answers {
        fn push(&self, queue: &mut ListQueue, replica: &Replica, who: Who, now: Instant) -> bool {
            let (host, port, request) = who;
            let caller = Caller {
                peer: Peer::at(host, port),
                key_id: 0,
                request,
                epoch: dkvs_common::epoch::StatedEpoch::None,
                now,
                wait: Duration::from_secs(1),
                room: query().room,
            };
            let answers = Arc::clone(&self.0);
            let responder = || -> Responder {
                Box::new(move |response| {
                    let is_page = matches!(response, ReplicaResponse::Page { .. });
                    answers.lock().unwrap().push((who, is_page));
                })
            };
            let refused = queue.push(query(), caller, replica, responder);
            let busy = ReplicaResponse::Refused(Refusal::Busy);
            assert!(refused.as_ref().is_none_or(|refused| *refused == busy));
            refused.is_none()
        }

        fn take(&self) -> Vec<(Who, bool)> {
            std::mem::take(&mut self.0.lock().unwrap())
        }
    }

    #[test]
    fn hosts_take_turns_and_then_their_ports_and_each_turn_is_bounded() {
        let (replica, now) = (replica(), Instant::now());
        let (mut queue, answers) = (ListQueue::default(), Answers::default());
        assert_eq!(queue.next_turn(), None);
        for who in [(1, 1, 1), (1, 1, 2), (1, 2, 1), (1, 3, 1), (2, 1, 1)] {
            assert!(answers.push(&mut queue, &replica, who, now));
        }
        let mut turns = Vec::new();
        while !queue.is_empty() {
            let before = replica.counters.list_records_examined.count();
            queue.take_turn(&replica, now);
            let examined = replica.counters.list_records_examined.count() - before;
            assert!(examined <= RECORDS_PER_SLICE_MAX as u64);
            turns.push(answers.take());
        }
        let ended: Vec<(usize, Who)> = (1..)
            .zip(&turns)
            .flat_map(|(turn, answers)| answers.iter().map(move |(who, _)| (turn, *who)))
            .collect();
        // The second host has every other turn while both list; the ports of the first share its
        // turns; a port's lists follow each other.
        let expected = [
            (6, (2, 1, 1)),
            (10, (1, 1, 1)),
            (11, (1, 2, 1)),
            (12, (1, 3, 1)),
            (15, (1, 1, 2)),
        ];
        assert_eq!(ended, expected);
        assert_eq!(queue.next_turn(), None);
        queue.take_turn(&replica, now);
    }

    #[test]
    fn a_list_that_comes_again_while_it_waits_is_answered_once() {
        let (replica, now) = (replica(), Instant::now());
        let (mut queue, answers) = (ListQueue::default(), Answers::default());
        for who in [(1, 1, 7), (1, 1, 7), (1, 2, 7), (2, 1, 7), (1, 1, 7)] {
            assert!(answers.push(&mut queue, &replica, who, now));
        }
        while !queue.is_empty() {
            queue.take_turn(&replica, now);
        }
        let mut answered = answers.take();
        answered.sort_unstable();
        assert_eq!(
            answered,
            [((1, 1, 7), true), ((1, 2, 7), true), ((2, 1, 7), true)]
        );
    }

    #[test]
    fn a_list_that_nobody_waits_for_any_more_is_dropped_and_counted() {
        let (replica, now) = (replica(), Instant::now());
        let (mut queue, answers) = (ListQueue::default(), Answers::default());
        let second = Duration::from_secs(1);
        answers.push(&mut queue, &replica, (1, 1, 1), now);
        answers.push(&mut queue, &replica, (1, 1, 2), now + second);
        queue.take_turn(&replica, now);
        assert_eq!(queue.next_turn(), Some(now));
        while !queue.is_empty() {
            queue.take_turn(&replica, now + second);
        }
        assert_eq!(answers.take(), [((1, 1, 2), true)]);
        assert_eq!(replica.counters.expired.count(), 1);
    }

    #[test]
    fn a_full_queue_takes_what_others_send_who_have_fewer_and_refuses_the_rest() {
        let (replica, now) = (replica(), Instant::now());
        let (mut queue, answers) = (ListQueue::default(), Answers::default());
        let max = LISTS_WAITING_MAX as u64;
        let mut push = |who| answers.push(&mut queue, &replica, who, now);
        assert!((0..max).all(|number| push((1, 1, number))));
        assert!(!push((1, 1, max)), "it has them all itself");
        assert_eq!(replica.counters.lists_refused_busy.count(), 1);
        assert!((0..max / 2).all(|number| push((2, number as u16, number))));
        assert!(!push((2, 1_000, 0)), "they have as many");
        // What gave way was refused, the newest first.
        let refused = answers.take();
        let expected = (max / 2..max).rev().map(|number| ((1, 1, number), false));
        assert_eq!(refused, expected.collect::<Vec<_>>());
        assert_eq!(queue.lists.len(), LISTS_WAITING_MAX);
        while !queue.is_empty() {
            queue.take_turn(&replica, now);
        }
        let answered = answers.take();
        assert_eq!(answered.len(), LISTS_WAITING_MAX);
        assert!(answered.iter().all(|(_, is_page)| *is_page));
        assert_eq!(replica.counters.lists_refused_busy.count(), 2 + max / 2);
    }
}
