//! What is copied from: a disk, or another program's image.

use std::io;
use std::sync::Arc;

use vmm_sys_util::eventfd::EventFd;

use super::holes::zeros_of;
use super::image::Image;
use crate::disk::Disk;
use crate::units::{Capacity, SECTOR_BYTES, SectorRange};

/// What is copied from.
pub enum Input {
    /// A disk, or a file in which data lies as on one.
    Disk(Box<Disk>),
    /// An image of another program.
    Image(Box<Image>),
}

impl Input {
    /// A disk, and how large it is.
    pub fn of_disk(disk: Disk) -> (Self, Capacity) {
        let capacity = disk.capacity();
        (Input::Disk(Box::new(disk)), capacity)
    }

    /// The sectors at the beginning of `range` that are known to be zeros. What is beyond the end is.
    ///
    /// # Errors
    /// The metadata of the store or of the image cannot be read, or is damaged there.
    pub(super) fn zeros(&self, range: SectorRange, wake: &Arc<EventFd>) -> io::Result<u64> {
        match self {
            Input::Disk(disk) => zeros_of(disk, range, wake),
            Input::Image(image) => {
                let zeros = image.zeros(range.start().offset(), range.bytes().0)?;
                Ok(zeros / SECTOR_BYTES as u64)
            }
        }
    }
}
