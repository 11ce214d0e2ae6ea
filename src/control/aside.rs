//! Work that waits for the medium, which may not answer: it is done aside, and waited for only so long.

use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, mpsc};
use std::time::Duration;

use crate::sandbox::{Kind, narrow};

/// Why nothing has come of a piece of work yet.
#[derive(Debug, thiserror::Error)]
pub(super) enum Undone {
    /// It goes on by itself.
    #[error("it takes longer than is waited for it")]
    Late,
    /// This one was not begun.
    #[error("an earlier one has not ended: its storage does not answer, or slowly")]
    Busy,
    /// This one was not begun.
    #[error("there is no thread for it")]
    NoThread(#[source] io::Error),
}

/// Where one piece of work at a time is done.
#[derive(Debug, Default)]
pub struct Aside(Arc<AtomicBool>);

impl Aside {
    /// Has a thread of this name do the work, and gives what comes of it.
    ///
    /// # Errors
    /// [`Undone`], if nothing has come of it in time.
    pub(super) fn within<T: Send + 'static>(
        &self,
        patience: Duration,
        name: &str,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, Undone> {
        if self.0.swap(true, Ordering::AcqRel) {
            return Err(Undone::Busy);
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
        if let Err(error) = spawned {
            self.0.store(false, Ordering::Release);
            return Err(Undone::NoThread(error));
        }
        receiver.recv_timeout(patience).map_err(|_| Undone::Late)
    }
}
