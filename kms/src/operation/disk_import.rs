//! `POST /v1/imports`: a new disk with the data of a file, by the way of all copies.

use super::disk_copy::begin;
use super::disk_path::{check_not_taken, check_path};
use super::{Kms, Operation, disk_create, off_runtime};
use crate::api::types::{self, Disk};
use crate::audit::Caller;
use crate::catalogue::copies::{self, CopyRow};
use crate::catalogue::intents::IntentRow;
use crate::catalogue::{Write, disks, volumes};
use crate::error::{Code, Error, Result};
use crate::limits;
use crate::store::{self, Foreign};

/// How formats that are not raw begin, and what they are called.
const FORMATS: [(&[u8], &str); 5] = [
    (b"QFI\xfb", "qcow2"),
    (b"KDMV", "VMDK"),
    (b"vhdxfile", "VHDX"),
    (b"conectix", "VHD"),
    (b"LUKS\xba\xbe", "LUKS"),
];

/// Creates a disk, and begins to copy a file's data to it: one decision, so that there is never an empty disk instead.
pub(crate) struct ImportDisk {
    /// The call's body.
    pub(crate) wanted: types::ImportDisk,
    /// What the file was seen to be.
    pub(crate) found: Option<Foreign>,
}

impl Operation for ImportDisk {
    const CALL: &'static str = "disk.import";
    type Decided = IntentRow;
    type Answer = Disk;

    fn object(&self) -> &str {
        &self.wanted.disk.name
    }

    async fn prepare(&mut self, kms: &Kms, caller: &Caller) -> Result<()> {
        let (canonical, found) = look(kms, &self.wanted.file).await?;
        choose_size(&mut self.wanted.disk, &found)?;
        self.wanted.file = canonical;
        self.found = Some(found);
        self.wanted.disk.prepare(kms, caller).await
    }

    async fn decide(&self, kms: &Kms, caller: &Caller, tx: &mut Write) -> Result<IntentRow> {
        let Some(found) = &self.found else {
            return Err(Error::new(Code::Internal, "the file has not been looked at"));
        };
        let bytes = found.size.next_multiple_of(limits::SECTOR_BYTES);
        let bytes = i64::try_from(bytes).unwrap_or(i64::MAX);
        let intent = disk_create::decide_filled(kms, caller, tx, &self.wanted.disk).await?;
        let destination = disks::get(tx, &intent.disk).await?;
        let row = CopyRow {
            file: Some(self.wanted.file.clone()),
            identity: Some(found.identity.to_text()?),
            size: Some(bytes),
            ..begin(tx, caller, Self::CALL, bytes, &destination).await?
        };
        copies::insert(tx, &row).await?;
        volumes::set_written(tx, &intent.disk, true).await?;
        Ok(intent)
    }

    async fn act(&self, kms: &Kms, caller: &Caller, intent: IntentRow) -> Result<Disk> {
        disk_create::act_filled(kms, caller, Self::CALL, self.object(), &intent).await
    }
}

/// The canonical path, and what is there.
async fn look(kms: &Kms, file: &str) -> Result<(String, Foreign)> {
    let canonical = check_path(kms, file).await?;
    check_not_taken(kms, &canonical, false).await?;
    let path = canonical.clone();
    let found = off_runtime(move || store::look_at(path.as_ref())).await?;
    if let Some((_, format)) = FORMATS
        .iter()
        .find(|(magic, _)| found.beginning.starts_with(magic))
    {
        let text = format!(
            "{canonical} is in {format} format, and raw images are imported: convert it first, as with \
             `qemu-img convert -O raw`"
        );
        return Err(Error::new(Code::FormatNotSupported, text));
    }
    Ok((canonical, found))
}

fn choose_size(disk: &mut types::CreateDisk, found: &Foreign) -> Result<()> {
    if disk.snapshot.is_some() || disk.image.is_some() {
        let text =
            "a disk has the data of a file, or of a snapshot or image, not of both: leave one of them out";
        return Err(Error::new(Code::InvalidRequest, text));
    }
    let least = found.size.next_multiple_of(limits::SECTOR_BYTES);
    let size = *disk.size.get_or_insert(least);
    if size < least {
        let text = format!(
            "the file has {} bytes: ask for no size, or for a larger one",
            found.size
        );
        return Err(Error::new(Code::SizeBelowSource, text));
    }
    Ok(())
}
