//! Opening directories, and who could have put something in one.

use std::io;
use std::os::fd::OwnedFd;
use std::path::Path;

use rustix::fs::{CWD, Mode, OFlags, ResolveFlags, Stat};
use rustix::io::Errno;

use crate::limits;

/// Opens a directory (`O_PATH`), and follows no link on the way (openat2(2)).
///
/// # Errors
/// [`Errno::LOOP`] for a link.
pub(crate) fn open_directory(path: &Path) -> std::result::Result<OwnedFd, Errno> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    // The kernel asks for another try if a directory was renamed meanwhile.
    loop {
        match rustix::fs::openat2(CWD, path, flags, Mode::empty(), ResolveFlags::NO_SYMLINKS) {
            Err(Errno::INTR | Errno::AGAIN) => {}
            result => return result,
        }
    }
}

/// Opens a directory as [`open_directory`] does, but follows a link where only root or this process's user can have put it, as
/// the state directory's administrator may do with parts of that.
///
/// # Errors
/// The kernel's; [`Errno::LOOP`] for any other link.
pub(crate) fn open_trusted(path: &Path) -> io::Result<OwnedFd> {
    let strict = open_directory(path);
    if strict.as_ref().err() != Some(&Errno::LOOP) {
        return Ok(strict?);
    }
    // The link lies in the last directory that is reached without one.
    let above = path
        .ancestors()
        .skip(1)
        .find_map(|above| open_directory(above).ok());
    let above = above.ok_or(Errno::LOOP)?;
    if !is_filled_by_us_alone(&above)? {
        return Err(Errno::LOOP.into());
    }
    Ok(open_directory(&path.canonicalize()?)?)
}

/// Whether nobody but root and this process's user can put anything into a directory, or another directory in its place.
///
/// # Errors
/// The kernel's.
pub(crate) fn is_filled_by_us_alone(directory: &OwnedFd) -> io::Result<bool> {
    let mode = Mode::from_raw_mode(rustix::fs::fstat(directory)?.st_mode);
    Ok(!mode.intersects(Mode::WGRP | Mode::WOTH) && is_ours_alone(directory)?)
}

/// Whether nobody but root and this process's user can rename anything on the way to a directory, or in it what is theirs.
///
/// # Errors
/// The kernel's.
pub(crate) fn is_ours_alone(directory: &OwnedFd) -> io::Result<bool> {
    let own = rustix::process::geteuid().as_raw();
    let is_ours = |found: &Stat| {
        let mode = Mode::from_raw_mode(found.st_mode);
        let writable = mode.intersects(Mode::WGRP | Mode::WOTH);
        [0, own].contains(&found.st_uid) && (!writable || mode.contains(Mode::SVTX))
    };
    Ok(ancestors(directory)?.iter().all(is_ours))
}

/// The directory and all those above it.
pub(super) fn ancestors(directory: &OwnedFd) -> io::Result<Vec<Stat>> {
    let root = rustix::fs::stat("/")?;
    let mut way = Vec::new();
    let mut above = rustix::io::dup(directory)?;
    loop {
        let found = rustix::fs::fstat(&above)?;
        let is_root = (found.st_dev, found.st_ino) == (root.st_dev, root.st_ino);
        way.push(found);
        if is_root || way.len() > limits::PATH_BYTES {
            return Ok(way);
        }
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        above = rustix::fs::openat(&above, "..", flags, Mode::empty())?;
    }
}
