//! The root key's file, as it was when it was last found to be right.

use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};

use crate::keys::root::RootKeyProvider;

/// The root key's file when it was last found to be right.
pub(crate) struct RootFile {
    path: PathBuf,
    found: Mutex<Option<Stamp>>,
}

/// Tells a file from others, and whether it was written to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Stamp {
    pub(crate) device: u64,
    pub(crate) inode: u64,
    pub(crate) size: u64,
    pub(crate) written: (i64, i64),
    pub(crate) mode: u32,
    pub(crate) owner: u32,
}

impl RootFile {
    /// What has just been loaded.
    pub(crate) fn loaded(provider: &dyn RootKeyProvider) -> Self {
        let file = RootFile {
            path: provider.path(),
            found: Mutex::default(),
        };
        file.set(file.stamp());
        file
    }

    pub(crate) fn stamp(&self) -> Option<Stamp> {
        let file = self.path.symlink_metadata().ok()?;
        Some(Stamp {
            device: file.dev(),
            inode: file.ino(),
            size: file.len(),
            written: (file.mtime(), file.mtime_nsec()),
            mode: file.mode(),
            owner: file.uid(),
        })
    }

    pub(crate) fn get(&self) -> Option<Stamp> {
        *self.found.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn set(&self, stamp: Option<Stamp>) {
        *self.found.lock().unwrap_or_else(PoisonError::into_inner) = stamp;
    }
}
