//! What a store answers to a worker that wants to read or write: where, and what else has to be done.
//!
//! A worker asks for a range and is answered for its beginning, as far as one transfer reaches. What it is given
//! says what must be handed back when the transfer has ended, whatever came of it.

use super::layered::epoch;
use crate::units::SECTOR_BYTES;

/// Bytes of a block: the unit in which a layered store knows what is written.
pub const BLOCK_BYTES: usize = 4096;

/// Sectors of a block.
pub const BLOCK_SECTORS: u64 = (BLOCK_BYTES / SECTOR_BYTES) as u64;

/// An answer, or the advice to ask again.
#[derive(Debug)]
pub enum Planned<T> {
    /// The answer.
    Now(T),
    /// The store cannot answer yet. It writes to the descriptor that came with the question when it is time to ask again.
    Later,
}

/// One of the files that a store reads: 0 is its own, the others are bases.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Slot(pub u8);

/// The right to use a place that a plan named: as long as it is held, that place is given to nobody else. To be given
/// back with [`super::Store::end`] when the transfer has ended.
#[derive(Debug)]
#[must_use = "a pass that is not given back holds up the store for ever"]
pub struct Pass(pub(super) Option<epoch::Pass>);

/// How to read the beginning of a range.
#[derive(Debug)]
pub enum ReadPlan {
    /// The range begins with sectors that were never written: they read as zeros, and no cipher is involved.
    Zeros {
        /// Sectors.
        count: u64,
    },
    /// The range begins with sectors that lie one after another in a file.
    Transfer {
        /// In which file.
        slot: Slot,
        /// Where, in bytes.
        offset: u64,
        /// Sectors.
        count: u64,
        /// To be given back.
        pass: Pass,
    },
}

/// How to write the beginning of a range.
#[derive(Debug)]
pub enum WritePlan {
    /// The place is the disk's own: write there, and that is all.
    InPlace {
        /// Where in the store's own file, in bytes.
        offset: u64,
        /// Sectors.
        count: u64,
        /// To be given back.
        pass: Pass,
    },
    /// The map changes with this write.
    Change(Change),
}

/// A write that changes the map. Its span covers the data and what must be written around it: the rest of blocks that
/// are touched in part, or of a whole cluster.
///
/// To be filled and written, and then given to [`super::Store::commit`] or, if the write failed, to
/// [`super::Store::abandon`]. Sectors of the span that are neither data nor from a source must be enciphered zeros; they
/// may lie beyond the end of the disk.
#[derive(Debug)]
#[must_use = "a change that is neither committed nor abandoned blocks its cluster for ever"]
pub struct Change {
    /// First sector of the span.
    pub start: u64,
    /// Sectors of the span, at most those of a cluster.
    pub count: u64,
    /// Sectors of the data, from the beginning of the range that was asked for; all within the span.
    pub data: u64,
    /// Where the span is to be written in the store's own file, in bytes.
    pub offset: u64,
    /// Ciphertext that is to be copied into the span around the data.
    pub sources: [Option<BlocksToCopy>; 2],
    pub(super) token: ChangeToken,
}

/// Where ciphertext for a change comes from: one transfer, of which some blocks are used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BlocksToCopy {
    /// In which file.
    pub slot: Slot,
    /// Where, in bytes.
    pub offset: u64,
    /// First block to read, counted from the beginning of the span.
    pub first_block: u32,
    /// Blocks to read.
    pub blocks: u32,
    /// Bit n: of block n of the span, the sectors that the guest does not write are copied from here.
    pub mask: u16,
}

/// What the store remembers of a change.
#[derive(Debug)]
pub(super) struct ChangeToken {
    /// Cluster of the virtual disk.
    pub(super) cluster: u64,
    /// Physical cluster that is written.
    pub(super) target: u32,
    /// Blocks of the target that are written.
    pub(super) blocks: u16,
    /// Afterwards the cluster has the blocks in `blocks` and no others.
    pub(super) whole: bool,
    /// The change copies from clusters that the map has now.
    pub(super) copies: bool,
    pub(super) pass: Pass,
}

/// What a flush has to do, in order: sync the store's own file; if there is a point, [`super::Store::mark`] it and sync
/// once more; tell the store with [`super::Store::flushed`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FlushPoint(pub(super) Option<u64>);

impl FlushPoint {
    /// Whether the map has changed, so that a mark and a second sync are needed.
    pub fn needs_mark(self) -> bool {
        self.0.is_some()
    }
}
