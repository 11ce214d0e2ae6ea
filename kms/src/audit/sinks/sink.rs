//! One sink: how far it is, whether it takes records, and the thread that takes them there.

use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, mpsc};
use std::thread;
use std::time::Duration;

use sqlx::SqliteConnection;
use tokio::sync::{self, Notify, oneshot};
use tokio::time::{Instant, timeout_at};

use super::deliver::Deliver;
use crate::audit::record::record;
use crate::catalogue::{Catalogue, audit_records};
use crate::{clock, limits};
use sealblk_api::{AuditRecord, AuditSink};

/// How much later than its thread whoever waits for a delivery gives up: the thread has the better reason.
const LATER: Duration = Duration::from_millis(200);

/// A sink.
pub(crate) struct Sink {
    pub(crate) name: String,
    pub(crate) required: bool,
    /// Told when there may be records that it has not.
    pub(crate) wake: Arc<Notify>,
    jobs: mpsc::Sender<Job>,
    /// The thread has not come back from records whose time is over.
    busy: Arc<AtomicBool>,
    /// Position of the last record that it has; held while records are on their way, so that they come in order.
    reached: sync::Mutex<u64>,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// As in `reached`, which nobody waits for to show it.
    seq: u64,
    missed: u64,
    failure: Option<Failure>,
}

/// Why a sink takes no records.
#[derive(Clone, Debug)]
pub(crate) struct Failure {
    pub(crate) error: String,
    pub(crate) since: String,
}

struct Job {
    records: Vec<AuditRecord>,
    deadline: Instant,
    done: oneshot::Sender<io::Result<()>>,
}

/// Records that a sink has taken, and that may not be committed yet: no others go there meanwhile.
pub(crate) struct Taking<'a> {
    sink: &'a Sink,
    reached: sync::MutexGuard<'a, u64>,
    to: u64,
    missed: u64,
}

impl Taking<'_> {
    /// They are in the log.
    pub(crate) fn done(mut self) {
        *self.reached = self.to;
        let mut state = self.sink.state();
        state.seq = self.to;
        state.missed += self.missed;
        if self.missed > 0 {
            log::warn!(
                "audit sink {}: {} records were archived before it had them",
                self.sink.name,
                self.missed
            );
        }
    }
}

impl Sink {
    /// A sink that has all records up to this position.
    ///
    /// # Errors
    /// The operating system's, which gives no thread.
    pub(super) fn start(
        name: String,
        required: bool,
        seq: u64,
        mut deliver: Box<dyn Deliver>,
    ) -> io::Result<Self> {
        let (jobs, queue) = mpsc::channel::<Job>();
        let busy = Arc::new(AtomicBool::new(false));
        let ended = Arc::clone(&busy);
        thread::Builder::new()
            .name("audit sink".to_owned())
            .spawn(move || {
                for job in queue {
                    let outcome = deliver.deliver(&job.records, job.deadline.into_std());
                    ended.store(false, Ordering::Release);
                    // Whoever waited may have given up.
                    let _ = job.done.send(outcome);
                }
            })?;
        Ok(Sink {
            name,
            required,
            wake: Arc::default(),
            jobs,
            busy,
            reached: sync::Mutex::new(seq),
            state: Mutex::new(State {
                seq,
                ..State::default()
            }),
        })
    }

    /// Why it takes no records, if it does not.
    pub(crate) fn failure(&self) -> Option<Failure> {
        self.state().failure.clone()
    }

    /// Position of the last record that it has.
    pub(crate) fn seq(&self) -> u64 {
        self.state().seq
    }

    /// It takes no records: until it has got all that it lacks, no call that needs it is tried.
    pub(crate) fn fails(&self, error: String) -> Failure {
        let mut state = self.state();
        let since = match &state.failure {
            Some(failure) => failure.since.clone(),
            None => clock::now(),
        };
        let failure = Failure { error, since };
        state.failure = Some(failure.clone());
        drop(state);
        self.wake.notify_one();
        failure
    }

    /// Gives it the records that it does not have and `db` sees. The inner error is why it has not taken them.
    ///
    /// # Errors
    /// The catalogue's.
    pub(super) async fn take(
        &self,
        db: &mut SqliteConnection,
        deadline: Instant,
    ) -> Result<Result<Taking<'_>, String>, sqlx::Error> {
        let Ok(mut taking) = self.begin(deadline).await else {
            return Ok(Err("others wait for it".to_owned()));
        };
        loop {
            let rows = audit_records::between(db, taking.to, u64::MAX, limits::SINK_BATCH).await?;
            if rows.is_empty() {
                return Ok(Ok(taking));
            }
            let records = rows.into_iter().map(record).collect();
            if let Err(error) = self.pass(&mut taking, records, deadline).await {
                return Ok(Err(error));
            }
        }
    }

    /// Gives it the records that it does not have and that are committed, with a connection for as long as it takes to read them.
    /// The inner error is why it has not taken them all.
    ///
    /// # Errors
    /// The catalogue's.
    pub(crate) async fn catch_up(&self, catalogue: &Catalogue) -> Result<Result<(), String>, sqlx::Error> {
        loop {
            let deadline = Instant::now() + limits::SINK_TIME;
            let Ok(mut taking) = self.begin(deadline).await else {
                return Ok(Err("others wait for it".to_owned()));
            };
            let rows = {
                let mut db = catalogue.read().await?;
                audit_records::between(&mut db, taking.to, u64::MAX, limits::SINK_BATCH).await?
            };
            if rows.is_empty() {
                self.state().failure = None;
                return Ok(Ok(()));
            }
            let records = rows.into_iter().map(record).collect();
            match self.pass(&mut taking, records, deadline).await {
                Ok(()) => taking.done(),
                Err(error) => return Ok(Err(error)),
            }
        }
    }

    async fn begin(&self, deadline: Instant) -> Result<Taking<'_>, tokio::time::error::Elapsed> {
        let reached = timeout_at(deadline, self.reached.lock()).await?;
        Ok(Taking {
            sink: self,
            to: *reached,
            reached,
            missed: 0,
        })
    }

    async fn pass(
        &self,
        taking: &mut Taking<'_>,
        records: Vec<AuditRecord>,
        deadline: Instant,
    ) -> Result<(), String> {
        let (Some(first), Some(last)) = (records.first(), records.last()) else {
            return Ok(());
        };
        let missed = first.seq.saturating_sub(taking.to + 1);
        let to = last.seq;
        self.deliver(records, deadline).await?;
        taking.to = to;
        taking.missed += missed;
        Ok(())
    }

    async fn deliver(&self, records: Vec<AuditRecord>, deadline: Instant) -> Result<(), String> {
        if self.busy.swap(true, Ordering::Acquire) {
            return Err("it has not come back from earlier records".to_owned());
        }
        let (done, outcome) = oneshot::channel();
        let job = Job {
            records,
            deadline,
            done,
        };
        let gone = || "its thread has ended".to_owned();
        self.jobs.send(job).map_err(|_| gone())?;
        match timeout_at(deadline + LATER, outcome).await {
            Ok(Ok(outcome)) => outcome.map_err(|error| error.to_string()),
            Ok(Err(_)) => Err(gone()),
            Err(_) => Err("it does not take a record in time".to_owned()),
        }
    }

    /// As the API gives it, where the log ends with the record `newest`.
    pub(super) fn shown(&self, newest: u64) -> AuditSink {
        let state = self.state();
        AuditSink {
            id: self.name.clone(),
            name: self.name.clone(),
            required: self.required,
            seq: state.seq,
            backlog: newest.saturating_sub(state.seq),
            missed: state.missed,
            error: state.failure.as_ref().map(|failure| failure.error.clone()),
            since: state.failure.as_ref().map(|failure| failure.since.clone()),
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use sealblk_api::Details;

    pub(in crate::audit::sinks) fn record(seq: u64) -> AuditRecord {
        let mut details = Details::new();
        details.insert("disk".into(), "disk-1".into());
        AuditRecord {
            id: format!("audit-{seq}"),
            name: format!("audit-{seq}"),
            seq,
            time: "2026-11-22T01:02:03.004Z".into(),
            account: "default".into(),
            uid: 0,
            pid: 42,
            request: "req-1".into(),
            call: "attach".into(),
            object: "data".into(),
            decision: "allowed".into(),
            rule: None,
            code: None,
            details: Some(details),
            hash: String::new(),
        }
    }
}
