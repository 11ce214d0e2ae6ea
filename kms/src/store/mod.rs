//! Files and block devices that hold disks: made, opened for a backend, measured, removed. Never read, and written
//! only to zero a plain disk on a used device.

mod make;

use std::fs::{File, OpenOptions};
use std::io::{self, Seek, SeekFrom};
use std::os::unix::fs::{FileTypeExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, OFlags};
use rustix::io::Errno;

use crate::error::{Code, Error};

pub(crate) use make::{fill, open_new};

/// Why a store cannot be used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum StoreError {
    #[error("{0} has contents already: give an empty or missing file, so that nothing is overwritten")]
    NotEmpty(PathBuf),
    #[error("{0} is neither a regular file nor a block device (symbolic links are not followed)")]
    WrongKind(PathBuf),
    #[error("{0} is used by another process: give a file or device that nobody else uses")]
    InUse(PathBuf),
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
            StoreError::NotEmpty(_) => Code::FileNotEmpty,
            StoreError::WrongKind(_) => Code::NotAFileOrBlockDevice,
            StoreError::InUse(_) => Code::FileInUse,
            StoreError::TooSmall { .. } => Code::DeviceTooSmall,
            StoreError::NoSpace { .. } => Code::NoSpace,
            StoreError::Io { source, .. } if source.kind() == io::ErrorKind::NotFound => Code::InvalidPath,
            StoreError::Io { .. } => Code::FileFailed,
        };
        Error::because(code, "the disk's store cannot be used", error)
    }
}

/// Which bytes of which medium a store is, whatever the path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Identity {
    /// Device number and inode.
    File(u64, u64),
    /// Device number of a block device.
    Device(u64),
}

/// The identity of what is at `path`; none if nothing is there or it is no store.
pub(crate) fn identity(path: &Path) -> Option<Identity> {
    let metadata = std::fs::symlink_metadata(path).ok()?;
    if metadata.file_type().is_block_device() {
        Some(Identity::Device(metadata.rdev()))
    } else if metadata.is_file() {
        Some(Identity::File(metadata.dev(), metadata.ino()))
    } else {
        None
    }
}

/// Opens the store for a backend: a new open file description, on which the backend takes its lock.
///
/// # Errors
/// [`StoreError`]: missing, of the wrong kind, smaller than the disk, or a device that is in use.
pub(crate) fn open_for_service(path: &Path, size: u64) -> Result<File, StoreError> {
    // For writing also where the attachment is read-only: only then can the backend lock out others (rule A08).
    let (file, metadata) = open(path)?;
    let found = if metadata.is_file() {
        metadata.len()
    } else {
        device_size(&file, path)?
    };
    if found < size {
        return Err(StoreError::TooSmall {
            path: path.to_owned(),
            found,
            needed: size,
        });
    }
    Ok(file)
}

/// Bytes that the store takes on its medium; 0 if that cannot be told.
pub(crate) fn allocated(path: &Path) -> u64 {
    let Ok(metadata) = std::fs::symlink_metadata(path) else {
        return 0;
    };
    if metadata.is_file() {
        return metadata.blocks() * 512;
    }
    OpenOptions::new()
        .read(true)
        .custom_flags((OFlags::NOFOLLOW | OFlags::NONBLOCK).bits() as i32)
        .open(path)
        .and_then(|mut device| device.seek(SeekFrom::End(0)))
        .unwrap_or(0)
}

/// Removes the file, if it is still the one with this inode. Block devices and other files stay.
///
/// # Errors
/// [`StoreError::Io`]. A missing file is none.
pub(crate) fn remove(path: &Path, inode: i64) -> Result<(), StoreError> {
    let failed = |source| StoreError::Io {
        path: path.to_owned(),
        source,
    };
    let metadata = match std::fs::symlink_metadata(path) {
        Ok(metadata) => metadata,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(failed(error)),
    };
    if !metadata.is_file() || metadata.ino() as i64 != inode {
        log::warn!(
            "{} is not the file that was made for the disk, and stays",
            path.display()
        );
        return Ok(());
    }
    std::fs::remove_file(path).map_err(failed)?;
    path.parent()
        .map_or(Ok(()), crate::state::sync_directory)
        .map_err(failed)
}

/// Removes a file of the state directory, where nobody else makes any.
///
/// # Errors
/// [`StoreError::Io`]. A missing file is none.
pub(crate) fn remove_made(path: &Path) -> Result<(), StoreError> {
    match std::fs::remove_file(path) {
        Err(source) if source.kind() != io::ErrorKind::NotFound => Err(StoreError::Io {
            path: path.to_owned(),
            source,
        }),
        _ => Ok(()),
    }
}

/// Opens a regular file or block device without following a link in the path's last component; a device exclusively.
fn open(path: &Path) -> Result<(File, std::fs::Metadata), StoreError> {
    let failed = |source| StoreError::Io {
        path: path.to_owned(),
        source,
    };
    let kind = std::fs::symlink_metadata(path).map_err(failed)?.file_type();
    if !kind.is_file() && !kind.is_block_device() {
        return Err(StoreError::WrongKind(path.to_owned()));
    }
    let mut flags = OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY;
    if kind.is_block_device() {
        flags |= OFlags::EXCL; // Without O_CREAT: fails if the device is mounted or otherwise claimed (open(2)).
    }
    let file = match OpenOptions::new()
        .read(true)
        .write(true)
        .custom_flags(flags.bits() as i32)
        .open(path)
    {
        Ok(file) => file,
        Err(error) if error.raw_os_error() == Some(Errno::BUSY.raw_os_error()) => {
            return Err(StoreError::InUse(path.to_owned()));
        }
        Err(error) => return Err(failed(error)),
    };
    let metadata = file.metadata().map_err(failed)?;
    if !metadata.is_file() && !metadata.file_type().is_block_device() {
        return Err(StoreError::WrongKind(path.to_owned()));
    }
    Ok((file, metadata))
}

fn device_size(mut file: &File, path: &Path) -> Result<u64, StoreError> {
    file.seek(SeekFrom::End(0)).map_err(|source| StoreError::Io {
        path: path.to_owned(),
        source,
    })
}

/// Whether another process holds a lock of any kind on the file. Ours is released when `file` is closed.
fn is_locked(file: &File) -> io::Result<bool> {
    // A traditional record lock conflicts with those of others and with all open-file-description locks, such as
    // sealblk's and QEMU's (fcntl_locking(2)); flock(2) knows only its own kind.
    for attempt in [
        rustix::fs::fcntl_lock(file, FlockOperation::NonBlockingLockExclusive),
        rustix::fs::flock(file, FlockOperation::NonBlockingLockExclusive),
    ] {
        match attempt {
            Ok(()) => {}
            Err(Errno::WOULDBLOCK | Errno::ACCESS) => return Ok(true),
            Err(errno) => return Err(errno.into()),
        }
    }
    Ok(false)
}

#[cfg(test)]
mod tests;
