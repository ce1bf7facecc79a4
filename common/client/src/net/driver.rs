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
    let mut keys = worker.keys();
    let mut views = Some(worker.shared().views());
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
            keys = changed(&mut keys) => worker.set_keys(keys),
            view = changed(&mut views) => worker.set_view(view),
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

/// Waits for another value: forever if there is no source of values, or if it is gone.
async fn changed<T: Clone>(values: &mut Option<watch::Receiver<T>>) -> T {
    if let Some(held) = values
        && held.changed().await.is_ok()
    {
        return held.borrow_and_update().clone();
    }
    *values = None;
    std::future::pending().await
}
