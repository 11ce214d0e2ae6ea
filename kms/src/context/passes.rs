//! The passes that recompute the audit log.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::oneshot;

use crate::audit::{AuditError, Head};

/// What a pass through the log has found.
pub(crate) type Outcome = std::result::Result<Head, Arc<AuditError>>;

/// Those who wait for the next pass. However many ask, one pass runs at a time, and the next one is for all who came
/// meanwhile: the log has been changed before they asked, perhaps, behind the place where the first one was.
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
