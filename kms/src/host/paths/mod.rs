//! Paths on the host that callers name: for stores, sockets, imports, exports and backups. Here alone it is decided who may
//! name which, and here alone they are opened.
//!
//! A path is looked at in three steps. What is written decides first, so that a refusal tells nothing of what is there. Then
//! its directory is opened without following a link, which is also where [`Kept`] is found by whatever other path. What
//! lies at the path itself is judged by a [`Guard`] when it is open.
//!
//! The catalogue keeps the canonical path. Whoever opens that later follows no link either, so that it stays below the
//! directory that was permitted, whatever others rename meanwhile.

pub(crate) mod directory;
pub(crate) mod guard;
pub(crate) mod kept;
pub(crate) mod permitted;
#[cfg(test)]
mod tests;

use std::ffi::OsStr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Component, Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock};

use rustix::io::Errno;

use crate::caller::Caller;
use crate::error::{Code, Error, Result};
use crate::limits;
use crate::state::StateDir;

pub(crate) use directory::{is_filled_by_us_alone, is_ours_alone, open_directory, open_trusted};
pub(crate) use guard::{Guard, MADE_MODE, Owned, Unfit};
use kept::Kept;
pub(crate) use permitted::{Permitted, Prefix};

/// Which callers may name which paths.
pub(crate) struct HostPaths {
    /// User that ran `init`.
    owner: Option<u32>,
    permitted: RwLock<Permitted>,
    kept: Arc<Kept>,
}

impl HostPaths {
    /// Where nobody but the owner may name any.
    pub(crate) fn new(state: &StateDir, owner: Option<u32>) -> Self {
        HostPaths {
            owner,
            permitted: RwLock::default(),
            kept: Arc::new(Kept::new(state.clone(), Vec::new())),
        }
    }

    /// What the daemon was told when it was started: the accounts' paths, and files that nobody may name.
    pub(crate) fn configure(&mut self, state: &StateDir, permitted: Permitted, files: Vec<PathBuf>) {
        self.permit(permitted);
        self.kept = Arc::new(Kept::new(state.clone(), files));
    }

    /// From now on these are the accounts' paths.
    pub(crate) fn permit(&self, permitted: Permitted) {
        *self.permitted.write().unwrap_or_else(PoisonError::into_inner) = permitted;
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
                prefixes: self.prefixes(&caller.account),
            },
        };
        Ok(Named {
            written: path.to_owned(),
            plain,
            rights,
            kept: Arc::clone(&self.kept),
        })
    }

    fn prefixes(&self, account: &str) -> Vec<Prefix> {
        let permitted = self.permitted.read().unwrap_or_else(PoisonError::into_inner);
        permitted.of(account).to_vec()
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

    /// The last part of the path.
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

/// The refusal of a path that is not permitted: the same whether anything is there or not.
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
