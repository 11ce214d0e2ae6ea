//! Making the store of a new disk, in two steps, so that between them it can be noted which file was made.

use std::fs::File;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, FallocateFlags, FileType, OFlags};
use rustix::io::Errno;

use super::error::StoreError;
use super::expected::{Expected, open_for_service};
use super::file::{Use, device_size, is_locked, judged, open, open_strictly};
use super::identity::{Identity, is_blank};
use super::release::release;
use crate::host::paths::{Guard, HostPath, MADE_MODE, Owned};

/// Bytes that are zeroed at a time where the device cannot do it itself.
const ZERO_STEP: usize = 1 << 20;
/// Bytes at a device's start that must be zero: there lie partition tables, and the superblocks of file systems,
/// volume managers and encrypted volumes.
const BLANK_BYTES: usize = 1 << 20;

/// Opens what will be the store: makes a missing file, takes an empty one, or a blank device of at least
/// `least` bytes.
/// Gives what it is, too; nothing was changed if that is a file that was there. One that an earlier attempt has left counts as made.
///
/// # Errors
/// [`StoreError`]; also what is there and not for whom `guard` is of.
pub(super) fn open_new(
    path: &Path,
    least: u64,
    expected: &Expected,
    guard: &Guard,
) -> Result<(File, Identity), StoreError> {
    let failed = |source| StoreError::Io {
        path: path.to_owned(),
        source,
    };
    let place = expected.place(path)?;
    let flags = OFlags::RDWR | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW;
    match open_strictly(&place, flags, MADE_MODE) {
        Ok(file) => {
            let identity = Identity::of(&file, path, true)?;
            place
                .parent()
                .map_or(Ok(()), crate::state::sync_directory)
                .map_err(failed)?;
            return Ok((file, identity));
        }
        Err(Errno::EXIST) => {}
        Err(errno) => return Err(failed(errno.into())),
    }
    let (file, metadata) = open(&place, Use::Own)?;
    if let Expected::Given(_) = expected {
        judged(guard.judge_taken(&file, &metadata), path)?;
    }
    if is_locked(&file).map_err(failed)? {
        return Err(StoreError::InUse(path.to_owned()));
    }
    let is_left = matches!(expected, Expected::Given(_)) && guard.is_left(&Owned::from(&metadata));
    let identity = Identity::of(&file, path, is_left)?;
    if metadata.is_file() {
        if metadata.len() > 0 {
            return Err(StoreError::NotEmpty(path.to_owned()));
        }
        return Ok((file, identity));
    }
    check_device(&file, path, least)?;
    Ok((file, identity))
}

/// Whether a device has at least `least` bytes, and is blank.
pub(super) fn check_device(file: &File, path: &Path, least: u64) -> Result<(), StoreError> {
    let found = device_size(file, path)?;
    if found < least {
        return Err(StoreError::TooSmall {
            path: path.to_owned(),
            found,
            needed: least,
        });
    }
    match is_blank(file, BLANK_BYTES) {
        Ok(true) => Ok(()),
        Ok(false) => Err(StoreError::DeviceNotBlank(path.to_owned())),
        Err(source) => Err(StoreError::Io {
            path: path.to_owned(),
            source,
        }),
    }
}

/// Looks whether [`open_new`] would take what is at a path, as far as that can be told without opening it.
///
/// # Errors
/// [`StoreError::NotEmpty`], [`StoreError::Unfit`].
pub(crate) fn check_new(path: &HostPath, guard: &Guard) -> Result<(), StoreError> {
    let place = Path::new(path.as_str());
    let found = match rustix::fs::statat(path.directory(), path.name(), AtFlags::SYMLINK_NOFOLLOW) {
        Ok(found) if FileType::from_raw_mode(found.st_mode) == FileType::RegularFile => found,
        _ => return Ok(()),
    };
    if found.st_size > 0 {
        return Err(StoreError::NotEmpty(place.to_owned()));
    }
    judged(Ok(guard.judge_empty(&Owned::from(&found))), place)
}

/// What [`open_new`] gives, for whoever may come too late for it, or cannot note it: if it is dropped, a file that was made goes
/// again. One that was there may be another disk's by then, and stays as it is.
pub(crate) struct Fresh {
    path: PathBuf,
    expected: Expected,
    opened: Option<(File, Identity)>,
}

impl Fresh {
    /// Opens a store's file that is to be made; see [`open_new`].
    ///
    /// # Errors
    /// Those of [`open_new`].
    pub(crate) fn open(
        path: &Path,
        least: u64,
        expected: &Expected,
        guard: &Guard,
    ) -> Result<Self, StoreError> {
        Ok(Fresh {
            path: path.to_owned(),
            expected: expected.clone(),
            opened: Some(open_new(path, least, expected, guard)?),
        })
    }

    /// Gives a file that was made to a user, if this process may.
    ///
    /// # Errors
    /// [`StoreError::Io`].
    pub(crate) fn give(&self, owner: Option<u32>) -> Result<(), StoreError> {
        match (&self.opened, owner) {
            (Some((file, Identity::File { made: true, .. })), Some(uid))
                if rustix::process::geteuid().is_root() =>
            {
                std::os::unix::fs::fchown(file, Some(uid), None).map_err(|source| StoreError::Io {
                    path: self.path.clone(),
                    source,
                })
            }
            _ => Ok(()),
        }
    }

    /// What it is.
    pub(crate) fn identity(&self) -> &Identity {
        &self.opened.as_ref().expect("it is taken at the end alone").1
    }

    /// Now the store stays.
    pub(crate) fn keep(mut self) -> File {
        self.opened.take().expect("it is taken here alone").0
    }
}

impl Drop for Fresh {
    fn drop(&mut self) {
        let Some((_, identity)) = &self.opened else { return };
        let expected = match (&self.expected, identity) {
            (Expected::InState, _) => Expected::InState,
            (_, Identity::File { made: true, .. }) => Expected::Given(identity.to_text().ok()),
            _ => return,
        };
        if let Err(error) = release(&self.path, None, &expected) {
            log::warn!("{} was made for nothing, and stays: {error}", self.path.display());
        }
    }
}

/// Makes the beginning of a device blank again on which we have begun a store that came to nothing. A file stays as it is.
///
/// # Errors
/// [`StoreError`]; another device than `expected`.
pub(crate) fn blank_again(path: &Path, expected: &Expected) -> Result<(), StoreError> {
    let file = open_for_service(path, 0, expected)?;
    let failed = |source| StoreError::Io {
        path: path.to_owned(),
        source,
    };
    if file.metadata().map_err(failed)?.is_file() {
        return Ok(());
    }
    let bytes = device_size(&file, path)?.min(BLANK_BYTES as u64);
    zero_device(&file, bytes)
        .and_then(|()| file.sync_all())
        .map_err(failed)
}

/// Gives the store its size, durably. A file's space is reserved, so that a full file system is found here and not
/// by the guest; where the file system cannot reserve, the file is sparse. A device is zeroed if `zero` is set,
/// because what was on it would be the contents of a plain disk. A file that cannot have its size is empty again.
///
/// # Errors
/// [`StoreError::NoSpace`], [`StoreError::Io`].
pub(crate) fn fill(file: &File, path: &Path, size: u64, zero: bool) -> Result<(), StoreError> {
    let failed = |source: io::Error| StoreError::Io {
        path: path.to_owned(),
        source,
    };
    if file.metadata().map_err(failed)?.is_file() {
        if let Err(error) = reserve(file, path, size) {
            // The file may have some of the room. Should this fail as well, it is emptied or removed by what undoes the call.
            let _ = file.set_len(0);
            return Err(error);
        }
    } else if zero {
        zero_device(file, size).map_err(failed)?;
    }
    file.sync_all().map_err(failed)
}

fn reserve(file: &File, path: &Path, size: u64) -> Result<(), StoreError> {
    let failed = |errno: Errno| StoreError::Io {
        path: path.to_owned(),
        source: errno.into(),
    };
    let space = rustix::fs::fstatvfs(file).map_err(failed)?;
    let available = space.f_bavail.saturating_mul(space.f_frsize);
    let no_space = || StoreError::NoSpace {
        path: path.to_owned(),
        needed: size,
        available,
    };
    // Asked first, because fallocate(2) may fill the file system before it fails.
    if size > available {
        return Err(no_space());
    }
    match rustix::fs::fallocate(file, FallocateFlags::empty(), 0, size) {
        Ok(()) => Ok(()),
        Err(Errno::NOSPC | Errno::DQUOT | Errno::FBIG) => Err(no_space()),
        Err(Errno::OPNOTSUPP | Errno::NOSYS) => match rustix::fs::ftruncate(file, size) {
            Ok(()) => Ok(()),
            Err(Errno::NOSPC | Errno::DQUOT | Errno::FBIG) => Err(no_space()),
            Err(errno) => Err(failed(errno)),
        },
        Err(errno) => Err(failed(errno)),
    }
}

fn zero_device(mut file: &File, size: u64) -> io::Result<()> {
    if rustix::fs::fallocate(
        file,
        FallocateFlags::ZERO_RANGE | FallocateFlags::KEEP_SIZE,
        0,
        size,
    )
    .is_ok()
    {
        return Ok(());
    }
    let zeros = vec![0; ZERO_STEP];
    let mut left = size;
    io::Seek::rewind(&mut file)?;
    while left > 0 {
        let step = left.min(ZERO_STEP as u64) as usize;
        file.write_all(&zeros[..step])?;
        left -= step as u64;
    }
    Ok(())
}
