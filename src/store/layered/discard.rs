//! Discards: blocks that read as zeros from now on, and clusters that are given back.

use std::io;
use std::sync::Arc;

use vmm_sys_util::eventfd::EventFd;

use super::entry::Entry;
use super::format::record::{CLEARED, Record};
use super::format::{CLUSTER_SECTORS, FANOUT};
use super::live::{Live, leaf_of};
use super::medium::Medium;
use super::state::State;
use super::store::LayeredStore;
use super::write::blocks_between;
use crate::store::plan::{BLOCK_SECTORS, Planned};
use crate::units::SectorRange;

/// Records that one call writes at most.
const RECORDS: u64 = 32;

/// Clusters, one after another, that become empty.
struct Clearing {
    first: u64,
    count: u32,
    freed: Vec<u32>,
}

impl<M: Medium> LayeredStore<M> {
    /// See [`crate::store::Store::discard`].
    ///
    /// # Errors
    /// The journal's; a damaged leaf; or the store has failed.
    pub fn discard(&self, range: SectorRange, wake: &Arc<EventFd>) -> io::Result<Planned<u64>> {
        self.ensure_sound()?;
        let (start, end) = (range.start().0, range.start().0 + range.count());
        let live = self.live.load_full();
        let leaf = leaf_of(start / CLUSTER_SECTORS);
        let leaf_end = (u64::from(leaf) + 1) * FANOUT as u64 * CLUSTER_SECTORS;
        if !live.map.is_loaded(leaf) {
            if live.is_present(leaf) {
                self.want_leaf(leaf, wake)?;
                return Ok(Planned::Later);
            }
            return Ok(Planned::Now(leaf_end.min(end) - start));
        }
        let mut guard = self.state();
        let state = &mut *guard;
        if !Arc::ptr_eq(&live, &self.live.load()) {
            let _ = wake.write(1);
            return Ok(Planned::Later);
        }
        let reserve = state.pages_for_moves();
        if !self.may_change(state, leaf, reserve)? {
            self.call_back(state, wake);
            return Ok(Planned::Later);
        }
        state.journal.unreserve(1);
        let done = self.clear(state, &live, start, leaf_end.min(end));
        let done = match done {
            Ok(done) => done,
            Err(error) => {
                drop(guard);
                self.fail(&error);
                return Err(error);
            }
        };
        if done == start {
            self.call_back(state, wake);
            return Ok(Planned::Later);
        }
        Ok(Planned::Now(done - start))
    }

    /// Clears from `start` towards `end`, as far as nobody is writing there. Returns how far it has come.
    fn clear(&self, state: &mut State, live: &Arc<Live>, start: u64, end: u64) -> io::Result<u64> {
        let mut budget = RECORDS.min(state.journal.room().saturating_sub(8));
        let mut clearing: Option<Clearing> = None;
        let mut at = start;
        while at < end && budget > 0 {
            let cluster = at / CLUSTER_SECTORS;
            if state.changing.contains_key(&cluster) {
                break;
            }
            // Two more of which each may be described by a page of its own; what the first frees was asked for.
            let freed = clearing.as_ref().map_or(0, |clearing| clearing.freed.len()) + 2;
            let needed = state.pages_needed(1, freed) + state.space.arena_tables();
            if at > start && needed > state.space.free_pages() {
                break;
            }
            let until = ((cluster + 1) * CLUSTER_SECTORS).min(end);
            let old = live.map.get(cluster).unwrap_or(Entry::EMPTY);
            let first = cluster * CLUSTER_SECTORS;
            let blocks = blocks_between(
                ((at - first) / BLOCK_SECTORS) as u32,
                ((until - first) / BLOCK_SECTORS) as u32,
            );
            let new = old.without(blocks);
            let freed = state
                .freed_by(cluster, old, new)
                .into_iter()
                .filter(|freed| *freed != 0);
            if new == Entry::EMPTY {
                let clearing = clearing.get_or_insert(Clearing {
                    first: cluster,
                    count: 0,
                    freed: Vec::new(),
                });
                clearing.count += 1;
                clearing.freed.extend(freed);
            } else if new != old {
                let mut array = [0; 2];
                array
                    .iter_mut()
                    .zip(freed)
                    .for_each(|(place, freed)| *place = freed);
                let record = Record::Map {
                    cluster,
                    entry: new,
                    fresh: false,
                    freed: array,
                };
                let sequence = state.journal.next();
                self.append(state, &[record])?;
                state
                    .set_entry(live, sequence, cluster, new, false, &array)
                    .map_err(io::Error::other)?;
                budget -= 1;
            }
            at = until;
            // Two may come with the next cluster.
            let full = clearing
                .as_ref()
                .is_some_and(|clearing| clearing.freed.len() + 2 > CLEARED);
            if (full || new != Entry::EMPTY)
                && let Some(clearing) = clearing.take()
            {
                self.write_clearing(state, live, &clearing)?;
                budget -= 1.min(budget);
            }
        }
        if let Some(clearing) = clearing {
            self.write_clearing(state, live, &clearing)?;
        }
        Ok(at)
    }

    fn write_clearing(&self, state: &mut State, live: &Arc<Live>, clearing: &Clearing) -> io::Result<()> {
        let clusters = clearing.first..clearing.first + u64::from(clearing.count);
        if clusters
            .clone()
            .all(|cluster| live.map.get(cluster) == Some(Entry::EMPTY))
        {
            return Ok(());
        }
        let mut freed = [0; CLEARED];
        freed
            .iter_mut()
            .zip(&clearing.freed)
            .for_each(|(place, cluster)| *place = *cluster);
        let record = Record::Clear {
            first: clearing.first,
            count: clearing.count,
            freed,
        };
        let sequence = state.journal.next();
        self.append(state, &[record])?;
        for cluster in clusters {
            state
                .set_entry(live, sequence, cluster, Entry::EMPTY, false, &[])
                .map_err(io::Error::other)?;
        }
        state.free(sequence, &freed);
        Ok(())
    }
}
