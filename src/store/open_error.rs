//! Why a file is not served as a store.

use std::io;

use super::layered::LayeredError;
use super::lock::LockError;

/// The store cannot be served.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The lock was not taken.
    #[error(transparent)]
    Lock(#[from] LockError),
    /// A layered store's own reason.
    #[error(transparent)]
    Layered(#[from] LayeredError),
    /// Neither a regular file nor a block device.
    #[error("the store is neither a regular file nor a block device")]
    WrongKind,
    /// The file holds less than the disk.
    #[error("the store has {have} bytes, the disk needs {need}")]
    TooSmall {
        /// Bytes of the file or device.
        have: u64,
        /// Bytes of the disk.
        need: u64,
    },
    /// The kernel's.
    #[error("the store cannot be examined")]
    Io(#[from] io::Error),
}
