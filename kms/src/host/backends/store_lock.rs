//! The lock on a store says who uses it (rule A08), whether a backend is connected or not.

use std::fs::OpenOptions;
use std::io;
use std::os::unix::fs::{FileTypeExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, OFlags};
use rustix::io::Errno;

use crate::error::{Code, Error, Result};

/// Whether a process holds a backend's lock on the store. It lasts as long as the I/O does, so longer than a killed
/// backend. Nobody holds the lock of a file that is not there.
///
/// # Errors
/// The kernel's: then it cannot be told.
pub(crate) fn is_held(store: &Path) -> io::Result<bool> {
    let device = device_behind(store);
    let store = device.as_deref().unwrap_or(store);
    // For reading and not exclusively: what is probed must not be changed by it, not even its time stamps.
    let flags = OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY;
    let file = match OpenOptions::new()
        .read(true)
        .custom_flags(flags.bits() as i32)
        .open(store)
    {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
        Err(error) => return Err(error),
    };
    // Conflicts with the exclusive lock of any other open file (fcntl_locking(2)), and ends when `file` is closed. A
    // backend that comes in between tries again.
    match rustix::fs::fcntl_lock(&file, FlockOperation::NonBlockingLockShared) {
        Ok(()) => Ok(false),
        Err(Errno::WOULDBLOCK | Errno::ACCESS) => Ok(true),
        Err(errno) => Err(errno.into()),
    }
}

/// The block device that a link stands for; other links are not followed.
fn device_behind(store: &Path) -> Option<PathBuf> {
    let is_link = std::fs::symlink_metadata(store).ok()?.is_symlink();
    let is_device = std::fs::metadata(store).ok()?.file_type().is_block_device();
    (is_link && is_device)
        .then(|| store.canonicalize().ok())
        .flatten()
}

/// Refuses what must not be done to a store that a process still uses.
///
/// # Errors
/// [`Code::StoreInUse`]. A store that cannot be opened is not used by anyone.
pub(crate) fn ensure_free(store: &Path) -> Result<()> {
    match is_held(store) {
        Ok(true) => {
            let text = format!("a process still uses {}: end it first", store.display());
            Err(Error::new(Code::StoreInUse, text))
        }
        Ok(false) => Ok(()),
        Err(error) => {
            log::warn!("{}: its lock cannot be looked at: {error}", store.display());
            Ok(())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_store_that_is_not_there_or_not_locked_is_free() {
        let file = tempfile::NamedTempFile::new().unwrap();
        assert!(!is_held(file.path()).unwrap());
        assert!(!is_held(&file.path().with_file_name("missing-store")).unwrap());
        assert!(is_held(Path::new("/proc/self/exe")).is_err(), "a link");
    }
}
