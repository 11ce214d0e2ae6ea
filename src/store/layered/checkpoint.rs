//! Checkpoints: the state goes into pages, so that the journal can go on.
//!
//! The map is written as it was at one record of the journal, by [`Freeze`]: leaves that change meanwhile are put aside
//! as they were. So a snapshot is a freeze whose map is kept. The space table is written as it is when its turn comes:
//! every record says which clusters it takes and gives back, so replaying one that is in the table already changes
//! nothing.
//!
//! Pages that are replaced are not used again before the superblock that does not refer to them is on the medium.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::io;
use std::sync::MutexGuard;

use super::error::LayeredError;
use super::format::entry::{Leaf, put_leaf};
use super::format::page::{self, Kind, Page, Place};
use super::format::record::Record;
use super::format::superblock::Superblock;
use super::format::tables::{PINS, SNAPSHOTS, put_pins, put_snapshots};
use super::format::{CLUSTER_PAGES, ObjectId, PAGE_BYTES, PageRef, SPACE_ENTRIES, VERSION};
use super::medium::Medium;
use super::state::{Freeze, State};
use super::store::LayeredStore;
use super::tree::{Key, MAP, SPACE, Tree, leaf_place};

/// Leaves that are written before workers get the lock again.
const BATCH: usize = 32;
/// Bytes that are written at once at most.
const WRITE_BYTES: usize = 256 << 10;
/// Leaves that the next checkpoint must find pages for, before any is held for an examination.
const LEAVES_LEFT: usize = 64;

/// Proof that nobody else makes a checkpoint.
pub(super) type Maintenance<'a> = MutexGuard<'a, ()>;

impl<M: Medium> LayeredStore<M> {
    /// Makes a checkpoint.
    ///
    /// # Errors
    /// [`LayeredError::NoSpace`], and nothing has changed; others, and the store has failed.
    pub fn checkpoint_now(&self) -> Result<(), LayeredError> {
        let held = self.maintain();
        self.checkpoint(&held)
    }

    /// Makes the last checkpoint. `closing` is random, and takes the place of the boot's id, which no record is asked about any
    /// more: so copies of one store, each opened and closed again, are told apart even where nothing but data was written.
    ///
    /// # Errors
    /// As [`LayeredStore::checkpoint_now`].
    pub fn close(&self, closing: [u8; 16]) -> Result<(), LayeredError> {
        let held = self.maintain();
        self.state().superblock.boot = closing;
        self.checkpoint(&held)
    }

    pub(super) fn checkpoint(&self, held: &Maintenance<'_>) -> Result<(), LayeredError> {
        self.ensure_usable()?;
        // One that is begun must come to its end.
        {
            let mut state = self.state();
            self.ensure_pages(&mut state, State::pages_due)?;
            state.under_way = state.pages_due();
        }
        let made = self.remove_emptied(held).and_then(|()| {
            let start = self.write_frozen(held)?;
            self.write_tables(held, start)
        });
        made.inspect_err(|error| self.fail(error))
    }

    /// Makes sure that so many pages are free.
    ///
    /// # Errors
    /// [`LayeredError::NoSpace`].
    pub(super) fn ensure_pages(
        &self,
        state: &mut State,
        needed: impl Fn(&State) -> usize,
    ) -> Result<(), LayeredError> {
        match state.ensure_pages(&self.medium, needed) {
            true => Ok(()),
            false => Err(LayeredError::NoSpace),
        }
    }

    /// A freeze of the disk as it is now.
    pub(super) fn freeze(&self, state: &mut State, snapshot: Option<ObjectId>, tree: Option<Tree>) {
        state.freeze = Some(Freeze {
            start: state.journal.next(),
            pending: std::mem::take(&mut state.dirty),
            saved: Vec::new(),
            live: self.live.load_full(),
            generation: state.generation,
            snapshot,
            tree,
        });
    }

    /// Takes a deleted snapshot, whose clusters have been freed, out of the tree of snapshots, with its pages.
    fn remove_emptied(&self, _held: &Maintenance<'_>) -> Result<(), LayeredError> {
        let (removed, child, parent_generation) = {
            let mut state = self.state();
            let Some(removed) = state.emptied() else {
                return Ok(());
            };
            state.removal_lacks_room = false;
            let (children, _) = state.children(removed.id);
            let child = children.first().and_then(|child| state.snapshot(*child)).copied();
            // One that is not written yet: at the next checkpoint.
            let frozen = state.freeze.as_ref().and_then(|freeze| freeze.snapshot);
            if frozen
                .is_some_and(|frozen| frozen == removed.id || child.is_some_and(|child| child.id == frozen))
            {
                return Ok(());
            }
            (removed, child, state.generation_of(removed.parent))
        };
        let pages = self.exclusive_pages(
            removed.map,
            parent_generation,
            child.map(|child| child.map),
            removed.id,
        );
        if let Err(LayeredError::Damage(damage)) = &pages {
            self.state().give_up_deletion(removed.id, damage);
            return Ok(());
        }
        let pages = pages?;
        let mut state = self.state();
        if state.is_copied_from(removed.id) {
            // The snapshot's clusters would become the disk's own, and be overwritten while changes copy from them.
            return Ok(());
        }
        // Pages of the space table that the freed pages are entries of.
        let spread: BTreeSet<u64> = pages
            .iter()
            .map(|page| page / (SPACE_ENTRIES as u64 * CLUSTER_PAGES))
            .collect();
        let needed = |state: &State| state.pages_due() + 2 * spread.len();
        if !state.ensure_pages(&self.medium, needed) {
            state.removal_lacks_room = true;
            return Ok(());
        }
        state.under_way = needed(&state);
        let parent = removed.parent;
        for snapshot in state
            .snapshots
            .iter_mut()
            .filter(|snapshot| snapshot.parent == removed.id)
        {
            snapshot.parent = parent;
        }
        if state.parent == removed.id {
            state.parent = parent;
            let floor = state.generation_of(parent);
            self.floor.store(floor, std::sync::atomic::Ordering::Release);
        }
        state.snapshots.retain(|snapshot| snapshot.id != removed.id);
        state.replaced_pages.extend(pages);
        Ok(())
    }

    /// Pages of a map that neither its parent nor its only child has.
    fn exclusive_pages(
        &self,
        map: PageRef,
        parent_generation: u32,
        child: Option<PageRef>,
        id: ObjectId,
    ) -> Result<Vec<u64>, LayeredError> {
        let tree = Tree::load(&self.medium, MAP, self.uuid, map)?;
        let own = |(_, reference): &(Key, PageRef)| reference.generation > parent_generation;
        let only_in = |other: Option<&Tree>| {
            tree.pages()
                .filter(own)
                .filter(|(key, reference)| other.is_none_or(|other| other.page(*key) != *reference))
                .map(|(_, reference)| reference.page)
                .collect()
        };
        Ok(match child {
            Some(child) => only_in(Some(&Tree::load(&self.medium, MAP, self.uuid, child)?)),
            None if self.state().parent == id => only_in(Some(&self.trees().map)),
            None => only_in(None),
        })
    }

    /// Writes the map as it was at the freeze that there is, or as it is now. Returns the first record that is not in it.
    pub(super) fn write_frozen(&self, _held: &Maintenance<'_>) -> Result<u64, LayeredError> {
        let (start, generation, floor, snapshot, other_tree) = {
            let mut state = self.state();
            if state.freeze.is_none() {
                self.freeze(&mut state, None, None);
            }
            let parent = match state.freeze.as_ref().and_then(|freeze| freeze.snapshot) {
                Some(id) => state
                    .snapshot(id)
                    .map_or(ObjectId::NONE, |snapshot| snapshot.parent),
                None => state.parent,
            };
            let floor = state.generation_of(parent);
            let Some(freeze) = &mut state.freeze else {
                return Err(LayeredError::Failed);
            };
            (
                freeze.start,
                freeze.generation,
                floor,
                freeze.snapshot,
                freeze.tree.take(),
            )
        };
        let mut written: Vec<(u32, PageRef)> = Vec::new();
        loop {
            let batch = self.frozen_batch()?;
            if batch.is_empty() {
                break;
            }
            let mut run = Run::new(&self.medium);
            for (leaf, entries, number) in batch {
                let mut page = page::blank();
                put_leaf(&mut page, &entries);
                written.push((
                    leaf,
                    page::seal(&mut page, self.uuid, leaf_place(MAP, leaf), number, generation),
                ));
                run.push(number, &page)?;
            }
            run.end()?;
        }
        let mut trees = self.trees();
        let mut other_tree = other_tree;
        let tree = other_tree.as_mut().unwrap_or(&mut trees.map);
        let mut replaced: Vec<PageRef> = written
            .into_iter()
            .map(|(leaf, reference)| tree.set_leaf(leaf, reference))
            .collect();
        let index = tree.write(|page, place| self.write_page(page, place, generation))?;
        replaced.extend(index);
        let root = tree.root();
        let mut state = self.state();
        // What the parent has is the parent's.
        let own = replaced
            .iter()
            .filter(|page| page.is_some() && page.generation > floor);
        state.replaced_pages.extend(own.map(|reference| reference.page));
        if let Some(snapshot) = snapshot.and_then(|id| state.snapshot_mut(id)) {
            snapshot.map = root;
        }
        state.freeze = None;
        Ok(start)
    }

    /// Some leaves of the freeze, each with a page to write it to.
    fn frozen_batch(&self) -> Result<Vec<(u32, Box<Leaf>, u64)>, LayeredError> {
        let mut guard = self.state();
        let state = &mut *guard;
        let mut batch = Vec::new();
        while batch.len() < BATCH {
            let Some(freeze) = &mut state.freeze else { break };
            let next = match freeze.saved.pop() {
                Some(saved) => Some(saved),
                None => freeze.pending.pop_first().and_then(|leaf| {
                    let entries = freeze.live.map.leaf(leaf)?;
                    Some((leaf, Box::new(entries)))
                }),
            };
            let Some((leaf, entries)) = next else { break };
            batch.push((leaf, entries, self.take_page(state)?));
        }
        Ok(batch)
    }

    fn take_page(&self, state: &mut State) -> Result<u64, LayeredError> {
        state.under_way = state.under_way.saturating_sub(1);
        if let Some(page) = state.space.take_page() {
            return Ok(page);
        }
        state
            .space
            .grow_arena(&self.medium, 16)
            .map_err(|_| LayeredError::NoSpace)?;
        state.space.take_page().ok_or(LayeredError::NoSpace)
    }

    fn write_page(&self, page: &mut Page, place: Place, generation: u32) -> Result<PageRef, LayeredError> {
        let number = {
            let mut state = self.state();
            self.take_page(&mut state)?
        };
        let reference = page::seal(page, self.uuid, place, number, generation);
        self.medium.write(number * PAGE_BYTES as u64, &page[..])?;
        Ok(reference)
    }

    /// Writes everything but the map, and then the superblock that refers to it all. Records from `start` on are those to
    /// be replayed.
    pub(super) fn write_tables(&self, _held: &Maintenance<'_>, start: u64) -> Result<(), LayeredError> {
        let (snapshots, pins) = self.write_lists()?;
        let mut trees = self.trees();
        let (leaves, mut index_pages) = self.place_space_pages(&trees.space)?;
        let generation = self.state().generation;
        let mut run = Run::new(&self.medium);
        for (leaf, number) in &leaves {
            let mut page = page::blank();
            {
                let mut state = self.state();
                state.space.store(*leaf, &mut page);
                state.space.is_clean(*leaf);
            }
            let reference = page::seal(
                &mut page,
                self.uuid,
                leaf_place(SPACE, *leaf),
                *number,
                generation,
            );
            run.push(*number, &page)?;
            trees.space.set_leaf(*leaf, reference);
        }
        run.end()?;
        trees.space.write(|page, place| {
            let number = index_pages.pop_front().ok_or(LayeredError::NoSpace)?;
            let reference = page::seal(page, self.uuid, place, number, generation);
            self.medium.write(number * PAGE_BYTES as u64, &page[..])?;
            Ok::<_, LayeredError>(reference)
        })?;
        let superblock = {
            let state = self.state();
            Superblock {
                version: VERSION,
                uuid: self.uuid,
                sequence: state.superblock.sequence + 1,
                sectors: state.sectors,
                incarnation: state.journal.incarnation(),
                generation: state.generation,
                journal_start: start,
                committed: state.journal.next(),
                clusters: state.space.clusters(),
                inherits: state.inherits,
                parent: state.parent,
                map: trees.map.root(),
                space: trees.space.root(),
                snapshots,
                pins,
                operations: state.operations.iter().copied().collect(),
                ..state.superblock.clone()
            }
        };
        drop(trees);
        self.switch(superblock)
    }

    /// Writes snapshots and pins, and gives up the pages that they had.
    fn write_lists(&self) -> Result<(Vec<PageRef>, Vec<PageRef>), LayeredError> {
        let (snapshots, pins, generation) = {
            let mut state = self.state();
            let old: Vec<u64> = state.table_pages().map(|reference| reference.page).collect();
            state.replaced_pages.extend(old);
            (state.snapshots.clone(), state.pins.clone(), state.generation)
        };
        let write = |kind, position: usize, fill: &dyn Fn(&mut Page)| {
            let mut page = page::blank();
            fill(&mut page);
            let place = Place {
                kind,
                position: position as u64,
            };
            self.write_page(&mut page, place, generation)
        };
        let snapshots = snapshots
            .chunks(SNAPSHOTS)
            .enumerate()
            .map(|(index, chunk)| write(Kind::Snapshots, index, &|page| put_snapshots(page, chunk)))
            .collect::<Result<_, _>>()?;
        let pins = pins
            .chunks(PINS)
            .enumerate()
            .map(|(index, chunk)| write(Kind::Pins, index, &|page| put_pins(page, chunk)))
            .collect::<Result<_, _>>()?;
        Ok((snapshots, pins))
    }

    /// Decides where changed pages of the space table, and the index pages above, are written to. That changes the table
    /// itself, and so on until nothing changes any more. From here on the table says what will be true with the next
    /// superblock.
    fn place_space_pages(&self, tree: &Tree) -> Result<(BTreeMap<u32, u64>, VecDeque<u64>), LayeredError> {
        let mut guard = self.state();
        let state = &mut *guard;
        for page in state.replaced_pages.clone() {
            state.space.free_page(page);
        }
        let mut leaves: BTreeMap<u32, u64> = BTreeMap::new();
        let mut index: BTreeSet<Key> = BTreeSet::new();
        let mut index_pages = VecDeque::new();
        loop {
            let new: Vec<u32> = state
                .space
                .dirty()
                .iter()
                .copied()
                .filter(|leaf| !leaves.contains_key(leaf))
                .collect();
            let keys = tree.index_with(leaves.keys().copied().chain(new.iter().copied()));
            let new_keys: Vec<Key> = keys.difference(&index).copied().collect();
            if new.is_empty() && new_keys.is_empty() {
                return Ok((leaves, index_pages));
            }
            for leaf in new {
                leaves.insert(leaf, self.take_page(state)?);
                give_up(state, tree.leaf(leaf));
            }
            for key in new_keys {
                index_pages.push_back(self.take_page(state)?);
                give_up(state, tree.page(key));
                index.insert(key);
            }
        }
    }

    /// Makes the superblock count.
    fn switch(&self, superblock: Superblock) -> Result<(), LayeredError> {
        // Pages, records below `committed`, and the data of those.
        self.sync_medium()?;
        self.write_superblock(&superblock)?;
        self.sync_medium()?;
        // Either copy alone leads to this state then, whatever becomes of the other one and of the journal.
        let twin = Superblock {
            sequence: superblock.sequence + 1,
            ..superblock
        };
        self.write_superblock(&twin)?;
        let mut state = self.state();
        state.journal.set_start(twin.journal_start);
        state.journal.set_committed(twin.committed);
        // Nobody waits for this second copy to be on the medium. After a power cut the former copy may be the one that is
        // found, and it says a smaller number of records that must be there: so that number is in a record, too.
        let upto = twin.committed;
        state.journal.append(&self.medium, &[Record::Commit { upto }])?;
        state.superblock = twin;
        state.under_way = 0;
        state.full = false;
        let replaced = std::mem::take(&mut state.replaced_pages);
        match &mut state.held_pages {
            Some(held) => held.extend(replaced),
            None => replaced
                .into_iter()
                .for_each(|page| state.space.release_page(page)),
        }
        if state.space.free_pages() < state.pages_needed(LEAVES_LEFT, 0) {
            state.stop_holding_pages();
        }
        state.wanted.checkpoint = false;
        state.wake();
        Ok(())
    }

    /// Writes a superblock over the older copy.
    pub(super) fn write_superblock(&self, superblock: &Superblock) -> io::Result<()> {
        self.medium
            .write(superblock.page() * PAGE_BYTES as u64, &superblock.encode()[..])
    }
}

fn give_up(state: &mut State, old: PageRef) {
    if old.is_some() {
        state.space.free_page(old.page);
        state.replaced_pages.push(old.page);
    }
}

/// Pages one after another, written together.
struct Run<'a, M> {
    medium: &'a M,
    first: u64,
    bytes: Vec<u8>,
}

impl<'a, M: Medium> Run<'a, M> {
    fn new(medium: &'a M) -> Self {
        Run {
            medium,
            first: 0,
            bytes: Vec::new(),
        }
    }

    fn push(&mut self, number: u64, page: &Page) -> io::Result<()> {
        let next = self.first + (self.bytes.len() / PAGE_BYTES) as u64;
        if number != next || self.bytes.len() >= WRITE_BYTES {
            self.end()?;
            self.first = number;
        }
        self.bytes.extend_from_slice(page);
        Ok(())
    }

    fn end(&mut self) -> io::Result<()> {
        if !self.bytes.is_empty() {
            self.medium.write(self.first * PAGE_BYTES as u64, &self.bytes)?;
            self.bytes.clear();
        }
        Ok(())
    }
}
