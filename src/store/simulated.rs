//! A layered store in memory, for tests of those who carry out its plans: it plans changes of every kind, makes who asks wait,
//! and fails where it is told to.

use std::collections::{HashMap, HashSet};
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::{Arc, Mutex, MutexGuard};

use vmm_sys_util::eventfd::EventFd;

use super::plan::{
    BLOCK_BYTES, BLOCK_SECTORS, BlocksToCopy, Change, ChangeToken, FlushPoint, Pass, Planned, ReadPlan, Slot,
    WritePlan,
};
use super::poison::Poison;
use crate::units::SectorRange;

const CLUSTER_BYTES: u64 = 64 << 10;
const CLUSTER_SECTORS: u64 = CLUSTER_BYTES / 512;
const CLUSTER_BLOCKS: u32 = (CLUSTER_BYTES / BLOCK_BYTES as u64) as u32;

/// Slot 0 is a file of its own, slot 1 a read-only base.
#[derive(Debug)]
pub struct SimulatedStore {
    own: File,
    base: File,
    state: Mutex<State>,
    pub(super) poison: Poison,
}

#[derive(Debug, Default)]
pub(crate) struct State {
    map: HashMap<u64, Entry>,
    next_cluster: u32,
    /// Clusters that a change is being made to.
    busy: HashSet<u64>,
    waiting: Vec<Arc<EventFd>>,
    pub(crate) passes: usize,
    plans: u32,
    /// One plan in so many is told to ask again at once.
    pub(crate) later_one_in: Option<u32>,
    /// New clusters that there is room for.
    pub(crate) room: u32,
    pub(crate) commits_fail: bool,
    pub(crate) marks_fail: bool,
    /// Changes, and those of them that a flush has made durable.
    changes: u64,
    durable: u64,
    marked: Option<u64>,
    pub(crate) flushes: u32,
    pub(crate) most_in_a_commit: usize,
}

#[derive(Clone, Copy, Debug)]
struct Entry {
    slot: Slot,
    cluster: u32,
    valid: u16,
    shared: bool,
}

impl SimulatedStore {
    /// `base`: cluster n of the disk is cluster n of that file, for as many as it has.
    pub(crate) fn new(own: File, base: File) -> Self {
        let clusters = base.metadata().unwrap().len() / CLUSTER_BYTES;
        let of_base = |cluster| Entry {
            slot: Slot(1),
            cluster: cluster as u32,
            valid: u16::MAX,
            shared: true,
        };
        let state = State {
            map: (0..clusters).map(|cluster| (cluster, of_base(cluster))).collect(),
            room: u32::MAX,
            ..State::default()
        };
        SimulatedStore {
            own,
            base,
            state: Mutex::new(state),
            poison: Poison::default(),
        }
    }

    pub(crate) fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }

    /// From now on every cluster is shared with a snapshot.
    pub(crate) fn snapshot(&self) {
        for entry in self.state().map.values_mut() {
            entry.shared = true;
        }
    }

    /// Whether everything that was handed out has been given back.
    pub(crate) fn is_at_rest(&self) -> bool {
        let state = self.state();
        state.passes == 0 && state.busy.is_empty()
    }

    /// Whether a power cut would lose nothing.
    pub(crate) fn is_durable(&self) -> bool {
        let state = self.state();
        state.durable == state.changes
    }

    pub(super) fn file(&self, slot: Slot) -> BorrowedFd<'_> {
        match slot {
            Slot(0) => self.own.as_fd(),
            _ => self.base.as_fd(),
        }
    }

    pub(super) fn plan_read(&self, range: SectorRange, wake: &Arc<EventFd>) -> Planned<ReadPlan> {
        let mut state = self.state();
        if state.puts_off(wake) {
            return Planned::Later;
        }
        let (cluster, range) = within_cluster(range);
        let entry = state.map.get(&cluster).copied();
        let is_valid = |sector: u64| entry.is_some_and(|entry| entry.valid >> block_of(sector) & 1 == 1);
        let start = range.start().0;
        let run = (start..start + range.count()).take_while(|sector| is_valid(*sector) == is_valid(start));
        let count = run.count() as u64;
        match entry {
            Some(entry) if is_valid(start) => {
                state.passes += 1;
                Planned::Now(ReadPlan::Transfer {
                    slot: entry.slot,
                    offset: offset(entry.cluster, start),
                    count,
                    pass: Pass(None),
                })
            }
            _ => Planned::Now(ReadPlan::Zeros { count }),
        }
    }

    pub(super) fn plan_write(
        &self,
        range: SectorRange,
        wake: &Arc<EventFd>,
    ) -> io::Result<Planned<WritePlan>> {
        let mut state = self.state();
        let (cluster, range) = within_cluster(range);
        if state.puts_off(wake) || state.is_busy(cluster, wake) {
            return Ok(Planned::Later);
        }
        let entry = state.map.get(&cluster).copied();
        let range = beginning_alike(range, entry);
        let (start, end) = (range.start().0, range.start().0 + range.count());
        let touched = mask(block_of(start), block_of(end - 1) + 1);
        if let Some(entry) = entry.filter(|entry| !entry.shared && entry.valid & touched == touched) {
            state.passes += 1;
            return Ok(Planned::Now(WritePlan::InPlace {
                offset: offset(entry.cluster, start),
                count: range.count(),
                pass: Pass(None),
            }));
        }
        let fresh = entry.is_none_or(|entry| entry.shared);
        let target = match entry {
            Some(entry) if !fresh => entry.cluster,
            _ => {
                state.room = state
                    .room
                    .checked_sub(1)
                    .ok_or_else(|| io::Error::from_raw_os_error(libc::ENOSPC))?;
                state.next_cluster += 1;
                state.next_cluster
            }
        };
        // Of a shared cluster all is copied, in two sources; of an own one nothing.
        let valid = entry.map_or(0, |entry| entry.valid);
        let span = if fresh && valid != 0 { u16::MAX } else { touched };
        let first = span.trailing_zeros();
        let blocks = span.count_ones();
        let source = |mask: u16| {
            let from = mask.trailing_zeros();
            let entry = entry.filter(|_| mask != 0)?;
            Some(BlocksToCopy {
                slot: entry.slot,
                offset: offset(
                    entry.cluster,
                    cluster * CLUSTER_SECTORS + u64::from(from) * BLOCK_SECTORS,
                ),
                first_block: from - first,
                blocks: u16::BITS - mask.leading_zeros() - from,
                mask: mask >> first,
            })
        };
        state.busy.insert(cluster);
        state.passes += 1;
        let span_start = cluster * CLUSTER_SECTORS + u64::from(first) * BLOCK_SECTORS;
        Ok(Planned::Now(WritePlan::Change(Change {
            start: span_start,
            count: u64::from(blocks) * BLOCK_SECTORS,
            data: range.count(),
            offset: offset(target, span_start),
            sources: [source(span & valid & 0x0ff0), source(span & valid & 0xf00f)],
            token: ChangeToken {
                cluster,
                target,
                blocks: span,
                whole: fresh,
                copies: false,
                pass: Pass(None),
            },
        })))
    }

    pub(super) fn end(&self) {
        self.state().passes -= 1;
    }

    pub(super) fn commit(&self, changes: &mut Vec<Change>) -> io::Result<()> {
        let mut state = self.state();
        if state.commits_fail {
            return Err(io::Error::from_raw_os_error(libc::EIO));
        }
        state.most_in_a_commit = state.most_in_a_commit.max(changes.len());
        for change in changes.drain(..) {
            let token = &change.token;
            let before = state.map.get(&token.cluster).filter(|_| !token.whole);
            let valid = before.map_or(0, |entry| entry.valid) | token.blocks;
            let entry = Entry {
                slot: Slot(0),
                cluster: token.target,
                valid,
                shared: false,
            };
            state.map.insert(token.cluster, entry);
            state.changes += 1;
            state.give_back(&change);
        }
        Ok(())
    }

    pub(super) fn abandon(&self, change: &Change) {
        self.state().give_back(change);
    }

    pub(super) fn discard(&self, range: SectorRange, wake: &Arc<EventFd>) -> Planned<u64> {
        let mut state = self.state();
        let (cluster, range) = within_cluster(range);
        assert!(range.start().0.is_multiple_of(BLOCK_SECTORS) && range.count().is_multiple_of(BLOCK_SECTORS));
        if state.puts_off(wake) || state.is_busy(cluster, wake) {
            return Planned::Later;
        }
        let first = block_of(range.start().0);
        let cleared = mask(first, first + (range.count() / BLOCK_SECTORS) as u32);
        if let Some(entry) = state.map.get_mut(&cluster) {
            entry.valid &= !cleared;
            state.changes += 1;
        }
        Planned::Now(range.count())
    }

    pub(super) fn begin_flush(&self) -> FlushPoint {
        let mut state = self.state();
        assert!(state.marked.is_none(), "one flush at a time");
        let point = (state.changes > state.durable).then_some(state.changes);
        state.marked = point.is_none().then_some(state.changes);
        FlushPoint(point)
    }

    pub(super) fn mark(&self, point: FlushPoint) -> io::Result<()> {
        let mut state = self.state();
        if state.marks_fail {
            return Err(io::Error::from_raw_os_error(libc::EIO));
        }
        state.marked = point.0;
        Ok(())
    }

    pub(super) fn flushed(&self) {
        let mut state = self.state();
        state.durable = state.marked.take().expect("marked before");
        state.flushes += 1;
    }
}

/// Of a write to an own cluster, the beginning whose blocks are all valid or all not: a change that wrote valid ones again
/// would undo writes in place that are in flight there.
fn beginning_alike(range: SectorRange, entry: Option<Entry>) -> SectorRange {
    let Some(entry) = entry.filter(|entry| !entry.shared) else {
        return range;
    };
    let is_valid = |sector: u64| entry.valid >> block_of(sector) & 1 == 1;
    let start = range.start().0;
    let alike = (start..start + range.count()).take_while(|sector| is_valid(*sector) == is_valid(start));
    range.slice(0, alike.count() as u64)
}

impl State {
    fn puts_off(&mut self, wake: &Arc<EventFd>) -> bool {
        self.plans += 1;
        let off = self.later_one_in.is_some_and(|n| self.plans.is_multiple_of(n));
        if off {
            wake.write(1).unwrap();
        }
        off
    }

    fn is_busy(&mut self, cluster: u64, wake: &Arc<EventFd>) -> bool {
        let busy = self.busy.contains(&cluster);
        if busy {
            self.waiting.push(wake.clone());
        }
        busy
    }

    fn give_back(&mut self, change: &Change) {
        assert!(self.busy.remove(&change.token.cluster));
        self.passes -= 1;
        for wake in self.waiting.drain(..) {
            wake.write(1).unwrap();
        }
    }
}

fn within_cluster(range: SectorRange) -> (u64, SectorRange) {
    let start = range.start().0;
    let left = CLUSTER_SECTORS - start % CLUSTER_SECTORS;
    (start / CLUSTER_SECTORS, range.slice(0, left))
}

fn block_of(sector: u64) -> u32 {
    (sector % CLUSTER_SECTORS / BLOCK_SECTORS) as u32
}

fn offset(cluster: u32, sector: u64) -> u64 {
    u64::from(cluster) * CLUSTER_BYTES + sector % CLUSTER_SECTORS * 512
}

/// Bits `from..to`.
fn mask(from: u32, to: u32) -> u16 {
    assert!(from < to && to <= CLUSTER_BLOCKS);
    (((1u32 << to) - 1) & !((1u32 << from) - 1)) as u16
}
