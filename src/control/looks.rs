//! Looks at what a store holds, and examinations of it: they read much of its metadata, or all of it, which can take hours. So
//! each of the two kinds is carried out on a thread of its own while other commands are.

use std::collections::VecDeque;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rustix::event::{EventfdFlags, eventfd};
use sealblk_proto::message::{Failure, Outcome};

use super::layers::{Reports, check, layers_of};
use crate::disk::Disk;
use crate::sandbox::{Kind, narrow};

/// Most looks that wait.
const MOST: usize = 16;

/// Answers one: what the store holds after the snapshot of this id. It may be given up when it is not wanted any more.
type Answer = dyn FnMut(Option<&str>, &dyn Fn() -> bool) -> Outcome + Send;

/// The looks of one disk, one after another.
pub struct Looks(Arc<Shared>);

struct Shared {
    state: Mutex<State>,
    answer: Mutex<Box<Answer>>,
    /// Counts up when an answer is there.
    answered: OwnedFd,
}

#[derive(Default)]
struct State {
    waiting: VecDeque<Look>,
    /// Answers that have not been taken, each with its request's id.
    answers: Vec<(u64, Outcome)>,
    /// Number of the connection whose looks these are.
    connection: u64,
    /// There is a thread for them.
    is_running: bool,
}

struct Look {
    id: u64,
    after: Option<String>,
}

impl Looks {
    /// Looks at what a disk's store holds.
    ///
    /// # Errors
    /// The kernel's.
    pub fn at(disk: Arc<Disk>) -> io::Result<Self> {
        let mut reports = Reports::default();
        Self::new(move |after, _| match layers_of(disk.store()) {
            Ok(store) => reports.page(store, after),
            Err(failure) => Outcome::Failed(failure),
        })
    }

    /// Examines a disk's store.
    ///
    /// # Errors
    /// The kernel's.
    pub fn checks_of(disk: Arc<Disk>) -> io::Result<Self> {
        Self::new(move |_, is_wanted| match layers_of(disk.store()) {
            Ok(store) => check(store, false, is_wanted),
            Err(failure) => Outcome::Failed(failure),
        })
    }

    /// Each will be answered by `answer`.
    ///
    /// # Errors
    /// The kernel's.
    pub(super) fn new(
        answer: impl FnMut(Option<&str>, &dyn Fn() -> bool) -> Outcome + Send + 'static,
    ) -> io::Result<Self> {
        Ok(Looks(Arc::new(Shared {
            state: Mutex::default(),
            answer: Mutex::new(Box::new(answer)),
            answered: eventfd(0, EventfdFlags::NONBLOCK | EventfdFlags::CLOEXEC)?,
        })))
    }

    /// Begins one, for the request of this id.
    ///
    /// # Errors
    /// A [`Failure`] for the KMS, if too many wait.
    pub(super) fn begin(&self, id: u64, after: Option<String>) -> Result<(), Failure> {
        let mut state = self.0.state();
        if state.waiting.len() >= MOST {
            return Err(Failure::new("Busy", format!("{MOST} others look at the store")));
        }
        if !state.is_running {
            let shared = Arc::clone(&self.0);
            let thread = std::thread::Builder::new().name("look".to_owned());
            thread
                .spawn(move || {
                    narrow(Kind::Store);
                    shared.answer_all();
                })
                .map_err(|error| Failure::new("Threads", error.to_string()))?;
            state.is_running = true;
        }
        state.waiting.push_back(Look { id, after });
        Ok(())
    }

    /// What has been answered since the last time.
    pub(super) fn answers(&self) -> Vec<(u64, Outcome)> {
        // Fails only if nothing has.
        let _ = rustix::io::read(&self.0.answered, &mut [0; 8]);
        std::mem::take(&mut self.0.state().answers)
    }

    /// Whether one is being carried out, also if nobody wants it any more.
    pub(super) fn are_going_on(&self) -> bool {
        self.0.state().is_running
    }

    /// Forgets the looks of a connection that has ended: they are not answered.
    pub(super) fn forget(&self) {
        let mut state = self.0.state();
        state.connection += 1;
        state.waiting.clear();
        state.answers.clear();
    }
}

impl AsFd for Looks {
    /// Readable when there are [answers](Looks::answers).
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.answered.as_fd()
    }
}

impl Shared {
    fn answer_all(&self) {
        let mut answer = self.answer.lock().unwrap_or_else(PoisonError::into_inner);
        loop {
            let (after, ids, connection) = {
                let mut state = self.state();
                let Some(look) = state.waiting.pop_front() else {
                    state.is_running = false;
                    return;
                };
                // Looks that ask the same are answered with this one's result.
                let (same, rest) = std::mem::take(&mut state.waiting)
                    .into_iter()
                    .partition::<VecDeque<_>, _>(|other| other.after == look.after);
                state.waiting = rest;
                let ids: Vec<u64> = [&look].into_iter().chain(&same).map(|look| look.id).collect();
                (look.after, ids, state.connection)
            };
            let is_wanted = || self.state().connection == connection;
            let outcome = answer(after.as_deref(), &is_wanted);
            let mut state = self.state();
            if state.connection == connection {
                state
                    .answers
                    .extend(ids.into_iter().map(|id| (id, outcome.clone())));
                // Fails only when the counter is full, and then it is readable.
                let _ = rustix::io::write(&self.answered, &1u64.to_ne_bytes());
            }
            if state.waiting.is_empty() {
                // Together with the answer: a caller that has the answer finds nothing going on.
                state.is_running = false;
                return;
            }
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
