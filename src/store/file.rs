//! What is done to every file before it is used as a store.

use std::fs::File;
use std::io::{self, Seek, SeekFrom};
use std::os::unix::fs::FileTypeExt;
use std::time::Duration;

use rustix::fs::{AtFlags, OFlags, StatxFlags};

use super::lock::lock_exclusively;
use super::open_error::OpenError;
use crate::units::{ByteLen, SECTOR_BYTES};

/// How long a killed predecessor's last writes are waited for.
const LOCK_PATIENCE: Duration = Duration::from_secs(5);
/// What the engine's buffers begin at a multiple of.
const PAGE_BYTES: usize = 4096;

/// Takes the lock of an open file or block device, which is not looked at: of two processes for one store the
/// second is refused before it touches the socket. Opening the store takes it again.
///
/// # Errors
/// [`OpenError::Lock`].
pub fn lock(file: &File) -> Result<(), OpenError> {
    Ok(lock_exclusively(file, LOCK_PATIENCE)?)
}

/// Takes the lock of an open file or block device, and says how long it is.
///
/// # Errors
/// [`OpenError`].
pub(super) fn claim(file: &mut File) -> Result<ByteLen, OpenError> {
    check_kind(file)?;
    lock_exclusively(file, LOCK_PATIENCE)?;
    // The KMS may have opened the file with O_NONBLOCK; io_uring would then answer EAGAIN in place of waiting.
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

/// Sets `O_DIRECT` if sectors at any multiple of 512 can be read and written with it, as devices and file systems with
/// larger blocks do not allow, and clears it otherwise: a predecessor may have set it. Returns whether it is set.
///
/// # Errors
/// The kernel's.
pub(super) fn switch_to_direct(file: &File) -> io::Result<bool> {
    let flags = rustix::fs::fcntl_getfl(file)?;
    if takes_sectors(file)? && rustix::fs::fcntl_setfl(file, flags | OFlags::DIRECT).is_ok() {
        return Ok(true);
    }
    rustix::fs::fcntl_setfl(file, flags - OFlags::DIRECT)?;
    Ok(false)
}

/// Whether direct transfers may begin and end at any sector, in memory that begins with a page, as the engine's buffers do.
/// Trying does not tell: reads of what was never written do not reach the device, and succeed at any place.
fn takes_sectors(file: &File) -> io::Result<bool> {
    let told = told_alignment(file);
    let (offset, memory) = match told {
        Some(told) => told,
        // A kernel before 6.1, or a file system that does not say.
        None => match crate::host::device_block(&file.metadata()?) {
            Some(block) => (block, block),
            None => return Ok(false),
        },
    };
    let divides = |whole: usize, part: u32| part > 0 && whole.is_multiple_of(part as usize);
    Ok(divides(SECTOR_BYTES, offset) && divides(PAGE_BYTES, memory))
}

/// What offsets and lengths, and addresses in memory, of direct transfers must be multiples of, in bytes: zeros if there
/// are none, nothing if the kernel does not say (statx(2), `STATX_DIOALIGN`).
fn told_alignment(file: &File) -> Option<(u32, u32)> {
    let stat = rustix::fs::statx(file, c"", AtFlags::EMPTY_PATH, StatxFlags::DIOALIGN).ok()?;
    let told = StatxFlags::from_bits_retain(stat.stx_mask).contains(StatxFlags::DIOALIGN);
    told.then_some((stat.stx_dio_offset_align, stat.stx_dio_mem_align))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_device_says_what_the_kernel_does() {
        let file = tempfile::tempfile_in(".").unwrap();
        let block = crate::host::device_block(&file.metadata().unwrap());
        if let (Some((offset, _)), Some(block)) = (told_alignment(&file), block) {
            assert_eq!(offset, block);
        }
        // Memory is on no device.
        let memory = tempfile::tempfile_in("/dev/shm").unwrap();
        assert_eq!(crate::host::device_block(&memory.metadata().unwrap()), None);
        if told_alignment(&memory).is_none() {
            assert!(!switch_to_direct(&memory).unwrap());
        }
    }

    #[test]
    fn what_a_predecessor_has_set_is_cleared_where_it_does_not_work() {
        let file = tempfile::tempfile_in("/dev/shm").unwrap();
        let flags = rustix::fs::fcntl_getfl(&file).unwrap();
        // Some kernels do not let it be set there.
        let _ = rustix::fs::fcntl_setfl(&file, flags | OFlags::DIRECT);
        let direct = switch_to_direct(&file).unwrap();
        let flags = rustix::fs::fcntl_getfl(&file).unwrap();
        assert_eq!(flags.contains(OFlags::DIRECT), direct);
    }
}
