//! `DELETE /v1/snapshots/{snapshot}` (rules S07, K14).

use sealblk_proto::message::Change;

use crate::audit::Caller;
use crate::calls::Operation;
use crate::catalogue::intents::{self, IntentRow};
use crate::catalogue::snapshots::{self, SnapshotRow};
use crate::catalogue::{Write, images, volumes};
use crate::context::{Kms, find};
use crate::error::{Code, Error, Result};
use crate::intents::Subject;
use crate::rules::available::check_idle;
use crate::views;
use crate::volumes::change::unknown;
use crate::volumes::commands::{self, Unmade};
use crate::volumes::sweep;
use sealblk_api::Snapshot;

/// Deletes a snapshot: it disappears from lists at once. What disks that were made from it still read of it stays as
/// long as they do, and all of it as long as there are images of it.
pub(crate) struct DeleteSnapshot {
    /// Id, name or `DISK/NAME`.
    pub(crate) snapshot: String,
}

impl Operation for DeleteSnapshot {
    const CALL: &'static str = "snapshot.delete";
    const FREES: bool = true;
    type Decided = (Option<IntentRow>, SnapshotRow);
    type Answer = Snapshot;

    fn object(&self) -> &str {
        &self.snapshot
    }

    async fn decide(
        &self,
        kms: &Kms,
        caller: &Caller,
        tx: &mut Write,
    ) -> Result<(Option<IntentRow>, SnapshotRow)> {
        let row = find::snapshot(tx, caller, None, &self.snapshot).await?;
        check_idle(tx, &row.volume).await?;
        if row.images > 0 {
            snapshots::hold(tx, &row.id).await?;
            return Ok((None, row));
        }
        snapshots::set_state(tx, &row.id, "deleting").await?;
        let subject = Subject {
            volume: &row.volume,
            encrypted: row.encrypted,
            snapshot: Some(&row.id),
            ..Subject::default()
        };
        let intent = kms.open_intent(tx, caller, Self::CALL, subject).await?;
        Ok((Some(intent), row))
    }

    async fn act(
        &self,
        kms: &Kms,
        _: &Caller,
        (intent, row): (Option<IntentRow>, SnapshotRow),
    ) -> Result<Snapshot> {
        if let Some(intent) = intent {
            finish(kms, &intent).await?;
        }
        Ok(views::snapshot::answer(row, None))
    }
}

/// Deletes it in its store, then its row; and the image that goes with it. Can be repeated.
///
/// # Errors
/// The store's: if it refuses, the snapshot is there again; if it cannot be asked, the intent stays open.
pub(crate) async fn finish(kms: &Kms, intent: &IntentRow) -> Result<()> {
    let snapshot = intent.snapshot.clone().unwrap_or_default();
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
    row.clones > 0 || Some(&row.id) != intent.snapshot.as_ref()
}

async fn undo(kms: &Kms, intent: &IntentRow, snapshot: &str, error: &Error) -> Result<()> {
    let mut tx = kms.catalogue.write().await?;
    kms.record_undone(&mut tx, intent, error).await?;
    intents::refund(&mut tx, &kms.meta.region, intent).await?;
    let row = snapshots::get(&mut tx, snapshot).await?;
    let state = if row.held { "hidden" } else { "available" };
    snapshots::set_state(&mut tx, snapshot, state).await?;
    images::set_available(&mut tx, snapshot).await?;
    Ok(tx.commit().await?)
}
