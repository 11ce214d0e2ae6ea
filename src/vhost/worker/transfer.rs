//! What a worker has on its way to and from the store.

use crate::io::{Buffer, FileIndex};
use crate::store::{Change, Pass, Slot};
use crate::units::SectorRange;
use crate::virtqueue::Cursor;

/// A part of a request on its way to or from the store.
pub(super) struct Transfer {
    pub(super) head: u16,
    /// What it is of the disk.
    pub(super) range: SectorRange,
    pub(super) slot: Slot,
    /// Where it lies in the slot's file, in bytes.
    pub(super) offset: u64,
    pub(super) purpose: Purpose,
    pub(super) attempts: u32,
}

/// What a transfer is for, and what is to be given back at its end.
pub(super) enum Purpose {
    /// To be deciphered for the guest, whose buffers it goes to from the cursor on.
    Read { cursor: Cursor, pass: Pass },
    /// All of a write that changes nothing but the data.
    WriteInPlace { pass: Pass },
    /// Reading a source of a change that is being composed.
    ReadSource { composition: usize, source: usize },
    /// Writing the span of a change.
    WriteSpan { change: Change },
}

/// How an attempt to start a part has ended.
pub(super) enum Progress {
    /// A transfer is under way.
    Transfer,
    /// The part is done without a transfer, or has failed.
    Step,
    /// Everything of the request is started.
    AllStarted,
    /// The store will say when to ask again.
    Later,
    /// Memory is short until a transfer has ended.
    NoBuffer,
}

/// The engine has the store's files in the order of their slots.
pub(super) fn file_of(slot: Slot) -> FileIndex {
    FileIndex(slot.0.into())
}

impl Purpose {
    pub(super) fn is_write(&self) -> bool {
        matches!(self, Purpose::WriteInPlace { .. } | Purpose::WriteSpan { .. })
    }
}

/// A change whose span is not written yet.
pub(super) struct Composition {
    pub(super) head: u16,
    /// What of the disk its data is.
    pub(super) data: SectorRange,
    pub(super) change: Change,
    /// Holds the data, enciphered, and is composed when all sources have been read.
    pub(super) span: Buffer,
    /// What was read of each source.
    pub(super) sources: [Option<Buffer>; 2],
    /// Sources that are being read.
    pub(super) reading: u32,
    pub(super) failed: bool,
}

/// Changes whose spans are written, and which are not committed.
#[derive(Default)]
pub(super) struct Batch {
    pub(super) changes: Vec<Change>,
    /// Their requests, in the same order.
    pub(super) heads: Vec<u16>,
}

impl Batch {
    /// Whether there is none.
    pub(super) fn is_empty(&self) -> bool {
        self.changes.is_empty()
    }
}
