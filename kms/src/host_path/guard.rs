//! What a file at a caller's path must be.

use std::fmt;
use std::fs::{File, Metadata};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::sync::Arc;

use super::Kept;

/// Judges what was opened at a path on somebody's behalf.
#[derive(Clone, Debug)]
pub(crate) struct Guard {
    /// None: the owner.
    uid: Option<u32>,
    kept: Arc<Kept>,
}

/// Why a file is not for the caller.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Unfit {
    /// It is the KMS's own.
    Kept,
    /// It has other names, in directories that the caller need not be permitted.
    Linked,
    /// It is empty and would be taken, and somebody else's.
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
            && let Err(why) = self.judge_empty(metadata.uid(), metadata.nlink())
        {
            return Ok(Err(why));
        }
        self.judge(file, metadata)
    }

    /// The same, by its user and the number of its names alone.
    ///
    /// # Errors
    /// Why it is not taken.
    pub(crate) fn judge_empty(&self, uid: u32, names: u64) -> Result<(), Unfit> {
        match self.uid {
            Some(own) if own != uid => Err(Unfit::Foreign),
            Some(_) if names > 1 => Err(Unfit::Linked),
            _ => Ok(()),
        }
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
