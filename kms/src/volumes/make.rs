//! The store of a new volume: its file is made or taken, noted, and filled.

use std::fs::File;
use std::path::Path;
use std::time::Duration;

use crate::catalogue::kinds::Store;
use crate::catalogue::snapshots;
use crate::catalogue::volumes::{self, VolumeRow};
use crate::context::{Kms, plans};
use crate::error::Result;
use crate::host::aside::off_runtime;
use crate::host::store::{Expected, Identity};
use crate::host::{aside, store};
use crate::volumes::commands::{self, Unmade};
use crate::volumes::path::{self, check_not_taken};
use crate::volumes::sweep;
use crate::{limits, state};

async fn get(kms: &Kms, id: &str) -> Result<VolumeRow> {
    let mut db = kms.catalogue.read().await?;
    Ok(volumes::get(&mut db, id).await?)
}

/// A clone's first step, in an operation: its base keeps the snapshot.
///
/// # Errors
/// [`Unmade`].
pub(crate) async fn pin(kms: &Kms, operation: &str, volume: &VolumeRow) -> std::result::Result<(), Unmade> {
    let Some(snapshot) = &volume.base else {
        return Ok(());
    };
    let base = {
        let mut db = kms
            .catalogue
            .read()
            .await
            .map_err(|error| Unmade::Not(error.into()))?;
        let row = snapshots::get(&mut db, snapshot).await;
        row.map_err(|error| Unmade::Not(error.into()))?.volume
    };
    commands::pin(kms, &base, operation, snapshot, &volume.id).await
}

/// Makes the store of a volume on behalf of a user; its base has it pinned.
///
/// # Errors
/// The file's, the backend's or the catalogue's.
pub(crate) async fn make(kms: &Kms, uid: u32, volume: &VolumeRow) -> Result<()> {
    let file = make_file(kms, uid, volume).await?;
    if volume.store == Store::Layered {
        // The backend opens the store for itself, a device exclusively.
        aside::discard(&volume.location(&kms.state), file).await?;
        let volume = get(kms, &volume.id).await?;
        commands::create(kms, &volume).await
    } else {
        fill_file(kms, volume, file).await
    }
}

/// Makes the layered store of a volume that no disk has, on behalf of a user. Can be repeated: what an earlier attempt has
/// left is removed.
///
/// # Errors
/// The file's, the backend's or the catalogue's.
pub(crate) async fn make_anew(kms: &Kms, uid: u32, id: &str) -> Result<()> {
    let volume = get(kms, id).await?;
    give_back(kms, &volume).await?;
    let file = make_file(kms, uid, &volume).await?;
    aside::discard(&volume.location(&kms.state), file).await?;
    commands::create(kms, &get(kms, id).await?).await
}

/// The place of a volume is again as it was before its store was made.
async fn give_back(kms: &Kms, volume: &VolumeRow) -> Result<()> {
    let (path, expected) = (volume.location(&kms.state), plans::expected(volume));
    match &volume.identity {
        Some(text) if matches!(Identity::parse(text, &path)?, Identity::Device { .. }) => {
            let blank = move |path: &Path| store::blank_again(path, &expected);
            aside::work(&path, limits::STORE_TIME, blank).await
        }
        _ => sweep::release(kms, volume).await,
    }
}

/// The file exists, made or taken on behalf of a user, and the catalogue knows which it is.
pub(crate) async fn make_file(kms: &Kms, uid: u32, volume: &VolumeRow) -> Result<File> {
    let path = volume.location(&kms.state);
    // A layered store takes what it needs, and says if there is no room for that.
    let least = volume.length().unwrap_or(0);
    let expected = Expected::of(volume.path.as_deref(), None);
    let guard = kms.paths.guard(uid);
    let open = move |path: &Path| store::Fresh::open(path, least, &expected, &guard);
    let fresh = aside::work(&path, limits::STORE_TIME, open).await?;
    let noted = match &volume.path {
        Some(path) => note_file(kms, volume, path, fresh.identity()).await,
        None => Ok(()),
    };
    path::keep_noted(&path, fresh, noted).await
}

async fn note_file(kms: &Kms, volume: &VolumeRow, path: &str, identity: &Identity) -> Result<()> {
    // Of two calls at once for two names of one file, at least one sees the other here.
    // Noted first, for the other to see.
    path::note_medium(kms, &volume.id, path).await?;
    check_not_taken(kms, path, true).await?;
    let identity = identity.to_text()?;
    let mut tx = kms.catalogue.write().await?;
    volumes::set_identity(&mut tx, &volume.id, &identity).await?;
    Ok(tx.commit().await?)
}

/// A raw store has its size.
pub(crate) async fn fill_file(kms: &Kms, volume: &VolumeRow, file: File) -> Result<()> {
    let (path, size) = (volume.location(&kms.state), volume.size.unsigned_abs());
    let zero = !volume.encrypted;
    let time = limits::STORE_TIME + Duration::from_secs(size / limits::SLOWEST_MEDIUM);
    let fill = move |path: &Path| store::fill(&file, path, size, zero);
    aside::work(&path, time, fill).await
}

/// Makes the backup's store on behalf of a user. Can be repeated: what an earlier attempt has left is removed.
///
/// # Errors
/// The file's, the backend's or the catalogue's.
pub(crate) async fn make_backup(kms: &Kms, uid: u32, backup: &str) -> Result<()> {
    let directory = kms.state.backups();
    off_runtime(move || {
        state::make_directory(&directory, 0o700).map_err(|source| store::StoreError::Io {
            path: directory,
            source,
        })
    })
    .await?;
    make_anew(kms, uid, backup).await
}
