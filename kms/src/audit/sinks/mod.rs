//! Where records of the audit log go besides (`serve --audit-sink`).
//!
//! The catalogue has how far each sink is; what it lacks is read from the log, so that nothing is lost while it takes none,
//! over restarts too: each record comes at least once, in the log's order. A sink that is required takes the record of a decision
//! within the transaction of that, before it is committed: what it does not take is not decided. Everything else, such as the
//! restart of a process (rule A06), waits for no sink.

pub(crate) mod choice;
mod deliver;
mod exec;
mod file;
mod journald;
pub(crate) mod sink;

use std::sync::OnceLock;

use sqlx::SqliteConnection;
use tokio::time::Instant;

use crate::error::{Code, Error, Result};
use crate::limits;
use sealblk_api::AuditSink;
use sink::{Sink, Taking};

/// All sinks.
#[derive(Default)]
pub(crate) struct Sinks(OnceLock<Vec<Sink>>);

impl Sinks {
    /// From now on records go there.
    pub(crate) fn set(&self, sinks: Vec<Sink>) {
        // They are set once, before anything is served.
        let _ = self.0.set(sinks);
    }

    /// Every sink.
    pub(crate) fn all(&self) -> &[Sink] {
        self.0.get().map_or(&[], Vec::as_slice)
    }

    fn required(&self) -> impl Iterator<Item = &Sink> {
        self.all().iter().filter(|sink| sink.required)
    }

    /// Whether each required sink takes records, as far as is known.
    ///
    /// # Errors
    /// [`Code::AuditSinkFailed`].
    pub(crate) fn check(&self) -> Result<()> {
        match self.required().find_map(|sink| Some((sink, sink.failure()?))) {
            Some((sink, failure)) => Err(refusal(sink, &failure.error)),
            None => Ok(()),
        }
    }

    /// Gives the required sinks the records that they do not have, up to the newest one that `db` sees: that of its own
    /// transaction. They have them for good when [`done`] is told so, after the commit.
    ///
    /// # Errors
    /// [`Code::AuditSinkFailed`]; the catalogue's.
    pub(crate) async fn take(&self, db: &mut SqliteConnection) -> Result<Vec<Taking<'_>>> {
        self.check()?;
        let deadline = Instant::now() + limits::SINK_TIME;
        let mut taken = Vec::new();
        for sink in self.required() {
            match sink.take(db, deadline).await? {
                Ok(taking) => taken.push(taking),
                Err(error) => return Err(refusal(sink, &sink.fails(error).error)),
            }
        }
        Ok(taken)
    }

    /// There is a new record.
    pub(crate) fn wake(&self) {
        self.all().iter().for_each(|sink| sink.wake.notify_one());
    }

    /// As the API gives them, where the log ends with the record `newest`.
    pub(crate) fn shown(&self, newest: u64) -> Vec<AuditSink> {
        self.all().iter().map(|sink| sink.shown(newest)).collect()
    }
}

/// The transaction in which records were taken is committed.
pub(crate) fn done(taken: Vec<Taking<'_>>) {
    taken.into_iter().for_each(Taking::done);
}

fn refusal(sink: &Sink, why: &str) -> Error {
    let text = format!(
        "the audit sink {} is required, and does not take records ({why}): see `sealctl kms status`, mend it, or restart the daemon \
         without it",
        sink.name
    );
    Error::new(Code::AuditSinkFailed, text)
}
