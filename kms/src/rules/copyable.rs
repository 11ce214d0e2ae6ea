//! What can be copied from and to (rules D04, D05, K02, A05).

use crate::audit::Caller;
use crate::catalogue::copies::Phase;
use crate::catalogue::disks::DiskRow;
use crate::catalogue::states::DiskState;
use crate::catalogue::{Write, copies, volumes};
use crate::context::Kms;
use crate::error::{Code, Error, Result};
use crate::rules::available::{check_idle, not_available};
use crate::rules::{gate, key};

/// What is to be copied to a disk.
pub(crate) struct Wanted<'a> {
    pub(crate) bytes: i64,
    pub(crate) what: &'a str,
    /// Whether the disk may hold data.
    pub(crate) overwrite: bool,
}

/// Whether the disk can be copied to now.
///
/// # Errors
/// As [`check_source`]; [`Code::DestinationTooSmall`], [`Code::DiskNotEmpty`].
pub(crate) async fn check_destination(
    kms: &Kms,
    caller: &Caller,
    tx: &mut Write,
    wanted: &Wanted<'_>,
    destination: &DiskRow,
) -> Result<()> {
    let name = &destination.name;
    // What a copy to it has left can be copied to again.
    let failed =
        destination.state == DiskState::Error && left_by_copy(tx, &destination.id, Phase::Failed).await?;
    check_detached(destination)?;
    check_idle(tx, &destination.id).await?;
    if destination.state != DiskState::Available && !failed {
        return Err(not_available("disk", name, destination.state));
    }
    if destination.size < wanted.bytes {
        let text = format!(
            "disk {name} has {} bytes and {} has {}: name a disk that is at least as large",
            destination.size, wanted.what, wanted.bytes
        );
        return Err(Error::new(Code::DestinationTooSmall, text));
    }
    if !failed && !wanted.overwrite && volumes::is_written(tx, &destination.id).await? {
        let text =
            format!("disk {name} may hold data, which a copy replaces: name a new disk, or use --overwrite");
        return Err(Error::new(Code::DiskNotEmpty, text));
    }
    check_usable(kms, caller, tx, destination).await
}

/// Whether the disk can be copied from now.
///
/// # Errors
/// [`Code::DiskAttached`], [`Code::DiskNotAvailable`], [`Code::KeyNotUsable`], [`Code::KmsNotGranted`].
pub(crate) async fn check_source(kms: &Kms, caller: &Caller, tx: &mut Write, source: &DiskRow) -> Result<()> {
    check_detached(source)?;
    check_idle(tx, &source.id).await?;
    if source.state != DiskState::Available {
        return Err(not_available("disk", &source.name, source.state));
    }
    check_usable(kms, caller, tx, source).await
}

/// Rules K02 and A05: a copy is a use of the key like an attachment.
async fn check_usable(kms: &Kms, caller: &Caller, tx: &mut Write, disk: &DiskRow) -> Result<()> {
    if disk.encrypted {
        gate::check_grant(kms, caller, tx).await?;
    }
    key::check_disk(kms, tx, disk).await
}

/// Whether the last copy to the disk has ended so. One from it to a file says nothing of what it holds.
pub(crate) async fn left_by_copy(tx: &mut Write, disk: &str, phase: Phase) -> Result<bool> {
    let last = copies::of_volume(tx, disk).await?;
    Ok(last.is_some_and(|copy| copy.destination.volume() == Some(disk) && copy.phase == phase))
}

fn check_detached(disk: &DiskRow) -> Result<()> {
    if disk.attachment.is_some() {
        let text = format!("disk {} is attached: detach it first", disk.name);
        return Err(Error::new(Code::DiskAttached, text));
    }
    Ok(())
}
