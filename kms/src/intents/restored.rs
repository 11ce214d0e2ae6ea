//! Intents of a catalogue that was restored: they are ended in it alone, and no file is touched, for the files that lie around
//! now may be those of a later time.

use super::charge;
use crate::audit::{self, Decision};
use crate::catalogue::intents::{IntentRow, Work};
use crate::catalogue::meta::Meta;
use crate::catalogue::states::{DiskState, SnapshotState};
use crate::catalogue::{Write, attachments, bin, disks, images, services, snapshots};
use crate::error::{Code, Error, Result};
use crate::profile::stored;

/// A disk whose file is in doubt gets the state `error`: it is seen, and its owner decides. An attachment that came or
/// went is gone: a process that may still serve it holds the store's lock, so that no other can (rule A08).
///
/// # Errors
/// The catalogue's.
pub(crate) async fn end(tx: &mut Write, meta: &Meta, intent: &IntentRow) -> Result<()> {
    let profile = stored::of_region(&meta.profile, meta.switches.as_deref())?.profile;
    charge::give_back(profile, tx, &meta.region, intent).await?;
    // An attachment is not deleted before its intent, which `give_back` has removed.
    if let Some(attachment) = intent.work.attachment() {
        attachments::delete(tx, attachment).await?;
    }
    let attached = services::of_disk(tx, &intent.disk).await?.is_some();
    let state = match &intent.work {
        Work::CreateDisk { .. } | Work::DeleteDisk => DiskState::Error,
        _ if attached => DiskState::InUse,
        Work::Resize { .. } => DiskState::ErrorResizing,
        // A volume has no file in doubt because of what was done with its snapshots or to one of several instances.
        Work::Attach { .. }
        | Work::Detach { .. }
        | Work::CreateSnapshot { .. }
        | Work::GroupSnapshot { .. }
        | Work::DeleteSnapshot { .. }
        | Work::Check
        | Work::Rollback { .. }
        | Work::Reinitialise => DiskState::Available,
    };
    match &intent.work {
        // Whether the store has the snapshot, or still has it, is seen when they are compared.
        Work::CreateSnapshot { snapshot } | Work::DeleteSnapshot { snapshot } => {
            snapshots::set_idle(tx, snapshot).await?;
            images::set_available(tx, snapshot).await?;
        }
        // Perhaps some of the others are there, and are not what was asked for.
        Work::GroupSnapshot { snapshot } => {
            snapshots::set_state(tx, snapshot, SnapshotState::Error).await?;
        }
        // An image that was being copied is not there; what it has left is swept.
        Work::CreateDisk {
            snapshot: Some(snapshot),
        } => {
            images::delete_with_snapshot(tx, snapshot).await?;
            snapshots::delete(tx, snapshot).await?;
        }
        Work::DeleteDisk => bin::set_state(tx, &intent.disk, state).await?,
        Work::CreateDisk { snapshot: None }
        | Work::Attach { .. }
        | Work::Detach { .. }
        | Work::Rollback { .. }
        | Work::Reinitialise
        | Work::Resize { .. }
        | Work::Check => {}
    }
    disks::set_state(tx, &intent.disk, state).await?;
    let text = format!("it was not ended when the backup was taken; the disk is {state} now");
    let call = intent.work.call();
    log::warn!("{call} of {}: {text}", intent.disk);
    let error = Error::new(Code::Internal, text);
    audit::append(tx, &intent.caller(), call, &intent.disk, Decision::Failed(&error)).await
}
