//! Opening regular files and block devices, wherever they lie, and nothing else.

use std::fs::File;
use std::io::{self, Seek, SeekFrom};
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

use rustix::fs::{CWD, FlockOperation, Mode, OFlags, ResolveFlags};
use rustix::io::Errno;

use super::error::StoreError;
use crate::host::paths::{Unfit, is_filled_by_us_alone, open_directory};

/// What a store is opened for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Use {
    /// To be written; a device exclusively.
    Own,
    /// To be read, while another writes it.
    Base,
}

/// Opens a regular file or block device. No link is followed on the way, so that whoever can
/// write to one of the directories cannot lead us elsewhere; only stable names of devices are links themselves.
pub(super) fn open(path: &Path, purpose: Use) -> Result<(File, std::fs::Metadata), StoreError> {
    let failed = |source| StoreError::Io {
        path: path.to_owned(),
        source,
    };
    let real = resolve(path)?;
    let kind = std::fs::symlink_metadata(&real).map_err(failed)?.file_type();
    if !kind.is_file() && !kind.is_block_device() {
        return Err(StoreError::WrongKind(path.to_owned()));
    }
    let mut flags = OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY;
    flags |= match purpose {
        Use::Own => OFlags::RDWR,
        Use::Base => OFlags::RDONLY,
    };
    if kind.is_block_device() && purpose == Use::Own {
        flags |= OFlags::EXCL; // Without O_CREAT: fails if the device is mounted or otherwise claimed (open(2)).
    }
    let file = match open_strictly(&real, flags, Mode::empty()) {
        Ok(file) => file,
        Err(Errno::BUSY) => return Err(StoreError::InUse(path.to_owned())),
        Err(errno) => return Err(failed(errno.into())),
    };
    let metadata = file.metadata().map_err(failed)?;
    if metadata.file_type() != kind {
        return Err(StoreError::WrongKind(path.to_owned())); // Replaced in between.
    }
    Ok((file, metadata))
}

/// The path without the link that it may end with, if that leads to a block device, as `/dev/disk/by-id/…` and
/// `/dev/VG/LV` do.
pub(super) fn resolve(path: &Path) -> Result<PathBuf, StoreError> {
    let failed = |source| StoreError::Io {
        path: path.to_owned(),
        source,
    };
    let found = std::fs::symlink_metadata(path).map_err(failed)?;
    if !found.is_symlink() {
        return Ok(path.to_owned());
    }
    // Anybody can make one to any device where he may write.
    if !is_trusted(&found, path).map_err(failed)? {
        return Err(StoreError::WrongKind(path.to_owned()));
    }
    let real = match path.canonicalize() {
        Ok(real) => real,
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            return Err(StoreError::WrongKind(path.to_owned()));
        }
        Err(error) => return Err(failed(error)),
    };
    let kind = std::fs::symlink_metadata(&real).map_err(failed)?.file_type();
    if !kind.is_block_device() {
        return Err(StoreError::WrongKind(path.to_owned()));
    }
    Ok(real)
}

/// Whether a link is root's or this process's user's, and nobody else can have put it there.
pub(super) fn is_trusted(link: &std::fs::Metadata, path: &Path) -> io::Result<bool> {
    let own = rustix::process::geteuid().as_raw();
    let directory = open_directory(path.parent().unwrap_or(path))?;
    Ok([0, own].contains(&link.uid()) && is_filled_by_us_alone(&directory)?)
}

/// Opens without following any link (openat2(2)).
pub(super) fn open_strictly(path: &Path, flags: OFlags, mode: Mode) -> Result<File, Errno> {
    // The kernel asks for another try if a directory was renamed meanwhile.
    loop {
        match rustix::fs::openat2(
            CWD,
            path,
            flags | OFlags::CLOEXEC,
            mode,
            ResolveFlags::NO_SYMLINKS,
        ) {
            Err(Errno::INTR) => {}
            result => return result.map(File::from),
        }
    }
}

pub(super) fn device_size(mut file: &File, path: &Path) -> Result<u64, StoreError> {
    file.seek(SeekFrom::End(0)).map_err(|source| StoreError::Io {
        path: path.to_owned(),
        source,
    })
}

/// Whether another process holds a lock of any kind on the file. Ours is released when `file` is closed.
pub(super) fn is_locked(file: &File) -> io::Result<bool> {
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

pub(super) fn judged(judged: io::Result<Result<(), Unfit>>, path: &Path) -> Result<(), StoreError> {
    match judged {
        Ok(Ok(())) => Ok(()),
        Ok(Err(why)) => Err(StoreError::Unfit {
            path: path.to_owned(),
            why,
        }),
        Err(source) => Err(StoreError::Io {
            path: path.to_owned(),
            source,
        }),
    }
}

/// Gives a file that is there for plain data its length, in holes.
///
/// # Errors
/// [`StoreError::Io`].
pub(crate) fn lengthen(file: &File, path: &Path, size: u64) -> Result<(), StoreError> {
    let lengthened = file.set_len(size).and_then(|()| file.sync_all());
    lengthened.map_err(|source| StoreError::Io {
        path: path.to_owned(),
        source,
    })
}
