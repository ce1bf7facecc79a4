//! The task that sends datagrams and handles timeouts for all requests of a worker.
//!
//! A request wakes the driver, and the runtime polls it after all tasks that were ready before. So
//! what one turn of the runtime sends to a server goes out together, and no request needs a timer of
//! its own.

use std::time::{Duration, Instant};

use tokio::sync::watch;

use super::worker::Worker;

/// How long the driver sleeps while no timer is set.
const IDLE: Duration = Duration::from_secs(3_600);

/// Runs as long as the worker's runtime.
pub(super) async fn drive(worker: Worker) {
    let sleep = tokio::time::sleep(IDLE);
    tokio::pin!(sleep);
    loop {
        tokio::select! {
            () = worker.woken() => {}
            () = &mut sleep => {
                worker.handle_timeouts();
                // The next timer is set below.
                sleep.as_mut().reset((Instant::now() + IDLE).into());
            }
        }
        worker.flush();
        // Postponing a timer costs a system call, so one that fires too early is left as it is.
        if let Some(due) = worker.next_due()
            && due < sleep.deadline().into_std()
        {
            sleep.as_mut().reset(due.into());
        }
    }
}

/// Takes every new value into use, until there is no source of values any more. A task of its own:
/// to wait for one in [`drive`] would cost each turn something.
pub(super) async fn follow<T: Clone>(mut values: watch::Receiver<T>, take: impl Fn(T)) {
    while values.changed().await.is_ok() {
        let value = values.borrow_and_update().clone();
        take(value);
    }
}
