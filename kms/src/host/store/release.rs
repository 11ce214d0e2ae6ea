//! Giving up the store of a disk that is deleted or was not made: only what is surely the disk's is lost.

use std::fs::File;
use std::io;
use std::path::Path;

use rustix::fs::{AtFlags, FileType, Mode, OFlags, StatxFlags};
use rustix::io::Errno;

use super::error::StoreError;
use super::expected::Expected;
use super::file::open_strictly;
use super::identity::Identity;

/// Gives up the disk's store. A file that we have made is removed; one that was there before the disk is empty again;
/// a block device stays as it is, and so does what is not, or not surely, the store that the disk had. `length` is that
/// of the store's file, where it is known.
///
/// # Errors
/// [`StoreError::Io`]. A missing file is none.
pub(crate) fn release(path: &Path, length: Option<u64>, expected: &Expected) -> Result<(), StoreError> {
    let identity = match expected {
        Expected::InState => return remove_in_state(path),
        Expected::Given(None) => return Ok(()),
        Expected::Given(Some(text)) => Identity::parse(text, path)?,
    };
    let released = match &identity {
        Identity::Device { .. } => return Ok(()),
        Identity::File { made: true, .. } => remove(path, length, &identity),
        Identity::File { made: false, .. } => empty(path, length, &identity),
    };
    match released {
        Ok(true) | Err(Errno::NOENT) => Ok(()),
        // A directory was replaced by a link or a file.
        Ok(false) | Err(Errno::LOOP | Errno::NOTDIR) => {
            log::warn!(
                "{} is not the file that the disk was created on, and stays",
                path.display()
            );
            Ok(())
        }
        Err(errno) => Err(StoreError::Io {
            path: path.to_owned(),
            source: errno.into(),
        }),
    }
}

/// Whether the file was the right one, and is no more.
fn remove(path: &Path, length: Option<u64>, identity: &Identity) -> Result<bool, Errno> {
    let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else {
        return Ok(false);
    };
    let directory = open_strictly(parent, OFlags::RDONLY | OFlags::DIRECTORY, Mode::empty())?;
    let stat = rustix::fs::statx(
        &directory,
        name,
        AtFlags::SYMLINK_NOFOLLOW,
        StatxFlags::BASIC_STATS | StatxFlags::BTIME,
    )?;
    if FileType::from_raw_mode(stat.stx_mode.into()) != FileType::RegularFile
        || !identity.may_be_lost(&Identity::of_file(&stat, true), stat.stx_size, length)
    {
        return Ok(false);
    }
    rustix::fs::unlinkat(&directory, name, AtFlags::empty())?;
    rustix::fs::fsync(&directory)?;
    Ok(true)
}

/// Whether the file was the right one, and is empty.
fn empty(path: &Path, length: Option<u64>, identity: &Identity) -> Result<bool, Errno> {
    let file = match open_strictly(
        path,
        OFlags::RDWR | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY,
        Mode::empty(),
    ) {
        Err(Errno::ISDIR | Errno::NXIO) => return Ok(false), // A directory or a socket.
        result => result?,
    };
    let errno = |error: io::Error| Errno::from_io_error(&error).unwrap_or(Errno::IO);
    let metadata = file.metadata().map_err(errno)?;
    let stat = rustix::fs::statx(
        &file,
        "",
        AtFlags::EMPTY_PATH,
        StatxFlags::BASIC_STATS | StatxFlags::BTIME,
    )?;
    if !metadata.is_file() || !identity.may_be_lost(&Identity::of_file(&stat, false), metadata.len(), length)
    {
        return Ok(false);
    }
    clear(&file).map_err(errno)?;
    Ok(true)
}

fn clear(file: &File) -> io::Result<()> {
    file.set_len(0)?;
    file.sync_all()
}

/// Removes a file of the state directory, where nobody else makes any.
fn remove_in_state(path: &Path) -> Result<(), StoreError> {
    match std::fs::remove_file(path) {
        Err(source) if source.kind() != io::ErrorKind::NotFound => Err(StoreError::Io {
            path: path.to_owned(),
            source,
        }),
        _ => Ok(()),
    }
}
