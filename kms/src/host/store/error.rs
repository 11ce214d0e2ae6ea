//! Why a store cannot be used.

use std::io;
use std::path::PathBuf;

use crate::error::{Code, Error};
use crate::host::paths::Unfit;

/// Why a store cannot be used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum StoreError {
    #[error("{0} has contents already: give an empty or missing file, so that nothing is overwritten")]
    NotEmpty(PathBuf),
    #[error(
        "{0} holds data in its first MiB: if nobody needs what is on this device, wipe it with \
         `blkdiscard -z {0}` or `dd if=/dev/zero of={0} bs=1M count=1` (`wipefs -a` is enough for a file system)"
    )]
    DeviceNotBlank(PathBuf),
    #[error(
        "{0} is neither a regular file nor a block device (symbolic links are followed only to block devices, only as the \
         last part of a path, and only if root or the KMS's user made them where nobody else writes)"
    )]
    WrongKind(PathBuf),
    #[error("{0} is not the file or device that the disk was created on: put that one back in its place")]
    Changed(PathBuf),
    #[error("{0} is used by another process: give a file or device that nobody else uses")]
    InUse(PathBuf),
    #[error("{path} {why}")]
    Unfit { path: PathBuf, why: Unfit },
    #[error("{path} has {found} bytes, and the disk needs {needed}")]
    TooSmall { path: PathBuf, found: u64, needed: u64 },
    #[error("{path} cannot have {needed} bytes: {available} are free")]
    NoSpace {
        path: PathBuf,
        needed: u64,
        available: u64,
    },
    #[error("{path} cannot be used")]
    Io {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
}

impl From<StoreError> for Error {
    fn from(error: StoreError) -> Self {
        let code = match &error {
            StoreError::NotEmpty(_) | StoreError::DeviceNotBlank(_) => Code::FileNotEmpty,
            StoreError::Changed(_) => Code::StoreUnusable,
            StoreError::WrongKind(_) => Code::NotAFileOrBlockDevice,
            StoreError::InUse(_) => Code::FileInUse,
            StoreError::Unfit { why: Unfit::Kept, .. } => Code::InvalidPath,
            StoreError::Unfit { .. } => Code::PathNotAllowed,
            StoreError::TooSmall { .. } => Code::DeviceTooSmall,
            StoreError::NoSpace { .. } => Code::NoSpace,
            StoreError::Io { source, .. } if source.kind() == io::ErrorKind::NotFound => Code::InvalidPath,
            StoreError::Io { .. } => Code::FileFailed,
        };
        Error::because(code, "the disk's store cannot be used", error)
    }
}
