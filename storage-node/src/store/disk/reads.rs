//! Reads that wait for the disk.
//!
//! Whoever asks for them takes [turns](Turns), and the process with what it asks for itself takes turns with
//! all of them. Reads of one asker are done in the order in which they came.
//!
//! The queue is bounded. When it is full, whoever has most reads in it gives way to whoever would have
//! fewer, and the newest of those is refused.

use std::collections::VecDeque;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

use dkvs_common::kv::Key;

use super::entry::Located;
use crate::store::contract::{Asker, Completion, GetResult, PutResult, ReadRequest};
use crate::store::view::RecordView;
use crate::turns::Turns;

/// Most reads that wait for the disk.
pub(super) const READS_WAITING_MAX: usize = 1_024;

/// Most of them that the process asks for itself: for a dump, to attest, and to scrub.
pub(super) const OWN_READS_WAITING_MAX: usize = 256;

/// Takes what a read finds.
pub(super) type Answer = Box<dyn for<'a> FnOnce(GetResult<RecordView<'a>>) + Send>;

/// A read that waits for the disk.
pub struct ColdRead {
    pub(super) key: Key,
    pub(super) wanted: Wanted,
    /// For [`Mutant::ColdReadShared`](dkvs_common::mutants::Mutant::ColdReadShared): what the first read of the key that waits was to be shown.
    #[cfg(feature = "mutants")]
    pub(super) located: Option<Located>,
}

/// What a read is for.
pub(super) enum Wanted {
    /// What may be shown of a record.
    View {
        read: ReadRequest,
        /// Which record is read; if none, the newest.
        place: Option<Located>,
        answer: Answer,
    },
    /// What is held, though it may not be shown yet: it is to be attested then. That takes so many
    /// bytes of what waits to be written.
    Attest {
        bytes: usize,
        completion: Completion<PutResult>,
    },
    /// Whether what is held can still be read as it was written.
    Scrub { completion: Completion<Scrubbed> },
}

/// What came of a scrub of a record.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Scrubbed {
    /// How many bytes were read; 0 if there was none to read, or it could not be read now.
    pub bytes: u32,
}

/// Reads that wait, and whose turn it is.
#[derive(Default)]
pub(super) struct ReadQueue {
    waiting: Mutex<Waiting>,
    arrived: Condvar,
}

#[derive(Default)]
struct Waiting {
    of_senders: Turns<ColdRead>,
    /// Those that the process asks for itself, in the order in which they came.
    own: VecDeque<ColdRead>,
    /// Whether the last turn was that of a sender.
    is_own_turn: bool,
    is_closed: bool,
}

/// Too many reads wait.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct TooMany;

impl Waiting {
    fn len(&self) -> usize {
        self.of_senders.len() + self.own.len()
    }

    fn take(&mut self) -> Option<ColdRead> {
        self.is_own_turn = !self.is_own_turn;
        if !self.is_own_turn
            && let Some(own) = self.own.pop_front()
        {
            return Some(own);
        }
        let of_sender = self.of_senders.take_turn(VecDeque::pop_front);
        of_sender.flatten().or_else(|| self.own.pop_front())
    }

    /// Makes room for one more. Returns what has to go for it.
    fn make_room_for(&mut self, asker: Asker) -> Result<Option<ColdRead>, TooMany> {
        let Some((account, peer)) = asker.sender() else {
            let is_full = self.own.len() >= OWN_READS_WAITING_MAX;
            return match is_full || self.len() >= READS_WAITING_MAX {
                true => Err(TooMany),
                false => Ok(None),
            };
        };
        if self.len() < READS_WAITING_MAX {
            return Ok(None);
        }
        let giving = self.of_senders.who_gives_way(account, peer);
        let giving = giving.ok_or(TooMany)?;
        let newest = self.of_senders.remove(giving, VecDeque::pop_back);
        newest.map(Some).ok_or(TooMany)
    }
}

impl ReadQueue {
    /// Adds a read, if there is room for it. What is wanted is made only then. Returns the read that gave
    /// way to it, if one did.
    pub(super) fn push(
        &self,
        key: &Key,
        asker: Asker,
        wanted: impl FnOnce() -> Wanted,
        #[cfg(feature = "mutants")] located: Option<Located>,
    ) -> Result<Option<ColdRead>, TooMany> {
        let mut waiting = self.lock();
        if waiting.is_closed {
            return Err(TooMany);
        }
        let displaced = waiting.make_room_for(asker)?;
        #[cfg(feature = "mutants")]
        let located = {
            let mut all = waiting.of_senders.iter().chain(&waiting.own);
            let first = all.find(|it| it.key == *key);
            first.map_or(located, |first| first.located)
        };
        let cold = ColdRead {
            #[cfg(feature = "mutants")]
            located,
            key: key.clone(),
            wanted: wanted(),
        };
        match asker.sender() {
            Some((account, peer)) => waiting.of_senders.push(account, peer, cold),
            None => waiting.own.push_back(cold),
        }
        drop(waiting);
        self.arrived.notify_one();
        Ok(displaced)
    }

    /// The next read, if there is one.
    pub(super) fn take(&self) -> Option<ColdRead> {
        self.lock().take()
    }

    /// Waits for the next read; none when the queue is closed.
    pub(super) fn wait(&self) -> Option<ColdRead> {
        let mut waiting = self.lock();
        loop {
            if waiting.is_closed {
                return None;
            }
            if let Some(read) = waiting.take() {
                return Some(read);
            }
            let woken = self.arrived.wait(waiting);
            waiting = woken.unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// Takes nothing more, and forgets what waits.
    pub(super) fn close(&self) {
        let mut waiting = self.lock();
        waiting.is_closed = true;
        waiting.of_senders = Turns::default();
        waiting.own.clear();
        drop(waiting);
        self.arrived.notify_all();
    }

    pub(super) fn len(&self) -> usize {
        self.lock().len()
    }

    /// A panic while it was locked leaves no read half in it.
    fn lock(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::peer::{Account, Peer};
    use crate::store::view::Part;

    /// Host and port.
    type Who = (u8, u16);

    fn push(queue: &ReadQueue, who: Option<Who>, name: &str) -> Result<Option<String>, TooMany> {
        let peer = who.map(|(host, port)| Peer::at(host, port));
        let asker = peer.map_or(Asker::OWN, |peer| Asker::of(Account::of(peer, 0), peer));
        let read = ReadRequest {
            part: Part::Whole,
            deadline: None,
            asker,
        };
        let wanted = || Wanted::View {
            read,
            place: None,
            answer: Box::new(|_| ()),
        };
        let key = Key::new(name.to_owned()).unwrap();
        let pushed = queue.push(
            &key,
            asker,
            wanted,
            #[cfg(feature = "mutants")]
            None,
        );
        pushed.map(|displaced| displaced.map(name_of))
    }

    fn name_of(read: ColdRead) -> String {
        String::from_utf8(read.key.as_bytes().to_vec()).unwrap()
    }

    fn taken(queue: &ReadQueue) -> Vec<String> {
        std::iter::from_fn(|| queue.take().map(name_of)).collect()
    }

    #[test]
    fn hosts_and_their_ports_and_the_process_itself_take_turns() {
        let queue = ReadQueue::default();
        for (who, name) in [
            (Some((1, 1)), "a1"),
            (Some((1, 1)), "a2"),
            (Some((1, 1)), "a3"),
            (Some((1, 2)), "b1"),
            (Some((2, 1)), "c1"),
            (Some((2, 1)), "c2"),
            (None, "own 1"),
            (None, "own 2"),
        ] {
            assert_eq!(push(&queue, who, name), Ok(None));
        }
        let expected = ["a1", "own 1", "c1", "own 2", "b1", "c2", "a2", "a3"];
        assert_eq!(taken(&queue), expected);
    }

    #[test]
    fn a_full_queue_refuses_the_newest_of_whoever_has_most() {
        let queue = ReadQueue::default();
        for number in 0..READS_WAITING_MAX {
            assert_eq!(push(&queue, Some((1, 1)), &number.to_string()), Ok(None));
        }
        assert_eq!(push(&queue, Some((1, 1)), "more"), Err(TooMany));
        assert_eq!(push(&queue, None, "own"), Err(TooMany));
        for number in (READS_WAITING_MAX / 2..READS_WAITING_MAX).rev() {
            let displaced = push(&queue, Some((2, 1)), "other");
            assert_eq!(displaced, Ok(Some(number.to_string())));
        }
        assert_eq!(push(&queue, Some((2, 1)), "more"), Err(TooMany), "as many");
        assert_eq!(taken(&queue)[..4], ["0", "other", "1", "other"]);
    }

    #[test]
    fn what_the_process_asks_for_itself_leaves_room_for_others() {
        let queue = ReadQueue::default();
        for _ in 0..OWN_READS_WAITING_MAX {
            assert_eq!(push(&queue, None, "own"), Ok(None));
        }
        assert_eq!(push(&queue, None, "own"), Err(TooMany));
        assert_eq!(push(&queue, Some((1, 1)), "a"), Ok(None));
        assert_eq!(taken(&queue)[..2], ["a", "own"]);
        queue.close();
        assert_eq!(push(&queue, Some((1, 1)), "a"), Err(TooMany));
    }
}
