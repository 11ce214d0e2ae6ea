//! The quiesce barrier: all queues at rest at once.
//!
//! The barrier is up while a command has raised it, and while it is held: a hold ends by itself, whatever else its holder is doing then.
//! Workers finish what they have taken and take no more. Those that start while it is up rest at once.

use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use vmm_sys_util::eventfd::EventFd;

use crate::sandbox::{Kind, narrow};

/// Some worker has not come to rest in time.
#[derive(Debug, thiserror::Error)]
#[error("requests in flight did not end in time")]
pub struct NotAtRest;

/// Why the barrier is not held.
#[derive(Debug, thiserror::Error)]
pub enum HoldError {
    /// Some worker has not come to rest in time.
    #[error(transparent)]
    NotAtRest(#[from] NotAtRest),
    /// There is no thread that would end it.
    #[error("no thread can be started to end the hold")]
    Thread(#[source] io::Error),
}

/// Shared by all workers of a disk and by those who want them at rest.
#[derive(Debug, Default)]
pub struct Barrier {
    /// Read by workers once a round, without the lock.
    is_up: AtomicBool,
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    raised: bool,
    held_until: Option<Instant>,
    members: Vec<Member>,
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
        let mut state = self.lock();
        let id = state
            .members
            .iter()
            .map(|member| member.id + 1)
            .max()
            .unwrap_or(0);
        state.members.push(Member {
            id,
            wake,
            at_rest: false,
        });
        Ok(Membership {
            barrier: self.clone(),
            id,
        })
    }

    /// Raises the barrier and waits until every worker is at rest; it stays up until it is [lowered](Barrier::lower).
    ///
    /// # Errors
    /// [`NotAtRest`] after `patience`; then it is not raised any more.
    pub fn raise(&self, patience: Duration) -> Result<(), NotAtRest> {
        self.lock().raised = true;
        self.come_to_rest(Instant::now() + patience)
            .inspect_err(|_| self.lower())
    }

    /// Lets the workers go on, unless it is held as well.
    pub fn lower(&self) {
        let mut state = self.lock();
        state.raised = false;
        self.let_go(&mut state);
    }

    /// Holds the barrier until it is [released](Barrier::release), but not longer than to `until`, in place of an earlier
    /// hold; waits until every worker is at rest.
    ///
    /// # Errors
    /// [`HoldError`]; then it is not held any more.
    pub fn hold(self: &Arc<Self>, until: Instant) -> Result<(), HoldError> {
        self.lock().held_until = Some(until);
        let held = self.come_to_rest(until).map_err(HoldError::from).and_then(|()| {
            let barrier = self.clone();
            let thread = std::thread::Builder::new().name("hold".to_owned());
            let spawned = thread.spawn(move || {
                narrow(Kind::Waiter);
                barrier.end_hold(until);
            });
            spawned.map(drop).map_err(HoldError::Thread)
        });
        held.inspect_err(|_| self.release())
    }

    /// Ends the hold, if there is one.
    pub fn release(&self) {
        let mut state = self.lock();
        state.held_until = None;
        self.let_go(&mut state);
    }

    /// Whether it is held.
    pub fn is_held(&self) -> bool {
        self.lock().held_until.is_some_and(|until| Instant::now() < until)
    }

    /// Ends a hold when it is time, if nobody has done so before.
    fn end_hold(&self, until: Instant) {
        let mut state = self.lock();
        while state.held_until == Some(until) {
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                state.held_until = None;
                return self.let_go(&mut state);
            }
            state = self.wait(state, left);
        }
    }

    fn come_to_rest(&self, deadline: Instant) -> Result<(), NotAtRest> {
        let mut state = self.lock();
        self.is_up.store(true, Ordering::SeqCst);
        wake_all(&state.members);
        while !state.members.iter().all(|member| member.at_rest) {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(NotAtRest);
            }
            state = self.wait(state, left);
        }
        Ok(())
    }

    /// Lets the workers go on if nobody wants them at rest.
    fn let_go(&self, state: &mut State) {
        self.changed.notify_all();
        if state.raised || state.held_until.is_some() {
            return;
        }
        self.is_up.store(false, Ordering::SeqCst);
        for member in &mut state.members {
            member.at_rest = false;
        }
        wake_all(&state.members);
    }

    fn wait<'a>(&self, state: MutexGuard<'a, State>, time: Duration) -> MutexGuard<'a, State> {
        let waited = self.changed.wait_timeout(state, time);
        waited.unwrap_or_else(PoisonError::into_inner).0
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // No code panics while it holds the lock; it is consistent at every step.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Membership {
    /// Whether the worker must finish what it has and take no more.
    pub fn must_rest(&self) -> bool {
        self.barrier.is_up.load(Ordering::SeqCst)
    }

    /// To be called when nothing is in flight while [`Membership::must_rest`].
    pub fn rest(&self) {
        let mut state = self.barrier.lock();
        // The barrier may have been lowered meanwhile.
        let at_rest = self.must_rest();
        if let Some(member) = state.members.iter_mut().find(|member| member.id == self.id) {
            member.at_rest = at_rest;
        }
        self.barrier.changed.notify_all();
    }
}

impl Drop for Membership {
    fn drop(&mut self) {
        self.barrier.lock().members.retain(|member| member.id != self.id);
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

    #[test]
    fn a_hold_ends_by_itself_and_does_not_end_what_others_have_raised() {
        let barrier = Arc::new(Barrier::default());
        let wake = EventFd::new(0).unwrap();
        let member = barrier.join(&wake).unwrap();
        std::thread::scope(|scope| {
            // A worker. Nobody else calls the barrier while it waits to be woken for the end of the hold.
            let worker = scope.spawn(|| {
                wake.read().unwrap();
                assert!(member.must_rest());
                member.rest();
                wake.read().unwrap();
                assert!(!member.must_rest());
            });
            barrier.hold(Instant::now() + Duration::from_millis(500)).unwrap();
            worker.join().unwrap();
        });
        assert!(!barrier.is_held());

        drop(member);
        barrier.hold(Instant::now() + Duration::from_millis(10)).unwrap();
        barrier.raise(Duration::ZERO).unwrap();
        let late = barrier.join(&wake).unwrap();
        while barrier.is_held() {
            std::thread::yield_now();
        }
        barrier.release();
        assert!(late.must_rest(), "it is raised");
        barrier.lower();
        assert!(!late.must_rest());
        barrier.hold(Instant::now()).unwrap_err();
        assert!(!late.must_rest() && !barrier.is_held());
    }

    #[test]
    fn a_hold_takes_the_place_of_an_earlier_one() {
        let barrier = Arc::new(Barrier::default());
        let now = Instant::now();
        barrier.hold(now + Duration::from_millis(20)).unwrap();
        let until = now + Duration::from_secs(60);
        barrier.hold(until).unwrap();
        barrier.end_hold(now + Duration::from_millis(20));
        assert!(barrier.is_held());
        barrier.release();
        // The thread that would have ended it goes at once.
        barrier.end_hold(until);
        assert!(!barrier.is_held());
    }
}
