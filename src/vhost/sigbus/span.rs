//! Where a mapping lies: written by the thread that maps, and read by a signal handler, which must not wait.

use super::sync::{AtomicUsize, Ordering};

/// Start and length of a mapping, if there is one: a sequence lock of which readers do not try again.
pub(crate) struct Span {
    /// Odd while there is one; never the same for two.
    pub(crate) generation: AtomicUsize,
    pub(crate) start: AtomicUsize,
    pub(crate) len: AtomicUsize,
}

impl Span {
    /// From now on the span is `len` bytes at `start`. Before, it must be empty.
    pub(crate) fn set(&self, start: usize, len: usize) {
        // A handler that sees either of these sees, by the release, that the former span was cleared.
        self.start.store(start, Ordering::Release);
        self.len.store(len, Ordering::Release);
        self.generation.fetch_add(1, Ordering::Release);
    }

    /// There is none from now on.
    pub(crate) fn clear(&self) {
        self.generation.fetch_add(1, Ordering::Release);
    }

    /// Start and length of one and the same mapping; none if there is none, or if that changes just now. Whoever keeps a
    /// mapping from going sees it.
    pub(crate) fn get(&self) -> Option<(usize, usize)> {
        let generation = self.generation.load(Ordering::Acquire);
        let start = self.start.load(Ordering::Acquire);
        let len = self.len.load(Ordering::Acquire);
        let is_one = generation % 2 == 1 && self.generation.load(Ordering::Relaxed) == generation;
        is_one.then_some((start, len))
    }
}
