//! One writer: an exclusive lock that lasts as long as the I/O does.
//!
//! An open-file-description lock (`fcntl(2)`, `F_OFD_SETLK`) belongs to the open file, not to the process. The
//! writes that io_uring still carries out for a killed process hold that open file, and so the lock: a successor
//! that waits for the lock waits for those writes. QEMU locks bytes of its images in the same way, so an image
//! that QEMU has open is refused as well.

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;
use std::time::{Duration, Instant};

use nix::fcntl::{FcntlArg, fcntl};

/// The lock was not taken.
#[derive(Debug, thiserror::Error)]
pub enum LockError {
    /// Another process holds it.
    #[error("another process uses the store")]
    InUse,
    /// The file system cannot lock, or the file is not writable.
    #[error("the store cannot be locked")]
    Io(#[source] io::Error),
}

/// Takes the exclusive lock on `file`, trying again until `patience` is over.
pub(super) fn lock_exclusively(file: &File, patience: Duration) -> Result<(), LockError> {
    let whole_file = libc::flock {
        l_type: libc::F_WRLCK as libc::c_short,
        l_whence: libc::SEEK_SET as libc::c_short,
        l_start: 0,
        l_len: 0,
        l_pid: 0,
    };
    let deadline = Instant::now() + patience;
    loop {
        match fcntl(file, FcntlArg::F_OFD_SETLK(&whole_file)) {
            Ok(_) => return Ok(()),
            Err(nix::Error::EAGAIN | nix::Error::EACCES) if Instant::now() < deadline => {
                std::thread::sleep(Duration::from_millis(10));
            }
            Err(nix::Error::EAGAIN | nix::Error::EACCES) => return Err(LockError::InUse),
            Err(errno) => {
                log::debug!("descriptor {}: {errno}", file.as_raw_fd());
                return Err(LockError::Io(errno.into()));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_lock_excludes_another_open_and_ends_with_the_last_descriptor() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let first = file.reopen().unwrap();
        let second = file.reopen().unwrap();
        lock_exclusively(&first, Duration::ZERO).unwrap();
        assert!(matches!(
            lock_exclusively(&second, Duration::ZERO),
            Err(LockError::InUse)
        ));
        let same_description = first.try_clone().unwrap();
        drop(first);
        assert!(matches!(
            lock_exclusively(&second, Duration::ZERO),
            Err(LockError::InUse)
        ));
        drop(same_description);
        lock_exclusively(&second, Duration::ZERO).unwrap();
    }

    #[test]
    fn a_file_that_is_not_writable_cannot_be_locked() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let reader = File::open(file.path()).unwrap();
        assert!(matches!(
            lock_exclusively(&reader, Duration::ZERO),
            Err(LockError::Io(_))
        ));
    }
}
