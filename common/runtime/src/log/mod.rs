//! The log, on standard error.
//!
//! * `lines`: lines on their way there, for which no thread ever waits
//! * [`filter`]: what is logged

pub mod filter;
mod lines;

use std::io::{self, Write};
use std::time::Duration;

use clap::ValueEnum;
use filter::LogFilter;
use lines::Lines;
use serde::Deserialize;
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;
use tracing_subscriber::{Layer, Registry, fmt};

/// How long the end of the process waits for lines that standard error does not take.
const PATIENCE: Duration = Duration::from_secs(2);

/// Why the log cannot be started.
pub const NO_THREAD: &str = "cannot start a thread for the log";

/// What is on its way to standard error, of which a process has one.
static LINES: Lines = Lines::new();

/// How an event is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// A line for people.
    #[default]
    Text,
    /// A line that is a JSON object.
    Json,
}

/// Logs what `filter` lets through, from here on.
///
/// # Errors
///
/// If there can be no thread that writes.
pub fn start(filter: &LogFilter, format: LogFormat) -> io::Result<()> {
    open()?;
    let registry = tracing_subscriber::registry().with(events(format));
    registry.with(filter.targets()).init();
    Ok(())
}

/// The same, with a further layer that receives events and spans by a filter of its own.
///
/// # Errors
///
/// As [`start`].
pub fn start_with(
    filter: &LogFilter,
    format: LogFormat,
    beside: impl Layer<Registry> + Send + Sync + 'static,
) -> io::Result<()> {
    open()?;
    let lines = events(format).with_filter(filter.targets());
    let registry = tracing_subscriber::registry().with(beside);
    registry.with(lines).init();
    Ok(())
}

/// Events as lines. What the layer says of its own errors it would say on standard error, and
/// panic if that is dead.
fn events<S>(format: LogFormat) -> Box<dyn Layer<S> + Send + Sync + 'static>
where
    S: tracing::Subscriber + for<'a> tracing_subscriber::registry::LookupSpan<'a>,
{
    let lines = fmt::layer().with_writer(Pen).log_internal_errors(false);
    match format {
        LogFormat::Text => lines
            .with_ansi(io::IsTerminal::is_terminal(&io::stderr()))
            .boxed(),
        LogFormat::Json => lines.json().with_ansi(false).boxed(),
    }
}

/// Starts the thread that writes lines, if there is none yet.
///
/// # Errors
///
/// If there can be none.
pub(crate) fn open() -> io::Result<()> {
    LINES.open(stderr()?)
}

/// Standard error under a number of its own: who waits for it holds no lock of the library.
#[cfg(unix)]
fn stderr() -> io::Result<impl Write + Send + 'static> {
    use std::os::fd::AsFd as _;
    let own = io::stderr().as_fd().try_clone_to_owned()?;
    Ok(std::fs::File::from(own))
}

#[cfg(not(unix))]
fn stderr() -> io::Result<impl Write + Send + 'static> {
    Ok(io::stderr())
}

/// Prints text on standard error, past every filter and after all that was logged before. Errors
/// of standard error are ignored.
pub fn print(text: &str) {
    let line = format!("{text}\n");
    match LINES.is_open() {
        true => LINES.push(line.as_bytes()),
        false => drop(io::stderr().write_all(line.as_bytes())),
    }
}

/// Waits until what was logged is written, for a moment only if standard error takes nothing. To
/// be called before the process ends.
pub fn flush() {
    LINES.flush(PATIENCE);
}

/// What the metric of both programs means.
pub const LINES_DROPPED_HELP: &str = "Lines of the log that standard error did not take";

/// Lines that were dropped because standard error did not take them.
pub fn lines_dropped() -> u64 {
    LINES.dropped()
}

/// What the events are written with.
struct Pen;

impl MakeWriter<'_> for Pen {
    type Writer = Self;

    fn make_writer(&self) -> Self {
        Self
    }
}

impl Write for Pen {
    /// Takes a whole line at a time, as it is called with.
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        LINES.push(line);
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
