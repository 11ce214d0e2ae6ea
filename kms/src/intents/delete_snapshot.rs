//! A snapshot goes from its store (rule S07).

use sealblk_proto::message::Change;

use super::charge;
use crate::catalogue::intents::{self, IntentRow};
use crate::catalogue::snapshots::{self, SnapshotRow};
use crate::catalogue::{images, volumes};
use crate::context::Kms;
use crate::error::{Code, Error, Result};
use crate::volumes::commands::{self, Unmade, unknown};
use crate::volumes::sweep;

/// Deletes it in its store, then its row; and the image that goes with it. Can be repeated.
///
/// # Errors
/// The store's: if it refuses, the snapshot is there again; if it cannot be asked, the intent stays open.
pub(crate) async fn finish(kms: &Kms, intent: &IntentRow) -> Result<()> {
    let snapshot = intent.work.snapshot().unwrap_or_default().to_owned();
    // Where it is the last that needs the file, the file goes.
    if !is_last(kms, intent).await? {
        let wanted = Change::DeleteSnapshot {
            snapshot: snapshot.clone(),
        };
        match commands::change(kms, &intent.disk, &intent.id, wanted).await {
            Ok(()) => {}
            Err(Unmade::Not(error)) if error.code() == Code::SnapshotMissing => {}
            Err(Unmade::Not(error)) => {
                undo(kms, intent, &snapshot, &error).await?;
                return Err(error);
            }
            Err(Unmade::Unknown(error)) => return Err(unknown(error)),
        }
    }
    let mut tx = kms.catalogue.write().await?;
    intents::close(&mut tx, intent).await?;
    images::delete_with_snapshot(&mut tx, &snapshot).await?;
    snapshots::hide(&mut tx, &snapshot).await?;
    snapshots::delete_if_forgotten(&mut tx, &snapshot).await?;
    tx.commit().await?;
    sweep::sweep_or_leave(kms).await;
    Ok(())
}

async fn is_last(kms: &Kms, intent: &IntentRow) -> Result<bool> {
    let mut db = kms.catalogue.read().await?;
    let rows = snapshots::of_volume(&mut db, &intent.disk).await?;
    let has_disk = volumes::has_disk(&mut db, &intent.disk).await?;
    Ok(!has_disk && rows.iter().all(|row| !is_needed(row, intent)))
}

/// Whether anything but the image that goes with the snapshot of the intent needs a snapshot.
fn is_needed(row: &SnapshotRow, intent: &IntentRow) -> bool {
    row.clones > 0 || Some(row.id.as_str()) != intent.work.snapshot()
}

async fn undo(kms: &Kms, intent: &IntentRow, snapshot: &str, error: &Error) -> Result<()> {
    let mut tx = kms.catalogue.write().await?;
    kms.record_undone(&mut tx, intent, error).await?;
    charge::give_back(kms.profile, &mut tx, &kms.meta.region, intent).await?;
    snapshots::set_idle(&mut tx, snapshot).await?;
    images::set_available(&mut tx, snapshot).await?;
    Ok(tx.commit().await?)
}
