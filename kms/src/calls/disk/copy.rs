//! `POST /v1/disks/{disk}/copy` and `/v1/disks/{disk}/copy/cancel` (rules D04, D05, A05, K02).

use crate::audit::Caller;
use crate::calls::Operation;
use crate::catalogue::copies::{self, CopyRow, Origin, Phase};
use crate::catalogue::disks::{self};
use crate::catalogue::states::DiskState;
use crate::catalogue::{Write, volumes};
use crate::context::{Kms, find};
use crate::copies::{begin, job};
use crate::error::{Code, Error, Result};
use crate::rules::copyable::{Wanted, check_destination, check_source};
use crate::views;
use sealblk_api::{self, Disk};

/// Begins to copy the data of one disk to another. Either may be encrypted or not.
pub(crate) struct CopyDisk {
    /// Id or name of the disk that is copied to.
    pub(crate) disk: String,
    /// The call's body.
    pub(crate) options: sealblk_api::CopyDisk,
}

impl Operation for CopyDisk {
    const CALL: &'static str = "disk.copy";
    type Decided = String;
    type Answer = Disk;

    fn object(&self) -> &str {
        &self.disk
    }

    async fn decide(&self, kms: &Kms, caller: &Caller, tx: &mut Write) -> Result<String> {
        let source = find::disk(tx, caller, &self.options.source).await?;
        caller.facts.note("source", source.id.as_str());
        let destination = find::disk(tx, caller, &self.disk).await?;
        if source.id == destination.id {
            let text = format!(
                "disk {} cannot be copied to itself: name another disk",
                source.name
            );
            return Err(Error::new(Code::SameDisk, text));
        }
        check_source(kms, caller, tx, &source).await?;
        let wanted = Wanted {
            bytes: source.size,
            what: &format!("disk {}", source.name),
            overwrite: self.options.overwrite,
        };
        check_destination(kms, caller, tx, &wanted, &destination).await?;
        let origin = Origin::Volume(Some(source.id));
        let row = begin::to_disk(tx, caller, Self::CALL, (origin, source.size), &destination).await?;
        begin::insert(kms, tx, &row).await?;
        volumes::set_written(tx, &destination.id, true).await?;
        disks::set_state(tx, &destination.id, DiskState::Creating).await?;
        Ok(destination.id)
    }

    async fn act(&self, kms: &Kms, _: &Caller, destination: String) -> Result<Disk> {
        kms.copies.begin();
        views::disk::after(kms, &destination).await
    }
}

/// Ends the copying to a disk, where what has been copied stays, or from it to a file, which is removed.
pub(crate) struct CancelCopy {
    /// Id or name of the disk that is copied to.
    pub(crate) disk: String,
}

impl Operation for CancelCopy {
    const CALL: &'static str = "disk.copy.cancel";
    const FREES: bool = true;
    type Decided = CopyRow;
    type Answer = Disk;

    fn object(&self) -> &str {
        &self.disk
    }

    async fn decide(&self, _: &Kms, caller: &Caller, tx: &mut Write) -> Result<CopyRow> {
        let disk = find::disk(tx, caller, &self.disk).await?;
        let copy = copies::of_volume(tx, &disk.id).await?;
        let copy = copy.filter(|copy| {
            let object = copy.object();
            // A copy that a restored catalogue knows of was cancelled, and has left its destination in doubt.
            let left = copy.phase == Phase::Failed
                || (copy.phase == Phase::Cancelled && disk.state == DiskState::Error);
            object == Some(disk.id.as_str()) && (copy.goes_on() || left)
        });
        caller
            .facts
            .note_if("copy", copy.as_ref().map(|copy| copy.id.as_str()));
        copy.ok_or_else(|| {
            let text = format!(
                "nothing is being copied to disk {}: name the disk that is copied to",
                disk.name
            );
            Error::new(Code::NoCopy, text)
        })
    }

    async fn act(&self, kms: &Kms, _: &Caller, copy: CopyRow) -> Result<Disk> {
        job::cancel(kms, &copy).await?;
        views::disk::after(kms, copy.object().unwrap_or_default()).await
    }
}
