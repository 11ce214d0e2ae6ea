//! What a file at a caller's path must be.

use std::fmt;
use std::fs::{File, Metadata};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::sync::Arc;

use rustix::fs::{Mode, Stat};

use super::kept::Kept;

/// Judges what was opened at a path on somebody's behalf.
#[derive(Clone, Debug)]
pub(crate) struct Guard {
    /// The caller's user; none is the owner.
    uid: Option<u32>,
    kept: Arc<Kept>,
}

/// Mode of the files that are made at callers' paths.
pub(crate) const MADE_MODE: Mode = Mode::RUSR.union(Mode::WUSR);

/// Whose a file is.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Owned {
    pub(crate) uid: u32,
    /// Hard links.
    pub(crate) names: u64,
    pub(crate) mode: Mode,
}

impl From<&Metadata> for Owned {
    fn from(metadata: &Metadata) -> Self {
        Owned {
            uid: metadata.uid(),
            names: metadata.nlink(),
            mode: Mode::from_raw_mode(metadata.mode()),
        }
    }
}

impl From<&Stat> for Owned {
    fn from(found: &Stat) -> Self {
        Owned {
            uid: found.st_uid,
            names: found.st_nlink,
            mode: Mode::from_raw_mode(found.st_mode),
        }
    }
}

/// Why a file is not for the caller.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Unfit {
    /// The file is the KMS's own.
    Kept,
    /// The file has other names, in directories that the caller need not be permitted.
    Linked,
    /// The file is empty and would be taken, and somebody else's.
    Foreign,
}

impl fmt::Display for Unfit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Unfit::Kept => "is a file of the KMS itself, and cannot be chosen",
            Unfit::Linked => {
                "has further names (hard links): give a file that has this name alone, such as a copy"
            }
            Unfit::Foreign => {
                "is empty, but not your file: give a path where nothing is, or an empty file of your own"
            }
        })
    }
}

impl Guard {
    pub(super) fn new(uid: Option<u32>, kept: Arc<Kept>) -> Self {
        Guard { uid, kept }
    }

    /// The owner's, of a KMS of the test's own.
    #[cfg(test)]
    pub(crate) fn of_owner() -> Self {
        let state = tempfile::tempdir().unwrap();
        let state = crate::state::StateDir::open(state.path()).unwrap();
        Guard::new(None, Arc::new(Kept::new(state, Vec::new())))
    }

    /// Judges what is there and is to be read.
    ///
    /// # Errors
    /// The kernel's.
    pub(crate) fn judge(&self, file: &File, metadata: &Metadata) -> io::Result<Result<(), Unfit>> {
        if !metadata.is_file() {
            return Ok(Ok(()));
        }
        if self.kept.has_file(file, metadata)? {
            return Ok(Err(Unfit::Kept));
        }
        Ok(match self.uid {
            Some(_) if metadata.nlink() > 1 => Err(Unfit::Linked),
            _ => Ok(()),
        })
    }

    /// Judges an empty file that is to be written.
    ///
    /// # Errors
    /// The kernel's.
    pub(crate) fn judge_taken(&self, file: &File, metadata: &Metadata) -> io::Result<Result<(), Unfit>> {
        if metadata.is_file()
            && let Err(why) = self.judge_empty(&Owned::from(metadata))
        {
            return Ok(Err(why));
        }
        self.judge(file, metadata)
    }

    /// Whether an empty file may be taken, by whose it is alone.
    ///
    /// # Errors
    /// Why it is not taken.
    pub(crate) fn judge_empty(&self, file: &Owned) -> Result<(), Unfit> {
        match self.uid {
            Some(own) if own != file.uid && !self.is_left(file) => Err(Unfit::Foreign),
            Some(_) if file.names > 1 => Err(Unfit::Linked),
            _ => Ok(()),
        }
    }

    /// Whether an empty file is one that this process's user has made for the caller, as it makes them: a daemon that was killed
    /// before it had noted that leaves such a file where the caller names it again.
    pub(crate) fn is_left(&self, file: &Owned) -> bool {
        let own = rustix::process::geteuid().as_raw();
        self.uid.is_some_and(|uid| uid != own)
            && (file.uid, file.names) == (own, 1)
            && file.mode.bits() == MADE_MODE.bits()
    }

    /// Judges an open file that the caller has passed, which it could open itself.
    ///
    /// # Errors
    /// Why it is not for the caller.
    pub(crate) fn judge_passed(&self, metadata: &Metadata) -> Result<(), Unfit> {
        match metadata.is_file() && self.kept.is_kept(metadata) {
            true => Err(Unfit::Kept),
            false => Ok(()),
        }
    }

    /// The user, if it is another than the owner: files of others are not touched for it, and new ones are given to it.
    pub(crate) fn user(&self) -> Option<u32> {
        self.uid
    }
}
