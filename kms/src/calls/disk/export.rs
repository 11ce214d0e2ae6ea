//! `POST /v1/disks/{disk}/export`: the data of a disk in a file, plain and raw, by the way of all copies.

use std::path::Path;

use crate::audit::Caller;
use crate::calls::Operation;
use crate::catalogue::Write;
use crate::catalogue::copies::{self, CopyRow};
use crate::catalogue::volumes::VolumeRow;
use crate::context::{Kms, find};
use crate::copies::chosen_file::not_looked_at;
use crate::copies::chosen_file::{self, Chosen, ChosenFile};
use crate::error::{Code, Error, Result};
use crate::host::passed::PASSED;
use crate::host::store::{Expected, Identity};
use crate::host::{aside, store};
use crate::rules::copyable::check_source;
use crate::views;
use crate::volumes::path;
use crate::{clock, limits};
use sealblk_api::{self, Disk};

/// Begins to write a disk's data to a file.
pub(crate) struct ExportDisk {
    /// Id or name.
    disk: String,
    /// The call's body.
    options: sealblk_api::ExportDisk,
    /// Until it has been looked at.
    to: Option<Chosen>,
    /// The file.
    file: Option<ChosenFile>,
}

impl ExportDisk {
    pub(crate) fn new(disk: String, options: sealblk_api::ExportDisk, to: Chosen) -> Self {
        ExportDisk {
            disk,
            options,
            to: Some(to),
            file: None,
        }
    }
}

impl Operation for ExportDisk {
    const CALL: &'static str = "disk.export";
    type Decided = String;
    type Answer = Disk;

    fn object(&self) -> &str {
        &self.disk
    }

    async fn prepare(&mut self, kms: &Kms, caller: &Caller) -> Result<()> {
        let source = {
            let mut db = kms.catalogue.read().await?;
            find::disk(&mut db, caller, &self.disk).await?
        };
        let to = self.to.take().ok_or_else(not_looked_at)?;
        self.file = Some(chosen_file::output(kms, caller, to, source.size.unsigned_abs()).await?);
        Ok(())
    }

    async fn decide(&self, kms: &Kms, caller: &Caller, tx: &mut Write) -> Result<String> {
        let source = find::disk(tx, caller, &self.disk).await?;
        check_source(kms, caller, tx, &source).await?;
        if source.encrypted && !self.options.decrypt {
            let text = format!(
                "disk {} is encrypted, and the file would hold its data in the clear: use --decrypt if that is wanted, \
                 or copy it to another encrypted disk",
                source.name
            );
            return Err(Error::new(Code::DecryptionNotAsked, text));
        }
        let file = self.file.as_ref().ok_or_else(not_looked_at)?;
        let row = CopyRow {
            id: file.copy_id()?,
            account: caller.account.clone(),
            call: Self::CALL.to_owned(),
            source: Some(source.id.clone()),
            destination: None,
            file: Some(file.path.clone()),
            identity: None,
            size: Some(source.size),
            format: "raw".to_owned(),
            snapshot: None,
            image: None,
            phase: "copy".to_owned(),
            position: 0,
            total: source.size,
            clean: true,
            unprepared: true,
            trouble: None,
            uid: caller.uid,
            pid: caller.pid,
            request: caller.request.clone(),
            created: clock::now(),
        };
        copies::insert(tx, &row).await?;
        Ok(source.id)
    }

    async fn act(&self, kms: &Kms, _: &Caller, source: String) -> Result<Disk> {
        if let Some(file) = &self.file {
            file.begin();
        }
        kms.copies.begin();
        views::disk::after(kms, &source).await
    }
}

/// The file as if it were a volume: raw and plain.
pub(crate) fn volume(row: &CopyRow) -> VolumeRow {
    VolumeRow {
        id: row.id.clone(),
        account: row.account.clone(),
        encrypted: false,
        size: row.size.unwrap_or(row.total),
        store: "raw".to_owned(),
        path: row.file.clone(),
        identity: row.identity.clone(),
        zone: String::new(),
        lineage: None,
        base: None,
        compared: true,
        kind: "cloud".to_owned(),
        disk_type: "ssd".to_owned(),
        created: row.created.clone(),
    }
}

/// Makes the file, in holes, after the catalogue has noted which it is. Can be repeated.
///
/// # Errors
/// The file's or the catalogue's.
pub(crate) async fn make_file(kms: &Kms, row: &CopyRow) -> Result<()> {
    if row.is_passed() {
        return prepare_passed(kms, row).await;
    }
    let volume = volume(row);
    let (path, size) = (volume.location(&kms.state), volume.size.unsigned_abs());
    if row.identity.is_none() {
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
        copies::get(&mut db, &row.id).await?.and_then(|row| row.identity)
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
async fn prepare_passed(kms: &Kms, row: &CopyRow) -> Result<()> {
    let file = kms.copies.passed.get(&row.id)?;
    let size = row.size.unwrap_or(row.total).unsigned_abs();
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
    if row.destination.is_some() {
        return Ok(());
    }
    if row.is_passed() {
        return empty_passed(kms, row).await;
    }
    let volume = volume(row);
    let (path, length, expected) = (volume.location(&kms.state), volume.length(), volume.expected());
    let release = move |path: &Path| store::release(path, length, &expected);
    aside::work(&path, limits::STORE_TIME, release).await
}
