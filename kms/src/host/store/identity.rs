//! What tells a store from every other one, whatever its path: noted when the disk is made, and compared before the
//! store is opened for a backend, emptied or removed.

use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, CWD, FileType, Statx, StatxFlags};
use serde::{Deserialize, Serialize};

use super::error::StoreError;
use super::file::{device_size, resolve};

/// Attributes of a block device in sysfs that stay the same when devices are numbered anew, as after a reboot.
const STABLE_ATTRIBUTES: [&str; 6] = [
    "dm/uuid",
    "device/wwid",
    "wwid",
    "device/serial",
    "serial",
    "loop/backing_file",
];

/// Of one store; in the catalogue as JSON.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case")]
pub(crate) enum Identity {
    /// A regular file.
    File {
        /// Device number of the file system. Many are numbered anew at each mount.
        device: u64,
        inode: u64,
        /// Seconds and nanoseconds; none where the file system keeps no time of birth. A file system gives the inode
        /// of a removed file to the next one; then only this tells them apart.
        birth: Option<String>,
        /// Whether we have made the file; otherwise it was there, empty, and is its owner's.
        made: bool,
    },
    /// A block device.
    Device {
        /// [`STABLE_ATTRIBUTES`] that it has, and those of the device that it is a part of.
        attributes: BTreeMap<String, String>,
        /// Bytes.
        size: u64,
    },
}

impl Identity {
    /// Of what is open.
    pub(super) fn of(file: &File, path: &Path, made: bool) -> Result<Self, StoreError> {
        let failed = |source| StoreError::Io {
            path: path.to_owned(),
            source,
        };
        let metadata = file.metadata().map_err(failed)?;
        if metadata.file_type().is_block_device() {
            return Ok(Identity::Device {
                attributes: attributes(metadata.rdev()),
                size: device_size(file, path)?,
            });
        }
        let stat = rustix::fs::statx(
            file,
            "",
            AtFlags::EMPTY_PATH,
            StatxFlags::BASIC_STATS | StatxFlags::BTIME,
        );
        Ok(Self::of_file(&stat.map_err(|errno| failed(errno.into()))?, made))
    }

    /// The identity of a regular file, of which `BASIC_STATS` and `BTIME` were asked for.
    pub(super) fn of_file(stat: &Statx, made: bool) -> Self {
        let known = stat.stx_mask & StatxFlags::BTIME.bits() != 0;
        let (seconds, nanoseconds) = (stat.stx_btime.tv_sec, stat.stx_btime.tv_nsec);
        Identity::File {
            device: rustix::fs::makedev(stat.stx_dev_major, stat.stx_dev_minor),
            inode: stat.stx_ino,
            birth: (known && (seconds, nanoseconds) != (0, 0)).then(|| format!("{seconds}.{nanoseconds:09}")),
            made,
        }
    }

    /// As it stands in the catalogue.
    pub(crate) fn parse(text: &str, path: &Path) -> Result<Self, StoreError> {
        serde_json::from_str(text).map_err(|source| StoreError::Io {
            path: path.to_owned(),
            source: source.into(),
        })
    }

    /// For the catalogue.
    pub(crate) fn to_text(&self) -> Result<String, StoreError> {
        serde_json::to_string(self).map_err(|source| StoreError::Io {
            path: PathBuf::new(),
            source: source.into(),
        })
    }

    /// Whether `found` is this store. Device numbers are not compared, and a device may have grown if anything else
    /// is known of it.
    pub(super) fn is(&self, found: &Identity) -> bool {
        match (self, found) {
            (
                Identity::File { inode, birth, .. },
                Identity::File {
                    inode: found_inode,
                    birth: found_birth,
                    ..
                },
            ) => inode == found_inode && (birth.is_none() || birth == found_birth),
            (
                Identity::Device { attributes, size },
                Identity::Device {
                    attributes: found_attributes,
                    size: found_size,
                },
            ) => {
                let same = |(name, value): (&String, &String)| found_attributes.get(name) == Some(value);
                attributes.iter().all(same) && (has_name(attributes) || size == found_size)
            }
            _ => false,
        }
    }

    /// Whether `found`, of `length` bytes, is this file so surely that it may be emptied or removed. Without a time of
    /// birth, device number and length are all that there is besides the inode: `known` is the length it should have.
    pub(super) fn may_be_lost(&self, found: &Identity, length: u64, known: Option<u64>) -> bool {
        match (self, found) {
            (
                Identity::File {
                    device, birth: None, ..
                },
                Identity::File {
                    device: found_device, ..
                },
            ) => self.is(found) && device == found_device && (length == 0 || Some(length) == known),
            _ => self.is(found),
        }
    }
}

/// A partition's number is none by which a disk can be told from another.
fn has_name(attributes: &BTreeMap<String, String>) -> bool {
    attributes.keys().any(|name| name != "partition")
}

fn attributes(rdev: u64) -> BTreeMap<String, String> {
    let (major, minor) = (rustix::fs::major(rdev), rustix::fs::minor(rdev));
    let device = PathBuf::from(format!("/sys/dev/block/{major}:{minor}"));
    let mut found = BTreeMap::new();
    let mut look = |directory: &Path, prefix: &str, name: &str| {
        // Serial numbers of emulated devices need not be UTF-8.
        let text = std::fs::read(directory.join(name)).unwrap_or_default();
        let text = String::from_utf8_lossy(&text).trim().to_owned();
        if !text.is_empty() {
            found.insert(format!("{prefix}{name}"), text);
        }
    };
    look(&device, "", "partition");
    for name in STABLE_ATTRIBUTES {
        look(&device, "", name);
    }
    if device.join("partition").exists()
        && let Ok(real) = device.canonicalize()
        && let Some(whole) = real.parent()
    {
        for name in STABLE_ATTRIBUTES {
            look(whole, "whole/", name);
        }
    }
    found
}

/// What two paths have in common if they lead to the same bytes, as it stands in the catalogue: a file's inode and time of birth,
/// or device number and inode where the file system keeps no such time; a block device's number, which may be another's when
/// the machine has started anew. None if nothing is at `path`, or no store.
pub(crate) fn medium(path: &Path) -> Option<String> {
    let real = resolve(path).ok()?;
    let flags = StatxFlags::BASIC_STATS | StatxFlags::BTIME;
    of_stat(&rustix::fs::statx(CWD, &real, AtFlags::SYMLINK_NOFOLLOW, flags).ok()?)
}

/// The medium that an open file is on.
pub(crate) fn medium_of(file: &File) -> Option<String> {
    let flags = StatxFlags::BASIC_STATS | StatxFlags::BTIME;
    of_stat(&rustix::fs::statx(file, "", AtFlags::EMPTY_PATH, flags).ok()?)
}

fn of_stat(stat: &Statx) -> Option<String> {
    match FileType::from_raw_mode(stat.stx_mode.into()) {
        FileType::BlockDevice => Some(format!("device {}:{}", stat.stx_rdev_major, stat.stx_rdev_minor)),
        FileType::RegularFile => match Identity::of_file(stat, false) {
            Identity::File {
                inode,
                birth: Some(birth),
                ..
            } => Some(format!("file {inode} {birth}")),
            Identity::File { device, inode, .. } => Some(format!("file {device}:{inode}")),
            Identity::Device { .. } => None,
        },
        _ => None,
    }
}

/// Whether the first bytes of a device are all zero, as on one that is new or was wiped.
pub(super) fn is_blank(file: &File, bytes: usize) -> io::Result<bool> {
    use std::os::unix::fs::FileExt;
    let mut buffer = vec![0; bytes];
    let mut filled = 0;
    while filled < bytes {
        match file.read_at(&mut buffer[filled..], filled as u64) {
            Ok(0) => break, // A device that is shorter.
            Ok(count) => filled += count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(buffer.iter().all(|byte| *byte == 0))
}
