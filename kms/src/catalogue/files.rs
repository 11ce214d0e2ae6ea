//! Whether the files that SQLite has open are those that lie in the state directory: what is written to a file that was removed, or in
//! whose place another one is, would be gone at the next start.

use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::database_file::log_of;

/// The file is not the one that is open.
#[derive(Debug, thiserror::Error)]
#[error(
    "{0} was removed, or another file is in its place: nothing is changed any more, since it would be lost. Put the file \
     back, or stop the daemon and restore a backup"
)]
pub(crate) struct Replaced(PathBuf);

impl Replaced {
    /// Whether a replaced file is why the catalogue failed.
    pub(crate) fn is(error: &sqlx::Error) -> bool {
        matches!(error, sqlx::Error::Io(error) if error.get_ref().is_some_and(|inner| inner.is::<Replaced>()))
    }
}

impl From<Replaced> for sqlx::Error {
    fn from(replaced: Replaced) -> Self {
        sqlx::Error::Io(io::Error::other(replaced))
    }
}

/// A file, whatever its name is by now.
type Inode = (u64, u64);

/// The catalogue and its log.
#[derive(Debug)]
pub(super) struct Files {
    path: PathBuf,
    catalogue: Inode,
    log: Mutex<Log>,
}

#[derive(Debug, Default)]
struct Log {
    /// The log's file. Not known before the first write of a connection: SQLite makes the log anew when nobody has had it open.
    known: Option<Inode>,
    /// What the last write has found.
    replaced: bool,
}

impl Files {
    /// What has just been opened.
    ///
    /// # Errors
    /// The kernel's.
    pub(super) fn opened(path: &Path) -> io::Result<Self> {
        Ok(Files {
            path: path.to_owned(),
            catalogue: inode(path)?,
            log: Mutex::default(),
        })
    }

    /// The connection that writes has been opened anew.
    pub(super) fn reconnected(&self) {
        *self.log() = Log::default();
    }

    /// To be asked while a connection has the files open, in a transaction.
    ///
    /// # Errors
    /// [`Replaced`].
    pub(super) fn check(&self) -> Result<(), Replaced> {
        self.check_catalogue()?;
        let path = self.log_path();
        let found = inode(&path).ok();
        let mut log = self.log();
        log.known = log.known.or(found);
        log.replaced = log.known != found;
        if log.replaced { Err(Replaced(path)) } else { Ok(()) }
    }

    /// Can be asked at any time: of the log it knows what the last write has found.
    ///
    /// # Errors
    /// [`Replaced`].
    pub(super) fn check_last(&self) -> Result<(), Replaced> {
        self.check_catalogue()?;
        if self.log().replaced {
            return Err(Replaced(self.log_path()));
        }
        Ok(())
    }

    fn check_catalogue(&self) -> Result<(), Replaced> {
        match inode(&self.path) {
            Ok(found) if found == self.catalogue => Ok(()),
            _ => Err(Replaced(self.path.clone())),
        }
    }

    fn log_path(&self) -> PathBuf {
        log_of(&self.path)
    }

    fn log(&self) -> MutexGuard<'_, Log> {
        self.log.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn inode(path: &Path) -> io::Result<Inode> {
    let found = path.symlink_metadata()?;
    Ok((found.dev(), found.ino()))
}
