//! The map of the disk as it is now, leaf by leaf as it is needed.

use std::collections::BTreeMap;
use std::io;
use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

use super::entry::Entry;
use super::format::entry::{Leaf, get_leaf};
use super::format::page::{PageDamage, senseless};
use super::format::{FANOUT, PageRef, Uuid};
use super::map::LiveMap;
use super::medium::Medium;
use super::tree::{MAP, Tree, leaf_place, read_page};
use crate::units::ByteLen;

/// Leaves of the largest disk.
const LEAVES: usize =
    (ByteLen::LARGEST_DISK.0 / super::format::CLUSTER_BYTES).div_ceil(FANOUT as u64) as usize;
/// Splits that a map can hold at all. How many it should hold is decided when writes are planned.
const SPLITS: usize = 1 << 28;

/// What workers look places up in.
pub(super) struct Live {
    pub(super) map: LiveMap,
    /// A bit for each leaf that is not all zeros, loaded or not.
    present: Box<[AtomicU64]>,
    /// Leaves that could not be loaded, and why.
    damaged: Mutex<BTreeMap<u32, String>>,
}

/// A file that the store reads besides its own.
#[derive(Debug)]
pub(super) struct BaseFile<M> {
    pub(super) medium: M,
    pub(super) uuid: Uuid,
    /// The map of the pinned snapshot.
    pub(super) map: Tree,
    /// What it lacks is in the next one.
    pub(super) inherits: bool,
}

impl Live {
    /// The map that has these leaves, and those of the bases if it `inherits`.
    pub(super) fn new<M: Medium>(tree: &Tree, inherits: bool, bases: &[BaseFile<M>]) -> Self {
        let live = Live {
            map: LiveMap::new(SPLITS),
            present: (0..LEAVES.div_ceil(64)).map(|_| AtomicU64::new(0)).collect(),
            damaged: Mutex::default(),
        };
        tree.leaves().for_each(|(leaf, _)| live.set_present(leaf));
        let mut inherits = inherits;
        for base in bases {
            if !inherits {
                break;
            }
            base.map.leaves().for_each(|(leaf, _)| live.set_present(leaf));
            inherits = base.inherits;
        }
        live
    }

    /// Whether the leaf may have entries that are not empty.
    pub(super) fn is_present(&self, leaf: u32) -> bool {
        let word = self.present.get(leaf as usize / 64);
        word.is_some_and(|word| word.load(Ordering::Acquire) >> (leaf % 64) & 1 != 0)
    }

    /// The first leaf of `leaves` that [is present](Self::is_present); their end if none is.
    pub(super) fn first_present(&self, leaves: Range<u32>) -> u32 {
        let mut leaf = leaves.start;
        while leaf < leaves.end {
            let word = self.present.get(leaf as usize / 64);
            let rest = word.map_or(0, |word| word.load(Ordering::Acquire) >> (leaf % 64));
            if rest != 0 {
                return (leaf + rest.trailing_zeros()).min(leaves.end);
            }
            leaf = (leaf / 64 + 1) * 64;
        }
        leaves.end
    }

    /// To be called before the leaf gets its first entry.
    pub(super) fn set_present(&self, leaf: u32) {
        self.present[leaf as usize / 64].fetch_or(1 << (leaf % 64), Ordering::AcqRel);
    }

    /// Requests for this leaf fail from now on.
    pub(super) fn set_damaged(&self, leaf: u32, why: String) {
        let mut damaged = self.damaged.lock().unwrap_or_else(PoisonError::into_inner);
        damaged.insert(leaf, why);
    }

    /// Why the leaf cannot be loaded, if that has been tried.
    pub(super) fn damage(&self, leaf: u32) -> Option<io::Error> {
        let damaged = self.damaged.lock().unwrap_or_else(PoisonError::into_inner);
        damaged
            .get(&leaf)
            .map(|why| io::Error::new(io::ErrorKind::InvalidData, why.clone()))
    }

    /// The entry of a cluster; none if its leaf must be loaded first.
    pub(super) fn get(&self, cluster: u64) -> Option<Entry> {
        match self.map.get(cluster) {
            None if !self.is_present(leaf_of(cluster)) => Some(Entry::EMPTY),
            entry => entry,
        }
    }
}

impl std::fmt::Debug for Live {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Live").finish_non_exhaustive()
    }
}

/// The leaf that a cluster's entry is in.
pub(super) fn leaf_of(cluster: u64) -> u32 {
    (cluster / FANOUT as u64) as u32
}

/// Reads a leaf of the store's own file.
///
/// # Errors
/// [`PageDamage`].
pub(super) fn read_leaf(
    medium: &impl Medium,
    uuid: Uuid,
    leaf: u32,
    reference: PageRef,
) -> Result<Box<Leaf>, PageDamage> {
    let place = leaf_place(MAP, leaf);
    let page = read_page(medium, uuid, place, reference)?;
    let entries = get_leaf(&page).ok_or_else(|| senseless(place, reference))?;
    Ok(entries)
}

/// Reads a leaf that the store's own file lacks from the first base that has it, with the slots as they are here.
///
/// # Errors
/// [`PageDamage`].
pub(super) fn read_inherited<M: Medium>(bases: &[BaseFile<M>], leaf: u32) -> Result<Box<Leaf>, PageDamage> {
    for (index, base) in bases.iter().enumerate() {
        let reference = base.map.leaf(leaf);
        if reference.is_some() {
            let mut entries = read_leaf(&base.medium, base.uuid, leaf, reference)?;
            let further = (index + 1) as u8;
            for entry in entries.iter_mut() {
                for part in [&mut entry.front, &mut entry.back] {
                    if part.is_some() {
                        part.slot = part.slot.saturating_add(further);
                    }
                }
            }
            if entries
                .iter()
                .flat_map(|entry| entry.parts())
                .any(|part| usize::from(part.slot) > bases.len())
            {
                return Err(senseless(leaf_place(MAP, leaf), reference));
            }
            return Ok(entries);
        }
        if !base.inherits {
            break;
        }
    }
    Ok(Box::new([Entry::EMPTY; FANOUT]))
}
