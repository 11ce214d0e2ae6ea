//! Data of a snapshot under a lineage of its own (rules I01, I02, D04): it is copied to a new volume while the call waits, and
//! both volumes are being created all the time, so that what a crash leaves is undone like any creation.

use super::{Subject, create_disk};
use crate::audit::Caller;
use crate::catalogue::Write;
use crate::catalogue::intents::{IntentRow, Work};
use crate::catalogue::snapshots::SnapshotRow;
use crate::context::Kms;
use crate::copies::fresh;
use crate::error::{Error, Result};

/// Decides on the clone of a snapshot that is copied from; `origin` is what the snapshot was named as, in words.
///
/// # Errors
/// [`crate::error::Code::KeyNotUsable`], [`crate::error::Code::TooMany`].
pub(crate) async fn open_source(
    kms: &Kms,
    caller: &Caller,
    tx: &mut Write,
    snapshot: &SnapshotRow,
    origin: &str,
) -> Result<IntentRow> {
    let clone = fresh::open_clone(kms, caller, tx, snapshot, origin).await?;
    // The clone is no disk of anybody's, and not metered.
    let subject = Subject {
        volume: &clone,
        ..Subject::default()
    };
    let work = Work::CreateDisk { snapshot: None };
    kms.open_intent(tx, caller, work, subject).await
}

/// Makes the clone, and copies it to a new volume, which has been made.
///
/// # Errors
/// Why it was not copied; then both must be undone.
pub(crate) async fn fill(kms: &Kms, source: &IntentRow, destination: &str) -> Result<()> {
    create_disk::build(kms, source).await?;
    fresh::fill(kms, &source.disk, destination).await
}

/// Undoes what was begun with the volumes of a copy. What cannot be undone now stays open, and is undone later.
pub(crate) async fn undo(kms: &Kms, opened: &[&IntentRow], error: &Error) {
    for intent in opened {
        if let Err(failure) = create_disk::undo(kms, intent, error).await {
            log::error!("{} is undone later: {}", intent.disk, failure.full_message());
            kms.retries.flag();
        }
    }
}
