//! What a worker does for all its requests together: send their commands, look after what is due.
//!
//! A request wakes the driver, and the runtime polls it after all tasks that were ready before it: so
//! what one turn of the runtime asks of a server goes out together, and no request needs a timer of
//! its own.

use std::time::{Duration, Instant};

use tokio::sync::watch;

use super::worker::Worker;

/// How long the driver sleeps when nothing is due.
const IDLE: Duration = Duration::from_secs(3_600);

/// Runs for as long as the worker's runtime does.
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
                // It is set to what is due next below.
                sleep.as_mut().reset((Instant::now() + IDLE).into());
            }
            keys = changed(&mut keys) => worker.set_keys(keys),
            view = changed(&mut views) => worker.set_view(view),
        }
        worker.flush();
        // Moving a timer forward costs a system call, so it is left alone when it rings too early.
        if let Some(due) = worker.next_due()
            && due < sleep.deadline().into_std()
        {
            sleep.as_mut().reset(due.into());
        }
    }
}

/// Waits for another value; where there is none, or never again another, for ever.
async fn changed<T: Clone>(values: &mut Option<watch::Receiver<T>>) -> T {
    if let Some(held) = values
        && held.changed().await.is_ok()
    {
        return held.borrow_and_update().clone();
    }
    *values = None;
    std::future::pending().await
}
