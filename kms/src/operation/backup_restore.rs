//! `POST /v1/backups/{backup}/restore` (rules I03, I04, D10): a new disk with the backup's data, encrypted or not.

use std::sync::Arc;

use super::attach::check_lineage;
use super::disk_copy::{Wanted, begin, check_destination};
use super::disk_delete::DeleteDisk;
use super::{Kms, Operation, backup_show, check_idle, disk_show, find_disk, kms_gate, not_available, run};
use crate::api::types::{CreateDisk, Disk};
use crate::audit::Caller;
use crate::catalogue::backups::BackupRow;
use crate::catalogue::copies::{self, CopyRow};
use crate::catalogue::{Write, disks, volumes};
use crate::error::{Code, Error, Result};

const CALL: &str = "backup.restore";

/// Creates the disk, and begins to copy the backup's data to it. If that cannot be begun, there is no disk.
///
/// # Errors
/// [`Code::NotFound`], [`Code::DiskNotAvailable`], [`Code::KeyNotUsable`], [`Code::SizeBelowSource`]; those of
/// `disk.create`.
pub(crate) async fn restore(
    kms: &Arc<Kms>,
    caller: Caller,
    wanted: &str,
    mut disk: CreateDisk,
) -> Result<Disk> {
    let chosen = match check(kms, &caller, wanted).await {
        Ok(backup) => choose(&mut disk, &backup).map(|()| backup.id),
        Err(error) => Err(error),
    };
    let backup = match chosen {
        Ok(backup) => backup,
        Err(error) => {
            kms.record_refusal(&caller, CALL, wanted, &error).await?;
            return Err(error);
        }
    };
    let made = run(kms, caller.clone(), disk).await?;
    let data = RestoreData {
        disk: made.id.clone(),
        backup,
    };
    let begun = run(kms, caller.clone(), data).await;
    if begun.is_err()
        && let Err(error) = run(
            kms,
            caller,
            DeleteDisk {
                disk: made.id.clone(),
            },
        )
        .await
    {
        log::warn!("{} stays, and is empty: {}", made.id, error.full_message());
    }
    begun
}

async fn check(kms: &Kms, caller: &Caller, wanted: &str) -> Result<BackupRow> {
    let mut tx = kms.catalogue.write().await?;
    usable(kms, caller, &mut tx, wanted).await
}

/// Whether the backup can be read now.
async fn usable(kms: &Kms, caller: &Caller, tx: &mut Write, wanted: &str) -> Result<BackupRow> {
    let row = backup_show::find(tx, caller, wanted).await?;
    if row.state() != "available" {
        return Err(not_available("backup", &row.name, row.state()));
    }
    check_idle(tx, &row.id).await?;
    if row.encrypted {
        kms_gate::check_grant(kms, caller, tx).await?;
    }
    check_lineage(kms, tx, row.lineage.as_deref()).await?;
    Ok(row)
}

/// What is not chosen is as the disk was. The encryption attribute may be another one (rule I03).
fn choose(disk: &mut CreateDisk, backup: &BackupRow) -> Result<()> {
    if disk.snapshot.is_some() || disk.image.is_some() {
        let text =
            "a disk has the data of a backup, or of a snapshot or image, not of both: leave one of them out";
        return Err(Error::new(Code::InvalidRequest, text));
    }
    let least = backup.size.unsigned_abs();
    let size = *disk.size.get_or_insert(least);
    if size < least {
        let text = format!(
            "backup {} has {least} bytes: ask for no size, or for a larger one",
            backup.name
        );
        return Err(Error::new(Code::SizeBelowSource, text));
    }
    // A key says that it is to be encrypted.
    let encrypted = backup.encrypted || disk.key.is_some();
    disk.encrypted.get_or_insert(encrypted);
    disk.kind.get_or_insert_with(|| backup.kind.clone());
    disk.disk_type.get_or_insert_with(|| backup.disk_type.clone());
    disk.zone.get_or_insert_with(|| backup.zone.clone());
    Ok(())
}

/// Begins to copy the data of a backup to a disk.
struct RestoreData {
    disk: String,
    backup: String,
}

impl Operation for RestoreData {
    const CALL: &'static str = CALL;
    type Decided = String;
    type Answer = Disk;

    fn object(&self) -> &str {
        &self.backup
    }

    async fn decide(&self, kms: &Kms, caller: &Caller, tx: &mut Write) -> Result<String> {
        let backup = usable(kms, caller, tx, &self.backup).await?;
        let destination = find_disk(tx, caller, &self.disk).await?;
        let wanted = Wanted {
            bytes: backup.size,
            what: &format!("backup {}", backup.name),
            overwrite: false,
        };
        check_destination(kms, caller, tx, &wanted, &destination).await?;
        let row = CopyRow {
            source: Some(backup.id),
            ..begin(tx, caller, CALL, backup.size, &destination).await?
        };
        copies::insert(tx, &row).await?;
        volumes::set_written(tx, &destination.id, true).await?;
        disks::set_state(tx, &destination.id, "creating").await?;
        Ok(destination.id)
    }

    async fn act(&self, kms: &Kms, _: &Caller, destination: String) -> Result<Disk> {
        kms.copies.begin();
        disk_show::after(kms, &destination).await
    }
}
