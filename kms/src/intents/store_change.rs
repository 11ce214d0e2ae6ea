//! What snapshot, rollback, re-initialisation and resize have in common: one change of the disk's store, which is made
//! or not made, whatever happens in between.

use sealblk_proto::message::Change;

use super::charge;
use crate::catalogue::intents::{self, IntentRow, Work};
use crate::catalogue::states::{DiskState, SnapshotState};
use crate::catalogue::{disks, images, services, snapshots, volumes};
use crate::context::Kms;
use crate::error::{Code, Error, Result};
use crate::volumes::commands::{self, Unmade, unknown};

/// Makes the change, and commits or undoes.
///
/// # Errors
/// Why it was not made. Where that is not known, the intent stays open until the store has been asked.
pub(crate) async fn carry_out(kms: &Kms, intent: &IntentRow, change: Change) -> Result<()> {
    match commands::change(kms, &intent.disk, &intent.id, change).await {
        Ok(()) => commit(kms, intent).await,
        Err(Unmade::Not(error)) => {
            undo_rows(kms, intent, &error).await?;
            Err(error)
        }
        Err(Unmade::Unknown(error)) => Err(unknown(error)),
    }
}

/// Asks the store whether it has made the change, and commits or undoes. A store that is not what it was tells nothing any
/// more: then a snapshot is in `error`, to be deleted, and the disk is as before.
///
/// # Errors
/// The store's, if it cannot be asked, and the catalogue's; then the intent stays open.
pub(crate) async fn settle(kms: &Kms, intent: &IntentRow, interrupted: &Error) -> Result<()> {
    match commands::was_made(kms, &intent.disk, &intent.id).await {
        Ok(true) => commit(kms, intent).await,
        Ok(false) => undo_rows(kms, intent, interrupted).await,
        Err(error) if is_lost(&error) => give_up(kms, intent, &error).await,
        Err(error) => Err(error),
    }
}

async fn commit(kms: &Kms, intent: &IntentRow) -> Result<()> {
    let mut tx = kms.catalogue.write().await?;
    let service = services::of_disk(&mut tx, &intent.disk).await?;
    match &intent.work {
        Work::CreateSnapshot { snapshot } => {
            snapshots::set_state(&mut tx, snapshot, SnapshotState::Available).await?;
            images::set_available(&mut tx, snapshot).await?;
        }
        Work::Resize { size } => volumes::set_size(&mut tx, &intent.disk, *size).await?,
        Work::Rollback { .. } => volumes::set_written(&mut tx, &intent.disk, true).await?,
        // The guest of one that is attached may have written again.
        Work::Reinitialise if service.is_none() => volumes::set_written(&mut tx, &intent.disk, false).await?,
        Work::Reinitialise
        | Work::CreateDisk { .. }
        | Work::DeleteDisk
        | Work::Attach { .. }
        | Work::Detach { .. }
        | Work::GroupSnapshot { .. }
        | Work::DeleteSnapshot { .. }
        | Work::Check => {}
    }
    // A snapshot leaves the disk as it is.
    if !matches!(intent.work, Work::CreateSnapshot { .. }) {
        disks::set_idle(&mut tx, &intent.disk).await?;
    }
    intents::close(&mut tx, intent).await?;
    tx.commit().await?;
    if let (Some(service), Some(size)) = (service, intent.work.size()) {
        kms.supervisor.resized(&service.id, size.unsigned_abs());
    }
    Ok(())
}

/// Ends a change that the store has not made, or has no more.
///
/// # Errors
/// The catalogue's.
pub(super) async fn undo_rows(kms: &Kms, intent: &IntentRow, error: &Error) -> Result<()> {
    let mut tx = kms.catalogue.write().await?;
    kms.record_undone(&mut tx, intent, error).await?;
    charge::give_back(kms.profile, &mut tx, &kms.meta.region, intent).await?;
    if let Work::CreateSnapshot { snapshot } | Work::GroupSnapshot { snapshot } = &intent.work {
        images::delete_with_snapshot(&mut tx, snapshot).await?;
        snapshots::delete(&mut tx, snapshot).await?;
        return Ok(tx.commit().await?);
    }
    let attached = services::of_disk(&mut tx, &intent.disk).await?.is_some();
    if matches!(intent.work, Work::Resize { .. }) && !attached && is_broken(error) {
        disks::set_state(&mut tx, &intent.disk, DiskState::ErrorResizing).await?;
    } else {
        disks::set_idle(&mut tx, &intent.disk).await?;
    }
    Ok(tx.commit().await?)
}

/// Ends a change of which nobody will ever know whether it was made: its store is damaged, or gone.
pub(super) async fn give_up(kms: &Kms, intent: &IntentRow, error: &Error) -> Result<()> {
    let (Work::CreateSnapshot { snapshot } | Work::GroupSnapshot { snapshot }) = &intent.work else {
        return undo_rows(kms, intent, error).await;
    };
    log::error!(
        "{snapshot}: whether it was made cannot be told: {}",
        error.full_message()
    );
    let mut tx = kms.catalogue.write().await?;
    kms.record_undone(&mut tx, intent, error).await?;
    charge::give_back(kms.profile, &mut tx, &kms.meta.region, intent).await?;
    images::delete_with_snapshot(&mut tx, snapshot).await?;
    snapshots::set_state(&mut tx, snapshot, SnapshotState::Error).await?;
    Ok(tx.commit().await?)
}

/// Whether another store, or none that can be read, is in the place of the one that was changed.
pub(super) fn is_lost(error: &Error) -> bool {
    matches!(
        error.code(),
        Code::StoreDamaged | Code::StoreForeign | Code::StoreRolledBack
    )
}

/// Whether something is wrong with the store, rather than with what was asked for.
fn is_broken(error: &Error) -> bool {
    matches!(
        error.code(),
        Code::BackendFailed | Code::StoreDamaged | Code::StoreUnusable | Code::StoreVersion
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::calls::tests::{World, caller, new_disk};
    use crate::calls::{Operation, run};
    use sealblk_api::{CreateDisk, CreateSnapshot};

    #[tokio::test(flavor = "multi_thread")]
    async fn a_snapshot_of_which_the_store_tells_nothing_any_more_is_in_error_and_the_disk_is_free() {
        let mut world = World::new().await;
        let layered = CreateDisk {
            store: Some("layered".into()),
            ..new_disk(None)
        };
        let disk = run(&world.kms, caller(), layered).await.unwrap();
        let snapshot = CreateSnapshot {
            disk: "data".into(),
            name: "one".into(),
        };
        let intent = world.kms.decide(&caller(), &snapshot).await.unwrap();
        assert_eq!(intent.work.call(), CreateSnapshot::CALL);
        std::fs::write(&disk.path, "no store").unwrap();
        world.crash_and_recover().await;
        let mut db = world.kms.catalogue.read().await.unwrap();
        let id = intent.work.snapshot().unwrap();
        while intents::on_volume(&mut db, &disk.id).await.unwrap().is_some() {
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
        assert_eq!(
            snapshots::get(&mut db, id).await.unwrap().state,
            SnapshotState::Error
        );
        assert_eq!(
            disks::state(&mut db, &disk.id).await.unwrap(),
            Some(DiskState::Available)
        );
    }
}
