//! The passes that recompute the audit log.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::oneshot;

use crate::audit::{AuditError, Head};

/// What a pass through the log has found.
pub(crate) type Outcome = std::result::Result<Head, Arc<AuditError>>;

/// The callers that wait for the next pass over the audit log. One pass runs at a time, however many ask, and the next is for all
/// who came meanwhile: before they asked, the log may have been changed behind the place where the first pass was.
#[derive(Default)]
pub(crate) struct Passes(Mutex<Waiting>);

#[derive(Default)]
pub(crate) struct Waiting {
    pub(crate) runs: bool,
    pub(crate) callers: Vec<oneshot::Sender<Outcome>>,
}

impl Passes {
    pub(crate) fn lock(&self) -> MutexGuard<'_, Waiting> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
