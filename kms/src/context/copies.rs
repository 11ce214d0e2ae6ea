//! What is known of the copies that go on.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use sealblk_proto::message::CopyProgress;
use tokio::sync::Notify;

use crate::host::backends::VolumeLocks;
use crate::host::passed::PassedFiles;

/// What is known of the copies that go on besides the catalogue.
#[derive(Default)]
pub(crate) struct Copies {
    /// By id. None: no process has said anything yet.
    pub(crate) live: Mutex<HashMap<String, Option<CopyProgress>>>,
    pub(crate) wake: Arc<Notify>,
    /// Files that callers have passed.
    pub(crate) passed: Arc<PassedFiles>,
    /// Locks by copy, each held while the destination is made or emptied: so none is made of a copy that is cancelled meanwhile,
    /// whose destination may be in use again.
    pub(crate) preparing: VolumeLocks,
}

impl Copies {
    /// Wakes the task that carries out copies: one has been begun.
    pub(crate) fn begin(&self) {
        self.wake.notify_one();
    }

    /// The copies that go on, by id, with their progress if it is known.
    pub(crate) fn look(&self) -> MutexGuard<'_, HashMap<String, Option<CopyProgress>>> {
        self.live.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What a copy's process says of it.
    pub(crate) fn say(&self, id: &str, progress: &CopyProgress) {
        if let Some(live) = self.look().get_mut(id) {
            *live = Some(progress.clone());
        }
    }
}
