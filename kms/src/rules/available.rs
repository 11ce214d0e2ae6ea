//! Rule D05: one operation at a time, and what the state of an object permits.

use std::fmt::Display;

use crate::catalogue::disks::DiskRow;
use crate::catalogue::intents::Work;
use crate::catalogue::kinds::Store;
use crate::catalogue::states::DiskState;
use crate::catalogue::{Write, copies, intents};
use crate::error::{Code, Error, Result};

/// Rule D05: one operation at a time.
pub(crate) async fn check_idle(tx: &mut Write, volume: &str) -> Result<()> {
    if let Some(copy) = copies::on_volume(tx, volume).await? {
        let text = format!(
            "{} is under way on {volume}: try again when it has ended, or cancel it with `sealctl disk copy --cancel`",
            copy.call
        );
        return Err(Error::new(Code::DiskNotAvailable, text));
    }
    match intents::on_volume(tx, volume).await? {
        None => Ok(()),
        Some(work) => Err(under_way(&work, volume)),
    }
}

/// Rule D05: an operation on the volume has not ended.
pub(crate) fn under_way(work: &Work, volume: &str) -> Error {
    let call = work.call();
    let text = format!("{call} is under way on {volume}: try again when it has ended");
    Error::new(Code::DiskNotAvailable, text)
}

/// Rule D05: its state does not permit the call.
pub(crate) fn not_available(kind: &str, name: &str, state: impl Display) -> Error {
    let text = format!("{kind} {name} is {state}: wait until it is available");
    Error::new(Code::DiskNotAvailable, text)
}

/// Rule D05: whether something can be done with the disk now that needs its store, which must be layered.
///
/// # Errors
/// [`Code::NotSupported`]; [`Code::DiskNotAvailable`].
pub(crate) async fn check_workable(tx: &mut Write, disk: &DiskRow, what: &str) -> Result<()> {
    if disk.store != Store::Layered {
        let text = format!(
            "disk {} has a {} store, which has no {what}: create a disk with --store layered",
            disk.name, disk.store
        );
        return Err(Error::new(Code::NotSupported, text));
    }
    check_idle(tx, &disk.id).await?;
    if !matches!(disk.state, DiskState::Available | DiskState::InUse) {
        let text = format!(
            "disk {} is {}: wait until it is available or in use",
            disk.name, disk.state
        );
        return Err(Error::new(Code::DiskNotAvailable, text));
    }
    Ok(())
}

/// Rule S05: the data of a disk in use is not exchanged, unless that is forced.
///
/// # Errors
/// [`Code::DiskInUse`].
pub(crate) fn refuse_in_use(disk: &DiskRow, force: bool) -> Result<()> {
    if disk.attachment.is_none() || force {
        return Ok(());
    }
    let text = format!(
        "disk {} is in use, and its guest would go on with what it has in its memory: shut the guest down and detach \
         the disk, or use --force",
        disk.name
    );
    Err(Error::new(Code::DiskInUse, text))
}
