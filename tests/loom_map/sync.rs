//! Loom's types under the names of `src/store/layered/sync.rs`, and of what `src/vhost/sigbus/span.rs` takes.

use std::cell::Cell;

pub(crate) use loom::sync::Mutex;
pub(crate) use loom::sync::atomic::{AtomicU32, AtomicU64, AtomicUsize, Ordering};

use loom::sync::atomic::AtomicBool;

loom::thread_local! {
    static INDEX: Cell<usize> = Cell::new(0);
}

/// The index that the thread has been given, otherwise 0.
pub(crate) fn thread_index() -> usize {
    INDEX.with(Cell::get)
}

/// Gives the calling thread its index.
pub(crate) fn set_thread_index(index: usize) {
    INDEX.with(|cell| cell.set(index));
}

/// Most values that are put into [`OnceLock`]s in one run of a model.
const MAX_VALUES: usize = 16;

/// What tells loom when a thread may find a value there. Shared, because every lock with a flag of its own would mean
/// thousands of flags, most of them for values that no model has.
struct Flags {
    is_set: [AtomicBool; MAX_VALUES],
    used: std::sync::atomic::AtomicUsize,
}

loom::lazy_static! {
    static ref FLAGS: Flags = Flags {
        is_set: std::array::from_fn(|_| AtomicBool::new(false)),
        used: std::sync::atomic::AtomicUsize::new(0),
    };
}

/// The standard library's, which loom knows nothing of, with the index of a flag.
pub(crate) struct OnceLock<T>(std::sync::OnceLock<(usize, T)>);

impl<T> OnceLock<T> {
    pub(crate) fn new() -> Self {
        OnceLock(std::sync::OnceLock::new())
    }

    pub(crate) fn get(&self) -> Option<&T> {
        let (flag, value) = self.0.get()?;
        FLAGS.is_set[*flag].load(Ordering::Acquire).then_some(value)
    }

    pub(crate) fn set(&self, value: T) -> Result<(), T> {
        let flag = FLAGS.used.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        self.0.set((flag, value)).map_err(|(_, value)| value)?;
        FLAGS.is_set[flag].store(true, Ordering::Release);
        Ok(())
    }
}
