//! The store of a new disk, or of an image that is to be made: it is there with all that belongs to it, or not at all.

use super::charge;
use crate::catalogue::intents::{self, IntentRow};
use crate::catalogue::states::DiskState;
use crate::catalogue::volumes::{self, VolumeRow};
use crate::catalogue::{copies, disks, images, keys, snapshots};
use crate::context::Kms;
use crate::error::{Error, Result};
use crate::volumes::commands::{Unmade, unknown};
use crate::volumes::{make, sweep};

/// Makes the disk, and commits or undoes.
///
/// # Errors
/// Why it was not made. Where that is not known, the intent stays open until the store of its base has been asked.
pub(crate) async fn carry_out(kms: &Kms, intent: &IntentRow) -> Result<()> {
    let volume = volume_of(kms, intent).await?;
    if let Err(error) = make::pin(kms, &intent.id, &volume).await {
        return match error {
            Unmade::Not(error) => {
                // Nothing holds the snapshot, so nobody has to be asked to let go of it.
                undo_with(kms, intent, &error, false).await?;
                Err(error)
            }
            Unmade::Unknown(error) => Err(unknown(error)),
        };
    }
    if let Err(error) = make_and_commit(kms, intent, &volume).await {
        undo(kms, intent, &error).await?;
        return Err(error);
    }
    Ok(())
}

/// Makes the disk, and the copying to it begins. If it cannot be made there is no disk, and no copy.
///
/// # Errors
/// The store's; the catalogue's.
pub(crate) async fn carry_out_filled(kms: &Kms, intent: &IntentRow) -> Result<()> {
    let made = async {
        let volume = volume_of(kms, intent).await?;
        make_and_commit(kms, intent, &volume).await
    };
    if let Err(error) = made.await {
        undo(kms, intent, &error).await?;
        return Err(error);
    }
    kms.copies.begin();
    Ok(())
}

async fn volume_of(kms: &Kms, intent: &IntentRow) -> Result<VolumeRow> {
    let mut db = kms.catalogue.read().await?;
    Ok(volumes::get(&mut db, &intent.disk).await?)
}

/// Makes a decided disk; its intent stays open.
///
/// # Errors
/// Those of its store and its base; then it must be undone.
pub(crate) async fn build(kms: &Kms, intent: &IntentRow) -> Result<()> {
    let volume = volume_of(kms, intent).await?;
    match make::pin(kms, &intent.id, &volume).await {
        Ok(()) => make::make(kms, intent.uid, &volume).await,
        Err(Unmade::Not(error)) => Err(error),
        Err(Unmade::Unknown(error)) => Err(unknown(error)),
    }
}

async fn make_and_commit(kms: &Kms, intent: &IntentRow, volume: &VolumeRow) -> Result<()> {
    make::make(kms, intent.uid, volume).await?;
    commit(kms, intent).await
}

async fn commit(kms: &Kms, intent: &IntentRow) -> Result<()> {
    let mut tx = kms.catalogue.write().await?;
    // Data is yet to be copied to one that is restored or imported.
    if copies::on_volume(&mut tx, &intent.disk).await?.is_none() {
        disks::set_state(&mut tx, &intent.disk, DiskState::Available).await?;
    }
    intents::close(&mut tx, intent).await?;
    Ok(tx.commit().await?)
}

/// Removes what was made, and the image that was to be made of it, and refunds. Can be repeated. A file that refuses to go, or a
/// base that does not let go, keeps the volume and nothing else: it is tried again until it succeeds.
///
/// # Errors
/// The catalogue's; then the intent stays open, and this is tried again.
pub(crate) async fn undo(kms: &Kms, intent: &IntentRow, error: &Error) -> Result<()> {
    undo_with(kms, intent, error, true).await
}

async fn undo_with(kms: &Kms, intent: &IntentRow, error: &Error, pinned: bool) -> Result<()> {
    // A file outside the state directory of which the catalogue does not know that we made it stays; it is empty.
    let volume = volume_of(kms, intent).await?;
    let left = match pinned {
        true => sweep::give_up(kms, &volume).await.err(),
        false => None,
    };
    if let Some(why) = &left {
        log::error!(
            "{}: what was made of it stays for now: {}",
            volume.id,
            why.full_message()
        );
    }
    let mut tx = kms.catalogue.write().await?;
    kms.record_undone(&mut tx, intent, error).await?;
    charge::give_back(kms.profile, &mut tx, &kms.meta.region, intent).await?;
    disks::delete(&mut tx, &intent.disk).await?;
    if let Some(snapshot) = intent.work.snapshot() {
        images::delete_with_snapshot(&mut tx, snapshot).await?;
        snapshots::delete(&mut tx, snapshot).await?;
    }
    if left.is_none() {
        volumes::delete(&mut tx, &volume).await?;
    }
    if let Some(key) = &intent.made_key {
        // Nothing was changed by a call that came to nothing, unless somebody else uses the key by now.
        keys::delete_unused(&mut tx, key).await?;
    }
    tx.commit().await?;
    kms.catalogue.forget_deleted().await;
    sweep::sweep_or_leave(kms).await;
    Ok(())
}
