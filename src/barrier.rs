//! The quiesce barrier: all queues at rest at once.
//!
//! A holder raises it and waits until every worker has finished what it had taken and takes no more. Workers that
//! start while it is up rest at once.

use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use vmm_sys_util::eventfd::EventFd;

/// Some worker has not come to rest in time.
#[derive(Debug, thiserror::Error)]
#[error("requests in flight did not end in time")]
pub struct NotAtRest;

/// Shared by all workers of a disk and by those who want them at rest.
#[derive(Debug, Default)]
pub struct Barrier {
    /// Read by workers once a round, without the lock.
    raised: AtomicBool,
    members: Mutex<Vec<Member>>,
    changed: Condvar,
}

#[derive(Debug)]
struct Member {
    id: u64,
    wake: EventFd,
    at_rest: bool,
}

/// A worker's place at the barrier, given up when dropped.
#[derive(Debug)]
pub struct Membership {
    barrier: Arc<Barrier>,
    id: u64,
}

impl Barrier {
    /// A worker's place. `wake` is written to when the worker should look at the barrier.
    ///
    /// # Errors
    /// The kernel's, if the descriptor cannot be duplicated.
    pub fn join(self: &Arc<Self>, wake: &EventFd) -> io::Result<Membership> {
        let wake = wake.try_clone()?;
        let mut members = self.lock();
        let id = members.iter().map(|member| member.id + 1).max().unwrap_or(0);
        members.push(Member {
            id,
            wake,
            at_rest: false,
        });
        Ok(Membership {
            barrier: self.clone(),
            id,
        })
    }

    /// Raises the barrier and waits until every worker is at rest.
    ///
    /// # Errors
    /// [`NotAtRest`] after `patience`; then the barrier is down again.
    pub fn raise(&self, patience: Duration) -> Result<(), NotAtRest> {
        let deadline = Instant::now() + patience;
        let mut members = self.lock();
        self.raised.store(true, Ordering::SeqCst);
        wake_all(&members);
        while !members.iter().all(|member| member.at_rest) {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                self.lower_locked(&mut members);
                return Err(NotAtRest);
            }
            members = self
                .changed
                .wait_timeout(members, left)
                .unwrap_or_else(PoisonError::into_inner)
                .0;
        }
        Ok(())
    }

    /// Lets the workers go on.
    pub fn lower(&self) {
        self.lower_locked(&mut self.lock());
    }

    fn lower_locked(&self, members: &mut [Member]) {
        self.raised.store(false, Ordering::SeqCst);
        for member in members.iter_mut() {
            member.at_rest = false;
        }
        wake_all(members);
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Member>> {
        // No code panics while it holds the lock; the list is consistent at every step.
        self.members.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Membership {
    /// Whether the worker must finish what it has and take no more.
    pub fn must_rest(&self) -> bool {
        self.barrier.raised.load(Ordering::SeqCst)
    }

    /// To be called when nothing is in flight while [`Membership::must_rest`].
    pub fn rest(&self) {
        let mut members = self.barrier.lock();
        // It may have been lowered meanwhile.
        let at_rest = self.must_rest();
        if let Some(member) = members.iter_mut().find(|member| member.id == self.id) {
            member.at_rest = at_rest;
        }
        self.barrier.changed.notify_all();
    }
}

impl Drop for Membership {
    fn drop(&mut self) {
        self.barrier.lock().retain(|member| member.id != self.id);
        self.barrier.changed.notify_all();
    }
}

fn wake_all(members: &[Member]) {
    for member in members {
        // Fails only when the counter is full, and then the worker is being woken already.
        let _ = member.wake.write(1);
    }
}

#[cfg(test)]
mod tests {
    use vmm_sys_util::eventfd::EFD_NONBLOCK;

    use super::*;

    #[test]
    fn raising_waits_for_every_member_and_lowering_wakes_them() {
        let barrier = Arc::new(Barrier::default());
        barrier.raise(Duration::ZERO).unwrap();
        barrier.lower();
        let wake = EventFd::new(EFD_NONBLOCK).unwrap();
        let first = barrier.join(&wake).unwrap();
        let second = barrier.join(&EventFd::new(EFD_NONBLOCK).unwrap()).unwrap();
        assert!(!first.must_rest());
        assert!(barrier.raise(Duration::from_millis(1)).is_err());
        assert!(!first.must_rest(), "a failed raise leaves it down");
        wake.read().unwrap();

        std::thread::scope(|scope| {
            let raising = scope.spawn(|| barrier.raise(Duration::from_secs(60)));
            while !first.must_rest() {
                std::thread::yield_now();
            }
            first.rest();
            assert!(!raising.is_finished());
            drop(second);
            raising.join().unwrap().unwrap();
        });
        wake.read().unwrap();
        let wake_late = EventFd::new(EFD_NONBLOCK).unwrap();
        let late = barrier.join(&wake_late).unwrap();
        assert!(late.must_rest());
        barrier.lower();
        assert!(!late.must_rest());
        assert_eq!(wake_late.read().unwrap(), 1);
    }
}
