//! Room for a start on a file system that is full: a file that is given up for what SQLite makes anew then, and made again when there
//! is room.
//!
//! That is the shared memory of the log for whoever opens the catalogue first, and, where the last that had it open closed it
//! in order, the log.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use crate::limits;

/// Whether there was no room, and now there is.
pub(super) fn give_up_piece(catalogue: &Path) -> bool {
    let is_full = room(catalogue).is_some_and(|(_, left)| left < limits::SPARE_PIECE);
    let shorten = || {
        let spare = File::options().write(true).open(path(catalogue))?;
        let length = spare.metadata()?.len();
        spare.set_len(length.saturating_sub(limits::SPARE_PIECE))?;
        Ok::<_, io::Error>(length > 0)
    };
    is_full && shorten().unwrap_or(false)
}

/// Whether there is one, however little is left of it.
pub(super) fn is_there(catalogue: &Path) -> bool {
    path(catalogue).exists()
}

/// Gives up what is left of it.
pub(super) fn give_up(catalogue: &Path) -> io::Result<()> {
    match std::fs::remove_file(path(catalogue)) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// Makes it as long as it is to be.
pub(super) fn make(catalogue: &Path) -> io::Result<()> {
    let mut spare = OpenOptions::new()
        .create(true)
        .append(true)
        .mode(0o600)
        .open(path(catalogue))?;
    let lacking = limits::SPARE_BYTES.saturating_sub(spare.metadata()?.len());
    // Written, since a hole takes no room.
    spare.write_all(&vec![0; usize::try_from(lacking).map_err(io::Error::other)?])
}

/// Bytes of a file system, and those that are left.
pub(super) fn room(catalogue: &Path) -> Option<(u64, u64)> {
    let system = rustix::fs::statvfs(catalogue).ok()?;
    Some((
        system.f_blocks * system.f_frsize,
        system.f_bavail * system.f_frsize,
    ))
}

fn path(catalogue: &Path) -> PathBuf {
    let mut name = catalogue.as_os_str().to_owned();
    name.push(".spare");
    name.into()
}
