//! What no caller may name: the state directory with whatever its parts lead to, /proc, /sys, credentials and key files.

use std::fs::Metadata;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::{DirEntryExt, MetadataExt};
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, StatxAttributes, StatxFlags};

use super::directory::ancestors;
use crate::error::{Code, Error, Result};
use crate::state::StateDir;

/// Where systemd puts credentials (systemd.exec(5)).
const CREDENTIALS: &str = "/run/credentials";
/// Type of the file system sysfs, wherever it is mounted (statfs(2)).
const SYSFS_MAGIC: rustix::fs::FsWord = 0x6265_6572;

/// Device and inode.
type Inode = (u64, u64);

/// What nobody may name.
#[derive(Debug)]
pub(crate) struct Kept {
    state: StateDir,
    /// Files that the daemon was given: keys, and who may do what.
    files: Vec<PathBuf>,
    /// Of this process, if systemd gave it any.
    credentials: Option<PathBuf>,
}

impl Kept {
    pub(super) fn new(state: StateDir, files: Vec<PathBuf>) -> Self {
        Kept {
            state,
            files,
            credentials: std::env::var_os("CREDENTIALS_DIRECTORY").map(PathBuf::from),
        }
    }

    /// Refuses a path by what is written.
    ///
    /// # Errors
    /// [`Code::InvalidPath`].
    pub(super) fn check_path(&self, path: &Path) -> Result<()> {
        if path.starts_with(self.state.root()) {
            return Err(in_state());
        }
        let kernel = ["/proc", "/sys", CREDENTIALS].map(Path::new);
        let given = self.files.iter().chain(&self.credentials);
        if kernel.iter().any(|kept| path.starts_with(kept))
            || given.into_iter().any(|kept| path.starts_with(kept))
        {
            return Err(refused(path));
        }
        Ok(())
    }

    /// Refuses a directory that is kept, or lies in one that is, by whatever path it was reached.
    ///
    /// # Errors
    /// [`Code::InvalidPath`].
    pub(super) fn check_directory(&self, directory: &OwnedFd, path: &Path) -> Result<()> {
        let failed = |error: std::io::Error| {
            let text = format!("the directory of {} cannot be looked at", path.display());
            Error::because(Code::InvalidPath, text, error)
        };
        let magic = rustix::fs::fstatfs(directory)
            .map_err(|errno| failed(errno.into()))?
            .f_type;
        if [rustix::fs::PROC_SUPER_MAGIC, SYSFS_MAGIC].contains(&magic) {
            return Err(refused(path));
        }
        let way = ancestors(directory).map_err(failed)?;
        let way: Vec<_> = way.iter().map(|found| (found.st_dev, found.st_ino)).collect();
        let kept = self.state_directories();
        // The runtime directory of one attachment can be mounted elsewhere, for its virtual machine.
        if way.iter().any(|inode| kept.contains(inode)) || holds_one(&self.state.run(), &way) {
            return Err(in_state());
        }
        let credentials = self.credentials.iter().map(PathBuf::as_path);
        let credentials = credentials.chain([Path::new(CREDENTIALS)]).filter_map(inode_at);
        if credentials.into_iter().any(|kept| way.contains(&kept)) {
            return Err(refused(path));
        }
        // A key file that is being replaced is not there for a moment.
        let name = path.file_name();
        let is_given = |file: &&PathBuf| {
            file.file_name() == name && file.parent().and_then(inode_at).as_ref() == way.first()
        };
        match self.files.iter().find(is_given) {
            Some(_) => Err(refused(path)),
            None => Ok(()),
        }
    }

    /// Whether an open file is one of those that are kept, by whatever name it was opened.
    ///
    /// # Errors
    /// The kernel's.
    pub(super) fn has_file(&self, file: impl AsFd, metadata: &Metadata) -> std::io::Result<bool> {
        if metadata.nlink() == 1 && !is_mounted(file)? {
            // The file's only name is the one in the directory that was looked at.
            return Ok(self.is_given((metadata.dev(), metadata.ino())));
        }
        Ok(self.is_kept(metadata))
    }

    /// Whether a file is one of those that are kept, whatever its name.
    pub(super) fn is_kept(&self, metadata: &Metadata) -> bool {
        let found = (metadata.dev(), metadata.ino());
        self.is_given(found) || self.is_in_state(found)
    }

    fn is_given(&self, found: Inode) -> bool {
        self.files.iter().any(|file| inode_at(file) == Some(found))
    }

    /// Whether a file lies in the state directory, under whatever name.
    fn is_in_state(&self, found: Inode) -> bool {
        let state = &self.state;
        let directories = [state.root().to_owned(), state.disks(), state.backups()];
        directories.iter().any(|directory| holds_one(directory, &[found]))
    }

    /// The state directory and its parts, which may lie elsewhere by links.
    fn state_directories(&self) -> Vec<Inode> {
        let state = &self.state;
        let parts = [
            state.root().to_owned(),
            state.disks(),
            state.backups(),
            state.run(),
        ];
        parts.iter().filter_map(inode_at).collect()
    }
}

/// Whether a directory has an entry for one of these inodes.
fn holds_one(directory: &Path, wanted: &[Inode]) -> bool {
    let Ok(found) = directory.metadata() else {
        return false;
    };
    let here = |inode: u64| wanted.contains(&(found.dev(), inode));
    // Most are asked for on other file systems, and need not be read.
    wanted.iter().any(|(device, _)| *device == found.dev())
        && std::fs::read_dir(directory).is_ok_and(|entries| entries.flatten().any(|entry| here(entry.ino())))
}

/// Whether a file was mounted over another one. Kernels before 5.8 do not say so.
fn is_mounted(file: impl AsFd) -> std::io::Result<bool> {
    let stat = rustix::fs::statx(file, "", AtFlags::EMPTY_PATH, StatxFlags::empty())?;
    Ok(stat.stx_attributes.contains(StatxAttributes::MOUNT_ROOT))
}

fn inode_at(path: impl AsRef<Path>) -> Option<Inode> {
    let found = path.as_ref().metadata().ok()?;
    Some((found.dev(), found.ino()))
}

fn in_state() -> Error {
    let text = "a path in the state directory cannot be chosen: leave the path out";
    Error::new(Code::InvalidPath, text)
}

fn refused(path: &Path) -> Error {
    let text = format!(
        "{} is the kernel's, a credential or a file that the KMS was started with, and cannot be chosen",
        path.display()
    );
    Error::new(Code::InvalidPath, text)
}
