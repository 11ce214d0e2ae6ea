//! `POST /v1/snapshots` (rules S01, S04, M01).

use std::sync::Arc;

use sealblk_proto::message::Change;

use crate::audit::Caller;
use crate::calls::Operation;
use crate::calls::idempotency::Creates;
use crate::catalogue::Write;
use crate::catalogue::intents::{IntentRow, Work};
use crate::catalogue::snapshots::{self, NewSnapshot};
use crate::catalogue::states::SnapshotState;
use crate::context::{Kms, find};
use crate::error::{Code, Error, Result};
use crate::id::{self, Kind};
use crate::intents::{Subject, store_change};
use crate::rules::available::check_workable;
use crate::views;
use crate::{clock, limits};
use sealblk_api::{CreateSnapshot, Snapshot};

impl Operation for CreateSnapshot {
    const CALL: &'static str = "snapshot.create";
    type Decided = IntentRow;
    type Answer = Snapshot;

    fn object(&self) -> &str {
        &self.disk
    }

    async fn decide(&self, kms: &Kms, caller: &Caller, tx: &mut Write) -> Result<IntentRow> {
        id::check_name(&self.name)?;
        let disk = find::disk(tx, caller, &self.disk).await?;
        check_workable(tx, &disk, "snapshots").await?;
        let others = snapshots::of_volume(tx, &disk.id).await?;
        if others
            .iter()
            .any(|other| other.name == self.name && other.state != SnapshotState::Hidden)
        {
            let text = format!(
                "disk {} has a snapshot {:?} already: choose another name",
                disk.name, self.name
            );
            return Err(Error::new(Code::NameTaken, text));
        }
        if others.len() >= limits::SNAPSHOTS {
            let text = format!(
                "disk {} has {} snapshots, the most there can be: delete some first",
                disk.name,
                others.len()
            );
            return Err(Error::new(Code::TooMany, text));
        }
        let row = NewSnapshot {
            id: id::new(Kind::Snapshot)?,
            account: caller.account.clone(),
            volume: disk.id.clone(),
            name: self.name.clone(),
            state: SnapshotState::Creating,
            size: disk.size,
            created: clock::now(),
        };
        snapshots::insert(tx, &row).await?;
        caller.facts.note("snapshot", row.id.as_str());
        let work = Work::CreateSnapshot { snapshot: row.id };
        kms.open_intent(tx, caller, work, Subject::disk(&disk)).await
    }

    async fn act(&self, kms: &Kms, _: &Caller, intent: IntentRow) -> Result<Snapshot> {
        let snapshot = intent.work.snapshot().unwrap_or_default().to_owned();
        let change = Change::Snapshot {
            snapshot: snapshot.clone(),
        };
        store_change::carry_out(kms, &intent, change).await?;
        let mut db = kms.catalogue.read().await?;
        Ok(views::snapshot::answer(
            snapshots::get(&mut db, &snapshot).await?,
            None,
        ))
    }
}

impl Creates for CreateSnapshot {
    fn created(intent: &IntentRow) -> &str {
        intent.work.snapshot().unwrap_or_default()
    }

    async fn present(kms: &Arc<Kms>, caller: &Caller, id: &str) -> Result<Snapshot> {
        views::snapshot::show(kms, caller, id).await
    }
}
