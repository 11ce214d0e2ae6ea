//! Files and block devices that are given for new disks.

use std::path::{Path, PathBuf};

use super::{Kms, off_runtime};
use crate::audit::Caller;
use crate::catalogue::volumes;
use crate::error::{Code, Error, Result};
use crate::host_path::HostPath;
use crate::store;

/// The path that a caller has named, if it may, without links and dots in its directories. What lies there is looked at so
/// that most mistakes are refusals; it is judged again, for good, when it is opened.
///
/// # Errors
/// [`Code::PathNotAllowed`], [`Code::InvalidPath`].
pub(super) async fn named(kms: &Kms, caller: &Caller, text: &str) -> Result<HostPath> {
    let named = kms.paths.named(caller, text)?;
    off_runtime(move || named.open()).await
}

/// The path of a file that is to be made, or of one that is empty, or of a device: as [`named`] gives it.
///
/// # Errors
/// [`Code::PathNotAllowed`], [`Code::InvalidPath`], [`Code::FileInUse`], [`Code::FileNotEmpty`].
pub(super) async fn choose(kms: &Kms, caller: &Caller, text: &str) -> Result<String> {
    let path = named(kms, caller, text).await?;
    check_not_taken(kms, path.as_str(), false).await?;
    let guard = kms.paths.guard(caller.uid);
    off_runtime(move || {
        store::check_new(&path, &guard)?;
        Ok::<_, Error>(path.into_string())
    })
    .await
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

/// Another disk has the path.
pub(super) fn taken(path: &Path) -> Error {
    let text = format!("another disk uses {}: choose another path", path.display());
    Error::new(Code::FileInUse, text)
}
