//! Files and block devices that hold disks: made, opened for a backend, measured, given back. Read only to see that a
//! device is blank, and written only to zero a plain disk on a device.

pub(crate) mod identity;
pub(crate) mod make;
pub(crate) mod release;
#[cfg(test)]
mod tests;

use std::fs::File;
use std::io::{self, Seek, SeekFrom};
use std::os::fd::AsRawFd;
use std::os::unix::fs::{FileTypeExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::{CWD, FlockOperation, Mode, OFlags, ResolveFlags};
use rustix::io::Errno;

use crate::error::{Code, Error};
use crate::host::passed::PASSED;
use crate::host::paths::{Guard, Unfit, is_filled_by_us_alone, open_directory};
use crate::limits;

pub(crate) use identity::{Identity, medium, medium_of};
pub(crate) use make::{Fresh, blank_again, check_new, fill};
pub(crate) use release::release;

/// Why a store cannot be used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum StoreError {
    #[error("{0} has contents already: give an empty or missing file, so that nothing is overwritten")]
    NotEmpty(PathBuf),
    #[error(
        "{0} holds data in its first MiB: if nobody needs what is on this device, wipe it with \
         `blkdiscard -z {0}` or `dd if=/dev/zero of={0} bs=1M count=1` (`wipefs -a` is enough for a file system)"
    )]
    DeviceNotBlank(PathBuf),
    #[error(
        "{0} is neither a regular file nor a block device (symbolic links are followed only to block devices, only as the \
         last part of a path, and only if root or the KMS's user made them where nobody else writes)"
    )]
    WrongKind(PathBuf),
    #[error("{0} is not the file or device that the disk was created on: put that one back in its place")]
    Changed(PathBuf),
    #[error("{0} is used by another process: give a file or device that nobody else uses")]
    InUse(PathBuf),
    #[error("{path} {why}")]
    Unfit { path: PathBuf, why: Unfit },
    #[error("{path} has {found} bytes, and the disk needs {needed}")]
    TooSmall { path: PathBuf, found: u64, needed: u64 },
    #[error("{path} cannot have {needed} bytes: {available} are free")]
    NoSpace {
        path: PathBuf,
        needed: u64,
        available: u64,
    },
    #[error("{path} cannot be used")]
    Io {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
}

impl From<StoreError> for Error {
    fn from(error: StoreError) -> Self {
        let code = match &error {
            StoreError::NotEmpty(_) | StoreError::DeviceNotBlank(_) => Code::FileNotEmpty,
            StoreError::Changed(_) => Code::StoreUnusable,
            StoreError::WrongKind(_) => Code::NotAFileOrBlockDevice,
            StoreError::InUse(_) => Code::FileInUse,
            StoreError::Unfit { why: Unfit::Kept, .. } => Code::InvalidPath,
            StoreError::Unfit { .. } => Code::PathNotAllowed,
            StoreError::TooSmall { .. } => Code::DeviceTooSmall,
            StoreError::NoSpace { .. } => Code::NoSpace,
            StoreError::Io { source, .. } if source.kind() == io::ErrorKind::NotFound => Code::InvalidPath,
            StoreError::Io { .. } => Code::FileFailed,
        };
        Error::because(code, "the disk's store cannot be used", error)
    }
}

/// What is known of a disk's store besides its path.
#[derive(Clone, Debug)]
pub(crate) enum Expected {
    /// It is a file of the state directory, where nobody else makes any. It may have been moved there with the
    /// directory, so that nothing but its name tells what it is.
    InState,
    /// It is at a path that was given, and has this [`Identity`]. Without one nothing is compared, and nothing lost:
    /// it was not made yet, or the catalogue was restored from a backup.
    Given(Option<String>),
}

impl Expected {
    /// From the columns of a disk.
    pub(crate) fn of(path: Option<&str>, identity: Option<&str>) -> Self {
        match path {
            None => Expected::InState,
            Some(_) => Expected::Given(identity.map(str::to_owned)),
        }
    }

    /// Refuses another file or device than the one that is known.
    fn check(&self, file: &File, path: &Path) -> Result<(), StoreError> {
        if let Expected::Given(Some(identity)) = self
            && !Identity::parse(identity, path)?.is(&Identity::of(file, path, false)?)
        {
            return Err(StoreError::Changed(path.to_owned()));
        }
        Ok(())
    }

    /// The path to be opened. The state directory's administrator may have put `disks/` elsewhere by a link.
    fn place(&self, path: &Path) -> Result<PathBuf, StoreError> {
        match (self, path.parent(), path.file_name()) {
            (Expected::InState, Some(parent), Some(name)) => match parent.canonicalize() {
                Ok(parent) => Ok(parent.join(name)),
                Err(source) => Err(StoreError::Io {
                    path: path.to_owned(),
                    source,
                }),
            },
            _ => Ok(path.to_owned()),
        }
    }
}

/// Opens the store for a backend: a new open file description, on which the backend takes its lock.
///
/// # Errors
/// [`StoreError`]: missing, of the wrong kind, another than `expected`, of fewer than `least` bytes, or a device in use.
pub(crate) fn open_for_service(path: &Path, least: u64, expected: &Expected) -> Result<File, StoreError> {
    // For writing also where the attachment is read-only: only then can the backend lock out others (rule A08).
    let (file, metadata) = open(&expected.place(path)?, Use::Own)?;
    expected.check(&file, path)?;
    let found = if metadata.is_file() {
        metadata.len()
    } else {
        device_size(&file, path)?
    };
    if found < least {
        return Err(StoreError::TooSmall {
            path: path.to_owned(),
            found,
            needed: least,
        });
    }
    Ok(file)
}

/// Opens a store that a clone reads, while whoever has it may write to it.
///
/// # Errors
/// [`StoreError`]: missing, of the wrong kind, or another than `expected`.
pub(crate) fn open_base(path: &Path, expected: &Expected) -> Result<File, StoreError> {
    let (file, _) = open(&expected.place(path)?, Use::Base)?;
    expected.check(&file, path)?;
    Ok(file)
}

/// What is in a file or device that is no disk's.
pub(crate) struct Foreign {
    /// Bytes.
    pub(crate) size: u64,
    pub(crate) identity: Identity,
    /// Its first bytes, and its last: as many as were asked for, or all.
    pub(crate) beginning: Vec<u8>,
    pub(crate) end: Vec<u8>,
}

/// Looks at a file or device that is no disk's, and at `bytes` of its beginning and of its end.
///
/// # Errors
/// [`StoreError`]: missing, of the wrong kind, or not for whom `guard` is of.
pub(crate) fn look_at(path: &Path, bytes: usize, guard: &Guard) -> Result<Foreign, StoreError> {
    let (file, metadata) = open(path, Use::Base)?;
    judged(guard.judge(&file, &metadata), path)?;
    contents(&file, &metadata, path, bytes)
}

/// The same, of a file that is open.
///
/// # Errors
/// As [`look_at`].
pub(crate) fn look_at_open(file: &File, bytes: usize, guard: &Guard) -> Result<Foreign, StoreError> {
    let path = Path::new(PASSED);
    let metadata = judged_open(file, guard)?;
    contents(file, &metadata, path, bytes)
}

/// Looks whether an open file is empty, or a blank device of at least `least` bytes.
///
/// # Errors
/// [`StoreError`].
pub(crate) fn check_open(file: &File, least: u64, guard: &Guard) -> Result<(), StoreError> {
    let path = Path::new(PASSED);
    let metadata = judged_open(file, guard)?;
    match metadata.is_file() {
        true if metadata.len() > 0 => Err(StoreError::NotEmpty(path.to_owned())),
        true => Ok(()),
        false => make::check_device(file, path, least),
    }
}

/// Of an open file that was passed.
///
/// # Errors
/// [`StoreError::Io`].
pub(crate) fn identity_of(file: &File) -> Result<Identity, StoreError> {
    Identity::of(file, Path::new(PASSED), false)
}

fn judged_open(file: &File, guard: &Guard) -> Result<std::fs::Metadata, StoreError> {
    let path = Path::new(PASSED);
    let metadata = file.metadata().map_err(|source| StoreError::Io {
        path: path.to_owned(),
        source,
    })?;
    judged(Ok(guard.judge_passed(&metadata)), path)?;
    Ok(metadata)
}

fn contents(
    file: &File,
    metadata: &std::fs::Metadata,
    path: &Path,
    bytes: usize,
) -> Result<Foreign, StoreError> {
    let size = if metadata.is_file() {
        metadata.len()
    } else {
        device_size(file, path)?
    };
    let read = |offset| {
        let mut buffer = vec![0; bytes];
        let read = rustix::io::pread(file, &mut buffer, offset).map_err(|errno| StoreError::Io {
            path: path.to_owned(),
            source: errno.into(),
        })?;
        buffer.truncate(read);
        Ok(buffer)
    };
    Ok(Foreign {
        size,
        identity: Identity::of(file, path, false)?,
        beginning: read(0)?,
        end: read(size.saturating_sub(bytes as u64))?,
    })
}

fn judged(judged: io::Result<Result<(), Unfit>>, path: &Path) -> Result<(), StoreError> {
    match judged {
        Ok(Ok(())) => Ok(()),
        Ok(Err(why)) => Err(StoreError::Unfit {
            path: path.to_owned(),
            why,
        }),
        Err(source) => Err(StoreError::Io {
            path: path.to_owned(),
            source,
        }),
    }
}

/// Gives a file that is there for plain data its length, in holes.
///
/// # Errors
/// [`StoreError::Io`].
pub(crate) fn lengthen(file: &File, path: &Path, size: u64) -> Result<(), StoreError> {
    let lengthened = file.set_len(size).and_then(|()| file.sync_all());
    lengthened.map_err(|source| StoreError::Io {
        path: path.to_owned(),
        source,
    })
}

/// A second open file description of the same file or device, whatever has happened to its path.
///
/// # Errors
/// [`StoreError::Io`].
pub(crate) fn open_again(file: &File, path: &Path, write: bool) -> Result<File, StoreError> {
    // Not exclusively: a device can be claimed once only, and has been.
    let flags = OFlags::NONBLOCK | OFlags::NOCTTY;
    std::fs::OpenOptions::new()
        .read(true)
        .write(write)
        .custom_flags(flags.bits() as i32)
        .open(format!("/proc/self/fd/{}", file.as_raw_fd()))
        .map_err(|source| StoreError::Io {
            path: path.to_owned(),
            source,
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

/// What a store is opened for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Use {
    /// To be written; a device exclusively.
    Own,
    /// To be read, while another writes it.
    Base,
}

/// Opens a regular file or block device. No link is followed on the way, so that whoever can
/// write to one of the directories cannot lead us elsewhere; only stable names of devices are links themselves.
fn open(path: &Path, purpose: Use) -> Result<(File, std::fs::Metadata), StoreError> {
    let failed = |source| StoreError::Io {
        path: path.to_owned(),
        source,
    };
    let real = resolve(path)?;
    let kind = std::fs::symlink_metadata(&real).map_err(failed)?.file_type();
    if !kind.is_file() && !kind.is_block_device() {
        return Err(StoreError::WrongKind(path.to_owned()));
    }
    let mut flags = OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY;
    flags |= match purpose {
        Use::Own => OFlags::RDWR,
        Use::Base => OFlags::RDONLY,
    };
    if kind.is_block_device() && purpose == Use::Own {
        flags |= OFlags::EXCL; // Without O_CREAT: fails if the device is mounted or otherwise claimed (open(2)).
    }
    let file = match open_strictly(&real, flags, Mode::empty()) {
        Ok(file) => file,
        Err(Errno::BUSY) => return Err(StoreError::InUse(path.to_owned())),
        Err(errno) => return Err(failed(errno.into())),
    };
    let metadata = file.metadata().map_err(failed)?;
    if metadata.file_type() != kind {
        return Err(StoreError::WrongKind(path.to_owned())); // Replaced in between.
    }
    Ok((file, metadata))
}

/// The path without the link that it may end with, if that leads to a block device, as `/dev/disk/by-id/…` and
/// `/dev/VG/LV` do.
fn resolve(path: &Path) -> Result<PathBuf, StoreError> {
    let failed = |source| StoreError::Io {
        path: path.to_owned(),
        source,
    };
    let found = std::fs::symlink_metadata(path).map_err(failed)?;
    if !found.is_symlink() {
        return Ok(path.to_owned());
    }
    // Anybody can make one to any device where he may write.
    if !is_trusted(&found, path).map_err(failed)? {
        return Err(StoreError::WrongKind(path.to_owned()));
    }
    let real = match path.canonicalize() {
        Ok(real) => real,
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            return Err(StoreError::WrongKind(path.to_owned()));
        }
        Err(error) => return Err(failed(error)),
    };
    let kind = std::fs::symlink_metadata(&real).map_err(failed)?.file_type();
    if !kind.is_block_device() {
        return Err(StoreError::WrongKind(path.to_owned()));
    }
    Ok(real)
}

/// Whether a link is root's or this process's user's, and nobody else can have put it there.
fn is_trusted(link: &std::fs::Metadata, path: &Path) -> io::Result<bool> {
    let own = rustix::process::geteuid().as_raw();
    let directory = open_directory(path.parent().unwrap_or(path))?;
    Ok([0, own].contains(&link.uid()) && is_filled_by_us_alone(&directory)?)
}

/// Opens without following any link (openat2(2)).
fn open_strictly(path: &Path, flags: OFlags, mode: Mode) -> Result<File, Errno> {
    // The kernel asks for another try if a directory was renamed meanwhile.
    loop {
        match rustix::fs::openat2(
            CWD,
            path,
            flags | OFlags::CLOEXEC,
            mode,
            ResolveFlags::NO_SYMLINKS,
        ) {
            Err(Errno::INTR) => {}
            result => return result.map(File::from),
        }
    }
}

fn device_size(mut file: &File, path: &Path) -> Result<u64, StoreError> {
    file.seek(SeekFrom::End(0)).map_err(|source| StoreError::Io {
        path: path.to_owned(),
        source,
    })
}

/// Whether another process holds a lock of any kind on the file. Ours is released when `file` is closed.
fn is_locked(file: &File) -> io::Result<bool> {
    // A traditional record lock conflicts with those of others and with all open-file-description locks, such as
    // sealblk's and QEMU's (fcntl_locking(2)); flock(2) knows only its own kind.
    for attempt in [
        rustix::fs::fcntl_lock(file, FlockOperation::NonBlockingLockExclusive),
        rustix::fs::flock(file, FlockOperation::NonBlockingLockExclusive),
    ] {
        match attempt {
            Ok(()) => {}
            Err(Errno::WOULDBLOCK | Errno::ACCESS) => return Ok(true),
            Err(errno) => return Err(errno.into()),
        }
    }
    Ok(false)
}
