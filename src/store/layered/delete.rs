//! Frees, in the background, what only a deleted snapshot holds.
//!
//! Entry by entry, a cluster of the snapshot is free if it was born after the snapshot's parent, and the one that goes on
//! from the snapshot does not use it: clusters never move to another entry, and those who share one are neighbours in
//! the tree of snapshots. How far this has come is written with every step. When all is done, the next checkpoint takes
//! the snapshot out of the tree.
//!
//! A snapshot that two go on from stays, because they would not be neighbours without it.

use super::entry::Entry;
use super::error::LayeredError;
use super::format::entry::Leaf;
use super::format::record::{FREED, Record};
use super::format::tables::Snapshot;
use super::format::{FANOUT, ObjectId};
use super::live::read_leaf;
use super::medium::Medium;
use super::state::{EMPTIED, State};
use super::store::LayeredStore;
use super::tree::{MAP, Tree};

/// Leaves that are compared in one step at most.
const LEAVES: usize = 16;
/// Clusters that are freed between two checkpoints where the arena has few pages.
const FEW: usize = 8;
/// Records that must be left in the journal for others.
const RECORDS_LEFT: u64 = 256;

/// A deletion that is going on: the maps do not have to be read again at each step.
#[derive(Debug)]
pub(super) struct Deletion {
    id: ObjectId,
    child: Option<ObjectId>,
    map: Tree,
    child_map: Option<Tree>,
}

impl<M: Medium> LayeredStore<M> {
    /// Goes on with the deletion of one snapshot. Returns whether there was something to do.
    ///
    /// # Errors
    /// [`LayeredError`].
    pub(super) fn delete_some(&self, deletion: &mut Option<Deletion>) -> Result<bool, LayeredError> {
        let _held = self.maintain();
        self.ensure_usable()?;
        let Some((snapshot, child)) = self.deletable() else {
            *deletion = None;
            return Ok(false);
        };
        match self.go_on_deleting(&snapshot, child, deletion) {
            Err(LayeredError::Damage(damage)) => self.state().give_up_deletion(snapshot.id, &damage),
            goes_on => return goes_on,
        }
        Ok(true)
    }

    fn go_on_deleting(
        &self,
        snapshot: &Snapshot,
        child: Option<ObjectId>,
        deletion: &mut Option<Deletion>,
    ) -> Result<bool, LayeredError> {
        let current = match deletion.take() {
            Some(current) if current.id == snapshot.id && current.child == child => deletion.insert(current),
            _ => deletion.insert(self.begin_deletion(snapshot, child)?),
        };
        self.free_leaves(snapshot, current)
    }

    /// The deleted snapshot whose turn it is, and the snapshot that goes on from it.
    fn deletable(&self) -> Option<(Snapshot, Option<ObjectId>)> {
        let mut state = self.state();
        if let Some(emptied) = state.emptied() {
            // One after another: the parent of the next one may be this one.
            let in_vain = state.removal_lacks_room || state.is_copied_from(emptied.id);
            state.wanted.checkpoint |= !in_vain;
            return None;
        }
        if state.journal.room() < RECORDS_LEFT || state.journal.is_half_full() {
            state.wanted.checkpoint = true;
            return None;
        }
        let frozen = state.freeze.as_ref().and_then(|freeze| freeze.snapshot);
        let is_pinned = |id: ObjectId| state.pins.iter().any(|pin| pin.id == id);
        // A deletion that was begun goes first, even if it has to wait. Were its parent deleted
        // first, what only these two have in the leaves that it has passed would be freed by neither.
        let (stuck, begun): (Vec<&Snapshot>, Vec<&Snapshot>) = state
            .snapshots
            .iter()
            .filter(|snapshot| snapshot.cursor > 0)
            .partition(|snapshot| state.stuck.contains(&snapshot.id));
        // Nor do the neighbours of one that cannot go on.
        let is_held = |snapshot: &Snapshot| {
            let mut stuck = stuck.iter();
            stuck.any(|other| other.parent == snapshot.id || other.id == snapshot.parent)
        };
        let next = state
            .snapshots
            .iter()
            .filter(|snapshot| begun.is_empty() || snapshot.cursor > 0)
            .filter(|snapshot| snapshot.hidden && !is_pinned(snapshot.id) && frozen != Some(snapshot.id))
            .filter(|snapshot| snapshot.cursor != EMPTIED && !state.stuck.contains(&snapshot.id))
            .filter(|snapshot| !is_held(snapshot))
            .filter(|snapshot| {
                let (children, live) = state.children(snapshot.id);
                children.len() + usize::from(live) <= 1
                    && children.first().copied().is_none_or(|id| frozen != Some(id))
            })
            .max_by_key(|snapshot| snapshot.cursor)?;
        let (children, _) = state.children(next.id);
        Some((*next, children.first().copied()))
    }

    fn begin_deletion(&self, snapshot: &Snapshot, child: Option<ObjectId>) -> Result<Deletion, LayeredError> {
        let child_map = child.and_then(|child| self.state().snapshot(child).map(|child| child.map));
        let load = |map| Tree::load(&self.medium, MAP, self.uuid, map);
        Ok(Deletion {
            id: snapshot.id,
            child,
            map: load(snapshot.map)?,
            child_map: child_map.map(load).transpose()?,
        })
    }

    /// Frees clusters of some leaves. Returns whether it can go on.
    fn free_leaves(&self, snapshot: &Snapshot, deletion: &Deletion) -> Result<bool, LayeredError> {
        let cursor = snapshot.cursor / FANOUT as u32;
        let mut leaves = deletion.map.leaves().filter(|(leaf, _)| *leaf >= cursor);
        for _ in 0..LEAVES {
            let Some((leaf, reference)) = leaves.next() else {
                self.free(snapshot, EMPTIED, &[])?;
                return Ok(true);
            };
            let after = (leaf + 1) * FANOUT as u32;
            let is_live = deletion.child.is_none() && self.state().parent == snapshot.id;
            let childs = match &deletion.child_map {
                Some(map) => map.leaf(leaf),
                None if is_live => self.trees().map.leaf(leaf),
                None => super::format::PageRef::NONE,
            };
            // Read before it is decided: the lock is not held during I/O.
            let ours = read_leaf(&self.medium, self.uuid, leaf, reference)?;
            let theirs = match deletion.child_map {
                Some(_) if childs.is_some() => Some(read_leaf(&self.medium, self.uuid, leaf, childs)?),
                Some(_) => None,
                None if is_live => {
                    let live = self.live.load_full();
                    if childs == reference && !live.map.is_loaded(leaf) {
                        Some(ours.clone())
                    } else {
                        self.load_leaf(&live, leaf)?;
                        None
                    }
                }
                None => None,
            };
            let mut state = self.state();
            let theirs = match theirs {
                None if is_live => self.live.load().map.leaf(leaf).map(Box::new),
                // Loaded, and perhaps changed, in between.
                Some(_) if is_live && self.live.load().map.is_loaded(leaf) => {
                    self.live.load().map.leaf(leaf).map(Box::new)
                }
                theirs => theirs,
            };
            let freed = freed(&state, snapshot, leaf, &ours, theirs.as_deref());
            let cost = (freed.len() / FREED + 1) as u64;
            if state.journal.room() < RECORDS_LEFT + cost {
                state.wanted.checkpoint = true;
                return Ok(true);
            }
            let (some, rest) = freed.split_at(self.affordable(&mut state, &freed));
            if let Some((entry, _)) = rest.first() {
                // As much as can be described by the next checkpoint. What that leaves free pays for the rest.
                let goes_on = state.gains_pages() || !some.is_empty();
                if !some.is_empty() {
                    self.write_freed(&mut state, snapshot, *entry, some)?;
                }
                state.wanted.checkpoint |= goes_on;
                return Ok(goes_on);
            }
            self.write_freed(&mut state, snapshot, after, &freed)?;
        }
        Ok(true)
    }

    /// How many of these clusters can be freed now: each may be described by another page of the space table. Those of one
    /// entry go together.
    fn affordable(&self, state: &mut State, freed: &[(u32, u32)]) -> usize {
        let needed = |state: &State| state.pages_needed(0, freed.len()) + state.space.arena_tables();
        if state.ensure_pages(&self.medium, needed) {
            return freed.len();
        }
        let needed = state.pages_needed(0, 0) + state.pages_for_moves();
        // Each takes a page of the table, and one of its index.
        let spare = (state.space.free_pages().saturating_sub(needed) / 2).min(FEW);
        let entry = |number: usize| freed.get(number).map(|(entry, _)| *entry);
        let mut count = spare.min(freed.len());
        while count > 0 && entry(count) == entry(count - 1) {
            count -= 1;
        }
        count
    }

    fn free(&self, snapshot: &Snapshot, cursor: u32, freed: &[(u32, u32)]) -> Result<(), LayeredError> {
        let mut state = self.state();
        self.write_freed(&mut state, snapshot, cursor, freed)?;
        state.wanted.checkpoint = true;
        self.work.notify_all();
        Ok(())
    }

    /// Writes records for clusters that are free, each with the entry it was freed from; afterwards everything before
    /// `cursor` is done.
    fn write_freed(
        &self,
        state: &mut State,
        snapshot: &Snapshot,
        cursor: u32,
        freed: &[(u32, u32)],
    ) -> Result<(), LayeredError> {
        let mut records: Vec<Record> = Vec::new();
        let mut at = 0;
        while at < freed.len() {
            // Both parts of an entry are freed by the same record.
            let mut end = (at + FREED).min(freed.len());
            if end < freed.len() && freed[end].0 == freed[end - 1].0 {
                end -= 1;
            }
            let mut clusters = [0; FREED];
            clusters
                .iter_mut()
                .zip(&freed[at..end])
                .for_each(|(place, (_, cluster))| *place = *cluster);
            records.push(Record::Free {
                generation: snapshot.generation,
                cursor: freed[end - 1].0 + 1,
                freed: clusters,
            });
            at = end;
        }
        match records.last_mut() {
            Some(Record::Free { cursor: last, .. }) => *last = cursor,
            _ => records.push(Record::Free {
                generation: snapshot.generation,
                cursor,
                freed: [0; FREED],
            }),
        }
        let first = state.journal.next();
        state
            .journal
            .append(&self.medium, &records)
            .inspect_err(|error| {
                log::error!("a deleted snapshot cannot be freed: {error}");
            })?;
        let clusters: Vec<u32> = freed.iter().map(|(_, cluster)| *cluster).collect();
        state.free(first + records.len() as u64 - 1, &clusters);
        if let Some(snapshot) = state.snapshot_mut(snapshot.id) {
            snapshot.cursor = cursor;
        }
        Ok(())
    }
}

/// Clusters of a leaf that are the snapshot's alone and have not been freed, each with its entry's number in the map.
fn freed(
    state: &State,
    snapshot: &Snapshot,
    leaf: u32,
    ours: &Leaf,
    theirs: Option<&Leaf>,
) -> Vec<(u32, u32)> {
    let entries = (leaf * FANOUT as u32..).zip(ours.iter().enumerate());
    entries
        .filter(|(number, _)| *number >= snapshot.cursor)
        .flat_map(|(number, (index, entry))| {
            let other = theirs.map_or(Entry::EMPTY, |theirs| theirs[index]);
            let alone = alone(state, snapshot, *entry, &[other]);
            alone.into_iter().flatten().map(move |cluster| (number, cluster))
        })
        .collect()
}

/// Clusters of a snapshot's entry that neither its parent has nor those that go on from it.
pub(super) fn alone(
    state: &State,
    snapshot: &Snapshot,
    entry: Entry,
    children: &[Entry],
) -> [Option<u32>; 2] {
    let floor = state.generation_of(snapshot.parent);
    entry.parts().map(|part| {
        part.local().filter(|cluster| {
            let born_later = state.space.birth(*cluster).is_some_and(|birth| birth > floor);
            born_later && !children.iter().any(|child| child.uses(*cluster))
        })
    })
}
