//! `GET /v1/backups` and `/v1/backups/{backup}`.

use crate::audit::Caller;
use crate::catalogue::backups::{self, BackupRow};
use crate::catalogue::{Page, Write};
use crate::context::Kms;
use crate::context::find::not_found;
use crate::copies::job;
use crate::error::Result;
use crate::host::{aside, store};
use crate::limits;
use sealblk_api::{Backup, BackupList};

/// A page of the account's backups.
pub(crate) async fn list(kms: &Kms, caller: &Caller, page: &Page) -> Result<BackupList> {
    let (rows, next) = {
        let mut db = kms.catalogue.read().await?;
        backups::list(&mut db, &caller.account, page).await?
    };
    let mut list = Vec::with_capacity(rows.len());
    for row in rows {
        list.push(answer(kms, row).await?);
    }
    Ok(BackupList { backups: list, next })
}

/// One backup.
pub(crate) async fn show(kms: &Kms, caller: &Caller, wanted: &str) -> Result<Backup> {
    let row = {
        let mut db = kms.catalogue.read().await?;
        backups::find(&mut db, &caller.account, wanted).await?
    };
    answer(kms, row.ok_or_else(|| not_found("backup", wanted))?).await
}

/// The caller's backup of this id or name.
///
/// # Errors
/// [`crate::error::Code::NotFound`].
pub(crate) async fn find(tx: &mut Write, caller: &Caller, wanted: &str) -> Result<BackupRow> {
    backups::find(tx, &caller.account, wanted)
        .await?
        .ok_or_else(|| not_found("backup", wanted))
}

/// As the API gives it.
pub(crate) async fn answer(kms: &Kms, row: BackupRow) -> Result<Backup> {
    let path = kms.state.store(&row.id, row.path.as_deref());
    let allocated = aside::look(&path, limits::LOOK_TIME, store::allocated).await;
    let copy = job::of_volume(kms, &row.id).await?;
    Ok(Backup {
        state: row.state().to_owned(),
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
        copy,
        created: row.created,
    })
}
