//! Files and block devices that are given for new disks.

use std::fs::File;
use std::path::Path;

use crate::audit::Caller;
use crate::catalogue::volumes;
use crate::context::Kms;
use crate::error::{Code, Error, Result};
use crate::host::paths::HostPath;
use crate::host::store::Fresh;
use crate::host::{aside, store};
use crate::limits;

/// The path that a caller has named, if it may, without links and dots in its directories. What lies there is looked at so
/// that most mistakes are refusals; it is judged again, for good, when it is opened.
///
/// # Errors
/// [`Code::PathNotAllowed`], [`Code::InvalidPath`].
pub(crate) async fn named(kms: &Kms, caller: &Caller, text: &str) -> Result<HostPath> {
    let named = kms.paths.named(caller, text)?;
    aside::named(text.as_ref(), move |_: &Path| named.open()).await
}

/// The path of a file that is to be made, or of one that is empty, or of a device: as [`named`] gives it.
///
/// # Errors
/// [`Code::PathNotAllowed`], [`Code::InvalidPath`], [`Code::FileInUse`], [`Code::FileNotEmpty`].
pub(crate) async fn choose(kms: &Kms, caller: &Caller, text: &str) -> Result<String> {
    let path = named(kms, caller, text).await?;
    check_not_taken(kms, path.as_str(), false).await?;
    let guard = kms.paths.guard(caller.uid);
    let place = path.as_str().to_owned();
    let check = move |_: &Path| {
        store::check_new(&path, &guard)?;
        Ok::<_, Error>(path.into_string())
    };
    aside::named(place.as_ref(), check).await
}

/// Checks that no other disk, of whatever account, has this file or device, by whatever path. With `own` the path
/// itself is our disk's by now.
///
/// # Errors
/// [`Code::FileInUse`].
pub(crate) async fn check_not_taken(kms: &Kms, path: &str, own: bool) -> Result<()> {
    let medium = aside::named(path.as_ref(), |path: &Path| Ok::<_, Error>(store::medium(path))).await?;
    let has_path = {
        let mut db = kms.catalogue.read().await?;
        volumes::has_path(&mut db, path).await?
    };
    if has_path && !own {
        return Err(taken(path.as_ref()));
    }
    check_medium(kms, medium, path).await
}

/// Checks that no other disk, of whatever account, is on this medium, which has this path.
///
/// # Errors
/// [`Code::FileInUse`].
pub(crate) async fn check_medium(kms: &Kms, medium: Option<String>, path: &str) -> Result<()> {
    let Some(medium) = medium else { return Ok(()) };
    let others = {
        let mut db = kms.catalogue.read().await?;
        volumes::paths_on(&mut db, &medium, path).await?
    };
    for other in others {
        // The other's file may have been replaced since it was noted, or the device's number be given to another. A medium that does
        // not answer counts as the same.
        let now = aside::look(other.as_ref(), limits::LOOK_TIME, store::medium).await;
        if now.is_none_or(|now| now.as_ref() == Some(&medium)) {
            return Err(taken(path.as_ref()));
        }
    }
    Ok(())
}

/// Notes on which medium a volume is that has a path of its own; one that does not answer stays where it was.
///
/// # Errors
/// The catalogue's.
pub(crate) async fn note_medium(kms: &Kms, volume: &str, path: &str) -> Result<()> {
    let Some(medium) = aside::look(path.as_ref(), limits::LOOK_TIME, store::medium).await else {
        return Ok(());
    };
    let mut tx = kms.catalogue.write().await?;
    volumes::set_medium(&mut tx, volume, medium.as_deref()).await?;
    Ok(tx.commit().await?)
}

/// What a disk is on may have another number than when it was made.
///
/// # Errors
/// The catalogue's.
pub(crate) async fn note_medium_of(kms: &Kms, disk: &str) -> Result<()> {
    let path = {
        let mut db = kms.catalogue.read().await?;
        volumes::get(&mut db, disk).await?.path
    };
    match path {
        Some(path) => note_medium(kms, disk, &path).await,
        None => Ok(()),
    }
}

/// What was opened for a store, if it has been noted which file that is. If that could not be, one that was made goes again, unless
/// another disk has it by now.
///
/// # Errors
/// Why it was not noted.
pub(crate) async fn keep_noted(path: &Path, fresh: Fresh, noted: Result<()>) -> Result<File> {
    let Err(error) = noted else {
        return Ok(fresh.keep());
    };
    let gone = match error.code() {
        Code::FileInUse => aside::discard(path, fresh.keep()).await,
        _ => aside::discard(path, fresh).await,
    };
    if let Err(error) = gone {
        log::warn!("{} stays: {}", path.display(), error.full_message());
    }
    Err(error)
}

/// After a start: devices may have other numbers by now, and an earlier version did not note them.
///
/// # Errors
/// The catalogue's.
pub(crate) async fn note_media(kms: &Kms) -> Result<()> {
    let doubtful = {
        let mut db = kms.catalogue.read().await?;
        volumes::on_doubtful_media(&mut db).await?
    };
    for (volume, path) in doubtful {
        note_medium(kms, &volume, &path).await?;
    }
    Ok(())
}

/// Another disk has the path.
pub(crate) fn taken(path: &Path) -> Error {
    let text = format!(
        "another disk uses {}, perhaps a deleted one that can be restored: choose another path",
        path.display()
    );
    Error::new(Code::FileInUse, text)
}
