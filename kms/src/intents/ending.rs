//! The end of an intent that nobody carries out any more.

use super::{attach, check, create_disk, delete_disk, delete_snapshot, detach, group, plug, store_change};
use crate::catalogue::intents::{IntentRow, Work};
use crate::context::Kms;
use crate::error::{Code, Error, Result};

/// Finishes what was done of an intent that nobody carries out any more, and undoes what was not.
///
/// # Errors
/// Why it cannot be ended now; then the intent stays open.
pub(super) async fn end(kms: &Kms, intent: &IntentRow, at_start: bool) -> Result<()> {
    let interrupted = Error::new(Code::Internal, "the KMS was stopped before it was done");
    let hangs = match &intent.work {
        Work::Detach { .. } => detach::hangs(kms, intent).await?,
        _ => false,
    };
    if !hangs {
        let call = intent.work.call();
        log::warn!("{call} of {} was not ended: doing that now", intent.disk);
    }
    match &intent.work {
        // How much of the store was made cannot be told.
        Work::CreateDisk { .. } => create_disk::undo(kms, intent, &interrupted).await,
        Work::DeleteDisk => delete_disk::finish(kms, intent).await,
        Work::DeleteSnapshot { .. } => delete_snapshot::finish(kms, intent).await,
        // The store knows.
        Work::CreateSnapshot { .. } | Work::Rollback { .. } | Work::Reinitialise | Work::Resize { .. } => {
            store_change::settle(kms, intent, &interrupted).await
        }
        // The others are not there, or go.
        Work::GroupSnapshot { .. } => group::undo(kms, intent, &interrupted).await,
        Work::Check => check::undo(kms, intent, &interrupted).await,
        Work::Attach { .. } if intent.machine => plug::settle(kms, intent, &interrupted).await.map(drop),
        Work::Attach { attachment } => {
            // The caller has not been told that the attach failed.
            if at_start && kms.supervisor.is_serving(attachment) {
                attach::commit(kms, intent, None).await
            } else {
                attach::undo(kms, intent, &interrupted).await
            }
        }
        Work::Detach { .. } if intent.machine && !hangs => plug::end_detach(kms, intent).await,
        Work::Detach { attachment } => {
            detach::end(kms, intent, attachment, (at_start, hangs), &interrupted).await
        }
    }
}
