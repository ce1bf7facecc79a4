//! Lines on their way to standard error.
//!
//! ```text
//!   any thread -- push --> queue, bounded -- the writer's thread --> standard error
//! ```
//!
//! The caller queues a line and continues: it never waits for standard error, and never sees its
//! errors. A line that finds the queue full, or that cannot be written, is dropped and counted.

use std::io::{self, Write};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

/// Most bytes that wait. As many may be with the writer.
const BYTES_MAX: usize = 1 << 20;

/// What is kept of memory that a burst has taken.
const BYTES_KEPT: usize = 64 << 10;

/// Before a stream that takes nothing now, and does not make the writer wait, is tried again.
const PAUSE: Duration = Duration::from_millis(10);

/// Lines that wait for one writer.
pub(super) struct Lines {
    queue: Mutex<Queue>,
    /// The writer has something to do.
    filled: Condvar,
    /// It has done all that there was.
    emptied: Condvar,
    dropped: AtomicU64,
}

struct Queue {
    lines: Batch,
    /// Whether there is a writer.
    is_open: bool,
    /// Whether it is at work on what it has taken.
    is_writing: bool,
}

/// Lines one after the other.
#[derive(Default)]
struct Batch {
    text: Vec<u8>,
    /// Where each line ends.
    ends: Vec<usize>,
}

impl Lines {
    pub(super) const fn new() -> Self {
        Self {
            queue: Mutex::new(Queue {
                lines: Batch {
                    text: Vec::new(),
                    ends: Vec::new(),
                },
                is_open: false,
                is_writing: false,
            }),
            filled: Condvar::new(),
            emptied: Condvar::new(),
            dropped: AtomicU64::new(0),
        }
    }

    /// Leaves a line, with its end, for the writer.
    pub(super) fn push(&self, line: &[u8]) {
        let mut queue = self.queue();
        let Batch { text, ends } = &mut queue.lines;
        if text.len() + line.len() > BYTES_MAX {
            drop(queue);
            self.dropped.fetch_add(1, Ordering::Relaxed);
            return;
        }
        let is_first = ends.is_empty();
        text.extend_from_slice(line);
        ends.push(text.len());
        let is_waited_for = is_first && !queue.is_writing;
        drop(queue);
        if is_waited_for {
            self.filled.notify_one();
        }
    }

    /// Whether there is a writer.
    pub(super) fn is_open(&self) -> bool {
        self.queue().is_open
    }

    /// Lines that were dropped.
    pub(super) fn dropped(&self) -> u64 {
        self.dropped.load(Ordering::Relaxed)
    }

    /// Starts the writer, if there is none yet.
    pub(super) fn open(&'static self, stream: impl Write + Send + 'static) -> io::Result<()> {
        let mut queue = self.queue();
        if !queue.is_open {
            let thread = thread::Builder::new().name("log".into());
            thread.spawn(move || self.write_to(stream))?;
            queue.is_open = true;
        }
        Ok(())
    }

    /// Waits until all lines are written or dropped, but no longer than this; whether they are.
    pub(super) fn flush(&self, timeout: Duration) -> bool {
        let begun = Instant::now();
        let mut queue = self.queue();
        while queue.is_open && (queue.is_writing || !queue.lines.ends.is_empty()) {
            let left = timeout.saturating_sub(begun.elapsed());
            if left.is_zero() {
                return false;
            }
            let waited = self.emptied.wait_timeout(queue, left);
            (queue, _) = waited.unwrap_or_else(PoisonError::into_inner);
        }
        true
    }

    fn write_to(&self, mut stream: impl Write) {
        let mut batch = Batch::default();
        // Whether a line was begun and not ended.
        let mut is_torn = false;
        loop {
            let mut queue = self.queue();
            queue.is_writing = false;
            while queue.lines.ends.is_empty() {
                self.emptied.notify_all();
                let waited = self.filled.wait(queue);
                queue = waited.unwrap_or_else(PoisonError::into_inner);
            }
            queue.is_writing = true;
            std::mem::swap(&mut queue.lines, &mut batch);
            drop(queue);
            let lost = batch.write_to(&mut stream, &mut is_torn);
            self.dropped.fetch_add(lost, Ordering::Relaxed);
            batch.clear();
        }
    }

    /// A panic while the queue was locked leaves no line half in it.
    fn queue(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Batch {
    /// Writes as many lines as the stream takes before its first error; how many it does not take.
    fn write_to(&self, stream: &mut impl Write, is_torn: &mut bool) -> u64 {
        if *is_torn && write_all(stream, b"\n") == 1 {
            *is_torn = false;
        }
        let written = match *is_torn {
            true => 0,
            false => write_all(stream, &self.text),
        };
        let whole = self.ends.partition_point(|end| *end <= written);
        *is_torn |= written > whole.checked_sub(1).map_or(0, |last| self.ends[last]);
        (self.ends.len() - whole) as u64
    }

    fn clear(&mut self) {
        self.text.clear();
        self.text.shrink_to(BYTES_KEPT);
        self.ends.clear();
        self.ends.shrink_to(BYTES_KEPT / size_of::<usize>());
    }
}

/// Writes until the first error; how much.
fn write_all(stream: &mut impl Write, bytes: &[u8]) -> usize {
    let mut written = 0;
    while written < bytes.len() {
        match stream.write(&bytes[written..]) {
            Ok(0) => break,
            Ok(more) => written += more,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => thread::sleep(PAUSE),
            Err(_) => break,
        }
    }
    written
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc;

    const PATIENCE: Duration = Duration::from_secs(60);

    fn opened(stream: impl Write + Send + 'static) -> &'static Lines {
        let lines: &'static Lines = Box::leak(Box::new(Lines::new()));
        lines.open(stream).unwrap();
        lines
    }

    /// A stream that does with each call what it is told, and shows what it took.
    struct Told {
        does: mpsc::Receiver<io::Result<usize>>,
        took: mpsc::Sender<Vec<u8>>,
    }

    impl Write for Told {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            let does = self.does.recv().unwrap_or(Ok(usize::MAX));
            let taken = does?.min(bytes.len());
            // A test that is over does not look.
            let _ = self.took.send(bytes[..taken].to_vec());
            Ok(taken)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn told() -> (
        Told,
        mpsc::Sender<io::Result<usize>>,
        mpsc::Receiver<Vec<u8>>,
    ) {
        let ((tell, does), (took, taken)) = (mpsc::channel(), mpsc::channel());
        (Told { does, took }, tell, taken)
    }

    #[test]
    fn lines_of_many_threads_come_out_whole_and_each_threads_in_order() {
        let (stream, tell, taken) = told();
        drop(tell);
        let lines = opened(stream);
        thread::scope(|scope| {
            for thread in 0..4 {
                scope.spawn(move || {
                    (0..500).for_each(|it| lines.push(format!("{thread} {it}\n").as_bytes()));
                });
            }
        });
        assert!(lines.flush(PATIENCE));
        assert_eq!(lines.dropped(), 0);
        let text = String::from_utf8(taken.try_iter().flatten().collect()).unwrap();
        for thread in 0..4 {
            let its = text.lines().filter_map(|line| line.split_once(' '));
            let its = its.filter(|(of, _)| of.parse() == Ok(thread));
            let its: Vec<usize> = its.map(|(_, it)| it.parse().unwrap()).collect();
            assert_eq!(its, (0..500).collect::<Vec<_>>());
        }
        assert_eq!(text.lines().count(), 2_000);
    }

    #[test]
    fn a_stream_that_takes_nothing_makes_nobody_wait_and_what_finds_no_room_is_counted() {
        let (stream, tell, taken) = told();
        let lines = opened(stream);
        let line = [b'x'; 1 << 10];
        // The writer has the first line, sooner or later, and stands still with it.
        lines.push(&line);
        while !lines.queue().is_writing {
            thread::yield_now();
        }
        let room = BYTES_MAX / line.len();
        (0..room + 7).for_each(|_| lines.push(&line));
        assert_eq!(lines.dropped(), 7);
        assert!(!lines.flush(Duration::from_millis(1)));
        drop(tell);
        assert!(lines.flush(PATIENCE));
        assert_eq!(taken.try_iter().flatten().count(), (room + 1) * line.len());
        assert_eq!(lines.dropped(), 7);
    }

    #[test]
    fn what_cannot_be_written_is_counted_and_a_torn_line_is_ended_before_the_next() {
        let (stream, tell, taken) = told();
        let lines = opened(stream);
        let full = || Err(io::ErrorKind::StorageFull.into());
        let push = |line: &str| {
            lines.push(line.as_bytes());
            assert!(lines.flush(PATIENCE));
        };
        let passing = [
            Err(io::ErrorKind::Interrupted.into()),
            Err(io::ErrorKind::WouldBlock.into()),
        ];
        passing
            .into_iter()
            .chain([Ok(2), full()])
            .for_each(|it| tell.send(it).unwrap());
        push("first\n");
        assert_eq!(lines.dropped(), 1, "two bytes of it are there");
        tell.send(full()).unwrap();
        push("second\n");
        assert_eq!(lines.dropped(), 2);
        [Ok(1), Ok(0)]
            .into_iter()
            .for_each(|it| tell.send(it).unwrap());
        push("third\n");
        assert_eq!(lines.dropped(), 3);
        drop(tell);
        push("fourth\n");
        assert_eq!(lines.dropped(), 3);
        let text: Vec<u8> = taken.try_iter().flatten().collect();
        assert_eq!(String::from_utf8(text).unwrap(), "fi\nfourth\n");
    }
}
