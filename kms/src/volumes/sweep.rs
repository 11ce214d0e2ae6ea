//! Volumes that nothing needs any more: the file goes with its last dependant, and with it its hold on the snapshot
//! that it was made from.

use std::path::Path;

use crate::catalogue::snapshots;
use crate::catalogue::volumes::{self, VolumeRow};
use crate::context::{Kms, plans};
use crate::error::Result;
use crate::host::backends::store_lock;
use crate::host::{aside, store};
use crate::limits;
use crate::volumes::commands;

/// Refuses a volume whose file some process still uses.
///
/// # Errors
/// [`crate::error::Code::StoreInUse`]; [`crate::error::Code::StorageHangs`].
pub(crate) async fn ensure_unused(kms: &Kms, volume: &VolumeRow) -> Result<()> {
    let _lock = kms.supervisor.lock(&volume.id).await;
    let path = volume.location(&kms.state);
    aside::work(&path, limits::STORE_TIME, store_lock::ensure_free).await
}

/// Gives up a volume's file and its hold on its base. Can be repeated; the rows stay.
///
/// # Errors
/// The file's, or those of the base's store.
pub(crate) async fn give_up(kms: &Kms, volume: &VolumeRow) -> Result<()> {
    release(kms, volume).await?;
    if let Some(snapshot) = &volume.base {
        let base = {
            let mut db = kms.catalogue.read().await?;
            snapshots::get(&mut db, snapshot).await?.volume
        };
        commands::unpin(kms, &base, snapshot, &volume.id).await?;
    }
    Ok(())
}

/// Gives up a volume's file. Can be repeated.
///
/// # Errors
/// The file's.
pub(crate) async fn release(kms: &Kms, volume: &VolumeRow) -> Result<()> {
    let _lock = kms.supervisor.lock(&volume.id).await;
    let (path, length, expected) = (
        volume.location(&kms.state),
        volume.length(),
        plans::expected(volume),
    );
    let release = move |path: &Path| store::release(path, length, &expected);
    aside::work(&path, limits::STORE_TIME, release).await
}

/// After an operation that may have left something unneeded: what cannot be removed at once is tried again later, and so is
/// all of it while another sweeps.
pub(crate) async fn sweep_or_leave(kms: &Kms) {
    let Ok(_alone) = kms.sweeping.try_lock() else {
        return kms.retries.flag();
    };
    // Left in the middle, as by a crash, it is gone on with.
    let swept = tokio::time::timeout(limits::SWEEP_TIME, sweep_all(kms)).await;
    if !matches!(swept, Ok(Ok(()))) {
        kms.retries.flag();
    }
}

/// Removes all volumes that nothing needs any more. Can be repeated.
///
/// # Errors
/// The last of those that occurred; the other volumes are removed.
pub(crate) async fn sweep(kms: &Kms) -> Result<()> {
    let _alone = kms.sweeping.lock().await;
    sweep_all(kms).await
}

async fn sweep_all(kms: &Kms) -> Result<()> {
    let mut outcome = Ok(());
    let mut failed = Vec::new();
    loop {
        // A volume that was removed may have been the last that needed another.
        let next = {
            let mut db = kms.catalogue.read().await?;
            let unneeded = volumes::unneeded(&mut db).await?;
            unneeded.into_iter().find(|id| !failed.contains(id))
        };
        let Some(id) = next else { return outcome };
        if let Err(error) = remove(kms, &id).await {
            log::error!("volume {id} stays: {}", error.full_message());
            failed.push(id);
            outcome = Err(error);
        }
    }
}

async fn remove(kms: &Kms, id: &str) -> Result<()> {
    let volume = {
        let mut db = kms.catalogue.read().await?;
        volumes::get(&mut db, id).await?
    };
    ensure_unused(kms, &volume).await?;
    give_up(kms, &volume).await?;
    let mut tx = kms.catalogue.write().await?;
    volumes::delete(&mut tx, &volume).await?;
    tx.commit().await?;
    kms.catalogue.forget_deleted().await;
    Ok(())
}
