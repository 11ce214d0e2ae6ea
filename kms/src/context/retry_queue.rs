//! What could not be ended at once.

use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// What could not be ended or taken over at once, and is tried again.
#[derive(Default)]
pub(crate) struct RetryQueue {
    /// Requests of the operations that run, and how often: their intents are theirs.
    pub(crate) running: Mutex<HashMap<String, usize>>,
    /// Those of them that are calls, whose callers wait.
    calls: Mutex<HashSet<String>>,
    /// Services that could not be adopted.
    pub(crate) unadopted: Mutex<HashSet<String>>,
    /// There may be something.
    pub(crate) flagged: AtomicBool,
    /// Stores have not been compared with the catalogue yet.
    pub(crate) uncompared: AtomicBool,
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

    /// As [`RetryQueue::track`], of a call whose caller waits.
    pub(crate) fn track_call(self: &Arc<Self>, request: &str) -> Tracked {
        let tracked = self.track(request);
        lock(&self.calls).insert(request.to_owned());
        tracked
    }

    /// Whether the caller who has made this request waits for its end.
    pub(crate) fn is_waited_for(&self, request: &str) -> bool {
        lock(&self.calls).contains(request)
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
        lock(&self.queue.calls).retain(|request| running.contains_key(request));
        drop(running);
        self.queue.flag();
    }
}

pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_call_that_runs_is_waited_for() {
        let queue = Arc::new(RetryQueue::default());
        let call = queue.track_call("req-1");
        let left = queue.track("req-2");
        assert!(queue.is_waited_for("req-1") && !queue.is_waited_for("req-2"));
        drop(left);
        assert!(queue.is_waited_for("req-1"));
        drop(call);
        // As a later attempt to end what it has left.
        let _left = queue.track("req-1");
        assert!(!queue.is_waited_for("req-1"));
    }
}
