//! Where ciphertext lies. A store sees neither keys nor plaintext.

mod compose;
mod file;
pub mod layered;
mod layered_file;
mod lock;
mod open_error;
mod plan;
mod poison;
mod raw;
#[cfg(test)]
pub(crate) mod simulated;

use std::io;
use std::os::fd::BorrowedFd;
use std::sync::Arc;
use std::time::Duration;

use vmm_sys_util::eventfd::EventFd;

use crate::units::{ByteLen, SectorRange};

pub(crate) use compose::compose;
pub use file::lock;
pub use layered_file::{FilePair, LayeredFile};
pub use lock::LockError;
pub use open_error::OpenError;
pub use plan::{
    BLOCK_BYTES, BLOCK_SECTORS, BlocksToCopy, Change, FlushPoint, Pass, Planned, ReadPlan, Slot, WritePlan,
};
pub use poison::{Poison, Poisoned};
pub use raw::RawStore;

/// A disk's store, of either layout. It plans; the queue workers carry out.
#[derive(Debug)]
pub enum Store {
    /// Layered, in memory, with faults.
    #[cfg(test)]
    Simulated(simulated::SimulatedStore),
    /// Flat.
    Raw(RawStore),
    /// Layered: a file with a disk and its snapshots.
    Layered(LayeredFile),
}

impl Store {
    /// The open file of a slot, for transfers of data.
    pub fn file(&self, slot: Slot) -> BorrowedFd<'_> {
        match self {
            #[cfg(test)]
            Store::Simulated(store) => store.file(slot),
            Store::Raw(store) => store.file(),
            Store::Layered(store) => store.file(slot),
        }
    }

    /// The open files of all slots, in their order.
    pub fn files(&self) -> Vec<BorrowedFd<'_>> {
        let slots = match self {
            #[cfg(test)]
            Store::Simulated(_) => 2,
            Store::Raw(_) => 1,
            Store::Layered(store) => store.layered().slots(),
        };
        (0..slots).map(|slot| self.file(Slot(slot as u8))).collect()
    }

    /// Whether it has failed.
    pub fn poison(&self) -> &Poison {
        match self {
            #[cfg(test)]
            Store::Simulated(store) => &store.poison,
            Store::Raw(store) => store.poison(),
            Store::Layered(store) => store.layered().poison(),
        }
    }

    /// Whether transfers bypass the page cache.
    pub fn is_direct(&self) -> bool {
        match self {
            #[cfg(test)]
            Store::Simulated(_) => false,
            Store::Raw(store) => store.is_direct(),
            Store::Layered(store) => store.is_direct(),
        }
    }

    /// Whether DISCARD and WRITE_ZEROES are offered.
    pub fn is_layered(&self) -> bool {
        match self {
            #[cfg(test)]
            Store::Simulated(_) => true,
            Store::Raw(_) => false,
            Store::Layered(_) => true,
        }
    }

    /// How to read the beginning of `range`.
    ///
    /// # Errors
    /// The store's metadata cannot be read, or is damaged there.
    pub fn plan_read(&self, range: SectorRange, wake: &Arc<EventFd>) -> io::Result<Planned<ReadPlan>> {
        match self {
            #[cfg(test)]
            Store::Simulated(store) => Ok(store.plan_read(range, wake)),
            Store::Raw(store) => Ok(Planned::Now(ReadPlan::Transfer {
                slot: Slot::default(),
                offset: store.offset(range),
                count: range.count(),
                pass: Pass(None),
            })),
            Store::Layered(store) => store.layered().plan_read(range, wake),
        }
    }

    /// How to write the beginning of `range`.
    ///
    /// # Errors
    /// There is no room (`ENOSPC`), or as [`Store::plan_read`].
    pub fn plan_write(&self, range: SectorRange, wake: &Arc<EventFd>) -> io::Result<Planned<WritePlan>> {
        match self {
            #[cfg(test)]
            Store::Simulated(store) => store.plan_write(range, wake),
            Store::Raw(store) => Ok(Planned::Now(WritePlan::InPlace {
                offset: store.offset(range),
                count: range.count(),
                pass: Pass(None),
            })),
            Store::Layered(store) => store.layered().plan_write(range, wake),
        }
    }

    /// A planned transfer has ended.
    pub fn end(&self, pass: Pass) {
        match self {
            #[cfg(test)]
            Store::Simulated(store) => store.end(),
            Store::Raw(_) => {}
            Store::Layered(store) => store.layered().end(pass),
        }
    }

    /// Makes the changes, whose spans have been written, part of the disk, and empties the list. They survive the death
    /// of this process from now on, and a power cut from the next flush on.
    ///
    /// # Errors
    /// The kernel's; then none of them was made, and their requests must fail.
    pub fn commit(&self, changes: &mut Vec<Change>) -> io::Result<()> {
        match self {
            #[cfg(test)]
            Store::Simulated(store) => store.commit(changes),
            Store::Raw(_) => {
                changes.clear();
                Ok(())
            }
            Store::Layered(store) => store.layered().commit(changes),
        }
    }

    /// Gives up a change whose span could not be written.
    pub fn abandon(&self, change: Change) {
        match self {
            #[cfg(test)]
            Store::Simulated(store) => store.abandon(&change),
            Store::Raw(_) => {}
            Store::Layered(store) => store.layered().abandon(change),
        }
    }

    /// Makes the beginning of `range`, which is whole blocks (a multiple of 4 KiB at a multiple of 4 KiB), read as zeros.
    /// Returns the sectors that are done, at least a block.
    ///
    /// # Errors
    /// `EOPNOTSUPP` if the store is not [layered](Store::is_layered), or as [`Store::plan_read`].
    pub fn discard(&self, range: SectorRange, wake: &Arc<EventFd>) -> io::Result<Planned<u64>> {
        match self {
            #[cfg(test)]
            Store::Simulated(store) => Ok(store.discard(range, wake)),
            Store::Raw(_) => Err(io::Error::from_raw_os_error(libc::EOPNOTSUPP)),
            Store::Layered(store) => store.layered().discard(range, wake),
        }
    }

    /// Begins a flush of everything that has been completed so far. One flush at a time.
    pub fn begin_flush(&self) -> FlushPoint {
        match self {
            #[cfg(test)]
            Store::Simulated(store) => store.begin_flush(),
            Store::Raw(_) => FlushPoint(None),
            Store::Layered(store) => store.layered().begin_flush(),
        }
    }

    /// Second step of a flush whose point [needs a mark](FlushPoint::needs_mark): after the first sync.
    ///
    /// # Errors
    /// The kernel's, and then the flush has failed.
    pub fn mark(&self, point: FlushPoint) -> io::Result<()> {
        match self {
            #[cfg(test)]
            Store::Simulated(store) => store.mark(point),
            Store::Raw(_) => Ok(()),
            Store::Layered(store) => store.layered().mark(point),
        }
    }

    /// Last step of a flush: everything is durable.
    pub fn flushed(&self, point: FlushPoint) {
        match self {
            #[cfg(test)]
            Store::Simulated(store) => store.flushed(),
            Store::Raw(_) => {}
            Store::Layered(store) => store.layered().flushed(point),
        }
    }

    /// Makes everything that has been completed durable, outside of any queue.
    ///
    /// # Errors
    /// The kernel's; then the caller must not try again, for the kernel has forgotten which pages are lost.
    pub fn sync(&self) -> io::Result<()> {
        match self {
            #[cfg(test)]
            Store::Simulated(_) => Ok(()),
            Store::Raw(store) => store.sync(),
            Store::Layered(store) => store.layered().sync(),
        }
    }

    /// The descriptors that a successor goes on with: of the data, and of the metadata if that has one of its own.
    pub fn descriptors(&self) -> Vec<BorrowedFd<'_>> {
        match self {
            #[cfg(test)]
            Store::Simulated(_) => Vec::new(),
            Store::Raw(store) => vec![store.file()],
            Store::Layered(store) => store.descriptors().into(),
        }
    }

    /// Writes nothing by itself any more, also not when it is dropped, so that a successor can go on with its files. Nothing
    /// else may be under way. False if what its threads do does not end in time: then it goes on.
    pub fn quiesce_background(&self, patience: Duration) -> bool {
        match self {
            Store::Layered(store) => store.quiesce_background(patience),
            _ => true,
        }
    }

    /// There is no successor after all.
    pub fn go_on(&self) {
        if let Store::Layered(store) = self {
            store.go_on();
        }
    }

    /// As [`LayeredFile::close`]; none of a store that is not layered.
    pub fn close(&self) -> Option<layered::StoreState> {
        match self {
            Store::Layered(store) => store.close(),
            _ => None,
        }
    }

    /// The layered store, if it is one.
    pub fn layered(&self) -> Option<&layered::LayeredStore<layered::FileMedium>> {
        match self {
            #[cfg(test)]
            Store::Simulated(_) => None,
            Store::Raw(_) => None,
            Store::Layered(store) => Some(store.layered()),
        }
    }

    /// Bytes that the store takes on its medium.
    ///
    /// # Errors
    /// The kernel's.
    pub fn allocated(&self) -> io::Result<ByteLen> {
        match self {
            #[cfg(test)]
            Store::Simulated(_) => Ok(ByteLen(0)),
            Store::Raw(store) => store.allocated(),
            Store::Layered(store) => store.allocated(),
        }
    }
}
