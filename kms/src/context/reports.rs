//! What layered stores have said that they hold.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use sealblk_proto::message::StoreReport;

use crate::limits;

/// What was learnt, by volume.
#[derive(Default)]
pub(crate) struct Reports(Mutex<HashMap<String, Arc<Volume>>>);

/// One volume.
#[derive(Default)]
pub(crate) struct Volume {
    /// Held by whoever asks the store.
    pub(crate) asking: Arc<tokio::sync::Mutex<()>>,
    pub(crate) learnt: Mutex<Learnt>,
}

/// What came of the questions to it.
#[derive(Clone, Default)]
pub(crate) struct Learnt {
    /// When the last question began that has been answered, or has failed.
    pub(crate) asked: Option<Instant>,
    pub(crate) failed: bool,
    /// The last answer.
    pub(crate) known: Option<Known>,
}

/// What a store holds, or held.
#[derive(Clone)]
pub(crate) struct Known {
    pub(crate) report: Arc<StoreReport>,
    /// When the store said so, if it does not say so now.
    pub(crate) as_of: Option<String>,
    pub(crate) told: String,
}

impl Reports {
    pub(crate) fn entry(&self, volume: &str) -> Arc<Volume> {
        let mut volumes = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if volumes.len() >= limits::REPORTS && !volumes.contains_key(volume) {
            // Stores that are being asked stay, so that each is asked by one caller at a time.
            volumes.retain(|_, entry| Arc::strong_count(entry) > 1);
        }
        Arc::clone(volumes.entry(volume.to_owned()).or_default())
    }
}

impl Volume {
    pub(crate) fn look(&self) -> MutexGuard<'_, Learnt> {
        self.learnt.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
