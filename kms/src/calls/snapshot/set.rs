//! `PATCH /v1/snapshots/{snapshot}`: a snapshot can be renamed; what never changes is refused (rules S01, K09).

use crate::audit::Caller;
use crate::calls::Operation;
use crate::catalogue::snapshots::{self, SnapshotRow};
use crate::catalogue::states::SnapshotState;
use crate::catalogue::{Write, keys, lineages};
use crate::context::{Kms, find};
use crate::error::{Code, Error, Result};
use crate::id;
use crate::rules::available::check_idle;
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
        check_encryption(&row, *encrypted)?;
        if let Some(wanted) = key {
            check_key(caller, tx, &row, wanted).await?;
        }
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

/// Rule S01. To ask for what it is changes nothing.
fn check_encryption(row: &SnapshotRow, wanted: Option<bool>) -> Result<()> {
    if wanted.is_none_or(|wanted| wanted == row.encrypted) {
        return Ok(());
    }
    let is = if row.encrypted { "encrypted" } else { "plain" };
    let text = format!(
        "snapshot {} is {is}, as its disk is, and stays so: make a disk from it, and copy the data to a disk that is \
         what you need",
        row.name
    );
    Err(Error::new(Code::SnapshotEncryptionFixed, text))
}

/// Rule K09. To name the key that it has changes nothing.
async fn check_key(caller: &Caller, tx: &mut Write, row: &SnapshotRow, wanted: &str) -> Result<()> {
    let Some(lineage) = &row.lineage else {
        let text = format!(
            "snapshot {} is plain and has no key, and stays so: make a disk from it, and copy the data to an encrypted \
             disk",
            row.name
        );
        return Err(Error::new(Code::SnapshotEncryptionFixed, text));
    };
    let present = lineages::get(tx, lineage).await?.key;
    let named = keys::find(tx, &caller.account, wanted).await?;
    if named.is_some_and(|key| key.id == present) {
        return Ok(());
    }
    let text = format!(
        "snapshot {} has key {present}, as its disk has, and keeps it: make a disk from it, and copy the data to a \
         disk with the other key",
        row.name
    );
    Err(Error::new(Code::KeyFixed, text))
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
