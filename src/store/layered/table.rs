//! Tables that grow in place under readers that take no lock, and the birth generations of physical clusters.

use super::entry::Part;
use super::sync::{AtomicU32, OnceLock, Ordering};

/// Values in a group, the unit in which a directory grows.
const GROUP: usize = 1024;

/// Births in a chunk, the unit in which their table grows: 4 KiB.
const BIRTHS_PER_CHUNK: usize = 1024;

/// Chunks of births for 2³² clusters.
const BIRTH_CHUNKS: usize = 1 << 22;

/// Boxed values by index, none of them at first. They are added once and never moved or removed. It costs 24 bytes
/// for each [`GROUP`] of its length, and 16 or 24 for each value of a group that has one.
pub(super) struct Directory<T: ?Sized> {
    groups: Box<[OnceLock<Group<T>>]>,
}

type Group<T> = Box<[OnceLock<Box<T>>]>;

impl<T: ?Sized> Directory<T> {
    /// For at least `length` values.
    pub(super) fn new(length: usize) -> Self {
        Directory {
            groups: (0..length.div_ceil(GROUP)).map(|_| OnceLock::new()).collect(),
        }
    }

    /// The value at `index`; none if it is not there or beyond the directory's length. Wait-free.
    #[inline]
    pub(super) fn get(&self, index: usize) -> Option<&T> {
        let group = self.groups.get(index / GROUP)?.get()?;
        group[index % GROUP].get().map(|value| &**value)
    }

    /// Adds a value; false, and nothing changes, if there is one at `index`. For one caller at a time.
    ///
    /// # Panics
    /// If `index` is beyond the directory's length.
    #[must_use]
    pub(super) fn insert(&self, index: usize, value: Box<T>) -> bool {
        let group = &self.groups[index / GROUP];
        if group.get().is_none() {
            // Fails only if another thread has set the group meanwhile.
            let _ = group.set((0..GROUP).map(|_| OnceLock::new()).collect());
        }
        group
            .get()
            .is_some_and(|group| group[index % GROUP].set(value).is_ok())
    }
}

/// The generation in which each physical cluster of this file was allocated: 4 bytes for each of up to 2³² clusters,
/// in chunks of 4 KiB where there are any.
pub(crate) struct Births {
    chunks: Directory<[AtomicU32; BIRTHS_PER_CHUNK]>,
}

impl Births {
    /// No cluster has a birth.
    pub(crate) fn new() -> Self {
        Births {
            chunks: Directory::new(BIRTH_CHUNKS),
        }
    }

    /// The birth generation of `cluster`, 0 if it has none. Wait-free. Who has found a cluster in the map sees the
    /// birth that was set before the map's entry.
    #[inline]
    pub(crate) fn get(&self, cluster: u32) -> u32 {
        let (chunk, at) = position(cluster);
        self.chunks
            .get(chunk)
            .map_or(0, |births| births[at].load(Ordering::Acquire))
    }

    /// Sets the birth of `cluster`, 0 to remove it. For one caller at a time.
    pub(crate) fn set(&self, cluster: u32, birth: u32) {
        let (chunk, at) = position(cluster);
        if let Some(births) = self.chunks.get(chunk) {
            births[at].store(birth, Ordering::Release);
        } else if birth != 0 {
            let births = std::array::from_fn(|i| AtomicU32::new(if i == at { birth } else { 0 }));
            let added = self.chunks.insert(chunk, Box::new(births));
            debug_assert!(added, "two callers set births at a time");
        }
    }
}

fn position(cluster: u32) -> (usize, usize) {
    let cluster = cluster as usize;
    (cluster / BIRTHS_PER_CHUNK, cluster % BIRTHS_PER_CHUNK)
}

/// Whether the blocks of `part` may be overwritten where they are: it is a cluster of this file, and younger than
/// `floor`, the generation of the newest snapshot that the live disk descends from.
///
/// The caller has loaded `floor` (Acquire) and `part` after it entered its epoch, and exits after its write has ended.
#[inline]
pub(crate) fn is_own(births: &Births, floor: u32, part: Part) -> bool {
    part.mask != 0 && part.slot == 0 && births.get(part.cluster) > floor
}
