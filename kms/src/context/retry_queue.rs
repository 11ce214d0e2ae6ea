//! What could not be ended at once.

use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// What could not be ended or taken over at once, and is tried again.
#[derive(Default)]
pub(crate) struct RetryQueue {
    /// Requests of the operations that run, and how often: their intents are theirs.
    pub(crate) running: Mutex<HashMap<String, usize>>,
    /// Services that could not be adopted.
    pub(crate) unadopted: Mutex<HashSet<String>>,
    /// There may be something.
    pub(crate) flagged: AtomicBool,
    /// Stores have not been compared with the catalogue yet.
    pub(crate) uncompared: AtomicBool,
    /// Services that are kept serving since the start.
    pub(crate) supervised: Mutex<HashSet<String>>,
}

/// An operation that runs.
pub(crate) struct Tracked {
    queue: Arc<RetryQueue>,
    request: String,
}

impl RetryQueue {
    /// As long as the result lives, intents of this request are left alone.
    pub(crate) fn track(self: &Arc<Self>, request: &str) -> Tracked {
        *lock(&self.running).entry(request.to_owned()).or_default() += 1;
        Tracked {
            queue: Arc::clone(self),
            request: request.to_owned(),
        }
    }

    /// Something may be left: it is looked for soon.
    pub(crate) fn flag(&self) {
        self.flagged.store(true, Ordering::SeqCst);
    }

    /// A service could not be adopted.
    pub(crate) fn not_adopted(&self, service: &str) {
        lock(&self.unadopted).insert(service.to_owned());
        self.flag();
    }
}

impl Drop for Tracked {
    fn drop(&mut self) {
        let mut running = lock(&self.queue.running);
        if let Some(times) = running.get_mut(&self.request) {
            *times -= 1;
        }
        running.retain(|_, times| *times > 0);
        drop(running);
        self.queue.flag();
    }
}

pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
