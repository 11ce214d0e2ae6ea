//! The side table of entries whose blocks lie in two clusters.
//!
//! A lookup reads a split's front, then its back, and a block that is in both is the front's. The clusters of a split
//! never change while lookups may read it: only its masks do. The mutator writes the back first, then the front, and
//! leaves a block's bit in the back when the block goes to the front. So a lookup that meets a change finds each block
//! in its old place or its new one:
//!
//! - back to front: who still sees the front without the bit finds it in the back, where it stays.
//! - front to nowhere: who sees the front without the bit sees the back of that change or a later one. The bit that
//!   an earlier move had left there is gone.
//! - front to back: likewise, with the bit in the back.
//! - from or to nowhere otherwise: only one of the two changes.

use std::sync::PoisonError;

use super::super::entry::{Entry, Part};
use super::super::sync::{AtomicU64, Mutex, Ordering};
use super::super::table::Directory;
use super::word::{pack, unpack};

/// Splits in a chunk, the unit in which the table grows: 128 KiB.
const CHUNK: usize = 8192;

/// Most splits: one for each cluster of the largest disk.
const MAX_SPLITS: usize = 1 << 30;

/// As many entries are split as may be at a time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("no more than {limit} map entries can be split between two clusters")]
pub(crate) struct SplitsExhausted {
    limit: usize,
}

pub(super) struct Splits {
    chunks: Directory<[Split]>,
    limit: usize,
    indices: Mutex<Indices>,
}

/// Two packed parts. Bits of `back` that `front` has too mean nothing.
struct Split {
    front: AtomicU64,
    back: AtomicU64,
}

/// Which indices are whose. Only the mutator asks; the lock is there because the compiler cannot know that.
struct Indices {
    /// Neither this index nor any above was ever used.
    unused: usize,
    free: Vec<u32>,
    retired: Vec<u32>,
}

impl Splits {
    pub(super) fn new(limit: usize) -> Self {
        let limit = limit.min(MAX_SPLITS);
        let indices = Indices {
            unused: 0,
            free: Vec::new(),
            retired: Vec::new(),
        };
        Splits {
            chunks: Directory::new(limit.div_ceil(CHUNK)),
            limit,
            indices: Mutex::new(indices),
        }
    }

    /// The entry at `index`, as some lookup within this call may see it.
    #[inline]
    pub(super) fn load(&self, index: u32) -> Entry {
        let split = self.split(index);
        let front = unpack(split.front.load(Ordering::Acquire));
        let back = unpack(split.back.load(Ordering::Acquire));
        let back = Part {
            mask: back.mask & !front.mask,
            ..back
        };
        Entry {
            front,
            back: if back.mask == 0 { Part::default() } else { back },
        }
    }

    /// Puts an entry where nobody looks yet, and gives its index.
    pub(super) fn add(&self, entry: Entry) -> Result<u32, SplitsExhausted> {
        let index = self.take_index()?;
        let split = self.split(index);
        split.back.store(pack(entry.back), Ordering::Release);
        split.front.store(pack(entry.front), Ordering::Release);
        Ok(index)
    }

    /// Whether `entry` differs from the one at `index` in its masks at most.
    pub(super) fn has_places(&self, index: u32, entry: Entry) -> bool {
        let split = self.split(index);
        let same = |word: &AtomicU64, part: Part| {
            let now = unpack(word.load(Ordering::Relaxed));
            (now.cluster, now.slot) == (part.cluster, part.slot)
        };
        same(&split.front, entry.front) && same(&split.back, entry.back)
    }

    /// Changes the masks of the split at `index` under the eyes of lookups, in the order that the module explains.
    pub(super) fn update(&self, index: u32, entry: Entry) {
        let split = self.split(index);
        let left_behind = unpack(split.back.load(Ordering::Relaxed)).mask & entry.front.mask;
        let back = Part {
            mask: entry.back.mask | left_behind,
            ..entry.back
        };
        split.back.store(pack(back), Ordering::Release);
        split.front.store(pack(entry.front), Ordering::Release);
    }

    /// The map no longer names `index`.
    pub(super) fn retire(&self, index: u32) {
        self.with_indices(|indices| indices.retired.push(index));
    }

    pub(super) fn take_retired(&self) -> Vec<u32> {
        self.with_indices(|indices| std::mem::take(&mut indices.retired))
    }

    /// Nobody reads these any more.
    pub(super) fn release(&self, released: Vec<u32>) {
        self.with_indices(|indices| {
            indices.free.extend(released);
            debug_assert!(indices.free.len() + indices.retired.len() <= indices.unused);
        });
    }

    pub(super) fn in_use(&self) -> usize {
        self.with_indices(|indices| indices.unused - indices.free.len())
    }

    fn take_index(&self) -> Result<u32, SplitsExhausted> {
        self.with_indices(|indices| {
            if let Some(index) = indices.free.pop() {
                return Ok(index);
            }
            let index = indices.unused;
            if index == self.limit {
                return Err(SplitsExhausted { limit: self.limit });
            }
            if index.is_multiple_of(CHUNK) {
                let added = self.chunks.insert(index / CHUNK, self.new_chunk(index));
                debug_assert!(added, "two mutators at a time");
            }
            indices.unused += 1;
            Ok(index as u32)
        })
    }

    /// The chunk that begins at index `start`; the last one only as long as the limit needs.
    fn new_chunk(&self, start: usize) -> Box<[Split]> {
        let empty = || Split {
            front: AtomicU64::new(0),
            back: AtomicU64::new(0),
        };
        (start..self.limit.min(start + CHUNK)).map(|_| empty()).collect()
    }

    #[inline]
    fn split(&self, index: u32) -> &Split {
        let index = index as usize;
        let chunk = self.chunks.get(index / CHUNK);
        &chunk.expect("the chunk of an index is there before the index")[index % CHUNK]
    }

    fn with_indices<R>(&self, use_them: impl FnOnce(&mut Indices) -> R) -> R {
        // A panic within leaves nothing half done that could be mistaken for whole.
        use_them(&mut self.indices.lock().unwrap_or_else(PoisonError::into_inner))
    }
}
