//! Opening the store that a disk has, and no other one.

use std::fs::File;
use std::os::fd::AsRawFd;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use rustix::fs::OFlags;

use super::error::StoreError;
use super::file::{Use, device_size, open};
use super::identity::Identity;

/// What is known of a disk's store besides its path.
#[derive(Clone, Debug)]
pub(crate) enum Expected {
    /// A file of the state directory, where nobody else makes any. It may have been moved there with the directory, so that
    /// nothing but its name tells what it is.
    InState,
    /// A store at a path that was given, with this [`Identity`]. Without one nothing is compared, and nothing lost: it was not
    /// made yet, or the catalogue was restored from a backup.
    Given(Option<String>),
}

impl Expected {
    /// From the columns of a disk.
    pub(crate) fn of(path: Option<&str>, identity: Option<&str>) -> Self {
        match path {
            None => Expected::InState,
            Some(_) => Expected::Given(identity.map(str::to_owned)),
        }
    }

    /// Refuses another file or device than the one that is known.
    pub(super) fn check(&self, file: &File, path: &Path) -> Result<(), StoreError> {
        if let Expected::Given(Some(identity)) = self
            && !Identity::parse(identity, path)?.is(&Identity::of(file, path, false)?)
        {
            return Err(StoreError::Changed(path.to_owned()));
        }
        Ok(())
    }

    /// The path to be opened. The state directory's administrator may have put `disks/` elsewhere by a link.
    pub(super) fn place(&self, path: &Path) -> Result<PathBuf, StoreError> {
        match (self, path.parent(), path.file_name()) {
            (Expected::InState, Some(parent), Some(name)) => match parent.canonicalize() {
                Ok(parent) => Ok(parent.join(name)),
                Err(source) => Err(StoreError::Io {
                    path: path.to_owned(),
                    source,
                }),
            },
            _ => Ok(path.to_owned()),
        }
    }
}

/// Opens the store for a backend: a new open file description, on which the backend takes its lock.
///
/// # Errors
/// [`StoreError`]: missing, of the wrong kind, another than `expected`, of fewer than `least` bytes, or a device in use.
pub(crate) fn open_for_service(path: &Path, least: u64, expected: &Expected) -> Result<File, StoreError> {
    // For writing also where the attachment is read-only: only then can the backend lock out others (rule A08).
    let (file, metadata) = open(&expected.place(path)?, Use::Own)?;
    expected.check(&file, path)?;
    let found = if metadata.is_file() {
        metadata.len()
    } else {
        device_size(&file, path)?
    };
    if found < least {
        return Err(StoreError::TooSmall {
            path: path.to_owned(),
            found,
            needed: least,
        });
    }
    Ok(file)
}

/// Opens a store that a clone reads, while whoever has it may write to it.
///
/// # Errors
/// [`StoreError`]: missing, of the wrong kind, or another than `expected`.
pub(crate) fn open_base(path: &Path, expected: &Expected) -> Result<File, StoreError> {
    let (file, _) = open(&expected.place(path)?, Use::Base)?;
    expected.check(&file, path)?;
    Ok(file)
}

/// A second open file description of the same file or device, whatever has happened to its path.
///
/// # Errors
/// [`StoreError::Io`].
pub(crate) fn open_again(file: &File, path: &Path, write: bool) -> Result<File, StoreError> {
    // The device is not claimed exclusively: that can be done once only, and has been.
    let flags = OFlags::NONBLOCK | OFlags::NOCTTY;
    std::fs::OpenOptions::new()
        .read(true)
        .write(write)
        .custom_flags(flags.bits() as i32)
        .open(format!("/proc/self/fd/{}", file.as_raw_fd()))
        .map_err(|source| StoreError::Io {
            path: path.to_owned(),
            source,
        })
}
