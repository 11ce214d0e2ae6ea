//! The room that stores take, and that is left where they lie.

use std::io::{self, Seek, SeekFrom};
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::Path;

use rustix::fs::{Mode, OFlags};

use super::file::{open_strictly, resolve};
use crate::limits;

/// The room for a file where it lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Room {
    /// Number of the file system.
    pub(crate) system: u64,
    /// In bytes, without what is reserved for root.
    pub(crate) size: u64,
    /// Bytes that are left.
    pub(crate) left: u64,
}

impl Room {
    /// Of a device that a store alone has.
    pub(crate) fn of_device(size: u64, used: u64) -> Self {
        Room {
            system: 0,
            size,
            left: size.saturating_sub(used),
        }
    }

    pub(crate) fn percent(&self) -> u64 {
        let used = u128::from(self.size.saturating_sub(self.left));
        u64::try_from(used * 100 / u128::from(self.size.max(1))).unwrap_or(100)
    }

    pub(crate) fn is_scarce(&self) -> bool {
        self.size > 0 && self.percent() >= limits::ROOM_PERCENT
    }
}

/// The room where a file lies; none of what is no file, or where that cannot be told.
pub(crate) fn room(path: &Path) -> Option<Room> {
    let metadata = std::fs::symlink_metadata(resolve(path).ok()?).ok()?;
    let system = rustix::fs::statvfs(path).ok()?;
    let used = system.f_blocks.saturating_sub(system.f_bfree);
    metadata.is_file().then_some(Room {
        system: metadata.dev(),
        size: (used + system.f_bavail) * system.f_frsize,
        left: system.f_bavail * system.f_frsize,
    })
}

/// Bytes that the store takes on its medium; 0 if that cannot be told.
pub(crate) fn allocated(path: &Path) -> u64 {
    let Ok(real) = resolve(path) else {
        return 0;
    };
    match std::fs::symlink_metadata(&real) {
        Ok(metadata) if metadata.is_file() => metadata.blocks() * 512,
        Ok(metadata) if metadata.file_type().is_block_device() => open_strictly(
            &real,
            OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK,
            Mode::empty(),
        )
        .map_err(io::Error::from)
        .and_then(|mut device| device.seek(SeekFrom::End(0)))
        .unwrap_or(0),
        _ => 0,
    }
}
