//! What is known to read as zeros without being read: holes of files, clusters that an image does not have, blocks of a
//! layered disk that were never written. So the time of a copy follows the data, and not the size.

use std::io;
use std::sync::Arc;

use vmm_sys_util::eventfd::EventFd;

use super::file::hole;
use crate::disk::Disk;
use crate::store::{BLOCK_SECTORS, Planned, ReadPlan, Store};
use crate::units::{SECTOR_BYTES, SectorRange};

/// Up to which sector one side of a copy is known to read as zeros. It is forgotten after a batch: a file that is no disk's
/// may change meanwhile.
#[derive(Debug, Default)]
pub(super) struct Known(u64);

impl Known {
    /// The sectors at the beginning of `range` that are known to be zeros; `look` is asked where nothing is known yet.
    pub(super) fn zeros(
        &mut self,
        range: SectorRange,
        look: impl FnOnce(SectorRange) -> io::Result<u64>,
    ) -> io::Result<u64> {
        let start = range.start().0;
        if self.0 <= start {
            self.0 = start + look(range)?;
        }
        Ok((self.0 - start).min(range.count()))
    }
}

/// The sectors at the beginning of `range` that are known to be zeros. What is beyond the disk's end is.
///
/// # Errors
/// The store's metadata cannot be read, or is damaged there.
pub(super) fn zeros_of(disk: &Disk, range: SectorRange, wake: &Arc<EventFd>) -> io::Result<u64> {
    let have = range.slice(0, disk.capacity().within(range));
    let zeros = match disk.store() {
        // What was never written is noise.
        Store::Raw(_) if disk.is_enciphered() => 0,
        Store::Raw(store) => hole(store.file(), store.offset(have), have.bytes().0) / SECTOR_BYTES as u64,
        store => never_written(store, have, wake)?,
    };
    Ok(if zeros == have.count() {
        range.count()
    } else {
        zeros
    })
}

fn never_written(store: &Store, range: SectorRange, wake: &Arc<EventFd>) -> io::Result<u64> {
    let mut done = 0;
    while done < range.count() {
        let rest = range.slice(done, range.count());
        // How far data goes is not to be looked up.
        if planned_zeros(store, rest.slice(0, BLOCK_SECTORS), wake)? == 0 {
            break;
        }
        done += planned_zeros(store, rest, wake)?;
    }
    Ok(done)
}

/// The sectors at the beginning of `range` for which there is nothing to read, as far as the map is loaded.
fn planned_zeros(store: &Store, range: SectorRange, wake: &Arc<EventFd>) -> io::Result<u64> {
    loop {
        match store.plan_read(range, wake)? {
            Planned::Later => {
                wake.read()?;
            }
            Planned::Now(ReadPlan::Zeros { count }) => return Ok(count),
            Planned::Now(ReadPlan::Transfer { pass, .. }) => {
                store.end(pass);
                return Ok(0);
            }
        }
    }
}
