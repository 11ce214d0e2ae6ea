//! Looking at files and devices that are no disk's.

use std::fs::File;
use std::path::Path;

use super::error::StoreError;
use super::file::{Use, device_size, judged, open};
use super::identity::Identity;
use super::make::check_device;
use crate::host::passed::PASSED;
use crate::host::paths::Guard;

/// What is in a file or device that is no disk's.
pub(crate) struct Foreign {
    /// Bytes.
    pub(crate) size: u64,
    pub(crate) identity: Identity,
    /// The first bytes and the last: as many as were asked for, or all.
    pub(crate) beginning: Vec<u8>,
    pub(crate) end: Vec<u8>,
}

/// Looks at a file or device that is no disk's, and at `bytes` of its beginning and of its end.
///
/// # Errors
/// [`StoreError`]: missing, of the wrong kind, or not for whom `guard` is of.
pub(crate) fn look_at(path: &Path, bytes: usize, guard: &Guard) -> Result<Foreign, StoreError> {
    let (file, metadata) = open(path, Use::Base)?;
    judged(guard.judge(&file, &metadata), path)?;
    contents(&file, &metadata, path, bytes)
}

/// What is in a file that is open, and no disk's.
///
/// # Errors
/// As [`look_at`].
pub(crate) fn look_at_open(file: &File, bytes: usize, guard: &Guard) -> Result<Foreign, StoreError> {
    let path = Path::new(PASSED);
    let metadata = judged_open(file, guard)?;
    contents(file, &metadata, path, bytes)
}

/// Looks whether an open file is empty, or a blank device of at least `least` bytes.
///
/// # Errors
/// [`StoreError`].
pub(crate) fn check_open(file: &File, least: u64, guard: &Guard) -> Result<(), StoreError> {
    let path = Path::new(PASSED);
    let metadata = judged_open(file, guard)?;
    match metadata.is_file() {
        true if metadata.len() > 0 => Err(StoreError::NotEmpty(path.to_owned())),
        true => Ok(()),
        false => check_device(file, path, least),
    }
}

/// Of an open file that was passed.
///
/// # Errors
/// [`StoreError::Io`].
pub(crate) fn identity_of(file: &File) -> Result<Identity, StoreError> {
    Identity::of(file, Path::new(PASSED), false)
}

fn judged_open(file: &File, guard: &Guard) -> Result<std::fs::Metadata, StoreError> {
    let path = Path::new(PASSED);
    let metadata = file.metadata().map_err(|source| StoreError::Io {
        path: path.to_owned(),
        source,
    })?;
    judged(Ok(guard.judge_passed(&metadata)), path)?;
    Ok(metadata)
}

fn contents(
    file: &File,
    metadata: &std::fs::Metadata,
    path: &Path,
    bytes: usize,
) -> Result<Foreign, StoreError> {
    let size = if metadata.is_file() {
        metadata.len()
    } else {
        device_size(file, path)?
    };
    let read = |offset| {
        let mut buffer = vec![0; bytes];
        let read = rustix::io::pread(file, &mut buffer, offset).map_err(|errno| StoreError::Io {
            path: path.to_owned(),
            source: errno.into(),
        })?;
        buffer.truncate(read);
        Ok(buffer)
    };
    Ok(Foreign {
        size,
        identity: Identity::of(file, path, false)?,
        beginning: read(0)?,
        end: read(size.saturating_sub(bytes as u64))?,
    })
}
