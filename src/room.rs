//! Room on the host for what a disk's guest writes, and what becomes of writes that find none.
//!
//! Such writes are answered with an error, or held until there is room and tried again each second. Nothing tells when a
//! file system has room again.

use std::io;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use vmm_sys_util::eventfd::EventFd;

use crate::sandbox::{Kind, narrow};

/// Time between two attempts.
const INTERVAL: Duration = Duration::from_secs(1);

/// What all queues of a disk know of the room for it.
#[derive(Debug, Default)]
pub struct Room {
    holds: AtomicBool,
    /// The last write that needed room has found none.
    is_short: AtomicBool,
    held: AtomicU64,
    /// Attempts that were called for.
    rounds: AtomicU64,
    waiting: Mutex<Waiting>,
}

#[derive(Debug, Default)]
struct Waiting {
    wakes: Vec<Arc<EventFd>>,
    /// The thread that calls for attempts runs.
    is_timed: bool,
}

/// Whether an error says that the host has no room, of its own or for this user.
pub fn is_no_room(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::ENOSPC | libc::EDQUOT))
}

impl Room {
    /// Whether writes without room are held.
    pub fn holds(&self) -> bool {
        self.holds.load(Ordering::Relaxed)
    }

    /// Whether writes without room are to be held. Those that are held are tried again first, in any case.
    pub fn set_holds(&self, holds: bool) {
        self.holds.store(holds, Ordering::Relaxed);
    }

    /// Whether the last write that needed room has found none, or any is held.
    pub fn is_short(&self) -> bool {
        self.is_short.load(Ordering::Relaxed) || self.held() > 0
    }

    /// Requests that are held.
    pub fn held(&self) -> u64 {
        self.held.load(Ordering::Relaxed)
    }

    /// A write has found none.
    pub(crate) fn ran_out(&self) {
        self.is_short.store(true, Ordering::Relaxed);
    }

    /// A write that needed some has found it.
    pub(crate) fn found(&self) {
        // Written by all queues, so not unless it must be.
        if self.is_short.load(Ordering::Relaxed) {
            self.is_short.store(false, Ordering::Relaxed);
        }
    }

    /// Changes with each attempt that is called for.
    pub(crate) fn round(&self) -> u64 {
        self.rounds.load(Ordering::SeqCst)
    }

    /// One more request is held until the next round, when `wake` is written to. False: that cannot be promised.
    pub(crate) fn hold(self: &Arc<Self>, wake: &Arc<EventFd>) -> bool {
        let mut waiting = self.lock();
        if !waiting.is_timed {
            let room = Arc::clone(self);
            let thread = std::thread::Builder::new().name("room".to_owned());
            if let Err(error) = thread.spawn(move || {
                narrow(Kind::Waiter);
                room.call_for_attempts();
            }) {
                log::error!("requests cannot be held: {error}");
                return false;
            }
            waiting.is_timed = true;
        }
        if !waiting.wakes.iter().any(|other| Arc::ptr_eq(other, wake)) {
            waiting.wakes.push(Arc::clone(wake));
        }
        self.held.fetch_add(1, Ordering::Relaxed);
        true
    }

    /// So many requests are held no longer.
    pub(crate) fn release(&self, requests: usize) {
        self.held.fetch_sub(requests as u64, Ordering::Relaxed);
    }

    /// Until nobody waits.
    fn call_for_attempts(&self) {
        loop {
            std::thread::sleep(INTERVAL);
            let mut waiting = self.lock();
            self.rounds.fetch_add(1, Ordering::SeqCst);
            if waiting.wakes.is_empty() {
                waiting.is_timed = false;
                return;
            }
            for wake in waiting.wakes.drain(..) {
                // Fails only when the counter is full, and then it is being woken already.
                let _ = wake.write(1);
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, Waiting> {
        // No code panics while it holds the lock.
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
