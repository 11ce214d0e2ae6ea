//! A disk goes, from the bin or without having been there: the file that was made for it, and its keys with it (rule K14).

use sealblk_proto::message::Change;

use super::{Subject, charge};
use crate::audit::Caller;
use crate::catalogue::copies::Phase;
use crate::catalogue::disks::{self, DiskRow};
use crate::catalogue::intents::{self, IntentRow, Work};
use crate::catalogue::states::DiskState;
use crate::catalogue::volumes::{self, VolumeRow};
use crate::catalogue::{Write, bin, instances, schedules, snapshots};
use crate::context::Kms;
use crate::error::{Code, Error, Result};
use crate::host::aside;
use crate::host::backends::store_lock;
use crate::rules::copyable;
use crate::volumes::commands::{self, Unmade};
use crate::volumes::sweep;

/// Looks, before the transaction, whether somebody uses the store of a disk that is to be deleted. Looked at again when it is
/// removed.
///
/// # Errors
/// [`Code::StoreInUse`]; [`Code::StorageHangs`]. A disk that cannot be deleted anyhow is not looked at.
pub(crate) async fn look(kms: &Kms, row: &DiskRow) -> Result<()> {
    if check(row).is_err() {
        return Ok(());
    }
    let taken = kms.supervisor.is_taken(&row.id);
    let path = kms.state.store(&row.id, row.path.as_deref());
    match aside::named(&path, store_lock::ensure_free).await {
        // A process of ours that looks at the store ends soon, and is waited for later.
        Err(error) if taken && error.code() == Code::StoreInUse => Ok(()),
        looked => looked,
    }
}

/// Whether the disk can be deleted now.
///
/// # Errors
/// [`Code::DiskAttached`], [`Code::DiskNotAvailable`].
pub(crate) fn check(row: &DiskRow) -> Result<()> {
    if row.attachment.is_some() {
        let text = format!("disk {} is attached: detach it first", row.name);
        return Err(Error::new(Code::DiskAttached, text));
    }
    if !matches!(
        row.state,
        DiskState::Available | DiskState::Error | DiskState::ErrorResizing
    ) {
        let text = format!("disk {} is {}: wait until it is available", row.name, row.state);
        return Err(Error::new(Code::DiskNotAvailable, text));
    }
    Ok(())
}

/// Decides that a disk goes, which may be in the bin.
///
/// # Errors
/// [`Code::DiskAttached`], [`Code::DiskNotAvailable`].
pub(crate) async fn open(kms: &Kms, caller: &Caller, tx: &mut Write, row: &DiskRow) -> Result<IntentRow> {
    check(row)?;
    disks::set_state(tx, &row.id, DiskState::Deleting).await?;
    kms.open_intent(tx, caller, Work::DeleteDisk, Subject::disk(row))
        .await
}

/// Gives the answer of `first`, deletes the disk, and commits or undoes.
///
/// # Errors
/// Those of `first` and of [`finish`].
pub(crate) async fn carry_out<T>(
    kms: &Kms,
    intent: &IntentRow,
    first: impl Future<Output = Result<T>> + Send,
) -> Result<T> {
    let prepared = async { Ok((first.await?, prepare(kms, intent).await?)) };
    let (answer, volume) = match prepared.await {
        Ok(prepared) => prepared,
        // Nothing was done: somebody has the file by now, or its medium hangs.
        Err(error) => {
            undo(kms, intent, &error, false).await?;
            return Err(error);
        }
    };
    if let Err(error) = remove(kms, intent, volume).await {
        undo(kms, intent, &error, true).await?;
        return Err(error);
    }
    Ok(answer)
}

/// Removes the disk, with the instance whose system disk it is; and its store, unless snapshots are in it: then its data is given up, and the store goes with the
/// last of them. Can be repeated.
///
/// # Errors
/// The store's, the file's or the catalogue's.
pub(crate) async fn finish(kms: &Kms, intent: &IntentRow) -> Result<()> {
    let volume = prepare(kms, intent).await?;
    remove(kms, intent, volume).await
}

/// The volume that goes, which nobody uses; none if snapshots are in it. Nothing is changed yet.
async fn prepare(kms: &Kms, intent: &IntentRow) -> Result<Option<VolumeRow>> {
    let volume = {
        let mut db = kms.catalogue.read().await?;
        if !snapshots::of_volume(&mut db, &intent.disk).await?.is_empty() {
            return Ok(None);
        }
        volumes::get(&mut db, &intent.disk).await?
    };
    sweep::ensure_unused(kms, &volume).await?;
    Ok(Some(volume))
}

async fn remove(kms: &Kms, intent: &IntentRow, volume: Option<VolumeRow>) -> Result<()> {
    match &volume {
        Some(volume) => sweep::give_up(kms, volume).await?,
        None => give_up_data(kms, intent).await?,
    }
    let mut tx = kms.catalogue.write().await?;
    intents::close(&mut tx, intent).await?;
    let instance = disks::instance_of(&mut tx, &intent.disk).await?;
    disks::delete(&mut tx, &intent.disk).await?;
    bin::delete(&mut tx, &intent.disk).await?;
    schedules::delete(&mut tx, &intent.disk).await?;
    if let Some(instance) = instance {
        instances::delete(&mut tx, &instance).await?;
    }
    if let Some(volume) = &volume {
        volumes::delete(&mut tx, volume).await?;
    }
    tx.commit().await?;
    kms.catalogue.forget_deleted().await;
    sweep::sweep_or_leave(kms).await;
    Ok(())
}

/// The space of what no snapshot holds comes back.
async fn give_up_data(kms: &Kms, intent: &IntentRow) -> Result<()> {
    let change = Change::Reinitialise { force: true };
    match commands::change(kms, &intent.disk, &intent.id, change).await {
        Ok(()) => Ok(()),
        Err(Unmade::Not(error)) => {
            // The disk goes all the same. What it held takes space until the snapshots have gone, too.
            log::warn!(
                "{}: its data cannot be given up: {}",
                intent.disk,
                error.full_message()
            );
            Ok(())
        }
        Err(Unmade::Unknown(error)) => Err(error),
    }
}

/// The disk stays, in the bin if it was there, and its instance; if it was `begun`, nobody knows what is left of its file.
async fn undo(kms: &Kms, intent: &IntentRow, error: &Error, begun: bool) -> Result<()> {
    let mut tx = kms.catalogue.write().await?;
    kms.record_undone(&mut tx, intent, error).await?;
    charge::give_back(kms.profile, &mut tx, &kms.meta.region, intent).await?;
    if let Some(instance) = disks::instance_of(&mut tx, &intent.disk).await? {
        instances::set_made(&mut tx, &instance).await?;
    }
    if begun {
        bin::set_state(&mut tx, &intent.disk, DiskState::Error).await?;
        disks::set_state(&mut tx, &intent.disk, DiskState::Error).await?;
    } else if copyable::left_by_copy(&mut tx, &intent.disk, Phase::Failed).await? {
        // As it was: what it holds is a part of something.
        disks::set_state(&mut tx, &intent.disk, DiskState::Error).await?;
    } else {
        disks::set_idle(&mut tx, &intent.disk).await?;
    }
    Ok(tx.commit().await?)
}
