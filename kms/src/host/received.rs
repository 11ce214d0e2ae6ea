//! The open file that has come with a request.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::host::passed::Passed;

/// The file that has come.
#[derive(Clone, Debug, Default)]
pub(crate) struct Slot(Arc<Mutex<Came>>);

/// What is in a [`Slot`].
#[derive(Debug, Default)]
pub(crate) enum Came {
    /// No file.
    #[default]
    Nothing,
    /// A file that could not be taken: its caller had no place for it, or this process no descriptor.
    Lost,
    /// A file that has come.
    File(Passed),
}

impl Slot {
    pub(crate) fn look(&self) -> MutexGuard<'_, Came> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn has_file(&self) -> bool {
        matches!(*self.look(), Came::File(_))
    }

    /// What has come; once.
    pub(crate) fn take(&self) -> Came {
        std::mem::take(&mut *self.look())
    }
}
