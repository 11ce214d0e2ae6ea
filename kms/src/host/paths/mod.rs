//! Paths on the host that callers name: for stores, sockets, imports, exports and backups. Here alone it is decided who may
//! name which, and here alone they are opened.
//!
//! A path is looked at in three steps. What is written decides first, so that a refusal tells nothing of what is there. Then
//! its directory is opened without following a link, which is also where [`Kept`] is found by whatever other path. What
//! lies at the path itself is judged by a [`Guard`] when it is open.
//!
//! The catalogue keeps the canonical path. Whoever opens that later follows no link either, so that it stays below the
//! directory that was permitted, whatever others rename meanwhile.

pub(crate) mod guard;
pub(crate) mod kept;
pub(crate) mod permitted;
#[cfg(test)]
mod tests;

use std::ffi::OsStr;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Component, Path, PathBuf};
use std::sync::Arc;

use rustix::fs::{CWD, Mode, OFlags, ResolveFlags, Stat};
use rustix::io::Errno;

use crate::audit::Caller;
use crate::error::{Code, Error, Result};
use crate::limits;
use crate::state::StateDir;

pub(crate) use guard::{Guard, MADE_MODE, Owned, Unfit};
use kept::Kept;
pub(crate) use permitted::{Permitted, Prefix};

/// Who may name which paths.
pub(crate) struct HostPaths {
    /// User that ran `init`.
    owner: Option<u32>,
    permitted: Permitted,
    kept: Arc<Kept>,
}

impl HostPaths {
    /// Where nobody but the owner may name any.
    pub(crate) fn new(state: &StateDir, owner: Option<u32>) -> Self {
        HostPaths {
            owner,
            permitted: Permitted::default(),
            kept: Arc::new(Kept::new(state.clone(), Vec::new())),
        }
    }

    /// What the daemon was told when it was started: the accounts' paths, and files that nobody may name.
    pub(crate) fn configure(&mut self, state: &StateDir, permitted: Permitted, files: Vec<PathBuf>) {
        self.permitted = permitted;
        self.kept = Arc::new(Kept::new(state.clone(), files));
    }

    /// What a caller asks for. Nothing is looked at yet.
    ///
    /// # Errors
    /// [`Code::InvalidPath`]: not an absolute path of a file.
    pub(crate) fn named(&self, caller: &Caller, text: &str) -> Result<Named> {
        let path = Path::new(text);
        if !path.is_absolute() || text.len() > limits::PATH_BYTES || text.contains('\0') {
            return Err(invalid(format!("{text:?} is not an absolute path")));
        }
        let plain = without_dots(path);
        if path.file_name().is_none() || plain.file_name().is_none() {
            return Err(invalid(format!("{text:?} names no file")));
        }
        let rights = match Some(caller.uid) == self.owner {
            true => Rights::Owner,
            false => Rights::Account {
                uid: caller.uid,
                account: caller.account.clone(),
                prefixes: self.permitted.of(&caller.account).to_vec(),
            },
        };
        Ok(Named {
            written: path.to_owned(),
            plain,
            rights,
            kept: Arc::clone(&self.kept),
        })
    }

    /// What files at the paths of a user must be.
    pub(crate) fn guard(&self, uid: u32) -> Guard {
        let uid = (Some(uid) != self.owner).then_some(uid);
        Guard::new(uid, Arc::clone(&self.kept))
    }
}

/// On whose behalf a path is named.
#[derive(Debug)]
enum Rights {
    Owner,
    Account {
        uid: u32,
        account: String,
        prefixes: Vec<Prefix>,
    },
}

/// A path that a caller has named, and that has not been looked at.
#[derive(Debug)]
pub(crate) struct Named {
    written: PathBuf,
    /// Without `.` and `..`.
    plain: PathBuf,
    rights: Rights,
    kept: Arc<Kept>,
}

impl Named {
    /// Whether the caller may name it, whatever is there. Of the file system only the account's own prefixes are looked at.
    ///
    /// # Errors
    /// [`Code::PathNotAllowed`]; [`Code::InvalidPath`] for what nobody may name.
    pub(crate) fn check(&self) -> Result<()> {
        if let Rights::Account {
            uid,
            account,
            prefixes,
        } = &self.rights
            && !prefixes.iter().any(|prefix| prefix.permits(&self.plain))
        {
            return Err(not_allowed(*uid, account, prefixes, &self.written));
        }
        self.kept.check_path(&self.plain)
    }

    /// Checks it, and opens the directory that it lies in.
    ///
    /// # Errors
    /// As [`Named::check`]; [`Code::InvalidPath`] if the directory cannot be used.
    pub(crate) fn open(self) -> Result<HostPath> {
        self.check()?;
        let path = match self.rights {
            // Links that are there already lead where the owner means.
            Rights::Owner => canonical(&self.written)?,
            Rights::Account { .. } => self.plain,
        };
        // An absolute path with a last part has both, and a real path ends its directory's.
        let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else {
            return Err(invalid(format!("{} names no file", path.display())));
        };
        let directory = open_directory(parent).map_err(|errno| no_directory(parent, errno))?;
        self.kept.check_path(&path)?;
        self.kept.check_directory(&directory, &path)?;
        let text = path.to_str().map(str::to_owned);
        let text = text.ok_or_else(|| invalid("the path is not UTF-8".to_owned()))?;
        let name = name.to_owned().into_string().unwrap_or_default();
        Ok(HostPath {
            directory,
            name,
            text,
        })
    }
}

/// A path that its caller may name, in a directory that is there.
#[derive(Debug)]
pub(crate) struct HostPath {
    directory: OwnedFd,
    name: String,
    text: String,
}

impl HostPath {
    /// Without links and dots in its directories.
    pub(crate) fn as_str(&self) -> &str {
        &self.text
    }

    /// Its last part.
    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// What it lies in (`O_PATH`).
    pub(crate) fn directory(&self) -> BorrowedFd<'_> {
        self.directory.as_fd()
    }

    pub(crate) fn into_string(self) -> String {
        self.text
    }
}

/// Opens a directory (`O_PATH`), and follows no link on the way (openat2(2)).
///
/// # Errors
/// [`Errno::LOOP`] for a link.
pub(crate) fn open_directory(path: &Path) -> std::result::Result<OwnedFd, Errno> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    // The kernel asks for another try if a directory was renamed meanwhile.
    loop {
        match rustix::fs::openat2(CWD, path, flags, Mode::empty(), ResolveFlags::NO_SYMLINKS) {
            Err(Errno::INTR | Errno::AGAIN) => {}
            result => return result,
        }
    }
}

/// As [`open_directory`]; but a link is followed where only root or this process's user can have put it, as the state
/// directory's administrator may do with parts of that.
///
/// # Errors
/// The kernel's; [`Errno::LOOP`] for any other link.
pub(crate) fn open_trusted(path: &Path) -> io::Result<OwnedFd> {
    let strict = open_directory(path);
    if strict.as_ref().err() != Some(&Errno::LOOP) {
        return Ok(strict?);
    }
    // The link lies in the last directory that is reached without one.
    let above = path
        .ancestors()
        .skip(1)
        .find_map(|above| open_directory(above).ok());
    let above = above.ok_or(Errno::LOOP)?;
    if !is_filled_by_us_alone(&above)? {
        return Err(Errno::LOOP.into());
    }
    Ok(open_directory(&path.canonicalize()?)?)
}

/// Whether nobody but root and this process's user can put anything into a directory, or another directory in its place.
///
/// # Errors
/// The kernel's.
pub(crate) fn is_filled_by_us_alone(directory: &OwnedFd) -> io::Result<bool> {
    let mode = Mode::from_raw_mode(rustix::fs::fstat(directory)?.st_mode);
    Ok(!mode.intersects(Mode::WGRP | Mode::WOTH) && is_ours_alone(directory)?)
}

/// Whether nobody but root and this process's user can rename anything on the way to a directory, or in it what is theirs.
///
/// # Errors
/// The kernel's.
pub(crate) fn is_ours_alone(directory: &OwnedFd) -> io::Result<bool> {
    let own = rustix::process::geteuid().as_raw();
    let is_ours = |found: &Stat| {
        let mode = Mode::from_raw_mode(found.st_mode);
        let writable = mode.intersects(Mode::WGRP | Mode::WOTH);
        [0, own].contains(&found.st_uid) && (!writable || mode.contains(Mode::SVTX))
    };
    Ok(ancestors(directory)?.iter().all(is_ours))
}

/// The directory and all those above it.
fn ancestors(directory: &OwnedFd) -> io::Result<Vec<Stat>> {
    let root = rustix::fs::stat("/")?;
    let mut way = Vec::new();
    let mut above = rustix::io::dup(directory)?;
    loop {
        let found = rustix::fs::fstat(&above)?;
        let is_root = (found.st_dev, found.st_ino) == (root.st_dev, root.st_ino);
        way.push(found);
        if is_root || way.len() > limits::PATH_BYTES {
            return Ok(way);
        }
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        above = rustix::fs::openat(&above, "..", flags, Mode::empty())?;
    }
}

fn canonical(path: &Path) -> Result<PathBuf> {
    let parent = path.parent().unwrap_or(path);
    let real = parent.canonicalize().map_err(|error| {
        let text = format!("{} is no directory that can be used", parent.display());
        Error::because(Code::InvalidPath, text, error)
    })?;
    Ok(real.join(path.file_name().unwrap_or(OsStr::new(""))))
}

/// As one reads it: `..` takes away what stands before. Where that is no link, the kernel does the same.
fn without_dots(path: &Path) -> PathBuf {
    let mut plain = PathBuf::new();
    for component in path.components() {
        match component {
            Component::ParentDir => {
                plain.pop();
            }
            Component::CurDir => {}
            other => plain.push(other),
        }
    }
    plain
}

fn no_directory(path: &Path, errno: Errno) -> Error {
    let text = match errno {
        Errno::LOOP => format!(
            "a symbolic link leads to {}, and is not followed: give the path without links",
            path.display()
        ),
        _ => format!("{} is no directory that can be used", path.display()),
    };
    Error::because(Code::InvalidPath, text, errno)
}

fn invalid(why: String) -> Error {
    Error::new(Code::InvalidPath, why)
}

/// The same whether anything is there or not.
fn not_allowed(uid: u32, account: &str, prefixes: &[Prefix], path: &Path) -> Error {
    let instead = match prefixes {
        [] => "leave the path out".to_owned(),
        _ => {
            let known: Vec<_> = prefixes.iter().map(ToString::to_string).collect();
            format!("choose one that begins with {}", known.join(" or "))
        }
    };
    let text = format!(
        "uid {uid} of account {account} may not name {}: {instead}, or have the KMS's owner add it to the paths of the \
         account in the accounts file",
        path.display()
    );
    Error::new(Code::PathNotAllowed, text)
}
