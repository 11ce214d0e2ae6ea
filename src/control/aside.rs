//! Work that waits for the medium, which may not answer: it is done aside, and waited for only so long.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, mpsc};
use std::time::Duration;

use crate::sandbox::{Kind, narrow};

/// Where one piece of work at a time is done.
#[derive(Debug, Default)]
pub struct Aside(Arc<AtomicBool>);

impl Aside {
    /// Has a thread of this name do the work, and gives what comes of it. None if that is not there in time, and then it goes
    /// on by itself; or if an earlier piece still does, or there is no thread.
    pub(super) fn within<T: Send + 'static>(
        &self,
        patience: Duration,
        name: &str,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Option<T> {
        if self.0.swap(true, Ordering::AcqRel) {
            return None;
        }
        let busy = self.0.clone();
        let (sender, receiver) = mpsc::channel();
        let thread = std::thread::Builder::new().name(name.to_owned());
        let spawned = thread.spawn(move || {
            narrow(Kind::Store);
            let done = work();
            busy.store(false, Ordering::Release);
            // Nobody may be waiting any more.
            let _ = sender.send(done);
        });
        if spawned.is_err() {
            self.0.store(false, Ordering::Release);
            return None;
        }
        receiver.recv_timeout(patience).ok()
    }
}
