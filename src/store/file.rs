//! What is done to every file before it is used as a store.

use std::fs::File;
use std::io::{self, Seek, SeekFrom};
use std::os::unix::fs::FileTypeExt;
use std::time::Duration;

use rustix::fs::OFlags;

use super::OpenError;
use super::lock::lock_exclusively;
use crate::units::{ByteLen, SECTOR_BYTES};

/// How long a killed predecessor's last writes are waited for.
const LOCK_PATIENCE: Duration = Duration::from_secs(5);

/// Takes the lock of an open file or block device, and says how long it is.
///
/// # Errors
/// [`OpenError`].
pub(super) fn claim(file: &mut File) -> Result<ByteLen, OpenError> {
    check_kind(file)?;
    lock_exclusively(file, LOCK_PATIENCE)?;
    // Whoever has opened it may have wanted not to wait; io_uring would then answer EAGAIN in place of waiting.
    clear_nonblocking(file)?;
    // The end of a block device is its size; its metadata says 0.
    Ok(ByteLen(file.seek(SeekFrom::End(0))?))
}

/// Refuses what is neither a regular file nor a block device.
///
/// # Errors
/// [`OpenError`].
pub(super) fn check_kind(file: &File) -> Result<(), OpenError> {
    let kind = file.metadata()?.file_type();
    if !kind.is_file() && !kind.is_block_device() {
        return Err(OpenError::WrongKind);
    }
    Ok(())
}

/// Lets reads and writes wait.
///
/// # Errors
/// The kernel's.
pub(super) fn clear_nonblocking(file: &File) -> io::Result<()> {
    let flags = rustix::fs::fcntl_getfl(file)?;
    Ok(rustix::fs::fcntl_setfl(file, flags - OFlags::NONBLOCK)?)
}

/// Sets `O_DIRECT` if a sector at any multiple of 512 below `len` can then be read, as devices and file systems with larger
/// blocks do not allow. Returns whether it is set.
///
/// # Errors
/// The kernel's, if it cannot be read at all.
pub(super) fn switch_to_direct(file: &File, len: ByteLen) -> io::Result<bool> {
    let flags = rustix::fs::fcntl_getfl(file)?;
    if rustix::fs::fcntl_setfl(file, flags | OFlags::DIRECT).is_err() {
        return Ok(false);
    }
    let mut page = AlignedPage([0; 4096]);
    let last = len.0.saturating_sub(SECTOR_BYTES as u64);
    for offset in [0, last.min(SECTOR_BYTES as u64), last] {
        match rustix::io::pread(file, &mut page.0[..SECTOR_BYTES], offset) {
            Ok(_) => {}
            Err(rustix::io::Errno::INVAL) => {
                rustix::fs::fcntl_setfl(file, flags - OFlags::DIRECT)?;
                return Ok(false);
            }
            // A sector that is damaged says nothing of where others can be read.
            Err(rustix::io::Errno::IO) => {}
            Err(errno) => return Err(errno.into()),
        }
    }
    Ok(true)
}

/// Aligned as the engine's buffers are.
#[repr(align(4096))]
pub(super) struct AlignedPage(pub(super) [u8; 4096]);
