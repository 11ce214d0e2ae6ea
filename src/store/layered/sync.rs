//! Atomics and locks: what the structures that are read without locks ([`map`](super::map), [`table`](super::table),
//! [`epoch`](super::epoch)) take from the standard library. `tests/loom_map/main.rs` compiles their sources with loom's
//! types in this module's place; nothing but these names may differ between the two.

use std::sync::atomic::AtomicUsize;

pub(super) use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
pub(super) use std::sync::{Mutex, OnceLock};

/// A small number of the calling thread, the same at every call; threads that start one after another have different
/// ones.
pub(super) fn thread_index() -> usize {
    static STARTED: AtomicUsize = AtomicUsize::new(0);
    thread_local! {
        static INDEX: usize = STARTED.fetch_add(1, Ordering::Relaxed);
    }
    INDEX.with(|index| *index)
}
