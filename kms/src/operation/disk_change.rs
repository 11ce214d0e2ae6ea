//! What snapshot, rollback, re-initialisation and resize have in common: one change of the disk's store, which is made
//! or not made, whatever happens in between.

use sealblk_proto::message::Change;

use super::Kms;
use super::store_access::{self, Unmade};
use crate::catalogue::intents::{self, IntentRow};
use crate::catalogue::{disks, images, services, snapshots, volumes};
use crate::error::{Code, Error, Result};

/// Makes the change, and commits or undoes.
///
/// # Errors
/// Why it was not made. Where that is not known, the intent stays open until the store has been asked.
pub(super) async fn carry_out(kms: &Kms, intent: &IntentRow, change: Change) -> Result<()> {
    match store_access::change(kms, &intent.disk, &intent.id, change).await {
        Ok(()) => commit(kms, intent).await,
        Err(Unmade::Not(error)) => {
            undo(kms, intent, &error).await?;
            Err(error)
        }
        Err(Unmade::Unknown(error)) => Err(unknown(error)),
    }
}

/// Asks the store whether it has made the change, and commits or undoes.
///
/// # Errors
/// The store's, if it cannot be asked, and the catalogue's; then the intent stays open.
pub(super) async fn settle(kms: &Kms, intent: &IntentRow, interrupted: &Error) -> Result<()> {
    if store_access::was_made(kms, &intent.disk, &intent.id).await? {
        commit(kms, intent).await
    } else {
        undo(kms, intent, interrupted).await
    }
}

/// Nobody knows yet what has come of a call.
pub(super) fn unknown(error: Error) -> Error {
    Error::because(
        Code::BackendFailed,
        "whether it was done is not known yet; the KMS finds out by itself, so look again later",
        error,
    )
}

async fn commit(kms: &Kms, intent: &IntentRow) -> Result<()> {
    let mut tx = kms.catalogue.write().await?;
    match (intent.call.as_str(), &intent.snapshot, intent.size) {
        ("snapshot.create", Some(snapshot), _) => {
            snapshots::set_state(&mut tx, snapshot, "available").await?;
            images::set_available(&mut tx, snapshot).await?;
        }
        ("disk.resize", _, Some(size)) => {
            volumes::set_size(&mut tx, &intent.disk, size).await?;
            disks::set_idle(&mut tx, &intent.disk).await?;
        }
        _ => disks::set_idle(&mut tx, &intent.disk).await?,
    }
    intents::close(&mut tx, intent).await?;
    let service = services::of_disk(&mut tx, &intent.disk).await?;
    match intent.call.as_str() {
        "rollback" => volumes::set_written(&mut tx, &intent.disk, true).await?,
        // The guest of one that is attached may have written again.
        "disk.reinit" if service.is_none() => volumes::set_written(&mut tx, &intent.disk, false).await?,
        _ => {}
    }
    tx.commit().await?;
    if let (Some(service), Some(size)) = (service, intent.size) {
        kms.supervisor.resized(&service.id, size.unsigned_abs());
    }
    Ok(())
}

async fn undo(kms: &Kms, intent: &IntentRow, error: &Error) -> Result<()> {
    let mut tx = kms.catalogue.write().await?;
    kms.record_undone(&mut tx, intent, error).await?;
    intents::refund(&mut tx, &kms.meta.region, intent).await?;
    if let ("snapshot.create", Some(snapshot)) = (intent.call.as_str(), &intent.snapshot) {
        images::delete_with_snapshot(&mut tx, snapshot).await?;
        snapshots::delete(&mut tx, snapshot).await?;
        return Ok(tx.commit().await?);
    }
    let attached = services::of_disk(&mut tx, &intent.disk).await?.is_some();
    if intent.call == "disk.resize" && !attached && is_broken(error) {
        disks::set_state(&mut tx, &intent.disk, "error-resizing").await?;
    } else {
        disks::set_idle(&mut tx, &intent.disk).await?;
    }
    Ok(tx.commit().await?)
}

/// Whether something is wrong with the store, rather than with what was asked for.
fn is_broken(error: &Error) -> bool {
    matches!(
        error.code(),
        Code::BackendFailed | Code::StoreDamaged | Code::StoreUnusable | Code::StoreVersion
    )
}
