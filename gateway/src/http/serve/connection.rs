//! A connection from its first poll to its end.

use std::future::poll_fn;
use std::pin::{Pin, pin};
use std::task::{Context, Poll};

use hyper_util::server::graceful::GracefulConnection;

use super::clock::{Phase, poll_alarm};
use super::occupant::{Instruction, STALLED};
use super::slots::ConnectionSlot;
use super::stream::look_again;

/// Why a connection ended.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum End {
    /// One of both sides has closed it, or it broke.
    Closed,
    /// It was idle or slow for too long.
    TooSlow,
    /// It made room for another.
    Evicted,
}

/// Drives a connection to its end. Nothing that has arrived by then goes unanswered, but an unfinished
/// head.
pub(super) async fn drive<C>(mut connection: Pin<&mut C>, slot: &ConnectionSlot) -> End
where
    C: GracefulConnection<Error = hyper::Error>,
{
    let occupant = slot.occupant();
    let clock = occupant.clock();
    let mut alarm = pin!(tokio::time::sleep_until(clock.deadline().into()));
    let mut is_draining = false;
    let mut has_looked = false;
    poll_fn(|context| {
        loop {
            if poll(connection.as_mut(), context).is_ready() {
                return Poll::Ready(End::Closed);
            }
            let instruction = occupant.poll_instruction(context);
            if instruction == Instruction::Drain && !is_draining {
                is_draining = true;
                clock.note_draining();
                connection.as_mut().graceful_shutdown();
                continue;
            }
            let is_slow = poll_alarm(clock, alarm.as_mut(), context).is_ready();
            if !is_slow && !instruction.is_to_go() {
                has_looked = false;
                return Poll::Pending;
            }
            if !has_looked {
                has_looked = true;
                look_again(context);
                return Poll::Pending;
            }
            has_looked = false;
            let reading = clock.read();
            let may_stay = !is_slow && instruction != Instruction::Expel;
            if reading.phase == Phase::Handling && may_stay {
                slot.stay();
                continue;
            }
            if !is_draining {
                is_draining = true;
                clock.note_draining();
                connection.as_mut().graceful_shutdown();
            }
            // Closes it in good order, unless a response or a head is under way.
            let is_closed = poll(connection.as_mut(), context).is_ready();
            let is_response =
                reading.phase == Phase::Idle && reading.has_served && !clock.is_lingering();
            let is_stalled = reading.since.elapsed() >= STALLED && !clock.is_working();
            if !is_closed && may_stay && is_response && !is_stalled {
                slot.decline();
                continue;
            }
            return Poll::Ready(match is_slow {
                true => End::TooSlow,
                false => End::Evicted,
            });
        }
    })
    .await
}

fn poll<C>(connection: Pin<&mut C>, context: &mut Context<'_>) -> Poll<()>
where
    C: GracefulConnection<Error = hyper::Error>,
{
    connection.poll(context).map(|ended| {
        if let Err(error) = ended {
            tracing::debug!(%error, "a connection ended with an error");
        }
    })
}
