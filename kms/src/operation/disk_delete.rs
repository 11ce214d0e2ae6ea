//! `DELETE /v1/disks/{disk}`.

use super::{Kms, Operation, disk_create, disk_show, find_disk};
use crate::api::types::Disk;
use crate::audit::Caller;
use crate::catalogue::Write;
use crate::catalogue::disks::{self, DiskRow};
use crate::catalogue::intents::{self, IntentRow};
use crate::error::{Code, Error, Result};
use crate::supervisor::store_lock;

/// Deletes a disk that is not attached: the file that was made for it, and its keys with it (rule K14). A file that was
/// there before is empty again; a block device stays as it is.
pub(crate) struct DeleteDisk {
    /// Id or name.
    pub(crate) disk: String,
}

impl Operation for DeleteDisk {
    const CALL: &'static str = "disk.delete";
    type Decided = (IntentRow, DiskRow);
    type Answer = Disk;

    fn object(&self) -> &str {
        &self.disk
    }

    async fn decide(&self, kms: &Kms, caller: &Caller, tx: &mut Write) -> Result<(IntentRow, DiskRow)> {
        let row = find_disk(tx, caller, &self.disk).await?;
        if row.attachment.is_some() {
            let text = format!("disk {} is attached: detach it first", row.name);
            return Err(Error::new(Code::DiskAttached, text));
        }
        if row.state != "available" && row.state != "error" {
            let text = format!("disk {} is {}: wait until it is available", row.name, row.state);
            return Err(Error::new(Code::DiskNotAvailable, text));
        }
        store_lock::ensure_free(&kms.state.store(&row.id, row.path.as_deref()))?;
        disks::set_state(tx, &row.id, "deleting").await?;
        let intent = kms.open_intent(tx, caller, Self::CALL, &row, None).await?;
        Ok((intent, row))
    }

    async fn act(&self, kms: &Kms, _: &Caller, (intent, row): (IntentRow, DiskRow)) -> Result<Disk> {
        // As it was: measured while there is something, and not in the transaction, which a hung mount would hold.
        let deleted = async {
            let disk = disk_show::answer(kms, row, false).await?;
            finish(kms, &intent).await?;
            Ok(disk)
        };
        match deleted.await {
            Ok(disk) => Ok(disk),
            Err(error) => {
                undo(kms, &intent, &error).await?;
                Err(error)
            }
        }
    }
}

/// Removes the store, then the row with its keys. Can be repeated.
///
/// # Errors
/// The file's or the catalogue's.
pub(super) async fn finish(kms: &Kms, intent: &IntentRow) -> Result<()> {
    let row = {
        let mut db = kms.catalogue.read().await?;
        disks::get(&mut db, &intent.disk).await?
    };
    disk_create::release(kms, &row).await?;
    let mut tx = kms.catalogue.write().await?;
    intents::close(&mut tx, intent).await?;
    disks::delete(&mut tx, &row).await?;
    tx.commit().await?;
    kms.catalogue.forget_deleted().await;
    Ok(())
}

/// The disk stays, but nobody knows what is left of its file.
async fn undo(kms: &Kms, intent: &IntentRow, error: &Error) -> Result<()> {
    let mut tx = kms.catalogue.write().await?;
    kms.record_undone(&mut tx, intent, error).await?;
    intents::refund(&mut tx, &kms.meta.region, intent).await?;
    disks::set_state(&mut tx, &intent.disk, "error").await?;
    Ok(tx.commit().await?)
}
