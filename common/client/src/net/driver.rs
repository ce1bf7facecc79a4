//! The task that sends datagrams and handles timeouts for all requests of a worker.
//!
//! A request wakes the driver, and the runtime polls it after all tasks that were ready before. So
//! what one turn of the runtime sends to a server goes out together, and no request needs a timer of
//! its own.

use std::sync::Arc;
use std::time::{Duration, Instant};

use dkvs_common::wire::v2::keys::Keys;
use tokio::sync::{Notify, watch};

use super::Coordinator;

/// How long the driver sleeps while no timer is set.
const IDLE: Duration = Duration::from_secs(3_600);

/// Runs as long as the worker's runtime.
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
                // The next timer is set below.
                sleep.as_mut().reset((Instant::now() + IDLE).into());
            }
            () = changed(&mut keys) => coordinator.take_new_keys(),
        }
        coordinator.flush(super::now());
        // Postponing a timer costs a system call, so one that fires too early is left as it is.
        if let Some(due) = coordinator.next_due()
            && due < sleep.deadline().into_std()
        {
            sleep.as_mut().reset(due.into());
        }
    }
}

/// Waits for the keys to change: forever if the cluster has none or their source is gone.
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
