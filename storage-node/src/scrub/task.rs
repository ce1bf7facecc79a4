//! Drives the scrub of a store, on a thread of its own.

use std::io;
use std::sync::mpsc::{self, RecvTimeoutError, Sender};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use std::sync::Arc;

use super::machine::{Pace, Scrub};
use crate::service::Service;
use crate::store::Store;

/// The thread that scrubs a store. It ends when this is dropped.
pub struct ScrubThread {
    signals: Sender<Signal>,
    thread: Option<JoinHandle<()>>,
}

enum Signal {
    Read,
    Stop,
}

impl ScrubThread {
    /// Starts to scrub the store of a server, so many bytes a second; none of a store in memory, or of 0 bytes.
    ///
    /// # Errors
    ///
    /// If the system has no thread for it.
    pub fn start(service: &Arc<Service>, bytes_per_second: u64) -> io::Result<Option<Self>> {
        let Store::Disk(store) = service.store() else {
            return Ok(None);
        };
        if bytes_per_second == 0 {
            return Ok(None);
        }
        let (signals, arrived) = mpsc::channel();
        let read = signals.clone();
        let wake = move || {
            // Nobody waits for it any more if the scrub has ended.
            let _ = read.send(Signal::Read);
        };
        let pace = Pace::of(bytes_per_second);
        let mut scrub = Scrub::new(Arc::clone(store), pace, Instant::now(), wake);
        let run = move || {
            loop {
                let now = Instant::now();
                let due = scrub.poll_timeout();
                // Without a time, a read is under way, and ends.
                let wait = due.map_or(Duration::MAX, |due| due.saturating_duration_since(now));
                match arrived.recv_timeout(wait) {
                    Ok(Signal::Read) => scrub.handle_read(Instant::now()),
                    Err(RecvTimeoutError::Timeout) => scrub.handle_timeout(Instant::now()),
                    Ok(Signal::Stop) | Err(RecvTimeoutError::Disconnected) => return,
                }
            }
        };
        let thread = thread::Builder::new().name("scrub".into()).spawn(run)?;
        Ok(Some(Self {
            signals,
            thread: Some(thread),
        }))
    }
}

impl Drop for ScrubThread {
    fn drop(&mut self) {
        // It fails only if the thread has ended.
        let _ = self.signals.send(Signal::Stop);
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!("the thread that reads records again panicked");
        }
    }
}
