//! What the store knows besides the map, and changes only under its lock.

use std::collections::{BTreeSet, HashMap, VecDeque};
use std::sync::Arc;

use vmm_sys_util::eventfd::EventFd;

use super::entry::{Entry, Part};
use super::format::entry::Leaf;
use super::format::superblock::{OPERATIONS, Superblock};
use super::format::tables::{PINS, Pin, SNAPSHOTS, Snapshot};
use super::format::{FANOUT, ObjectId, PageRef, SPACE_ENTRIES};
use super::journal::Journal;
use super::live::Live;
use super::map::SplitsExhausted;
use super::medium::Medium;
use super::space::Space;
use super::tree::Tree;

/// Pages that the arena keeps for what must not fail.
const RESERVED_PAGES: usize = 64;
/// Pages of the space table that a change of one entry dirties at most: it takes a cluster, and frees two.
pub(super) const SPACE_OF_CHANGE: usize = 3;

/// [`Snapshot::cursor`] of a snapshot all of whose clusters have been freed.
pub(super) const EMPTIED: u32 = u32::MAX;

#[derive(Debug)]
pub(super) struct State {
    pub(super) journal: Journal,
    pub(super) space: Space,
    /// Size of the disk.
    pub(super) sectors: u64,
    pub(super) generation: u32,
    /// Snapshot that the disk goes on from.
    pub(super) parent: ObjectId,
    /// Leaves that the map lacks are those of the base.
    pub(super) inherits: bool,
    pub(super) snapshots: Vec<Snapshot>,
    pub(super) pins: Vec<Pin>,
    pub(super) operations: VecDeque<ObjectId>,
    /// As it was written last.
    pub(super) superblock: Superblock,
    /// The mark is there that programs of the first version see.
    pub(super) is_marked: bool,
    /// Leaves of the live map that differ from those on the medium.
    pub(super) dirty: BTreeSet<u32>,
    /// Dirty leaves of a moment that are still to be written.
    pub(super) freeze: Option<Freeze>,
    /// Pages that the checkpoint that is being made may still take.
    pub(super) under_way: usize,
    /// There was no room for a checkpoint.
    pub(super) full: bool,
    /// Pages that are replaced by what the next superblock refers to.
    pub(super) replaced_pages: Vec<u64>,
    /// Pages that could be written again, but that an examination may still read.
    pub(super) held_pages: Option<Vec<u64>>,
    /// Clusters of the disk that are being changed.
    pub(super) changing: HashMap<u64, Changing>,
    /// Changes under way that copy from clusters that the map has now.
    pub(super) copying: usize,
    /// The epoch that began with the last snapshot. A write that was planned before it may still be writing, in place, to a cluster that is the
    /// snapshot's now. A copy of that cluster could lack half of that write, so none is begun until all earlier epochs have
    /// settled.
    pub(super) copy_after: u64,
    /// Freed clusters, each with the number of the record that says so.
    pub(super) freed: Vec<(u64, u32)>,
    /// Freed clusters that wait for an epoch to settle.
    pub(super) settling: Option<Settling>,
    pub(super) wanted: Wanted,
    /// The background looks again only if it is told to.
    pub(super) asleep: bool,
    /// Its threads that do nothing, because it is to rest.
    pub(super) resting: usize,
    /// Deleted snapshots that cannot be freed, because a page that says what is theirs is damaged.
    pub(super) stuck: BTreeSet<ObjectId>,
    /// There was no room to take a snapshot out of the tree that has nothing any more.
    pub(super) removal_lacks_room: bool,
    /// What the next examination is to tell of the opening.
    pub(super) reports: Vec<String>,
    waiting: Vec<Arc<EventFd>>,
}

/// What the background is asked for.
#[derive(Debug, Default)]
pub(super) struct Wanted {
    /// Leaves to load.
    pub(super) leaves: BTreeSet<u32>,
    pub(super) checkpoint: bool,
    /// Freed clusters are needed.
    pub(super) reclaim: bool,
    /// A worker waits for an epoch to settle.
    pub(super) settled: bool,
    /// The background threads are to do nothing for a while.
    pub(super) rest: bool,
    pub(super) stop: bool,
}

/// The state of the map at a moment, as far as it is not on the medium.
#[derive(Debug)]
pub(super) struct Freeze {
    /// First record that is not part of it.
    pub(super) start: u64,
    /// Leaves that have not changed since.
    pub(super) pending: BTreeSet<u32>,
    /// Leaves that have, as they were.
    pub(super) saved: Vec<(u32, Box<Leaf>)>,
    pub(super) live: Arc<Live>,
    pub(super) generation: u32,
    /// The snapshot that it is; none: the live disk.
    pub(super) snapshot: Option<ObjectId>,
    /// The pages that it was made from, if the live disk goes on from others.
    pub(super) tree: Option<Tree>,
}

/// Writes that change the map of one cluster.
#[derive(Debug)]
pub(super) struct Changing {
    /// Physical cluster that is written.
    pub(super) target: u32,
    /// The map has it.
    pub(super) published: bool,
    pub(super) writes: u32,
    /// Blocks that are being written.
    pub(super) blocks: u16,
    /// Nobody can join.
    pub(super) alone: bool,
}

/// Freed clusters and split entries that earlier requests may still look at.
#[derive(Debug)]
pub(super) struct Settling {
    pub(super) epoch: u64,
    pub(super) clusters: Vec<u32>,
    pub(super) live: Arc<Live>,
    pub(super) splits: Vec<u32>,
}

impl State {
    pub(super) fn new(superblock: Superblock, journal: Journal, space: Space) -> Self {
        State {
            journal,
            space,
            sectors: superblock.sectors,
            generation: superblock.generation,
            parent: superblock.parent,
            inherits: superblock.inherits,
            snapshots: Vec::new(),
            pins: Vec::new(),
            operations: superblock.operations.iter().copied().collect(),
            superblock,
            is_marked: false,
            dirty: BTreeSet::new(),
            freeze: None,
            under_way: 0,
            full: false,
            replaced_pages: Vec::new(),
            held_pages: None,
            changing: HashMap::new(),
            copying: 0,
            copy_after: 0,
            asleep: false,
            resting: 0,
            freed: Vec::new(),
            settling: None,
            wanted: Wanted::default(),
            stuck: BTreeSet::new(),
            removal_lacks_room: false,
            reports: Vec::new(),
            waiting: Vec::new(),
        }
    }

    /// The snapshot of an id, hidden or not.
    pub(super) fn snapshot(&self, id: ObjectId) -> Option<&Snapshot> {
        self.snapshots
            .iter()
            .find(|snapshot| id.is_some() && snapshot.id == id)
    }

    pub(super) fn snapshot_mut(&mut self, id: ObjectId) -> Option<&mut Snapshot> {
        self.snapshots
            .iter_mut()
            .find(|snapshot| id.is_some() && snapshot.id == id)
    }

    /// A deleted snapshot that the next checkpoint can take out of the tree: all of its clusters have been freed.
    pub(super) fn emptied(&self) -> Option<Snapshot> {
        let mut snapshots = self.snapshots.iter();
        snapshots
            .find(|snapshot| snapshot.cursor == EMPTIED && !self.stuck.contains(&snapshot.id))
            .copied()
    }

    /// Whether changes are under way that copy from what the live disk and this snapshot share.
    pub(super) fn is_copied_from(&self, id: ObjectId) -> bool {
        self.copying > 0 && self.parent == id
    }

    /// Generation of a snapshot; 0 if there is none.
    pub(super) fn generation_of(&self, id: ObjectId) -> u32 {
        self.snapshot(id).map_or(0, |snapshot| snapshot.generation)
    }

    /// Clusters of the live disk that were born later are its own. While its parent is being deleted, those that only the
    /// two had are its own already, as far as the deletion has come.
    pub(super) fn floor(&self, cluster: u64) -> u32 {
        match self.snapshot(self.parent) {
            Some(parent) if u64::from(parent.cursor) > cluster => self.generation_of(parent.parent),
            Some(parent) => parent.generation,
            None => 0,
        }
    }

    /// Whether a part of the live disk's entry for `cluster` is its own.
    pub(super) fn is_own(&self, cluster: u64, part: Part) -> bool {
        let birth = part.local().and_then(|local| self.space.birth(local));
        birth.is_some_and(|birth| birth > self.floor(cluster))
    }

    /// Clusters that nobody uses when the live disk's entry for `cluster` changes so.
    pub(super) fn freed_by(&self, cluster: u64, old: Entry, new: Entry) -> [u32; 2] {
        let freed = |part: Part| match part.local() {
            Some(local) if self.is_own(cluster, part) && !new.uses(local) => local,
            _ => 0,
        };
        old.parts().map(freed)
    }

    /// To be called before an entry of the leaf changes.
    pub(super) fn touch(&mut self, live: &Arc<Live>, leaf: u32) {
        self.dirty.insert(leaf);
        let Some(freeze) = &mut self.freeze else { return };
        if Arc::ptr_eq(&freeze.live, live)
            && freeze.pending.remove(&leaf)
            && let Some(entries) = live.map.leaf(leaf)
        {
            freeze.saved.push((leaf, Box::new(entries)));
        }
    }

    /// Changes an entry of the live map, as record number `record` says.
    ///
    /// # Errors
    /// [`SplitsExhausted`], which the planning of changes keeps from happening.
    pub(super) fn set_entry(
        &mut self,
        live: &Arc<Live>,
        record: u64,
        cluster: u64,
        entry: Entry,
        fresh: bool,
        freed: &[u32],
    ) -> Result<(), SplitsExhausted> {
        self.touch(live, (cluster / FANOUT as u64) as u32);
        // Before the entry: a reader that sees the entry must see its cluster's birth.
        if fresh && let Some(local) = entry.front.local() {
            let generation = self.generation;
            self.space.set_used(local, generation);
        }
        live.map.set(cluster, entry)?;
        self.free(record, freed);
        Ok(())
    }

    /// Whether time alone brings nothing to be done.
    pub(super) fn is_at_rest(&self) -> bool {
        self.freeze.is_none() && self.settling.is_none() && self.freed.is_empty() && !self.wanted.settled
    }

    /// Clusters hold no data any more, as record number `record` says. Zeros count for none.
    pub(super) fn free(&mut self, record: u64, clusters: &[u32]) {
        for cluster in clusters.iter().copied().filter(|cluster| *cluster != 0) {
            if self.space.set_free(cluster) {
                self.freed.push((record, cluster));
            }
        }
    }

    /// Remembers an operation that was made.
    pub(super) fn remember(&mut self, operation: ObjectId) {
        if !operation.is_some() || self.operations.contains(&operation) {
            return;
        }
        if self.operations.len() == OPERATIONS {
            self.operations.pop_front();
        }
        self.operations.push_back(operation);
    }

    /// Pages of the arena that must be free: for the checkpoint that is being made or due, and for another one, if `leaves`
    /// leaves and `space` pages of the space table were dirty then besides those that are, or will be by what is promised.
    pub(super) fn pages_needed(&self, leaves: usize, space: usize) -> usize {
        let promised = self.journal.promised() as usize;
        let first = match &self.freeze {
            _ if self.under_way > 0 => self.under_way,
            Some(_) => self.pages_due(),
            None => 0,
        };
        let leaves = self.dirty.len() + promised + leaves;
        let space = self.space.dirty().len() + SPACE_OF_CHANGE * promised + space;
        first + self.pages_of_checkpoint(leaves, space)
    }

    /// Pages that the checkpoint that is due takes at most, as far as it is known what it has to write.
    pub(super) fn pages_due(&self) -> usize {
        let frozen = |freeze: &Freeze| freeze.pending.len() + freeze.saved.len();
        let leaves = self.freeze.as_ref().map_or(self.dirty.len(), frozen);
        self.pages_of_checkpoint(leaves, self.space.dirty().len())
    }

    /// Pages that writes keep free besides: for what must not fail, discards and changes by the operator.
    pub(super) fn pages_reserved(&self) -> usize {
        RESERVED_PAGES + self.space.arena_tables()
    }

    /// Pages that whatever gives space back keeps free besides: for pages of the space table that change only because
    /// others move, which change because of those, and so on. Stores of earlier versions may lack them; then it is done
    /// little by little, each time from where a checkpoint has left nothing to be written.
    pub(super) fn pages_for_moves(&self) -> usize {
        if self.gains_pages() {
            self.space.arena_tables()
        } else {
            0
        }
    }

    fn pages_of_checkpoint(&self, leaves: usize, space: usize) -> usize {
        let fanout = FANOUT as u64;
        let all_leaves = super::layout::leaves_of(self.sectors);
        let leaves = (leaves as u64).min(all_leaves);
        // A leaf may have an index page of its own on each level, unless there are not so many.
        let index =
            leaves.min(all_leaves.div_ceil(fanout)) + leaves.min(all_leaves.div_ceil(fanout * fanout)) + 1;
        // Each page that is written, and each that it replaces, may lie in what another page of the space table describes.
        let all_space = u64::from(self.space.clusters()) / SPACE_ENTRIES as u64 + 2;
        let space = (space as u64 + 2 * (leaves + index) + 8).min(all_space);
        let tables = self.snapshots.len() / SNAPSHOTS + self.pins.len() / PINS + 2;
        (leaves + index + space + space.min(all_space / fanout + 1) + 2) as usize + tables
    }

    /// Whether so many pages of the arena are free; it grows if need be.
    pub(super) fn ensure_pages(&mut self, medium: &impl Medium, needed: impl Fn(&State) -> usize) -> bool {
        loop {
            let pages = needed(self);
            if pages <= self.space.free_pages() {
                return true;
            }
            // What is added must be described, too: then it may be that more are needed.
            if let Err(error) = self.space.grow_arena(medium, pages) {
                log::debug!("no more room for metadata: {error}");
                return needed(self) <= self.space.free_pages();
            }
        }
    }

    /// Whether a checkpoint would leave more pages free than there are.
    pub(super) fn gains_pages(&self) -> bool {
        let clean = self.dirty.is_empty() && self.space.dirty().is_empty() && self.replaced_pages.is_empty();
        self.freeze.is_some() || !clean
    }

    /// A deleted snapshot stays, until the store is opened anew: the disk does not need it.
    pub(super) fn give_up_deletion(&mut self, id: ObjectId, damage: &dyn std::fmt::Display) {
        log::error!("deleted snapshot {id:?} cannot be freed: {damage}");
        self.stuck.insert(id);
    }

    /// Gives out the pages that were held for an examination. Returns whether they were held until now.
    pub(super) fn stop_holding_pages(&mut self) -> bool {
        let held = self.held_pages.take();
        let were_held = held.is_some();
        for page in held.into_iter().flatten() {
            self.space.release_page(page);
        }
        were_held
    }

    /// Snapshots that go on from this one, and whether the live disk does.
    pub(super) fn children(&self, id: ObjectId) -> (Vec<ObjectId>, bool) {
        let children = self.snapshots.iter().filter(|snapshot| snapshot.parent == id);
        (children.map(|child| child.id).collect(), self.parent == id)
    }

    /// Has `wake` written to at the next [`State::wake`].
    pub(super) fn wait(&mut self, wake: &Arc<EventFd>) {
        if !self.waiting.iter().any(|waiting| Arc::ptr_eq(waiting, wake)) {
            self.waiting.push(wake.clone());
        }
    }

    /// Writes to the descriptors of all that were told to ask later.
    pub(super) fn wake(&mut self) {
        for wake in self.waiting.drain(..) {
            // Fails only when the counter is full, and then it is being woken already.
            let _ = wake.write(1);
        }
    }

    /// References to the tables' pages that are on the medium.
    pub(super) fn table_pages(&self) -> impl Iterator<Item = PageRef> + '_ {
        self.superblock
            .snapshots
            .iter()
            .chain(&self.superblock.pins)
            .copied()
    }
}
