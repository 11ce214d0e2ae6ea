//! Files and block devices that are given for new disks.

use std::path::{Path, PathBuf};

use super::{Kms, off_runtime};
use crate::catalogue::volumes;
use crate::error::{Code, Error, Result};
use crate::{limits, store};

/// Checks a path that was asked for and gives it without links and dots in its directories. What is there is looked
/// at here, so that most mistakes are refusals; it is checked again, for good, when it is opened.
///
/// # Errors
/// [`Code::InvalidPath`].
pub(super) async fn check_path(kms: &Kms, text: &str) -> Result<String> {
    let invalid = |why: String| Error::new(Code::InvalidPath, why);
    let path = PathBuf::from(text);
    if !path.is_absolute() || text.len() > limits::PATH_BYTES || text.contains('\0') {
        return Err(invalid(format!("{text:?} is not an absolute path")));
    }
    let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else {
        return Err(invalid(format!("{text:?} names no file")));
    };
    let (parent, name) = (parent.to_owned(), name.to_owned());
    let canonical = off_runtime(move || {
        let real = parent.canonicalize().map_err(|error| {
            Error::because(
                Code::InvalidPath,
                format!("{} is no directory that can be used", parent.display()),
                error,
            )
        })?;
        Ok::<_, Error>(real.join(name))
    })
    .await?;
    if canonical.starts_with(kms.state.root()) {
        return Err(invalid(
            "a path in the state directory cannot be chosen: leave the path out".to_owned(),
        ));
    }
    canonical
        .into_os_string()
        .into_string()
        .map_err(|_| invalid("the path is not UTF-8".to_owned()))
}

/// The path of a file that is to be made, or of one that is empty, or of a device: as [`check_path`] gives it.
///
/// # Errors
/// [`Code::InvalidPath`], [`Code::FileInUse`], [`Code::FileNotEmpty`].
pub(super) async fn choose(kms: &Kms, text: &str) -> Result<String> {
    let canonical = check_path(kms, text).await?;
    check_not_taken(kms, &canonical, false).await?;
    check_empty(&canonical).await?;
    Ok(canonical)
}

/// Checks that no other disk, of whatever account, has this file or device, by whatever path. With `own` the path
/// itself is our disk's by now.
///
/// # Errors
/// [`Code::FileInUse`].
pub(super) async fn check_not_taken(kms: &Kms, path: &str, own: bool) -> Result<()> {
    let others = {
        let mut db = kms.catalogue.read().await?;
        volumes::foreign_paths(&mut db).await?
    };
    let path = PathBuf::from(path);
    off_runtime(move || {
        let medium = store::medium(&path);
        let same = |other: &String| match Path::new(other.as_str()) {
            other if other == path => !own,
            other => medium.is_some() && store::medium(other) == medium,
        };
        if others.iter().any(same) {
            return Err(taken(&path));
        }
        Ok(())
    })
    .await
}

/// Checks that a file that is there is empty.
///
/// # Errors
/// [`Code::FileNotEmpty`].
async fn check_empty(path: &str) -> Result<()> {
    let path = PathBuf::from(path);
    off_runtime(move || match std::fs::symlink_metadata(&path) {
        Ok(found) if found.is_file() && found.len() > 0 => Err(store::StoreError::NotEmpty(path)),
        _ => Ok(()),
    })
    .await
}

/// Another disk has the path.
pub(super) fn taken(path: &Path) -> Error {
    let text = format!("another disk uses {}: choose another path", path.display());
    Error::new(Code::FileInUse, text)
}
