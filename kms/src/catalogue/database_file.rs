//! The files of an SQLite database: itself and, beside it, its logs.

use std::ffi::OsString;
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};

use rustix::fs::CWD;

use crate::error::{Code, Error, Result};
use crate::state::{rename_new, sync_directory};

/// The write-ahead log, as SQLite names it (<https://sqlite.org/walformat.html>).
pub(crate) fn log_of(database: &Path) -> PathBuf {
    beside(database, "-wal")
}

/// Removes a database that nobody uses, with its logs.
///
/// # Errors
/// The file system's.
pub(crate) fn remove_database(path: &Path) -> io::Result<()> {
    for suffix in ["", "-wal", "-shm", "-journal"] {
        match std::fs::remove_file(beside(path, suffix)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
    }
    Ok(())
}

/// Refuses a path where something is.
///
/// # Errors
/// [`Code::FileExists`].
pub(crate) fn refuse_existing(file: &Path) -> Result<()> {
    if std::fs::symlink_metadata(file).is_ok() {
        let text = format!("{} exists already: choose another name", file.display());
        return Err(Error::new(Code::FileExists, text));
    }
    Ok(())
}

/// Gives a closed database a name that nothing has, durably.
///
/// # Errors
/// [`Code::FileExists`], [`Code::FileFailed`].
pub(crate) fn name_new(unfinished: &Path, file: &Path) -> Result<()> {
    let failed = |error| {
        Error::because(
            Code::FileFailed,
            format!("{} cannot be written", file.display()),
            error,
        )
    };
    File::open(unfinished)
        .and_then(|file| file.sync_all())
        .map_err(failed)?;
    match rename_new(CWD, unfinished, file) {
        Ok(()) => {}
        Err(rustix::io::Errno::EXIST) => refuse_existing(file)?,
        Err(errno) => return Err(failed(errno.into())),
    }
    let parent = file
        .parent()
        .filter(|parent| !parent.as_os_str().is_empty())
        .unwrap_or(Path::new("."));
    sync_directory(parent).map_err(failed)
}

fn beside(database: &Path, suffix: &str) -> PathBuf {
    let mut name = OsString::from(database);
    name.push(suffix);
    name.into()
}
