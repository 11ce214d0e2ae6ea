//! `POST /v1/disks/{disk}/reinit` (rules D07, S05, D05, M01).

use sealblk_proto::message::Change;

use crate::audit::Caller;
use crate::calls::Operation;
use crate::catalogue::Write;
use crate::catalogue::disks;
use crate::catalogue::intents::{IntentRow, Work};
use crate::catalogue::states::DiskState;
use crate::context::{Kms, find};
use crate::error::Result;
use crate::intents::{Subject, store_change};
use crate::rules::available::check_workable;
use crate::rules::available::refuse_in_use;
use crate::views;
use sealblk_api::{self, Disk};

/// Makes a disk empty: it reads zeros, and keeps its id, its size and its snapshots.
pub(crate) struct Reinitialise {
    /// Id or name.
    pub(crate) disk: String,
    /// The call's body.
    pub(crate) options: sealblk_api::Reinitialise,
}

impl Operation for Reinitialise {
    const CALL: &'static str = "disk.reinit";
    const FREES: bool = true;
    type Decided = IntentRow;
    type Answer = Disk;

    fn object(&self) -> &str {
        &self.disk
    }

    async fn decide(&self, kms: &Kms, caller: &Caller, tx: &mut Write) -> Result<IntentRow> {
        let disk = find::disk(tx, caller, &self.disk).await?;
        check_workable(tx, &disk, "re-initialisation").await?;
        refuse_in_use(&disk, self.options.force)?;
        disks::set_state(tx, &disk.id, DiskState::RollingBack).await?;
        kms.open_intent(tx, caller, Work::Reinitialise, Subject::disk(&disk))
            .await
    }

    async fn act(&self, kms: &Kms, _: &Caller, intent: IntentRow) -> Result<Disk> {
        let change = Change::Reinitialise {
            force: self.options.force,
        };
        store_change::carry_out(kms, &intent, change).await?;
        views::disk::after(kms, &intent.disk).await
    }
}
