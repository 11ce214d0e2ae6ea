//! One sink: how far it is, and whether it takes records.

use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::{self, Notify};

use super::deliver::Deliver;
use super::worker::Worker;
use crate::clock;
use crate::error::{Code, Error};
use sealblk_api::AuditSink;

/// A sink.
pub(crate) struct Sink {
    pub(crate) name: String,
    pub(crate) required: bool,
    /// Told when there may be records that it has not.
    pub(crate) wake: Arc<Notify>,
    pub(super) worker: Worker,
    /// Position of the last record that it has; held while records are on their way, so that they come in order.
    pub(super) reached: sync::Mutex<u64>,
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

impl Sink {
    /// A sink that has all records up to this position.
    ///
    /// # Errors
    /// The operating system's, which gives no thread.
    pub(super) fn start(
        name: String,
        required: bool,
        seq: u64,
        deliver: Box<dyn Deliver>,
    ) -> io::Result<Self> {
        Ok(Sink {
            name,
            required,
            wake: Arc::default(),
            worker: Worker::start(deliver)?,
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

    /// It has the records up to this position, but for those that were archived before.
    pub(super) fn has(&self, seq: u64, missed: u64) {
        let mut state = self.state();
        state.seq = seq;
        state.missed += missed;
        if missed > 0 {
            let name = &self.name;
            log::warn!("audit sink {name}: {missed} records were archived before it had them");
        }
    }

    /// It has all that there are.
    pub(super) fn has_all(&self) {
        if self.state().failure.take().is_some() {
            log::info!("audit sink {}: it has all records again", self.name);
        }
    }

    /// It takes no records: until it has got all that it lacks, no call that needs it is tried. What such a call is told.
    pub(crate) fn fails(&self, error: String) -> Error {
        let mut state = self.state();
        let since = match &state.failure {
            Some(failure) => failure.since.clone(),
            None => {
                log::warn!("audit sink {}: it takes no records: {error}", self.name);
                clock::now()
            }
        };
        let refusal = self.refusal(&error);
        state.failure = Some(Failure { error, since });
        drop(state);
        self.wake.notify_one();
        refusal
    }

    /// What is said to a call that needs it.
    pub(super) fn refusal(&self, why: &str) -> Error {
        let text = format!(
            "the audit sink {} is required, and does not take records ({why}): see `sealctl kms status`, mend it, or restart the \
             daemon without it",
            self.name
        );
        Error::new(Code::AuditSinkFailed, text)
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
