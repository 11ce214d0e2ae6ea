//! `DELETE /v1/snapshots/{snapshot}` (rules S07, K14).

use crate::audit::Caller;
use crate::calls::Operation;
use crate::catalogue::Write;
use crate::catalogue::intents::{IntentRow, Work};
use crate::catalogue::snapshots::{self, SnapshotRow};
use crate::catalogue::states::SnapshotState;
use crate::context::{Kms, find};
use crate::error::Result;
use crate::intents::{Subject, delete_snapshot};
use crate::rules::available::check_idle;
use crate::views;
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
        snapshots::set_state(tx, &row.id, SnapshotState::Deleting).await?;
        let work = Work::DeleteSnapshot {
            snapshot: row.id.clone(),
        };
        let subject = Subject {
            volume: &row.volume,
            encrypted: row.encrypted,
            ..Subject::default()
        };
        let intent = kms.open_intent(tx, caller, work, subject).await?;
        Ok((Some(intent), row))
    }

    async fn act(
        &self,
        kms: &Kms,
        _: &Caller,
        (intent, row): (Option<IntentRow>, SnapshotRow),
    ) -> Result<Snapshot> {
        if let Some(intent) = intent {
            delete_snapshot::finish(kms, &intent).await?;
        }
        Ok(views::snapshot::answer(row, None))
    }
}
