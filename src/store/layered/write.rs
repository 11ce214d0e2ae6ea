//! Plans for writes, and what becomes of them.
//!
//! Where the disk's own cluster has the blocks already, a write goes there, without locks and without a record. All
//! other writes change the map: they are planned under the lock, carried out by a worker, and made part of the map, with
//! a record before it, when their data has been written.

use std::collections::HashSet;
use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use vmm_sys_util::eventfd::EventFd;

use super::entry::{Entry, Part};
use super::error::LayeredError;
use super::format::record::Record;
use super::format::{CLUSTER_BLOCKS, CLUSTER_BYTES, CLUSTER_SECTORS, FANOUT};
use super::live::{Live, leaf_of};
use super::medium::Medium;
use super::read::place;
use super::state::{Changing, SPACE_OF_CHANGE, State};
use super::store::LayeredStore;
use super::table::is_own;
use crate::store::plan::{
    BLOCK_BYTES, BLOCK_SECTORS, BlocksToCopy, Change, ChangeToken, Pass, Planned, Slot, WritePlan,
};
use crate::units::{SECTOR_BYTES, SectorRange};

/// Of 256 entries, those that may be split: 16 bytes of memory each, 27 MiB for each TiB of the disk.
const SPLITS_OF_256: u64 = 27;
/// Splits that even the smallest disk may have, 8 MiB of memory: up to 32 GiB, every entry can be split.
const FEWEST_SPLITS: u64 = 1 << 19;
/// Leaves that may wait for a checkpoint.
const DIRTY_LEAVES: usize = 8192;

impl<M: Medium> LayeredStore<M> {
    /// See [`crate::store::Store::plan_write`].
    ///
    /// # Errors
    /// `ENOSPC`; a damaged leaf; or the store has failed.
    pub fn plan_write(&self, range: SectorRange, wake: &Arc<EventFd>) -> io::Result<Planned<WritePlan>> {
        self.ensure_sound()?;
        let pass = self.epochs.enter();
        let floor = self.floor.load(Ordering::Acquire);
        let own = self.own_run(&self.live.load(), floor, range);
        if let Some((offset, count)) = own {
            return Ok(Planned::Now(WritePlan::InPlace {
                offset,
                count,
                pass: Pass(Some(pass)),
            }));
        }
        self.epochs.exit(pass);
        self.plan_change(range, wake)
    }

    /// Where the beginning of a range lies, as far as it is the disk's own and in one piece.
    fn own_run(&self, live: &Live, floor: u32, range: SectorRange) -> Option<(u64, u64)> {
        let (start, end) = (range.start().0, range.start().0 + range.count());
        let mut first = None;
        let mut at = start;
        while at < end {
            let Some(entry) = live.map.get(at / CLUSTER_SECTORS) else {
                break;
            };
            let block = (at % CLUSTER_SECTORS / BLOCK_SECTORS) as u32;
            let Some(part) = part_of(entry, block).filter(|part| is_own(&self.births, floor, *part)) else {
                break;
            };
            let offset = place(part, at);
            if *first.get_or_insert(offset) + (at - start) * SECTOR_BYTES as u64 != offset {
                break;
            }
            at += sectors_of_run(part.mask, at).min(end - at);
        }
        first.map(|offset| (offset, at - start))
    }

    fn plan_change(&self, range: SectorRange, wake: &Arc<EventFd>) -> io::Result<Planned<WritePlan>> {
        let start = range.start().0;
        let cluster = start / CLUSTER_SECTORS;
        let count = range.count().min(CLUSTER_SECTORS - start % CLUSTER_SECTORS);
        let live = self.live.load_full();
        let leaf = leaf_of(cluster);
        if !live.map.is_loaded(leaf) && live.is_present(leaf) {
            self.want_leaf(leaf, wake)?;
            return Ok(Planned::Later);
        }
        let mut guard = self.state();
        let state = &mut *guard;
        if !Arc::ptr_eq(&live, &self.live.load()) {
            // Rolled back meanwhile.
            let _ = wake.write(1);
            return Ok(Planned::Later);
        }
        if !live.map.is_loaded(leaf) {
            live.set_present(leaf);
            live.map
                .install(leaf, &[Entry::EMPTY; FANOUT])
                .map_err(io::Error::other)?;
        }
        let entry = live.map.get(cluster).unwrap_or(Entry::EMPTY);
        let wanted = Write::new(state, cluster, entry, start, count);
        if wanted.in_place {
            // A change that is under way may be copying from there.
            if state.changing.contains_key(&cluster) {
                self.call_back(state, wake);
                return Ok(Planned::Later);
            }
            let part = part_of(entry, wanted.first).unwrap_or(Part::NONE);
            return Ok(Planned::Now(WritePlan::InPlace {
                offset: place(part, start),
                count: wanted.count,
                pass: Pass(Some(self.epochs.enter())),
            }));
        }
        let reserve = state.pages_reserved();
        if !self.may_change(state, leaf, reserve)? {
            self.call_back(state, wake);
            return Ok(Planned::Later);
        }
        let planned = self.try_change(state, cluster, entry, &wanted);
        match planned {
            Ok(Some(change)) => Ok(Planned::Now(WritePlan::Change(change))),
            Ok(None) => {
                state.journal.unreserve(1);
                self.call_back(state, wake);
                Ok(Planned::Later)
            }
            Err(error) => {
                state.journal.unreserve(1);
                Err(error)
            }
        }
    }

    /// Whether there is room for one more record, and in the arena, besides `reserve` pages, for what it will dirty. The
    /// record is promised then.
    ///
    /// # Errors
    /// `ENOSPC`, if waiting does not help.
    pub(super) fn may_change(&self, state: &mut State, leaf: u32, reserve: usize) -> io::Result<bool> {
        let leaves = usize::from(!state.dirty.contains(&leaf));
        let needed = |state: &State| state.pages_needed(leaves, SPACE_OF_CHANGE) + reserve;
        let fits = state.ensure_pages(&self.medium, needed);
        let may_wait = leaves == 0 || state.dirty.len() < DIRTY_LEAVES;
        let promised = fits && may_wait && state.journal.reserve(1);
        if !promised && !fits && !state.gains_pages() {
            // Only what is in flight could give some back.
            return match state.journal.promised() {
                0 => Err(super::medium::no_space()),
                _ => Ok(false),
            };
        }
        if !promised || state.journal.is_half_full() {
            state.wanted.checkpoint = true;
            // If there was no room for one, it is tried again after a while.
            if !state.full {
                self.work.notify_all();
            }
        }
        if !promised && state.full {
            return Err(super::medium::no_space());
        }
        Ok(promised)
    }

    fn try_change(
        &self,
        state: &mut State,
        cluster: u64,
        entry: Entry,
        wanted: &Write,
    ) -> io::Result<Option<Change>> {
        let rest = entry.without(wanted.blocks);
        let own = entry.front.local().filter(|_| state.is_own(cluster, entry.front));
        // A map entry has room for two parts.
        let whole = own.is_none() && rest.front.is_some() && (rest.back.is_some() || !self.may_split(state));
        let copied = wanted.partial & entry.mask() | if whole { rest.mask() } else { 0 };
        if copied != 0 && !self.epochs.settled(state.copy_after) {
            state.wanted.settled = true;
            return Ok(None);
        }
        let target = match state.changing.get_mut(&cluster) {
            None => match own {
                Some(own) => own,
                None => match self.take_cluster(state)? {
                    Some(cluster) => cluster,
                    None => return Ok(None),
                },
            },
            // Another write of this cluster is under way. This one may join it, in the same target cluster, if either can be
            // committed without the other:
            //
            // | the disk's own cluster     | the other's target                     | joins if                          |
            // |----------------------------|----------------------------------------|-----------------------------------|
            // | there is one               | the same cluster                       | no block is written by both       |
            // | there is one               | another cluster                        | never                             |
            // | there is none              | not in the map yet, entry not split    | no block is written by both       |
            // | there is none              | in the map, or the entry is split      | never                             |
            //
            // And neither may complete the cluster by copying all of the rest (`alone`, `whole`).
            Some(other) => {
                // Since the other was planned, the disk's own cluster may have become another one, and its target a
                // snapshot's: what the map has and is not the disk's own is never written to.
                let fits = match own {
                    Some(own) => own == other.target,
                    None => !other.published && !entry.back.is_some(),
                };
                let joins = !other.alone && !whole && other.blocks & wanted.blocks == 0 && fits;
                if !joins {
                    return Ok(None);
                }
                other.target
            }
        };
        let blocks = wanted.blocks | if whole { rest.mask() } else { 0 };
        let changing = state.changing.entry(cluster).or_insert(Changing {
            target,
            published: own.is_some(),
            writes: 0,
            blocks: 0,
            alone: whole,
        });
        changing.writes += 1;
        changing.blocks |= blocks;
        let copies = copied != 0;
        state.copying += usize::from(copies);
        let first = blocks.trailing_zeros();
        let last = u16::BITS - blocks.leading_zeros();
        let source = |part: Part| Self::source(part, part.mask & copied, first);
        Ok(Some(Change {
            start: cluster * CLUSTER_SECTORS + u64::from(first) * BLOCK_SECTORS,
            count: u64::from(last - first) * BLOCK_SECTORS,
            data: wanted.count,
            offset: u64::from(target) * CLUSTER_BYTES + u64::from(first) * BLOCK_BYTES as u64,
            sources: entry.parts().map(source),
            token: ChangeToken {
                cluster,
                target,
                blocks,
                whole,
                copies,
                pass: Pass(Some(self.epochs.enter())),
            },
        }))
    }

    fn source(part: Part, mask: u16, span: u32) -> Option<BlocksToCopy> {
        if mask == 0 {
            return None;
        }
        let first = mask.trailing_zeros();
        Some(BlocksToCopy {
            slot: Slot(part.slot),
            offset: u64::from(part.cluster) * CLUSTER_BYTES + u64::from(first) * BLOCK_BYTES as u64,
            first_block: first - span,
            blocks: u16::BITS - mask.leading_zeros() - first,
            mask: mask >> span,
        })
    }

    fn may_split(&self, state: &State) -> bool {
        let clusters = state.sectors.div_ceil(CLUSTER_SECTORS);
        let limit = (clusters / 256 * SPLITS_OF_256).max(FEWEST_SPLITS);
        let splits = self.live.load().map.splits_in_use() + state.changing.len();
        (splits as u64) < limit
    }

    /// A cluster that nobody uses; none if some will be free soon.
    fn take_cluster(&self, state: &mut State) -> io::Result<Option<u32>> {
        match state.space.take(&self.medium) {
            Ok(cluster) => Ok(Some(cluster)),
            Err(_) if !state.freed.is_empty() || state.settling.is_some() => {
                state.wanted.reclaim = true;
                Ok(None)
            }
            Err(error) => Err(error),
        }
    }

    /// See [`crate::store::Store::commit`].
    ///
    /// # Errors
    /// The journal's; then the store has failed.
    pub fn commit(&self, changes: &mut Vec<Change>) -> io::Result<()> {
        if changes.is_empty() {
            return Ok(());
        }
        let outcome = self.ensure_sound().and_then(|()| self.publish(changes));
        match outcome {
            Ok(()) => Ok(()),
            Err(error) => {
                self.fail(&error);
                changes.drain(..).for_each(|change| self.abandon(change));
                Err(error)
            }
        }
    }

    fn publish(&self, changes: &mut Vec<Change>) -> io::Result<()> {
        let live = self.live.load_full();
        let mut guard = self.state();
        let state = &mut *guard;
        let mut rest = &changes[..];
        while !rest.is_empty() {
            let (apart, others) = rest.split_at(different_clusters(rest));
            self.publish_apart(state, &live, apart)?;
            rest = others;
        }
        for change in changes.drain(..) {
            self.forget(state, change.token);
        }
        state.wake();
        Ok(())
    }

    /// Publishes changes of clusters that differ, with one write to the journal.
    fn publish_apart(&self, state: &mut State, live: &Arc<Live>, changes: &[Change]) -> io::Result<()> {
        let records = changes
            .iter()
            .map(|change| record_of(state, live, &change.token))
            .collect::<io::Result<Vec<Record>>>()?;
        let first = state.journal.next();
        self.append(state, &records)?;
        for (sequence, record) in (first..).zip(&records) {
            if let Record::Map {
                cluster,
                entry,
                fresh,
                freed,
            } = record
            {
                state
                    .set_entry(live, sequence, *cluster, *entry, *fresh, freed)
                    .map_err(io::Error::other)?;
                if let Some(changing) = state.changing.get_mut(cluster) {
                    changing.published = true;
                }
            }
        }
        Ok(())
    }

    /// See [`crate::store::Store::abandon`].
    pub fn abandon(&self, change: Change) {
        let mut state = self.state();
        self.forget(&mut state, change.token);
        state.wake();
        // No record tells it that a copy has ended.
        self.work.notify_all();
    }

    fn forget(&self, state: &mut State, token: ChangeToken) {
        state.journal.unreserve(1);
        state.copying -= usize::from(token.copies);
        if let Some(changing) = state.changing.get_mut(&token.cluster) {
            changing.writes -= 1;
            changing.blocks &= !token.blocks;
            if changing.writes == 0 {
                if !changing.published {
                    let target = changing.target;
                    state.space.release(target);
                }
                state.changing.remove(&token.cluster);
            }
        }
        self.end(token.pass);
    }

    /// Sends an error of the store as one of a request.
    pub(super) fn request_error(error: LayeredError) -> io::Error {
        match error {
            LayeredError::Io(error) => error,
            LayeredError::NoSpace => super::medium::no_space(),
            error => io::Error::other(error),
        }
    }
}

/// How many changes from the first on are of clusters that differ. Those of one cluster build on each other: each is looked
/// at when the one before is part of the map.
fn different_clusters(changes: &[Change]) -> usize {
    let mut seen = HashSet::with_capacity(changes.len());
    let again = changes
        .iter()
        .position(|change| !seen.insert(change.token.cluster));
    again.unwrap_or(changes.len())
}

/// What the map has when a change is made.
fn record_of(state: &State, live: &Live, token: &ChangeToken) -> io::Result<Record> {
    let old = live.map.get(token.cluster).unwrap_or(Entry::EMPTY);
    let written = Part {
        cluster: token.target,
        slot: 0,
        mask: token.blocks,
    };
    let entry = if token.whole {
        Entry::of(written, Part::NONE)
    } else {
        old.with(token.target, token.blocks)
    };
    if entry.mask() != old.mask() | token.blocks {
        return Err(io::Error::other("a change would lose blocks of its cluster"));
    }
    Ok(Record::Map {
        cluster: token.cluster,
        entry,
        fresh: state.space.birth(token.target).is_none(),
        freed: state.freed_by(token.cluster, old, entry),
    })
}

/// The beginning of a write that one plan covers.
struct Write {
    /// The first block of the cluster that it touches.
    first: u32,
    /// Its sectors.
    count: u64,
    /// Its blocks.
    blocks: u16,
    /// Blocks that it covers in part.
    partial: u16,
    /// The blocks are the disk's own, so that they are overwritten in place.
    in_place: bool,
}

impl Write {
    fn new(state: &State, cluster: u64, entry: Entry, start: u64, count: u64) -> Self {
        let owned = |part: Part| if state.is_own(cluster, part) { part.mask } else { 0 };
        let [front, back] = entry.parts().map(owned);
        let within = start % CLUSTER_SECTORS;
        let first = (within / BLOCK_SECTORS) as u32;
        let bit = 1u16 << first;
        // A run of blocks that are alike: in one part that is the disk's own, or in none.
        let (mask, in_place) = if front & bit != 0 {
            (front, true)
        } else if back & bit != 0 {
            (back, true)
        } else {
            (!(front | back), false)
        };
        let run = sectors_of_run(mask, start);
        let count = count.min(run);
        let end = within + count;
        let after = end.div_ceil(BLOCK_SECTORS) as u32;
        let blocks = blocks_between(first, after);
        let mut partial = 0;
        if !within.is_multiple_of(BLOCK_SECTORS) {
            partial |= bit;
        }
        if !end.is_multiple_of(BLOCK_SECTORS) {
            partial |= 1 << (after - 1);
        }
        Write {
            first,
            count,
            blocks,
            partial,
            in_place,
        }
    }
}

/// The part that has a block.
fn part_of(entry: Entry, block: u32) -> Option<Part> {
    entry.parts().into_iter().find(|part| part.mask >> block & 1 != 0)
}

/// Sectors from `sector` to the end of the run of set bits that its block is in.
fn sectors_of_run(mask: u16, sector: u64) -> u64 {
    let block = (sector % CLUSTER_SECTORS / BLOCK_SECTORS) as u32;
    let blocks = (mask >> block).trailing_ones().min(CLUSTER_BLOCKS - block);
    (u64::from(block + blocks) * BLOCK_SECTORS).saturating_sub(sector % CLUSTER_SECTORS)
}

/// A mask of the blocks from `first` to before `after`.
pub(super) fn blocks_between(first: u32, after: u32) -> u16 {
    let below = |block: u32| ((1u32 << block) - 1) as u16;
    below(after) & !below(first)
}
