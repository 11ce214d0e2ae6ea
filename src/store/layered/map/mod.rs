//! The live map in RAM: where the blocks of each cluster of the virtual disk lie.
//!
//! Every request looks entries up, without locks, while one mutator at a time changes them. An entry is one atomic
//! word, or, where its blocks lie in two clusters, the word names a place in a side table (see [`splits`]).
//!
//! | bits of a word | plain | split |
//! |---|---|---|
//! | 0–31 | physical cluster | index into the side table |
//! | 32–47 | mask of its blocks, a bit for each 4 KiB | 0 |
//! | 48–55 | slot | 0 |
//! | 56–63 | 0 | 1 |
//!
//! What a lookup sees, for each block by itself, is the place given by the last change before it or by one during it.
//! A change of the word is seen whole, so that only a split that changes in place needs thought.

mod splits;
mod word;

use super::entry::{Entry, Part};
use super::sync::{AtomicU64, Ordering};
use super::table::Directory;
use splits::Splits;
pub(crate) use splits::SplitsExhausted;
use word::{SPLIT, pack, split_index, unpack};

/// Entries of a leaf, the unit in which the map is loaded: one page of 4 KiB on disk.
pub(crate) const LEAF_ENTRIES: usize = 252;

/// Leaves of the largest disk: 64 TiB, 2³⁰ clusters of 64 KiB.
const MAX_LEAVES: usize = (1usize << 30).div_ceil(LEAF_ENTRIES);

/// The map: 8 bytes for each entry of the leaves that are loaded, and 16 for each that is split.
pub(crate) struct LiveMap {
    leaves: Directory<[AtomicU64; LEAF_ENTRIES]>,
    splits: Splits,
}

impl LiveMap {
    /// No leaf is loaded. At most `split_limit` entries can be split at a time, retired ones included.
    pub(crate) fn new(split_limit: usize) -> Self {
        LiveMap {
            leaves: Directory::new(MAX_LEAVES),
            splits: Splits::new(split_limit),
        }
    }

    /// Whether entries of `leaf` can be looked up and set.
    pub(crate) fn is_loaded(&self, leaf: u32) -> bool {
        self.leaves.get(leaf as usize).is_some()
    }

    /// Loads a leaf. For the mutator.
    ///
    /// # Errors
    /// [`SplitsExhausted`]: the leaf is not loaded, and nothing has changed.
    ///
    /// # Panics
    /// If it is loaded, or beyond 64 TiB.
    pub(crate) fn install(&self, leaf: u32, entries: &[Entry; LEAF_ENTRIES]) -> Result<(), SplitsExhausted> {
        assert!(!self.is_loaded(leaf), "leaf {leaf} is loaded already");
        let mut words = [0; LEAF_ENTRIES];
        for at in 0..LEAF_ENTRIES {
            words[at] = self.word(entries[at]).inspect_err(|_| {
                // Nobody has seen them, so they need no retirement.
                let unseen = words[..at].iter().filter_map(|word| split_index(*word));
                self.splits.release(unseen.collect());
            })?;
        }
        let added = self
            .leaves
            .insert(leaf as usize, Box::new(words.map(AtomicU64::new)));
        debug_assert!(added, "two mutators at a time");
        Ok(())
    }

    /// Where the blocks of virtual cluster `cluster` lie; none if its leaf is not loaded. Wait-free, for every thread
    /// within a pass (see [`Epochs`](super::epoch::Epochs)).
    #[inline]
    pub(crate) fn get(&self, cluster: u64) -> Option<Entry> {
        let word = self.slot(cluster)?.load(Ordering::Acquire);
        Some(self.entry(word))
    }

    /// Sets where the blocks of virtual cluster `cluster` lie. For the mutator.
    ///
    /// # Errors
    /// [`SplitsExhausted`]: nothing has changed. Only for an entry that is split.
    ///
    /// # Panics
    /// If its leaf is not loaded.
    pub(crate) fn set(&self, cluster: u64, entry: Entry) -> Result<(), SplitsExhausted> {
        let slot = self.slot(cluster).expect("the leaf of a changed entry is loaded");
        let old_split = split_index(slot.load(Ordering::Relaxed));
        if let Some(index) = old_split
            && entry.back.mask != 0
            && self.splits.has_places(index, entry)
        {
            self.splits.update(index, entry);
            return Ok(());
        }
        slot.store(self.word(entry)?, Ordering::Release);
        if let Some(index) = old_split {
            self.splits.retire(index);
        }
        Ok(())
    }

    /// All entries of a leaf; none if it is not loaded. For the mutator.
    pub(crate) fn leaf(&self, leaf: u32) -> Option<[Entry; LEAF_ENTRIES]> {
        let words = self.leaves.get(leaf as usize)?;
        Some(std::array::from_fn(|at| {
            self.entry(words[at].load(Ordering::Acquire))
        }))
    }

    /// Takes the splits that are no longer named by the map since the last call. Lookups that began earlier may still
    /// read them: begin a new epoch after this call, and [`release`](Self::release) them when it has settled. For
    /// the mutator.
    pub(crate) fn take_retired(&self) -> Vec<u32> {
        self.splits.take_retired()
    }

    /// Puts splits back that were [taken](Self::take_retired) too early. For the mutator.
    pub(crate) fn retire_again(&self, retired: Vec<u32>) {
        retired.into_iter().for_each(|index| self.splits.retire(index));
    }

    /// Gives splits that nobody reads any more back for reuse: each that was taken once. For the mutator.
    pub(crate) fn release(&self, retired: Vec<u32>) {
        self.splits.release(retired);
    }

    /// Splits that count against the limit: those of the map, and the retired ones that are not released.
    pub(crate) fn splits_in_use(&self) -> usize {
        self.splits.in_use()
    }

    #[inline]
    fn slot(&self, cluster: u64) -> Option<&AtomicU64> {
        let leaf = usize::try_from(cluster / LEAF_ENTRIES as u64).ok()?;
        Some(&self.leaves.get(leaf)?[(cluster % LEAF_ENTRIES as u64) as usize])
    }

    #[inline]
    fn entry(&self, word: u64) -> Entry {
        match split_index(word) {
            Some(index) => self.splits.load(index),
            None => Entry {
                front: unpack(word),
                back: Part::default(),
            },
        }
    }

    /// The word to publish for `entry`, with a split of its own if it needs one.
    fn word(&self, entry: Entry) -> Result<u64, SplitsExhausted> {
        debug_assert!(is_normal(entry), "{entry:?}");
        if entry.back.mask == 0 {
            return Ok(pack(entry.front));
        }
        Ok(SPLIT | u64::from(self.splits.add(entry)?))
    }
}

/// Whether it obeys the rules for entries.
fn is_normal(entry: Entry) -> bool {
    let absent_is_zero = |part: Part| part.mask != 0 || part == Part::default();
    absent_is_zero(entry.front)
        && absent_is_zero(entry.back)
        && entry.front.mask & entry.back.mask == 0
        && (entry.front.mask != 0 || entry.back.mask == 0)
}
