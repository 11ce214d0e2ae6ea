//! The log. A thread that logs puts lines into a queue and goes on; one thread, as soon as there may be one, writes them to standard
//! error, which may be a pipe that nobody reads. What the queue has no room for is lost, and counted.

use std::collections::VecDeque;
use std::io::{self, Write};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError, mpsc};
use std::time::{Duration, Instant};

use log::LevelFilter;
use nix::sys::signal::{SigSet, SigmaskHow};

use crate::sandbox::{Kind, narrow_early};

/// Most bytes that wait to be written.
const MOST_BYTES: usize = 256 << 10;
/// How long the last words may take at the end of the process.
const PATIENCE: Duration = Duration::from_secs(1);

static QUEUE: Queue = Queue::new();

/// Logs to standard error from now on; says `level` and above unless `RUST_LOG` says something else. To be called once.
pub fn start(level: LevelFilter) {
    env_logger::Builder::new()
        .filter_level(level)
        .parse_env("RUST_LOG")
        .format_timestamp_millis()
        .target(env_logger::Target::Pipe(Box::new(Lines)))
        .init();
    std::panic::set_hook(Box::new(|panic| {
        log::error!("{panic}");
        flush();
    }));
}

/// Starts the thread that writes, if there is none yet.
///
/// # Errors
/// The kernel's, if it has no thread to give.
pub fn write_aside() -> io::Result<()> {
    if std::mem::replace(&mut QUEUE.lock().has_writer, true) {
        return Ok(());
    }
    // No signal is for the thread that writes.
    let before = SigSet::all().thread_swap_mask(SigmaskHow::SIG_SETMASK)?;
    let thread = std::thread::Builder::new().name("log".to_owned());
    let (confined, is_confined) = mpsc::sync_channel(1);
    let spawned = thread.spawn(move || {
        let narrowed = narrow_early(Kind::Waiter);
        let may_go_on = narrowed.is_ok();
        // The receiver waits for just this.
        let _ = confined.send(narrowed);
        if may_go_on {
            QUEUE.write_to(|line| io::stderr().write_all(line).is_ok());
        }
    });
    before.thread_set_mask()?;
    spawned?;
    is_confined.recv().map_err(io::Error::other)?
}

/// Writes a line as it is.
pub fn say(line: &str) {
    QUEUE.push(format!("{line}\n").as_bytes());
}

/// Waits until everything has been written, but not for ever.
pub fn flush() {
    if write_aside().is_ok() {
        QUEUE.flush(PATIENCE);
    }
}

/// Ends the process at once, but for its last words. The next process takes up what is in flight.
pub fn abort() -> ! {
    flush();
    std::process::abort();
}

/// Takes whole lines.
struct Lines;

impl Write for Lines {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        QUEUE.push(line);
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

struct Queue {
    state: Mutex<State>,
    changed: Condvar,
}

struct State {
    /// Whether a thread has been started that writes the lines.
    has_writer: bool,
    lines: VecDeque<Box<[u8]>>,
    /// Bytes of these, and of the one that is being written.
    bytes: usize,
    /// Lines that there was no room for since the last one that there was.
    lost: u64,
}

impl Queue {
    const fn new() -> Self {
        Queue {
            state: Mutex::new(State {
                has_writer: false,
                lines: VecDeque::new(),
                bytes: 0,
                lost: 0,
            }),
            changed: Condvar::new(),
        }
    }

    /// Never waits for the log's reader.
    fn push(&self, line: &[u8]) {
        let mut state = self.lock();
        if state.bytes + line.len() > MOST_BYTES {
            state.lost += 1;
            return;
        }
        state.bytes += line.len();
        state.lines.push_back(line.into());
        self.changed.notify_all();
    }

    /// For ever. What cannot be written is lost as well.
    fn write_to(&self, mut write: impl FnMut(&[u8]) -> bool) {
        let mut state = self.lock();
        loop {
            let Some(line) = state.lines.pop_front() else {
                state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
                continue;
            };
            // Lines were lost behind this one, or behind one that has been written.
            let lost = std::mem::take(&mut state.lost);
            drop(state);
            let written = write(&line);
            let words = format!("({lost} messages were lost: the log was not read, or is full)\n");
            let is_told = lost == 0 || (written && write(words.as_bytes()));
            state = self.lock();
            state.lost += u64::from(!written) + if is_told { 0 } else { lost };
            state.bytes -= line.len();
            self.changed.notify_all();
        }
    }

    fn flush(&self, patience: Duration) {
        let deadline = Instant::now() + patience;
        let mut state = self.lock();
        while state.bytes > 0 {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return;
            }
            let waited = self.changed.wait_timeout(state, left);
            state = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // No code panics while it holds the lock.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nobody_waits_for_a_log_that_is_not_read() {
        static QUEUE: Queue = Queue::new();
        let (lines, read) = mpsc::sync_channel(0);
        std::thread::spawn(move || QUEUE.write_to(|line| lines.send(line.to_vec()).is_ok()));
        let line = vec![b'.'; MOST_BYTES / 4];
        for _ in 0..7 {
            QUEUE.push(&line);
        }
        QUEUE.flush(Duration::from_millis(1));
        let mut told = Vec::new();
        while told.len() < 5 {
            told.push(read.recv().unwrap());
        }
        let words = told.iter().position(|told| *told != line).unwrap();
        let words = String::from_utf8(told.remove(words)).unwrap();
        assert_eq!(
            words,
            "(3 messages were lost: the log was not read, or is full)\n"
        );
        assert!(told.iter().all(|told| *told == line));
        QUEUE.push(b"and on\n");
        assert_eq!(read.recv().unwrap(), b"and on\n");
        QUEUE.flush(Duration::from_secs(60));
        assert_eq!(QUEUE.lock().bytes, 0);
    }
}
