//! `PATCH /v1/snapshots/{snapshot}`: a snapshot can be renamed; what never changes is refused (rules S01, K09).

use crate::audit::Caller;
use crate::calls::Operation;
use crate::catalogue::snapshots::{self, SnapshotRow};
use crate::catalogue::states::SnapshotState;
use crate::catalogue::{Write, lineages};
use crate::context::{Kms, find};
use crate::error::{Code, Error, Result};
use crate::id;
use crate::rules::available::check_idle;
use crate::rules::fixed::{Fixed, Object};
use crate::views;
use sealblk_api::{self, Snapshot};

/// Changes what can be changed.
pub(crate) struct SetSnapshot {
    /// Id, name or `DISK/NAME`.
    pub(crate) snapshot: String,
    /// The call's body.
    pub(crate) options: sealblk_api::SetSnapshot,
}

impl Operation for SetSnapshot {
    const CALL: &'static str = "snapshot.set";
    type Decided = SnapshotRow;
    type Answer = Snapshot;

    fn object(&self) -> &str {
        &self.snapshot
    }

    async fn decide(&self, _: &Kms, caller: &Caller, tx: &mut Write) -> Result<SnapshotRow> {
        let row = find::snapshot(tx, caller, None, &self.snapshot).await?;
        let sealblk_api::SetSnapshot { name, encrypted, key } = &self.options;
        let present = match &row.lineage {
            Some(lineage) => Some(lineages::get(tx, lineage).await?.key),
            None => None,
        };
        let fixed = Fixed {
            object: Object::Snapshot,
            name: &row.name,
            encrypted: row.encrypted,
            key: present.as_deref(),
        };
        fixed.check(caller, tx, *encrypted, key.as_deref()).await?;
        if let Some(name) = name.as_ref().filter(|name| **name != row.name) {
            rename(tx, &row, name).await?;
        } else if name.is_none() && encrypted.is_none() && key.is_none() {
            let text = "nothing is to be changed: give a name";
            return Err(Error::new(Code::InvalidRequest, text));
        }
        Ok(snapshots::get(tx, &row.id).await?)
    }

    async fn act(&self, _: &Kms, _: &Caller, row: SnapshotRow) -> Result<Snapshot> {
        Ok(views::snapshot::answer(row, None))
    }
}

async fn rename(tx: &mut Write, row: &SnapshotRow, name: &str) -> Result<()> {
    id::check_name(name)?;
    check_idle(tx, &row.volume).await?;
    let others = snapshots::of_volume(tx, &row.volume).await?;
    if others
        .iter()
        .any(|other| other.name == name && other.state != SnapshotState::Hidden)
    {
        let text = format!("its disk has a snapshot {name:?} already: choose another name");
        return Err(Error::new(Code::NameTaken, text));
    }
    Ok(snapshots::set_name(tx, &row.id, name).await?)
}
