//! What a worker does for all its requests together: send what they ask, look after what is due.
//!
//! Whoever asks something wakes the driver, and the runtime polls it after all tasks that were
//! ready before it: so what one turn of the runtime asks of a server goes out together, and no
//! request needs a timer of its own.

use std::sync::Arc;
use std::time::{Duration, Instant};

use dkvs_common::wire::v2::keys::Keys;
use tokio::sync::{Notify, watch};

use super::Coordinator;

/// How long the driver sleeps when nothing is due.
const IDLE: Duration = Duration::from_secs(3_600);

/// Runs for as long as the worker's runtime does.
pub(super) async fn drive(
    coordinator: Coordinator,
    woken: Arc<Notify>,
    mut keys: Option<watch::Receiver<Keys>>,
) {
    let sleep = tokio::time::sleep(IDLE);
    tokio::pin!(sleep);
    loop {
        tokio::select! {
            () = woken.notified() => {}
            () = &mut sleep => {
                coordinator.handle_timeouts();
                // It is set to what is due next below.
                sleep.as_mut().reset((Instant::now() + IDLE).into());
            }
            () = changed(&mut keys) => coordinator.take_new_keys(),
        }
        coordinator.flush(super::now());
        // Moving a timer forward costs a system call, so it is left alone when it rings too early.
        if let Some(due) = coordinator.next_due()
            && due < sleep.deadline().into_std()
        {
            sleep.as_mut().reset(due.into());
        }
    }
}

/// Waits for other keys; where there are none, or never again any other, for ever.
async fn changed(keys: &mut Option<watch::Receiver<Keys>>) {
    match keys {
        Some(held) => {
            if held.changed().await.is_err() {
                *keys = None;
            }
        }
        None => std::future::pending().await,
    }
}
