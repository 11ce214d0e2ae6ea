//! The load generator: a vhost-user-blk frontend that keeps queues full and waits on events, as a guest's driver does.

mod histogram;
mod queue;
mod session;

use std::io;
use std::path::Path;
use std::sync::{Arc, Barrier};
use std::time::{Duration, Instant};

pub(crate) use histogram::Histogram;
pub(crate) use queue::DEPTH_MOST;
pub(crate) use session::Session;

/// What to send.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Shape {
    /// Writes, or else reads.
    pub(crate) write: bool,
    /// At random places, or else one after another.
    pub(crate) random: bool,
    /// Bytes of a request.
    pub(crate) block: u32,
    /// Requests in flight on each queue.
    pub(crate) depth: u16,
    /// Queues, each with a thread of its own.
    pub(crate) queues: u16,
    /// Bytes of the disk, from its beginning, that are used.
    pub(crate) span: u64,
    /// Bytes from one place that requests begin at to the next; mostly those of a request.
    pub(crate) stride: u32,
}

/// How long to send.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Until {
    /// For a time.
    Elapsed(Duration),
    /// So many requests on each queue. Places are the same in every session.
    Requests(u64),
}

/// What came of it.
#[derive(Clone, Debug, Default)]
pub(crate) struct Outcome {
    /// Requests that were answered.
    pub(crate) requests: u64,
    /// Their bytes.
    pub(crate) bytes: u64,
    /// From the first one to the last one.
    pub(crate) elapsed: Duration,
    /// From being offered to being seen as used.
    pub(crate) latencies: Histogram,
}

impl Outcome {
    /// What came of more, at the same time.
    pub(crate) fn add(&mut self, other: &Outcome) {
        self.requests += other.requests;
        self.bytes += other.bytes;
        self.elapsed = self.elapsed.max(other.elapsed);
        self.latencies.merge(&other.latencies);
    }
}

/// The load could not be sent, or was not answered as it should be.
#[derive(Debug, thiserror::Error)]
pub(crate) enum LoadError {
    /// The vhost-user connection.
    #[error("the backend does not go along: {0}")]
    Protocol(#[from] vhost::vhost_user::Error),
    /// The same.
    #[error("the backend does not go along: {0}")]
    Vhost(#[from] vhost::Error),
    /// The kernel.
    #[error("the load generator cannot be set up: {0}")]
    Io(#[from] io::Error),
    /// Guest memory.
    #[error("the load generator has no memory: {0}")]
    Memory(String),
    /// A request failed.
    #[error("a request at sector {sector} was answered with status {status}")]
    Status {
        /// Where.
        sector: u64,
        /// virtio 1.2, section 5.2.6.
        status: u8,
    },
    /// Nothing came back.
    #[error("no request was answered for {0:?}")]
    Hangs(Duration),
}

impl Outcome {
    /// Requests a second.
    pub(crate) fn iops(&self) -> f64 {
        self.requests as f64 / self.elapsed.as_secs_f64()
    }

    /// Bytes a second.
    pub(crate) fn rate(&self) -> f64 {
        self.bytes as f64 / self.elapsed.as_secs_f64()
    }
}

/// Connects, sends, and disconnects.
///
/// # Errors
/// [`LoadError`].
pub(crate) fn send(socket: &Path, shape: &Shape, until: Until) -> Result<Outcome, LoadError> {
    Session::connect(socket, shape)?.send(until)
}

impl Session {
    /// Sends on all queues.
    ///
    /// # Errors
    /// [`LoadError`].
    pub(crate) fn send(&mut self, until: Until) -> Result<Outcome, LoadError> {
        let start = Arc::new(Barrier::new(self.queues().len()));
        let outcomes: Vec<Result<Outcome, LoadError>> = std::thread::scope(|scope| {
            let threads: Vec<_> = self
                .queues()
                .iter_mut()
                .map(|queue| {
                    let start = start.clone();
                    scope.spawn(move || {
                        start.wait();
                        queue.send(until)
                    })
                })
                .collect();
            threads
                .into_iter()
                .map(|thread| thread.join().expect("a load thread"))
                .collect()
        });
        let mut all = Outcome::default();
        for outcome in outcomes {
            all.add(&outcome?);
        }
        Ok(all)
    }
}

/// Nanoseconds since `start`.
pub(crate) fn elapsed_since(start: Instant) -> u64 {
    start.elapsed().as_nanos() as u64
}
