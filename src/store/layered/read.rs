//! Plans for reads, without locks.

use std::io;
use std::sync::Arc;

use vmm_sys_util::eventfd::EventFd;

use super::entry::{Entry, Part};
use super::format::{CLUSTER_BLOCKS, CLUSTER_BYTES, CLUSTER_SECTORS, FANOUT};
use super::live::{Live, leaf_of};
use super::medium::Medium;
use super::store::LayeredStore;
use crate::store::plan::{BLOCK_SECTORS, Pass, Planned, ReadPlan, Slot};
use crate::units::{SECTOR_BYTES, SectorRange};

/// Sectors of the disk whose entries are in one leaf.
const LEAF_SECTORS: u64 = FANOUT as u64 * CLUSTER_SECTORS;

/// Where the beginning of a range lies.
enum Located {
    Zeros(u64),
    At { slot: u8, offset: u64, count: u64 },
    NotLoaded(u32),
}

impl<M: Medium> LayeredStore<M> {
    /// See [`crate::store::Store::plan_read`].
    ///
    /// # Errors
    /// The store has failed.
    pub fn plan_read(&self, range: SectorRange, wake: &Arc<EventFd>) -> io::Result<Planned<ReadPlan>> {
        self.ensure_sound()?;
        let pass = self.epochs.enter();
        let located = locate(&self.live.load(), range.start().0, range.count());
        Ok(match located {
            Located::At { slot, offset, count } => Planned::Now(ReadPlan::Transfer {
                slot: Slot(slot),
                offset,
                count,
                pass: Pass(Some(pass)),
            }),
            Located::Zeros(count) => {
                self.epochs.exit(pass);
                Planned::Now(ReadPlan::Zeros { count })
            }
            Located::NotLoaded(leaf) => {
                self.epochs.exit(pass);
                self.want_leaf(leaf, wake)?;
                Planned::Later
            }
        })
    }

    /// Has a leaf loaded.
    pub(super) fn want_leaf(&self, leaf: u32, wake: &Arc<EventFd>) -> io::Result<()> {
        let mut state = self.state();
        let live = self.live.load();
        if live.map.is_loaded(leaf) {
            // The leaf was loaded meanwhile, and so nothing else would wake the worker.
            let _ = wake.write(1);
            return Ok(());
        }
        if let Some(error) = live.damage(leaf) {
            return Err(error);
        }
        state.wanted.leaves.insert(leaf);
        self.call_back(&mut state, wake);
        Ok(())
    }
}

fn locate(live: &Live, start: u64, count: u64) -> Located {
    let end = start + count;
    let mut found: Option<Located> = None;
    let mut at = start;
    while at < end {
        let cluster = at / CLUSTER_SECTORS;
        let Some(entry) = live.get(cluster) else {
            // What was found so far can be read meanwhile.
            return found.unwrap_or(Located::NotLoaded(leaf_of(cluster)));
        };
        let first_block = (at % CLUSTER_SECTORS / BLOCK_SECTORS) as u32;
        let (part, blocks) = run(entry, first_block);
        let mut until = cluster * CLUSTER_SECTORS + u64::from(first_block + blocks) * BLOCK_SECTORS;
        if !part.is_some() {
            // Leaves without entries are passed over at once: there may be millions.
            let leaves = leaf_of(cluster)..leaf_of((end - 1) / CLUSTER_SECTORS) + 1;
            until = until.max(u64::from(live.first_present(leaves)) * LEAF_SECTORS);
        }
        let sectors = until.min(end) - at;
        let offset = place(part, at);
        found = match (found, part.is_some()) {
            (None, true) => Some(Located::At {
                slot: part.slot,
                offset,
                count: sectors,
            }),
            (None, false) => Some(Located::Zeros(sectors)),
            (Some(Located::Zeros(count)), false) => Some(Located::Zeros(count + sectors)),
            (
                Some(Located::At {
                    slot,
                    offset: first,
                    count,
                }),
                true,
            ) if slot == part.slot && first + count * SECTOR_BYTES as u64 == offset => Some(Located::At {
                slot,
                offset: first,
                count: count + sectors,
            }),
            (found, _) => return found.unwrap_or(Located::Zeros(0)),
        };
        at += sectors;
    }
    found.unwrap_or(Located::Zeros(0))
}

/// The part that has the block, and how many blocks from it on; [`Part::NONE`]: so many read as zeros.
fn run(entry: Entry, block: u32) -> (Part, u32) {
    let bit = 1u16 << block;
    let (part, mask) = match entry {
        Entry { front, .. } if front.mask & bit != 0 => (front, front.mask),
        Entry { back, .. } if back.mask & bit != 0 => (back, back.mask),
        _ => (Part::NONE, !entry.mask()),
    };
    (part, (mask >> block).trailing_ones().min(CLUSTER_BLOCKS - block))
}

/// Where a sector of the disk lies that is in this part.
pub(super) fn place(part: Part, sector: u64) -> u64 {
    u64::from(part.cluster) * CLUSTER_BYTES + sector % CLUSTER_SECTORS * SECTOR_BYTES as u64
}
