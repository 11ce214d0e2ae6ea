//! Snapshots of several disks as of one moment: all of them, or none. Each has an intent, and they are closed together.

use sealblk_proto::message::Change;

use super::store_change::{give_up, is_lost, undo_rows};
use crate::catalogue::intents::{self, IntentRow};
use crate::catalogue::snapshots;
use crate::catalogue::states::SnapshotState;
use crate::context::Kms;
use crate::error::{Code, Error, Result};
use crate::id::{self, Kind};
use crate::volumes::at_once::{self, Wanted};
use crate::volumes::commands::{self, Unmade};

/// Takes them, and commits or undoes.
///
/// # Errors
/// Why none was taken. One that cannot be undone now stays until its store can be asked.
pub(crate) async fn carry_out(kms: &Kms, parts: &[(IntentRow, String)]) -> Result<()> {
    let wanted = parts.iter().map(|(intent, name)| Wanted {
        volume: intent.disk.clone(),
        name: name.clone(),
        operation: intent.id.clone(),
        change: Change::Snapshot {
            snapshot: intent.work.snapshot().unwrap_or_default().to_owned(),
        },
    });
    let Err(at_once::Unmade { error, begun }) = at_once::change(kms, wanted.collect()).await else {
        return commit(kms, parts).await;
    };
    for (intent, name) in parts {
        // A store that nobody has asked may be one that nobody serves.
        let undone = match begun {
            true => undo(kms, intent, &error).await,
            false => undo_rows(kms, intent, &error).await,
        };
        if let Err(left) = undone {
            log::warn!(
                "disk {name}: its snapshot goes when its store can be asked: {}",
                left.full_message()
            );
        }
    }
    Err(Error::because(error.code(), "no disk has a new snapshot", error))
}

async fn commit(kms: &Kms, parts: &[(IntentRow, String)]) -> Result<()> {
    let mut tx = kms.catalogue.write().await?;
    for (intent, _) in parts {
        intents::close(&mut tx, intent).await?;
        let snapshot = intent.work.snapshot().unwrap_or_default();
        snapshots::set_state(&mut tx, snapshot, SnapshotState::Available).await?;
    }
    Ok(tx.commit().await?)
}

/// Takes one of them back, whether its store has it or not: the others are not there, either.
///
/// # Errors
/// Why its store cannot be asked; then the intent stays open.
pub(super) async fn undo(kms: &Kms, intent: &IntentRow, error: &Error) -> Result<()> {
    let wanted = Change::DeleteSnapshot {
        snapshot: intent.work.snapshot().unwrap_or_default().to_owned(),
    };
    // An operation of its own: the intent's is the making.
    let operation = id::new(Kind::Intent)?;
    match commands::change(kms, &intent.disk, &operation, wanted).await {
        Ok(()) => {}
        Err(Unmade::Not(missing)) if missing.code() == Code::SnapshotMissing => {}
        Err(Unmade::Not(lost)) if is_lost(&lost) => return give_up(kms, intent, &lost).await,
        Err(unmade) => return Err(unmade.into_error()),
    }
    undo_rows(kms, intent, error).await
}
