//! Whether the replies of the agreement level are true: a confirmed write is on w replicas,
//! and what a read returned is what r replicas say.
//!
//! That level promises no order, so this looks at one reply at a time, at what it says the
//! replicas said, and at where values come from. It does not look at the replicas.

use std::collections::BTreeSet;
use std::error::Error;
use std::fmt::{self, Display, Formatter};

use super::provenance::{Unwritten, Writes};
use super::{Action, Operation};

/// An operation with what its reply says about the replicas.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AgreementOperation {
    /// The request and its reply.
    pub operation: Operation,
    /// How many replicas there are to ask.
    pub n: u8,
    /// How many of them are required: w, or r of a read.
    pub needed: u8,
    /// The replicas as the reply lists them; none if there was no reply.
    pub replicas: Vec<Replica>,
}

/// A replica in a reply.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Replica {
    /// A number for each server, the same in all replies.
    pub server: u32,
    /// Its answer, as the reply gives it.
    pub answer: ReplicaAnswer,
}

/// An answer of a replica, as a reply can give it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ReplicaAnswer {
    /// To a write or a delete: it is stored.
    Stored,
    /// To a write or a delete: something newer is.
    Superseded,
    /// To a read: the value that the read returned.
    Match,
    /// To a read: another value.
    Differs,
    /// To a read: no value, or that it was deleted.
    Absent,
    /// Anything else, or nothing.
    Other,
}

/// What was looked at to find that all replies are true.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Checked {
    /// How many operations.
    pub operations: usize,
    /// How many of them were writes and deletes that were confirmed.
    pub confirmed: usize,
    /// How many were reads that found a value.
    pub found: usize,
    /// How many were reads that found no value.
    pub absent: usize,
}

/// Looks at all replies of a history, in any order; a violation is about the earliest that has one.
pub fn check(history: &[AgreementOperation]) -> Result<Checked, Violation> {
    check_beside(history, &[])
}

/// The same where other operations were under way as well, whose writes may be read; they
/// themselves are not looked at.
pub fn check_beside(
    history: &[AgreementOperation],
    others: &[Operation],
) -> Result<Checked, Violation> {
    let writes = history.iter().map(|asked| &asked.operation).chain(others);
    let writes = Writes::among(writes);
    let mut replies: Vec<&AgreementOperation> = history.iter().collect();
    replies.sort_by_key(|asked| asked.operation.returned);
    let mut checked = Checked {
        operations: history.len(),
        ..Checked::default()
    };
    for asked in replies {
        let AgreementOperation {
            operation,
            n,
            needed,
            ..
        } = asked;
        assert!(
            operation.is_coherent(),
            "nothing is asked or answered so: {operation:?}"
        );
        assert!((1..=*n).contains(needed), "no quorum is {needed} of {n}");
        if let Some(breach) = asked.breach(&writes) {
            return Err(Violation {
                asked: Box::new(asked.clone()),
                breach: Box::new(breach),
            });
        }
        checked.confirmed += usize::from(operation.is_done());
        checked.found += usize::from(matches!(operation.seen(), Some(Some(_))));
        checked.absent += usize::from(operation.seen() == Some(None));
    }
    Ok(checked)
}

impl AgreementOperation {
    fn breach(&self, writes: &Writes<'_>) -> Option<Breach> {
        let mut servers = BTreeSet::new();
        let again = self
            .replicas
            .iter()
            .find(|replica| !servers.insert(replica.server));
        if let Some(Replica { server, .. }) = again {
            return Some(Breach::Repeated { server: *server });
        }
        if servers.len() > usize::from(self.n) {
            return Some(Breach::TooMany);
        }
        let operation = &self.operation;
        let needed = match operation.seen() {
            Some(Some(_)) => ReplicaAnswer::Match,
            Some(None) => ReplicaAnswer::Absent,
            None if operation.is_done() => ReplicaAnswer::Stored,
            None if operation.is_never_done() => {
                let stored = self.answered_with(ReplicaAnswer::Stored).next()?;
                return Some(Breach::Stored {
                    server: stored.server,
                });
            }
            None => return None,
        };
        if self.answered_with(needed).count() < usize::from(self.needed) {
            return Some(Breach::TooFew { needed });
        }
        writes.unwritten(operation).map(Breach::Unwritten)
    }

    fn answered_with(&self, answer: ReplicaAnswer) -> impl Iterator<Item = &Replica> {
        self.replicas
            .iter()
            .filter(move |replica| replica.answer == answer)
    }
}

/// A reply that does not keep its word.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Violation {
    /// The operation, with the reply.
    pub asked: Box<AgreementOperation>,
    /// What is wrong with it.
    pub breach: Box<Breach>,
}

/// How a reply can break its word.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Breach {
    /// Fewer replicas answered so than required.
    TooFew {
        /// What they had to say.
        needed: ReplicaAnswer,
    },
    /// The reply lists more replicas than there are.
    TooMany,
    /// A replica counts twice.
    Repeated {
        /// Whose it is.
        server: u32,
    },
    /// The reply says that it is not done, and that this replica stored it.
    Stored {
        /// Whose it is.
        server: u32,
    },
    /// No write can have written what the read returned.
    Unwritten(Unwritten),
}

impl Error for Violation {}

impl Display for Violation {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let AgreementOperation {
            operation,
            n,
            needed: quorum,
            replicas,
        } = &*self.asked;
        write!(f, "key {}: {operation}, although ", operation.key)?;
        match &*self.breach {
            Breach::TooFew { needed } => {
                let (count, name) = (self.asked.answered_with(*needed).count(), needed.name());
                let parameter = if operation.action == Action::Read {
                    'r'
                } else {
                    'w'
                };
                write!(
                    f,
                    "only {count} said {name} with n={n} and {parameter}={quorum}"
                )?;
            }
            Breach::TooMany => write!(f, "there are {n} to be asked")?,
            Breach::Repeated { server } => write!(f, "server {server} is listed twice")?,
            Breach::Stored { server } => write!(f, "server {server} said stored")?,
            Breach::Unwritten(unwritten) => write!(f, "{unwritten}")?,
        }
        f.write_str("; in the reply:")?;
        if replicas.is_empty() {
            f.write_str(" nobody")?;
        }
        for (number, Replica { server, answer }) in replicas.iter().enumerate() {
            let comma = if number == 0 { "" } else { "," };
            write!(f, "{comma} server {server} {}", answer.name())?;
        }
        Ok(())
    }
}

impl ReplicaAnswer {
    fn name(self) -> &'static str {
        match self {
            Self::Stored => "stored",
            Self::Superseded => "superseded",
            Self::Match => "match",
            Self::Differs => "differs",
            Self::Absent => "absent",
            Self::Other => "other",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::ReplicaAnswer::{Absent, Differs, Match, Other, Stored, Superseded};
    use super::*;
    use crate::history::by_hand::{delete, read, write};

    /// One of n = 3 with a quorum of 2, whose replicas answered so.
    fn asked(operation: Operation, answer: &[ReplicaAnswer]) -> AgreementOperation {
        let replicas = (1..).zip(answer);
        AgreementOperation {
            operation,
            n: 3,
            needed: 2,
            replicas: replicas
                .map(|(server, answer)| Replica {
                    server,
                    answer: *answer,
                })
                .collect(),
        }
    }

    fn put(answer: &[ReplicaAnswer]) -> AgreementOperation {
        asked(write(1, 1_000..=2_000, 17), answer)
    }

    fn got(answer: &[ReplicaAnswer]) -> AgreementOperation {
        asked(read(2, 3_000..=4_000, Some(17)), answer)
    }

    fn found_nothing(answer: &[ReplicaAnswer]) -> AgreementOperation {
        asked(read(2, 3_000..=4_000, None), answer)
    }

    fn removed(answer: &[ReplicaAnswer]) -> AgreementOperation {
        asked(delete(1, 3_000..=4_000), answer)
    }

    fn accepted(history: &[AgreementOperation]) -> Checked {
        check(history).unwrap_or_else(|violation| panic!("{violation}"))
    }

    fn rejected(history: &[AgreementOperation], breach: &Breach, words: &str) {
        let violation = check(history).unwrap_err();
        assert_eq!(&*violation.breach, breach, "{violation}");
        assert_eq!(violation.to_string(), words);
    }

    #[test]
    fn a_quorum_of_the_right_answers_is_enough() {
        let checked = accepted(&[
            put(&[Stored, Stored, Other]),
            got(&[Match, Differs, Match]),
            found_nothing(&[Absent, Differs, Absent]),
            removed(&[Stored, Other, Stored]),
            got(&[Match, Match, Match]),
        ]);
        let counts = (
            checked.operations,
            checked.confirmed,
            checked.found,
            checked.absent,
        );
        assert_eq!(counts, (5, 2, 2, 1));
    }

    #[test]
    fn a_quorum_of_one_and_of_all_are_quorums() {
        let with = |needed, answer| AgreementOperation {
            needed,
            ..put(answer)
        };
        accepted(&[with(1, &[Stored])]);
        accepted(&[with(3, &[Stored, Stored, Stored])]);
        assert!(check(&[with(3, &[Stored, Stored, Other])]).is_err());
    }

    #[test]
    fn a_write_is_not_confirmed_by_fewer_than_w() {
        rejected(
            &[put(&[Stored, Superseded, Other])],
            &Breach::TooFew { needed: Stored },
            "key 1: client 1 wrote 17 from 0.001 ms to 0.002 ms, although only 1 said stored with \
             n=3 and w=2; in the reply: server 1 stored, server 2 superseded, server 3 other",
        );
        rejected(
            &[removed(&[])],
            &Breach::TooFew { needed: Stored },
            "key 1: client 1 deleted from 0.003 ms to 0.004 ms, although only 0 said stored with \
             n=3 and w=2; in the reply: nobody",
        );
    }

    #[test]
    fn a_value_is_not_found_by_fewer_than_r() {
        rejected(
            &[put(&[Stored, Stored]), got(&[Match, Differs, Absent])],
            &Breach::TooFew { needed: Match },
            "key 1: client 2 read 17 from 0.003 ms to 0.004 ms, although only 1 said match with \
             n=3 and r=2; in the reply: server 1 match, server 2 differs, server 3 absent",
        );
    }

    #[test]
    fn no_value_is_not_found_by_fewer_than_r() {
        rejected(
            &[found_nothing(&[Absent, Differs, Differs])],
            &Breach::TooFew { needed: Absent },
            "key 1: client 2 found no value from 0.003 ms to 0.004 ms, although only 1 said absent \
             with n=3 and r=2; in the reply: server 1 absent, server 2 differs, server 3 differs",
        );
    }

    #[test]
    fn one_replica_does_not_count_twice() {
        let mut put = put(&[Stored, Stored]);
        put.replicas[1].server = 1;
        rejected(
            &[put],
            &Breach::Repeated { server: 1 },
            "key 1: client 1 wrote 17 from 0.001 ms to 0.002 ms, although server 1 is listed \
             twice; in the reply: server 1 stored, server 1 stored",
        );
    }

    #[test]
    fn no_more_than_n_are_asked() {
        rejected(
            &[put(&[Stored; 4])],
            &Breach::TooMany,
            "key 1: client 1 wrote 17 from 0.001 ms to 0.002 ms, although there are 3 to be asked; \
             in the reply: server 1 stored, server 2 stored, server 3 stored, server 4 stored",
        );
    }

    #[test]
    fn what_a_replica_stored_is_not_said_not_to_be_done() {
        let not_done = |answer| {
            let mut asked = put(answer);
            asked.operation = asked.operation.never_done();
            asked
        };
        accepted(&[not_done(&[Other, Superseded, Other])]);
        rejected(
            &[not_done(&[Other, Stored])],
            &Breach::Stored { server: 2 },
            "key 1: client 1 tried to write 17 from 0.001 ms to 0.002 ms, which certainly was not \
             done, although server 2 said stored; in the reply: server 1 other, server 2 stored",
        );
    }

    #[test]
    fn what_a_read_found_was_written() {
        rejected(
            &[got(&[Match, Match])],
            &Breach::Unwritten(Unwritten::Nowhere),
            "key 1: client 2 read 17 from 0.003 ms to 0.004 ms, although nothing ever wrote that; \
             in the reply: server 1 match, server 2 match",
        );
        let refused = write(1, 1..=2, 17).never_done();
        let later = write(1, 4_001..=5_000, 17);
        for (write, breach) in [
            (refused.clone(), Unwritten::NeverDone(refused)),
            (later.clone(), Unwritten::Later(later)),
        ] {
            let answer: &[ReplicaAnswer] = if write.is_done() {
                &[Stored, Stored]
            } else {
                &[]
            };
            let violation = check(&[asked(write, answer), got(&[Match, Match])]).unwrap_err();
            assert_eq!(*violation.breach, Breach::Unwritten(breach));
        }
    }

    #[test]
    fn an_unknown_outcome_promises_nothing() {
        let mut unknown = put(&[Stored, Other]);
        unknown.operation = unknown.operation.unknown();
        let mut unawaited = [got(&[]), removed(&[])];
        for asked in &mut unawaited {
            asked.operation.returned = None;
        }
        let history = [&[unknown, got(&[Match, Match])][..], &unawaited].concat();
        accepted(&history);
    }

    /// What would not be linearizable is fine here, as long as enough replicas say it.
    #[test]
    fn an_order_is_not_promised() {
        let stale = asked(read(2, 5_000..=6_000, Some(17)), &[Match, Match]);
        accepted(&[
            put(&[Stored, Stored, Stored]),
            removed(&[Stored, Stored]),
            found_nothing(&[Absent, Absent]),
            stale,
        ]);
    }

    #[test]
    fn the_earliest_false_reply_is_reported() {
        let history = [found_nothing(&[]), put(&[Stored])];
        assert_eq!(*check(&history).unwrap_err().asked, history[1]);
    }

    #[test]
    #[should_panic(expected = "no quorum is 4 of 3")]
    fn more_than_n_are_no_quorum() {
        let needed = 4;
        let _ = check(&[AgreementOperation {
            needed,
            ..put(&[Stored; 3])
        }]);
    }
}
