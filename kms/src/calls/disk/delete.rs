//! `DELETE /v1/disks/{disk}` (rules K14, S07, I01).

use sqlx::SqliteConnection;

use crate::audit::Caller;
use crate::calls::Operation;
use crate::catalogue::Write;
use crate::catalogue::bin::{self, BinRow, Removal};
use crate::catalogue::disks::DiskRow;
use crate::catalogue::intents::IntentRow;
use crate::clock;
use crate::context::{Kms, find};
use crate::error::{Code, Error, Result};
use crate::intents::delete_disk;
use crate::rules::available::check_idle;
use crate::views;
use sealblk_api::Disk;

/// Deletes a disk that is not attached. For some days it is in the bin, whole, and can be restored. When they are over, or at once
/// where there are none, the file goes that was made for it, and its keys with it (rule K14). A file that was
/// there before is empty again; a block device stays as it is. If the disk has snapshots, these stay, and the file with
/// them.
pub(crate) struct DeleteDisk {
    disk: String,
    retention: Option<u16>,
    /// Bytes that its file takes.
    allocated: u64,
}

/// What becomes of the disk.
pub(crate) enum Deleted {
    /// It is in the bin.
    Kept(BinRow),
    /// It goes.
    Removed(IntentRow, DiskRow),
}

impl DeleteDisk {
    /// `disk` is an id or a name. `retention` are the days in the bin, without it those of the profile.
    pub(crate) fn new(disk: String, retention: Option<u16>) -> Self {
        DeleteDisk {
            disk,
            retention,
            allocated: 0,
        }
    }

    fn days(&self, kms: &Kms) -> u16 {
        self.retention.unwrap_or(kms.profile.retention)
    }

    /// The disk; also one that is in the bin, if it is to go at once.
    async fn find(&self, kms: &Kms, caller: &Caller, db: &mut SqliteConnection) -> Result<DiskRow> {
        match self.days(kms) {
            0 => find::disk_or_deleted(db, caller, &self.disk).await,
            _ => find::disk(db, caller, &self.disk).await,
        }
    }
}

impl Operation for DeleteDisk {
    const CALL: &'static str = "disk.delete";
    const FREES: bool = true;
    type Decided = Deleted;
    type Answer = Disk;

    fn object(&self) -> &str {
        &self.disk
    }

    async fn prepare(&mut self, kms: &Kms, caller: &Caller) -> Result<()> {
        let row = {
            let mut db = kms.catalogue.read().await?;
            self.find(kms, caller, &mut db).await?
        };
        if self.days(kms) == 0 {
            return delete_disk::look(kms, &row).await;
        }
        // The bin frees nothing.
        kms.check_reserve().await?;
        self.allocated = views::disk::allocated(kms, &row).await;
        Ok(())
    }

    async fn decide(&self, kms: &Kms, caller: &Caller, tx: &mut Write) -> Result<Deleted> {
        let row = self.find(kms, caller, tx).await?;
        if let Some(instance) = &row.system_of {
            let text = format!(
                "disk {} is the system disk of {instance} and is deleted with it: remove the instance",
                row.name
            );
            return Err(Error::new(Code::SystemDiskBound, text));
        }
        let days = self.days(kms);
        caller.facts.note("retention_days", days);
        if days == 0 {
            let intent = delete_disk::open(kms, caller, tx, &row).await?;
            return Ok(Deleted::Removed(intent, row));
        }
        delete_disk::check(&row)?;
        check_idle(tx, &row.id).await?;
        let row = BinRow {
            disk: row,
            deleted: clock::now(),
            removal: Removal::in_days(&kms.clock.now(), days),
        };
        bin::put(tx, &row, days, self.allocated).await?;
        Ok(Deleted::Kept(row))
    }

    async fn act(&self, kms: &Kms, _: &Caller, deleted: Deleted) -> Result<Disk> {
        match deleted {
            Deleted::Kept(row) => views::bin::answer(kms, row).await,
            // As it was: measured while there is something, and not in the transaction, which a hung mount would hold.
            Deleted::Removed(intent, row) => {
                delete_disk::carry_out(kms, &intent, views::disk::answer(kms, row, None, None)).await
            }
        }
    }
}
