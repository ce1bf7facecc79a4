//! What a panic does to the process.
//!
//! A panic is a defect: what the thread was at is half done, and others may wait for it for ever.
//! So it ends the process, in whichever thread or task it happens, and whoever started the process
//! can start it again. The one exception is the engine of the durable store, which panics over some
//! damaged files: `contain` makes an error of that.

use std::backtrace::{Backtrace, BacktraceStatus};
use std::cell::Cell;
use std::panic::{AssertUnwindSafe, PanicHookInfo, catch_unwind};
use std::thread;

use crate::log;

/// The status with which a process ends that has panicked.
pub const STATUS: i32 = 101;

thread_local! {
    /// How many calls of [`contain`] this thread is in.
    static CONTAINED: Cell<u32> = const { Cell::new(0) };
}

/// Runs something that may panic although nothing is wrong with the program. The panic is printed on
/// standard error all the same.
///
/// # Errors
///
/// If it panics.
pub fn contain<R>(run: impl FnOnce() -> R) -> thread::Result<R> {
    CONTAINED.set(CONTAINED.get() + 1);
    // Whoever contains a panic throws away what it was about.
    let result = catch_unwind(AssertUnwindSafe(run));
    CONTAINED.set(CONTAINED.get() - 1);
    result
}

/// From here on a panic that is not contained ends the process, after it was printed.
pub(crate) fn end_the_process() {
    std::panic::set_hook(Box::new(|panic| {
        log::print(&text(panic));
        if CONTAINED.get() == 0 {
            log::flush();
            std::process::exit(STATUS);
        }
    }));
}

fn text(panic: &PanicHookInfo<'_>) -> String {
    let thread = thread::current();
    let name = thread.name().unwrap_or("<unnamed>");
    let place = panic
        .location()
        .map_or_else(String::new, ToString::to_string);
    let said = panic.payload_as_str().unwrap_or("it says nothing");
    let mut text = format!("thread '{name}' panicked at {place}: {said}");
    let backtrace = Backtrace::capture();
    if backtrace.status() == BacktraceStatus::Captured {
        text += &format!("\n{backtrace}");
    }
    text
}
