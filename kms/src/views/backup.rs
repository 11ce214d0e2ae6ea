//! `GET /v1/backups` and `/v1/backups/{backup}`.

use crate::audit::Caller;
use crate::catalogue::backups::{self, BackupRow};
use crate::catalogue::copies::{self, CopyRow};
use crate::catalogue::{Page, Write};
use crate::context::find::not_found;
use crate::context::{Kms, facts};
use crate::copies::job;
use crate::error::Result;
use crate::host::{aside, store};
use crate::limits;
use sealblk_api::{Backup, BackupList};

/// A page of the account's backups.
pub(crate) async fn list(kms: &Kms, caller: &Caller, page: &Page) -> Result<BackupList> {
    let (rows, next, mut copies) = {
        let mut db = kms.catalogue.snapshot().await?;
        let (rows, next) = backups::list(&mut db, &caller.account, page).await?;
        let copies = copies::of_volumes(&mut db, rows.iter().map(|row| row.id.as_str())).await?;
        (rows, next, copies)
    };
    let mut list = Vec::with_capacity(rows.len());
    for row in rows {
        let copy = copies.remove(&row.id);
        list.push(shown(kms, row, copy).await);
    }
    Ok(BackupList { backups: list, next })
}

/// One backup.
pub(crate) async fn show(kms: &Kms, caller: &Caller, wanted: &str) -> Result<Backup> {
    let (row, copy) = {
        let mut db = kms.catalogue.snapshot().await?;
        let row = backups::find(&mut db, &caller.account, wanted).await?;
        let row = row.ok_or_else(|| not_found("backup", wanted))?;
        let copy = copies::of_volume(&mut db, &row.id).await?;
        (row, copy)
    };
    Ok(shown(kms, row, copy).await)
}

/// The caller's backup of this id or name.
///
/// # Errors
/// [`crate::error::Code::NotFound`].
pub(crate) async fn find(tx: &mut Write, caller: &Caller, wanted: &str) -> Result<BackupRow> {
    let row = backups::find(tx, &caller.account, wanted)
        .await?
        .ok_or_else(|| not_found("backup", wanted))?;
    facts::backup(&caller.facts, &row);
    Ok(row)
}

/// As the API gives it.
pub(crate) async fn answer(kms: &Kms, row: BackupRow) -> Result<Backup> {
    let copy = {
        let mut db = kms.catalogue.read().await?;
        copies::of_volume(&mut db, &row.id).await?
    };
    Ok(shown(kms, row, copy).await)
}

async fn shown(kms: &Kms, row: BackupRow, copy: Option<CopyRow>) -> Backup {
    let path = kms.state.store(&row.id, row.path.as_deref());
    let allocated = aside::look(&path, limits::LOOK_TIME, store::allocated).await;
    Backup {
        state: row.state().to_string(),
        id: row.id,
        name: row.name,
        encrypted: row.encrypted,
        size: row.size.unsigned_abs(),
        allocated: allocated.unwrap_or(0),
        disk: row.disk,
        disk_name: row.disk_name,
        path: path.to_string_lossy().into_owned(),
        key: row.key,
        lineage: row.lineage,
        copy: copy.map(|copy| job::shown(kms, copy)),
        created: row.created,
    }
}
