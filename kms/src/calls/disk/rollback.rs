//! `POST /v1/disks/{disk}/rollback` (rules S03, S05, D05, M01).

use sealblk_proto::message::Change;

use crate::audit::Caller;
use crate::calls::Operation;
use crate::catalogue::Write;
use crate::catalogue::disks;
use crate::catalogue::intents::{IntentRow, Work};
use crate::catalogue::states::{DiskState, SnapshotState};
use crate::context::{Kms, find};
use crate::error::{Code, Error, Result};
use crate::intents::{Subject, store_change};
use crate::rules::available::{check_workable, refuse_in_use};
use crate::views;
use sealblk_api::{self, Disk};

/// Makes a disk what one of its snapshots holds. It keeps its size and its other snapshots.
pub(crate) struct Rollback {
    /// Id or name.
    pub(crate) disk: String,
    /// The call's body.
    pub(crate) options: sealblk_api::Rollback,
}

impl Operation for Rollback {
    const CALL: &'static str = "rollback";
    type Decided = IntentRow;
    type Answer = Disk;

    fn object(&self) -> &str {
        &self.disk
    }

    async fn decide(&self, kms: &Kms, caller: &Caller, tx: &mut Write) -> Result<IntentRow> {
        let disk = find::disk(tx, caller, &self.disk).await?;
        check_workable(tx, &disk, "snapshots").await?;
        let snapshot = find::snapshot(tx, caller, Some(&disk), &self.options.snapshot).await?;
        if snapshot.state != SnapshotState::Available {
            let text = format!("snapshot {} is in state {}", snapshot.name, snapshot.state);
            return Err(Error::new(Code::SnapshotNotAvailable, text));
        }
        refuse_in_use(&disk, self.options.force)?;
        disks::set_state(tx, &disk.id, DiskState::RollingBack).await?;
        let work = Work::Rollback {
            snapshot: snapshot.id,
        };
        kms.open_intent(tx, caller, work, Subject::disk(&disk)).await
    }

    async fn act(&self, kms: &Kms, _: &Caller, intent: IntentRow) -> Result<Disk> {
        let change = Change::Rollback {
            snapshot: intent.work.snapshot().unwrap_or_default().to_owned(),
            force: self.options.force,
        };
        store_change::carry_out(kms, &intent, change).await?;
        views::disk::after(kms, &intent.disk).await
    }
}
