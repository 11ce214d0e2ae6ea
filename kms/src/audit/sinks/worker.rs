//! The thread that takes a sink's records there, and may block.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use sealblk_api::AuditRecord;
use tokio::sync::oneshot;
use tokio::time::{Instant, timeout_at};

use super::deliver::Deliver;

/// How much later than its thread whoever waits for a delivery gives up: the thread has the better reason.
const LATER: Duration = Duration::from_millis(200);

/// A thread.
pub(super) struct Worker {
    jobs: mpsc::Sender<Job>,
    /// It has not come back from records whose time is over.
    busy: Arc<AtomicBool>,
}

struct Job {
    records: Vec<AuditRecord>,
    deadline: Instant,
    /// How many were taken, and why not all.
    done: oneshot::Sender<(usize, io::Result<()>)>,
}

/// Records that the thread has.
pub(super) struct Underway {
    outcome: oneshot::Receiver<(usize, io::Result<()>)>,
    deadline: Instant,
    busy: Arc<AtomicBool>,
}

impl Worker {
    /// # Errors
    /// The operating system's, which gives no thread.
    pub(super) fn start(mut deliver: Box<dyn Deliver>) -> io::Result<Self> {
        let (jobs, queue) = mpsc::channel::<Job>();
        let busy = Arc::new(AtomicBool::new(false));
        let ended = Arc::clone(&busy);
        thread::Builder::new()
            .name("audit sink".to_owned())
            .spawn(move || {
                // What a program needs to begin is not of a record's time. If it does not, its first record has why.
                let _ = deliver.deliver(&[], std::time::Instant::now(), &mut 0);
                for job in queue {
                    let Job {
                        records,
                        deadline,
                        done,
                    } = job;
                    let mut taken = 0;
                    let outcome = {
                        let _free = Free(&ended);
                        deliver.deliver(&records, deadline.into_std(), &mut taken)
                    };
                    // Whoever waited may have given up.
                    let _ = done.send((taken, outcome));
                }
            })?;
        Ok(Worker { jobs, busy })
    }

    /// Gives it records; they are on their way until they are awaited.
    ///
    /// # Errors
    /// Why it takes none.
    pub(super) fn send(&self, records: Vec<AuditRecord>, deadline: Instant) -> Result<Underway, String> {
        if self.busy.swap(true, Ordering::Acquire) {
            return Err("it has not come back from earlier records".to_owned());
        }
        let (done, outcome) = oneshot::channel();
        let job = Job {
            records,
            deadline,
            done,
        };
        if self.jobs.send(job).is_err() {
            return Err(gone(&self.busy));
        }
        Ok(Underway {
            outcome,
            deadline,
            busy: Arc::clone(&self.busy),
        })
    }
}

/// Says that the thread has come back, before whoever waits is told, and where it panics, too.
struct Free<'a>(&'a AtomicBool);

impl Drop for Free<'_> {
    fn drop(&mut self) {
        self.0.store(false, Ordering::Release);
    }
}

impl Underway {
    /// How many were taken, and why not all.
    pub(super) async fn end(self) -> (usize, Result<(), String>) {
        match timeout_at(self.deadline + LATER, self.outcome).await {
            Ok(Ok((taken, outcome))) => (taken, outcome.map_err(|error| error.to_string())),
            Ok(Err(_)) => (0, Err(gone(&self.busy))),
            Err(_) => (0, Err("it does not take a record in time".to_owned())),
        }
    }
}

/// A thread that has ended has nothing to come back from.
fn gone(busy: &AtomicBool) -> String {
    busy.store(false, Ordering::Release);
    "its thread has ended, which only a restart of the daemon mends".to_owned()
}
