//! `POST /v1/backups/{backup}/restore` (rules I03, I04, D10): a new disk with the backup's data, encrypted or not.

use crate::audit::Caller;
use crate::calls::Operation;
use crate::catalogue::backups::BackupRow;
use crate::catalogue::copies::Origin;
use crate::catalogue::intents::IntentRow;
use crate::catalogue::states::BackupState;
use crate::catalogue::{Write, disks, volumes};
use crate::context::{Kms, facts};
use crate::copies::begin;
use crate::error::{Code, Error, Result};
use crate::intents::create_disk;
use crate::rules::available::{check_idle, not_available};
use crate::rules::gate;
use crate::rules::key::check_lineage;
use crate::views;
use sealblk_api::{CreateDisk, Disk};

/// Creates a disk, and begins to copy a backup's data to it: one decision, so that there is never an empty disk instead.
pub(crate) struct RestoreBackup {
    /// Id or name.
    pub(crate) backup: String,
    /// The new disk; what is not chosen is as the backup's was.
    pub(crate) disk: CreateDisk,
}

impl Operation for RestoreBackup {
    const CALL: &'static str = "backup.restore";
    type Decided = IntentRow;
    type Answer = Disk;

    fn object(&self) -> &str {
        &self.backup
    }

    async fn prepare(&mut self, kms: &Kms, caller: &Caller) -> Result<()> {
        self.disk.prepare(kms, caller).await
    }

    async fn decide(&self, kms: &Kms, caller: &Caller, tx: &mut Write) -> Result<IntentRow> {
        let backup = usable(kms, caller, tx, &self.backup).await?;
        let mut disk = self.disk.clone();
        choose(&mut disk, &backup)?;
        let intent = kms.decide_part(caller, tx, &disk).await?;
        let destination = disks::get(tx, &intent.disk).await?;
        facts::disk(&caller.facts, &destination);
        let origin = Origin::Volume(Some(backup.id));
        let row = begin::to_disk(tx, caller, Self::CALL, (origin, backup.size), &destination).await?;
        begin::insert(kms, tx, &row).await?;
        volumes::set_written(tx, &intent.disk, true).await?;
        Ok(intent)
    }

    async fn act(&self, kms: &Kms, _: &Caller, intent: IntentRow) -> Result<Disk> {
        create_disk::carry_out_filled(kms, &intent).await?;
        views::disk::after(kms, &intent.disk).await
    }
}

/// Whether the backup can be read now.
async fn usable(kms: &Kms, caller: &Caller, tx: &mut Write, wanted: &str) -> Result<BackupRow> {
    let row = views::backup::find(tx, caller, wanted).await?;
    if row.state() != BackupState::Available {
        return Err(not_available("backup", &row.name, row.state()));
    }
    check_idle(tx, &row.id).await?;
    if row.encrypted {
        gate::check_grant(kms, caller, tx).await?;
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
    disk.kind.get_or_insert_with(|| backup.kind.to_string());
    disk.disk_type.get_or_insert_with(|| backup.disk_type.to_string());
    disk.zone.get_or_insert_with(|| backup.zone.clone());
    Ok(())
}
