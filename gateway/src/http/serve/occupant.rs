//! A connection, as those see it who look for room, and what it is told.

use std::sync::atomic::{AtomicU8, Ordering};
use std::task::Context;
use std::time::Duration;

use dkvs_client::CallerId;
use futures_util::task::AtomicWaker;

use super::clock::{Clock, Phase, Reading};

/// A response of which nothing is taken for so long is no reason to stay.
pub(super) const STALLED: Duration = Duration::from_secs(10);

/// What a connection is to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum Instruction {
    Stay = 0,
    /// To finish the request under way, if there is one, and end.
    Drain = 1,
    /// To make room.
    Evict = 2,
    /// It had a response under way when it was asked to make room. It ends with that.
    Declined = 3,
    /// To make room, whatever is under way.
    Expel = 4,
}

impl Instruction {
    /// Whether it is to make room.
    pub(super) fn is_to_go(self) -> bool {
        matches!(self, Self::Evict | Self::Expel)
    }
}

/// A connection, as its worker knows it.
pub(super) struct Occupant {
    id: u64,
    peer: CallerId,
    clock: Clock,
    instruction: AtomicU8,
    /// That of the connection's task.
    waker: AtomicWaker,
}

impl Occupant {
    pub(super) fn new(id: u64, peer: CallerId, clock: Clock) -> Self {
        Self {
            id,
            peer,
            clock,
            instruction: AtomicU8::new(Instruction::Stay as u8),
            waker: AtomicWaker::new(),
        }
    }

    pub(super) fn id(&self) -> u64 {
        self.id
    }

    pub(super) fn peer(&self) -> CallerId {
        self.peer
    }

    pub(super) fn clock(&self) -> &Clock {
        &self.clock
    }

    pub(super) fn reading(&self) -> Reading {
        self.clock.read()
    }

    /// What it is asked to do; the task is woken when that changes.
    pub(super) fn poll_instruction(&self, context: &mut Context<'_>) -> Instruction {
        self.waker.register(context.waker());
        self.instruction()
    }

    pub(super) fn instruction(&self) -> Instruction {
        match self.instruction.load(Ordering::Acquire) {
            0 => Instruction::Stay,
            1 => Instruction::Drain,
            2 => Instruction::Evict,
            3 => Instruction::Declined,
            _ => Instruction::Expel,
        }
    }

    /// Tells it what to do, and wakes its task.
    pub(super) fn tell(&self, instruction: Instruction) {
        self.instruction.store(instruction as u8, Ordering::Release);
        self.waker.wake();
    }

    /// Whether it may be asked to make room: no request is under way.
    pub(super) fn can_be_evicted(&self) -> bool {
        let reading = self.reading();
        let is_silent = reading.phase != Phase::Handling;
        match self.instruction() {
            Instruction::Stay | Instruction::Drain => is_silent,
            Instruction::Evict | Instruction::Expel => false,
            Instruction::Declined => {
                let is_peers = is_silent && !self.clock.is_working();
                is_peers && reading.since.elapsed() >= STALLED
            }
        }
    }

    /// Whether it was asked to make room, and has not answered.
    pub(super) fn is_going(&self) -> bool {
        self.instruction().is_to_go()
    }

    /// Asks it to make room.
    pub(super) fn evict(&self) {
        self.tell(Instruction::Evict);
    }

    /// Asks it to end once it is idle.
    pub(super) fn drain(&self) {
        if self.instruction() == Instruction::Stay {
            self.tell(Instruction::Drain);
        }
    }

    /// What becomes of what it was told, by its own task.
    pub(super) fn answer(&self, instruction: Instruction) {
        self.instruction.store(instruction as u8, Ordering::Release);
    }
}
