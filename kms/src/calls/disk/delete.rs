//! `DELETE /v1/disks/{disk}` (rules K14, S07, I01).

use crate::audit::Caller;
use crate::calls::Operation;
use crate::catalogue::Write;
use crate::catalogue::disks::DiskRow;
use crate::catalogue::intents::IntentRow;
use crate::context::{Kms, find};
use crate::error::{Code, Error, Result};
use crate::intents::delete_disk;
use crate::views;
use sealblk_api::Disk;

/// Deletes a disk that is not attached: the file that was made for it, and its keys with it (rule K14). A file that was
/// there before is empty again; a block device stays as it is. If the disk has snapshots, these stay, and the file with
/// them.
pub(crate) struct DeleteDisk {
    /// Id or name.
    pub(crate) disk: String,
}

impl Operation for DeleteDisk {
    const CALL: &'static str = "disk.delete";
    const FREES: bool = true;
    type Decided = (IntentRow, DiskRow);
    type Answer = Disk;

    fn object(&self) -> &str {
        &self.disk
    }

    async fn prepare(&mut self, kms: &Kms, caller: &Caller) -> Result<()> {
        let row = {
            let mut db = kms.catalogue.read().await?;
            find::disk(&mut db, caller, &self.disk).await?
        };
        delete_disk::look(kms, &row).await
    }

    async fn decide(&self, kms: &Kms, caller: &Caller, tx: &mut Write) -> Result<(IntentRow, DiskRow)> {
        let row = find::disk(tx, caller, &self.disk).await?;
        if let Some(instance) = &row.system_of {
            let text = format!(
                "disk {} is the system disk of {instance} and is deleted with it: remove the instance",
                row.name
            );
            return Err(Error::new(Code::SystemDiskBound, text));
        }
        let intent = delete_disk::open(kms, caller, tx, &row).await?;
        Ok((intent, row))
    }

    async fn act(&self, kms: &Kms, _: &Caller, (intent, row): (IntentRow, DiskRow)) -> Result<Disk> {
        // As it was: measured while there is something, and not in the transaction, which a hung mount would hold.
        delete_disk::carry_out(kms, &intent, views::disk::answer(kms, row, None, None)).await
    }
}
