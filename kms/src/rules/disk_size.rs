//! The sizes of disks.

use crate::error::{Code, Error, Result};
use crate::limits;

/// Refuses a size that no disk has.
///
/// # Errors
/// [`Code::InvalidSize`].
pub(crate) fn check_size(size: u64) -> Result<()> {
    if size == 0 || !size.is_multiple_of(limits::SECTOR_BYTES) || size > limits::LARGEST_DISK {
        return Err(Error::new(
            Code::InvalidSize,
            format!("{size} bytes: a disk has a multiple of 512 bytes, at least 512 and at most 64 TiB"),
        ));
    }
    Ok(())
}
