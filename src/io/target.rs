//! Files that are transferred to and from.
//!
//! A file in memory (tmpfs, memfd) never makes who reads it wait for a device. The kernel's io_uring does not know that: it
//! gives such transfers to threads of its own, which costs several times what the transfer does. They are done at once
//! instead, by the calling thread.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd, RawFd};

use rustix::io::Errno;

/// `TMPFS_MAGIC` (statfs(2)).
const TMPFS: u64 = 0x0102_1994;

/// One file.
pub(super) struct Target {
    /// Of the same open file description as the store's, which has the lock.
    file: OwnedFd,
    in_memory: bool,
}

impl Target {
    /// # Errors
    /// The kernel's.
    pub(super) fn new(file: BorrowedFd<'_>) -> io::Result<Self> {
        let kind = rustix::fs::fstatfs(file)?;
        Ok(Target {
            file: file.try_clone_to_owned()?,
            in_memory: kind.f_type as u64 == TMPFS,
        })
    }

    /// Whether transfers are done at once.
    pub(super) fn is_in_memory(&self) -> bool {
        self.in_memory
    }

    pub(super) fn raw(&self) -> RawFd {
        self.file.as_raw_fd()
    }

    pub(super) fn read(&self, bytes: &mut [u8], offset: u64) -> io::Result<usize> {
        retry(|| rustix::io::pread(&self.file, &mut *bytes, offset))
    }

    pub(super) fn write(&self, bytes: &[u8], offset: u64) -> io::Result<usize> {
        retry(|| rustix::io::pwrite(&self.file, bytes, offset))
    }
}

fn retry(transfer: impl FnMut() -> Result<usize, Errno>) -> io::Result<usize> {
    Ok(rustix::io::retry_on_intr(transfer)?)
}
