//! `POST /v1/imports`: a new disk with the data of a file, by the way of all copies.

use std::sync::Arc;

use super::disk_copy::{Wanted, begin, check_destination};
use super::disk_delete::DeleteDisk;
use super::disk_path::{check_not_taken, check_path};
use super::{Kms, Operation, disk_show, find_disk, off_runtime, run};
use crate::api::types::{self, Disk};
use crate::audit::{Caller, Decision};
use crate::catalogue::copies::{self, CopyRow};
use crate::catalogue::{Write, disks, volumes};
use crate::error::{Code, Error, Result};
use crate::limits;
use crate::store::{self, Foreign};

const CALL: &str = "disk.import";

/// How formats that are not raw begin, and what they are called.
const FORMATS: [(&[u8], &str); 5] = [
    (b"QFI\xfb", "qcow2"),
    (b"KDMV", "VMDK"),
    (b"vhdxfile", "VHDX"),
    (b"conectix", "VHD"),
    (b"LUKS\xba\xbe", "LUKS"),
];

/// Creates the disk, and begins to copy the file's data to it. If that cannot be begun, there is no disk.
///
/// # Errors
/// [`Code::InvalidPath`], [`Code::FormatNotSupported`], [`Code::SizeBelowSource`], [`Code::FileInUse`]; those of
/// `disk.create`.
pub(crate) async fn import(kms: &Arc<Kms>, caller: Caller, wanted: types::ImportDisk) -> Result<Disk> {
    let mut disk = wanted.disk;
    let looked = look(kms, &wanted.file).await;
    let found = match looked.and_then(|found| choose_size(&mut disk, &found.1).map(|()| found)) {
        Ok(found) => found,
        Err(error) => {
            kms.record(&caller, CALL, &disk.name, Decision::Refused(&error))
                .await?;
            return Err(error);
        }
    };
    let made = run(kms, caller.clone(), disk).await?;
    let data = ImportData {
        disk: made.id.clone(),
        file: found.0,
        found: found.1,
    };
    let begun = run(kms, caller.clone(), data).await;
    if begun.is_err()
        && let Err(error) = run(
            kms,
            caller,
            DeleteDisk {
                disk: made.id.clone(),
            },
        )
        .await
    {
        log::warn!("{} stays, and is empty: {}", made.id, error.full_message());
    }
    begun
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

/// Begins to copy the data of a file to a disk.
struct ImportData {
    disk: String,
    file: String,
    found: Foreign,
}

impl Operation for ImportData {
    const CALL: &'static str = CALL;
    type Decided = String;
    type Answer = Disk;

    fn object(&self) -> &str {
        &self.disk
    }

    async fn decide(&self, kms: &Kms, caller: &Caller, tx: &mut Write) -> Result<String> {
        let destination = find_disk(tx, caller, &self.disk).await?;
        let bytes = self.found.size.next_multiple_of(limits::SECTOR_BYTES);
        let bytes = i64::try_from(bytes).unwrap_or(i64::MAX);
        let wanted = Wanted {
            bytes,
            what: &self.file,
            overwrite: false,
        };
        check_destination(kms, caller, tx, &wanted, &destination).await?;
        let row = CopyRow {
            file: Some(self.file.clone()),
            identity: Some(self.found.identity.to_text()?),
            size: Some(bytes),
            ..begin(tx, caller, CALL, bytes, &destination).await?
        };
        copies::insert(tx, &row).await?;
        volumes::set_written(tx, &destination.id, true).await?;
        disks::set_state(tx, &destination.id, "creating").await?;
        Ok(destination.id)
    }

    async fn act(&self, kms: &Kms, _: &Caller, destination: String) -> Result<Disk> {
        kms.copies.begin();
        disk_show::after(kms, &destination).await
    }
}
