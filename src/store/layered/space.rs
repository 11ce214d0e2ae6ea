//! Which clusters of the file are in use, and since when; and the pages of the arena, where metadata lies.
//!
//! A cluster's *birth* is what the space table says of it: 0, it is free; with the highest bit, it belongs to the arena,
//! and the lower 16 bits say which of its pages are in use; else the generation in which it was first used for data.
//! Besides, a cluster may be *busy*: promised to a write that has not ended, or free but not to be used yet.

use std::collections::{BTreeSet, HashSet};
use std::io;
use std::sync::Arc;

use super::format::page::{Page, body, body_mut};
use super::format::{CLUSTER_BYTES, CLUSTER_PAGES, SPACE_ENTRIES, get_u32, put_u32};
use super::medium::Medium;
use super::table::Births;

const ARENA: u32 = 1 << 31;
/// Highest generation: births share their word with the arena's flag.
pub(super) const LAST_GENERATION: u32 = ARENA - 1;
/// How much a file grows at once, in clusters, as far as the medium allows.
const GROWTH: std::ops::RangeInclusive<u32> = 64..=16_384;

/// Space of one store.
pub(super) struct Space {
    births: Arc<Births>,
    /// A bit for each cluster that is not to be given out.
    busy: Vec<u64>,
    /// Of the file.
    clusters: u32,
    idle: u32,
    /// Where the next search begins.
    cursor: u32,
    /// Pages of the space table that differ from those on the medium.
    dirty: BTreeSet<u32>,
    /// Pages of the arena that are free.
    arena: BTreeSet<u64>,
    /// Pages of the space table that describe clusters of the arena.
    arena_tables: BTreeSet<u32>,
    /// Clusters with data.
    used: u64,
    /// Clusters of the arena.
    arena_clusters: u64,
    /// Clusters whose use has changed since an examination began, while there is one.
    trace: Option<HashSet<u32>>,
}

impl Space {
    /// A file of `clusters`, of which the first `taken` hold superblocks and journal.
    pub(super) fn new(births: Arc<Births>, clusters: u32, taken: u32) -> Self {
        let mut space = Space {
            births,
            busy: Vec::new(),
            clusters: 0,
            idle: 0,
            cursor: 0,
            dirty: BTreeSet::new(),
            arena: BTreeSet::new(),
            arena_tables: BTreeSet::new(),
            used: 0,
            arena_clusters: 0,
            trace: None,
        };
        space.extend(clusters);
        for cluster in 0..taken {
            space.occupy(cluster);
        }
        space
    }

    /// Takes over a page of the table, at the start.
    pub(super) fn load(&mut self, number: u32, page: &Page) {
        let first = number as u64 * SPACE_ENTRIES as u64;
        for (index, bytes) in body(page).chunks_exact(4).enumerate() {
            let cluster = first + index as u64;
            let birth = get_u32(bytes, 0);
            if birth == 0 || cluster >= u64::from(u32::MAX) {
                continue;
            }
            let cluster = cluster as u32;
            self.cover(cluster);
            self.births.set(cluster, birth);
            self.occupy(cluster);
            if birth & ARENA != 0 {
                self.arena_clusters += 1;
                self.arena_tables.insert(number);
                let free = pages_of(cluster).filter(|page| birth & page_bit(*page) == 0);
                self.arena.extend(free);
            } else {
                self.used += 1;
            }
        }
    }

    /// Writes a page of the table.
    pub(super) fn store(&self, number: u32, page: &mut Page) {
        let first = number as u64 * SPACE_ENTRIES as u64;
        for (index, bytes) in body_mut(page).chunks_exact_mut(4).enumerate() {
            let cluster = first + index as u64;
            if cluster < u64::from(self.clusters) {
                put_u32(bytes, 0, self.births.get(cluster as u32));
            }
        }
    }

    /// Clusters of the file.
    pub(super) fn clusters(&self) -> u32 {
        self.clusters
    }

    /// Bytes in use: data, metadata and the arena's reserve.
    pub(super) fn allocated(&self, fixed: u32) -> u64 {
        (self.used + self.arena_clusters + u64::from(fixed)) * CLUSTER_BYTES
    }

    /// A cluster that nobody uses, busy from now on.
    ///
    /// # Errors
    /// The medium's; `ENOSPC` if there is none.
    pub(super) fn take(&mut self, medium: &impl Medium) -> io::Result<u32> {
        if self.idle == 0 {
            self.grow(medium)?;
        }
        let words = self.busy.len();
        let start = self.cursor as usize / 64;
        for step in 0..=words {
            let word = (start + step) % words;
            let mut free = !self.busy[word];
            if step == 0 {
                free &= u64::MAX << (self.cursor % 64);
            }
            if free != 0 {
                let cluster = (word * 64) as u32 + free.trailing_zeros();
                self.occupy(cluster);
                self.cursor = cluster;
                return Ok(cluster);
            }
        }
        Err(super::medium::no_space())
    }

    /// A cluster that was taken, or that was freed some time ago, may be given out.
    pub(super) fn release(&mut self, cluster: u32) {
        let (word, bit) = (cluster as usize / 64, 1u64 << (cluster % 64));
        if self.busy[word] & bit != 0 {
            self.busy[word] &= !bit;
            self.idle += 1;
        }
    }

    /// A cluster holds data since `generation`. Has no effect on the arena: a record may be older than the arena's use of
    /// the cluster.
    pub(super) fn set_used(&mut self, cluster: u32, generation: u32) {
        self.cover(cluster);
        let birth = self.births.get(cluster);
        if birth & ARENA != 0 {
            return;
        }
        self.used += u64::from(birth == 0);
        self.trace.iter_mut().for_each(|trace| _ = trace.insert(cluster));
        self.births.set(cluster, generation);
        self.occupy(cluster);
        self.dirty.insert(cluster / SPACE_ENTRIES as u32);
    }

    /// A cluster holds no data any more; it stays busy until it is [released](Space::release). Returns whether that is new.
    pub(super) fn set_free(&mut self, cluster: u32) -> bool {
        let birth = self.births.get(cluster);
        if birth == 0 || birth & ARENA != 0 {
            return false;
        }
        self.used -= 1;
        self.trace.iter_mut().for_each(|trace| _ = trace.insert(cluster));
        self.births.set(cluster, 0);
        self.dirty.insert(cluster / SPACE_ENTRIES as u32);
        true
    }

    /// Free pages of the arena.
    pub(super) fn free_pages(&self) -> usize {
        self.arena.len()
    }

    /// Makes the arena larger, until it has `want` free pages.
    ///
    /// # Errors
    /// The medium's; `ENOSPC`.
    pub(super) fn grow_arena(&mut self, medium: &impl Medium, want: usize) -> io::Result<()> {
        while self.arena.len() < want {
            let cluster = self.take(medium)?;
            if let Err(error) = Self::reserve(medium, cluster) {
                self.release(cluster);
                return Err(error);
            }
            self.add_to_arena(cluster);
        }
        Ok(())
    }

    /// Has the medium keep room for a cluster.
    ///
    /// # Errors
    /// The medium's; `ENOSPC`.
    pub(super) fn reserve(medium: &impl Medium, cluster: u32) -> io::Result<()> {
        medium.reserve(u64::from(cluster) * CLUSTER_BYTES, CLUSTER_BYTES)
    }

    /// A cluster that was taken, and for which there is [room](Space::reserve), becomes free pages.
    pub(super) fn add_to_arena(&mut self, cluster: u32) {
        let table = cluster / SPACE_ENTRIES as u32;
        self.births.set(cluster, ARENA);
        self.arena_clusters += 1;
        self.arena_tables.insert(table);
        self.dirty.insert(table);
        self.arena.extend(pages_of(cluster));
    }

    /// Pages of the space table that can change because pages of the arena are taken and given back.
    pub(super) fn arena_tables(&self) -> usize {
        self.arena_tables.len()
    }

    /// A page of the arena.
    pub(super) fn take_page(&mut self) -> Option<u64> {
        let page = self.arena.pop_first()?;
        self.set_page(page, true);
        Some(page)
    }

    /// A page of the arena is not in use any more. It is given out again when it was
    /// [released](Space::release_page).
    pub(super) fn free_page(&mut self, page: u64) {
        self.set_page(page, false);
    }

    /// A page that was freed may be written again.
    pub(super) fn release_page(&mut self, page: u64) {
        self.arena.insert(page);
    }

    /// Birth of a cluster with data; none if it is free or the arena's.
    pub(super) fn birth(&self, cluster: u32) -> Option<u32> {
        let birth = self.births.get(cluster);
        (birth != 0 && birth & ARENA == 0).then_some(birth)
    }

    /// Whether it is neither data nor the arena's.
    pub(super) fn is_free(&self, cluster: u32) -> bool {
        self.births.get(cluster) == 0
    }

    /// Keeps a cluster, which will be used, from being given out.
    pub(super) fn promise(&mut self, cluster: u32) {
        self.cover(cluster);
        self.occupy(cluster);
    }

    /// From now on, or no longer, keeps the clusters whose use changes; returns those that were kept.
    pub(super) fn set_trace(&mut self, on: bool) -> HashSet<u32> {
        std::mem::replace(&mut self.trace, on.then(HashSet::new)).unwrap_or_default()
    }

    /// Makes the table say that a page of the arena is in use or not, whatever it said: for repairs.
    pub(super) fn correct_page(&mut self, page: u64, used: bool) {
        let cluster = (page / CLUSTER_PAGES) as u32;
        self.cover(cluster);
        if self.births.get(cluster) & ARENA == 0 {
            self.used -= u64::from(self.births.get(cluster) != 0);
            self.occupy(cluster);
            self.add_to_arena(cluster);
        }
        self.set_page(page, used);
        if used {
            self.arena.remove(&page);
        } else {
            self.arena.insert(page);
        }
    }

    /// Pages of the table that changed.
    pub(super) fn dirty(&self) -> &BTreeSet<u32> {
        &self.dirty
    }

    /// The page of the table is to be written anew.
    pub(super) fn renew(&mut self, number: u32) {
        self.dirty.insert(number);
    }

    /// The page is about to be stored.
    pub(super) fn is_clean(&mut self, number: u32) {
        self.dirty.remove(&number);
    }

    fn set_page(&mut self, page: u64, used: bool) {
        let cluster = (page / CLUSTER_PAGES) as u32;
        let birth = self.births.get(cluster);
        let birth = if used {
            birth | page_bit(page)
        } else {
            birth & !page_bit(page)
        };
        self.births.set(cluster, birth);
        self.dirty.insert(cluster / SPACE_ENTRIES as u32);
    }

    fn grow(&mut self, medium: &impl Medium) -> io::Result<()> {
        let mut step = (self.clusters / 8).clamp(*GROWTH.start(), *GROWTH.end());
        loop {
            let clusters = self
                .clusters
                .checked_add(step)
                .ok_or_else(super::medium::no_space)?;
            match medium.grow(u64::from(clusters) * CLUSTER_BYTES) {
                Ok(()) => {
                    self.extend(clusters);
                    return Ok(());
                }
                Err(_) if step > 1 => step /= 2,
                Err(error) => return Err(error),
            }
        }
    }

    /// The file may have grown after the table was written.
    fn cover(&mut self, cluster: u32) {
        if cluster >= self.clusters {
            self.extend(cluster + 1);
        }
    }

    fn extend(&mut self, clusters: u32) {
        let words = (clusters as usize).div_ceil(64);
        self.busy.resize(words, u64::MAX);
        for cluster in self.clusters..clusters {
            self.busy[cluster as usize / 64] &= !(1 << (cluster % 64));
        }
        self.idle += clusters - self.clusters;
        self.clusters = clusters;
    }

    fn occupy(&mut self, cluster: u32) {
        let (word, bit) = (cluster as usize / 64, 1u64 << (cluster % 64));
        if self.busy[word] & bit == 0 {
            self.busy[word] |= bit;
            self.idle -= 1;
        }
    }
}

impl std::fmt::Debug for Space {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let mut debug = f.debug_struct("Space");
        debug
            .field("clusters", &self.clusters)
            .field("used", &self.used)
            .finish_non_exhaustive()
    }
}

/// What a word of the table says of a cluster.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Use {
    Free,
    /// Data, since a generation.
    Data(u32),
    /// Pages of metadata; a bit for each that is in use.
    Arena(u16),
}

impl Use {
    pub(super) fn of(word: u32) -> Self {
        match word {
            0 => Use::Free,
            word if word & ARENA != 0 => Use::Arena(word as u16),
            generation => Use::Data(generation),
        }
    }
}

fn pages_of(cluster: u32) -> std::ops::Range<u64> {
    let first = u64::from(cluster) * CLUSTER_PAGES;
    first..first + CLUSTER_PAGES
}

fn page_bit(page: u64) -> u32 {
    1 << (page % CLUSTER_PAGES)
}
