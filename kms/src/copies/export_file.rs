//! The file of an export: made, given its length, and removed if nothing comes of it.

use std::path::Path;

use super::chosen_file;
use crate::catalogue::copies::{self, CopiedFile, CopyRow, Destination};
use crate::catalogue::kinds::Store;
use crate::catalogue::volumes::VolumeRow;
use crate::context::{Kms, plans};
use crate::error::Result;
use crate::host::passed::{PASSED, is_passed};
use crate::host::store::{Expected, Identity};
use crate::host::{aside, store};
use crate::limits;
use crate::volumes::path;

/// The file that a copy goes to as if it were a volume: raw and plain.
pub(crate) fn volume(row: &CopyRow, file: &CopiedFile) -> VolumeRow {
    VolumeRow {
        store: Store::Raw,
        path: Some(file.path.clone()),
        identity: file.identity.clone(),
        ..VolumeRow::new(row.id.clone(), row.account.clone(), file.size)
    }
}

/// Makes the file, in holes, after the catalogue has noted which it is. Can be repeated.
///
/// # Errors
/// The file's or the catalogue's.
pub(crate) async fn make_file(kms: &Kms, row: &CopyRow, file: &CopiedFile) -> Result<()> {
    if is_passed(&file.path) {
        return prepare_passed(kms, row, file.size.unsigned_abs()).await;
    }
    let volume = volume(row, file);
    let (path, size) = (volume.location(&kms.state), volume.size.unsigned_abs());
    if file.identity.is_none() {
        let (expected, guard) = (
            Expected::of(volume.path.as_deref(), None),
            kms.paths.guard(row.uid),
        );
        let make = move |path: &Path| {
            let made = store::Fresh::open(path, size, &expected, &guard)?;
            made.give(guard.user())?;
            Ok::<_, store::StoreError>(made)
        };
        let fresh = aside::work(&path, limits::STORE_TIME, make).await?;
        let noted = note_file(kms, row, fresh.identity()).await;
        let file = path::keep_noted(&path, fresh, noted).await?;
        aside::discard(&path, file).await?;
    }
    let identity = {
        let mut db = kms.catalogue.read().await?;
        let row = copies::get(&mut db, &row.id).await?;
        row.and_then(|row| row.file()?.identity.clone())
    };
    let expected = Expected::of(volume.path.as_deref(), identity.as_deref());
    let lengthen = move |path: &Path| {
        let file = store::open_for_service(path, 0, &expected)?;
        if file.metadata().is_ok_and(|found| found.is_file()) {
            store::lengthen(&file, path, size)?;
        }
        Ok::<_, store::StoreError>(())
    };
    aside::work(&path, limits::STORE_TIME, lengthen).await
}

async fn note_file(kms: &Kms, row: &CopyRow, identity: &Identity) -> Result<()> {
    let clean = matches!(identity, Identity::File { .. });
    let _running = kms.begin().await?;
    let mut tx = kms.catalogue.write().await?;
    copies::set_file(&mut tx, &row.id, &identity.to_text()?, clean).await?;
    Ok(tx.commit().await?)
}

/// Gives a file that was passed its length, in holes. Can be repeated.
async fn prepare_passed(kms: &Kms, row: &CopyRow, size: u64) -> Result<()> {
    let file = kms.copies.passed.get(&row.id)?;
    let prepare = move |_: &Path| {
        let is_file = file.file().metadata().is_ok_and(|found| found.is_file());
        if is_file {
            store::lengthen(file.file(), PASSED.as_ref(), size)?;
        }
        Ok::<_, store::StoreError>((store::identity_of(file.file())?, is_file))
    };
    let place = chosen_file::place(row.uid);
    let (identity, clean) = aside::work(&place, limits::STORE_TIME, prepare).await?;
    let _running = kms.begin().await?;
    let mut tx = kms.catalogue.write().await?;
    copies::set_file(&mut tx, &row.id, &identity.to_text()?, clean).await?;
    Ok(tx.commit().await?)
}

/// A file that was passed for an export that came to nothing is empty again, if it is still there.
async fn empty_passed(kms: &Kms, row: &CopyRow) -> Result<()> {
    let Ok(file) = kms.copies.passed.get(&row.id) else {
        return Ok(());
    };
    let empty = move |_: &Path| {
        if file.file().metadata().is_ok_and(|found| found.is_file()) {
            store::lengthen(file.file(), PASSED.as_ref(), 0)?;
        }
        Ok::<_, store::StoreError>(())
    };
    aside::work(&chosen_file::place(row.uid), limits::STORE_TIME, empty).await
}

/// What an export has left that came to nothing is removed, if it is surely ours. Can be repeated; of other copies
/// nothing is removed.
///
/// # Errors
/// The file's, which stays.
pub(crate) async fn remove_file(kms: &Kms, row: &CopyRow) -> Result<()> {
    let Destination::File { file, .. } = &row.destination else {
        return Ok(());
    };
    if is_passed(&file.path) {
        return empty_passed(kms, row).await;
    }
    let volume = volume(row, file);
    let (path, length, expected) = (
        volume.location(&kms.state),
        volume.length(),
        plans::expected(&volume),
    );
    let release = move |path: &Path| store::release(path, length, &expected);
    aside::work(&path, limits::STORE_TIME, release).await
}
