//! `POST /v1/imports`: a new disk with the data of a file, by the way of all copies.

use crate::audit::Caller;
use crate::calls::Operation;
use crate::catalogue::copies::CopyRow;
use crate::catalogue::intents::IntentRow;
use crate::catalogue::{Write, disks, volumes};
use crate::context::{Kms, facts};
use crate::copies::begin;
use crate::copies::chosen_file::Chosen;
use crate::copies::chosen_file::not_looked_at;
use crate::copies::import_file::ImportFile;
use crate::error::{Code, Error, Result};
use crate::intents::create_disk;
use crate::views;
use sealblk_api::{self, Disk};

/// Creates a disk, and begins to copy a file's data to it: one decision, so that there is never an empty disk instead.
pub(crate) struct ImportDisk {
    /// The call's body.
    wanted: sealblk_api::ImportDisk,
    /// Until it has been looked at.
    from: Option<Chosen>,
    /// What the file was seen to be.
    found: Option<ImportFile>,
}

impl ImportDisk {
    pub(crate) fn new(wanted: sealblk_api::ImportDisk, from: Chosen) -> Self {
        ImportDisk {
            wanted,
            from: Some(from),
            found: None,
        }
    }
}

impl Operation for ImportDisk {
    const CALL: &'static str = "disk.import";
    type Decided = IntentRow;
    type Answer = Disk;

    fn object(&self) -> &str {
        &self.wanted.disk.name
    }

    async fn prepare(&mut self, kms: &Kms, caller: &Caller) -> Result<()> {
        let format = self.wanted.format.as_deref();
        let from = self.from.take().ok_or_else(not_looked_at)?;
        let found = ImportFile::look(kms, caller, from, format).await?;
        choose_size(&mut self.wanted.disk, &found)?;
        self.found = Some(found);
        self.wanted.disk.prepare(kms, caller).await
    }

    async fn decide(&self, kms: &Kms, caller: &Caller, tx: &mut Write) -> Result<IntentRow> {
        let found = self.found.as_ref().ok_or_else(not_looked_at)?;
        let bytes = i64::try_from(found.bytes).unwrap_or(i64::MAX);
        let intent = kms.decide_part(caller, tx, &self.wanted.disk).await?;
        let destination = disks::get(tx, &intent.disk).await?;
        facts::disk(&caller.facts, &destination);
        let id = found.file.copy_id()?;
        let row = CopyRow {
            id: id.clone(),
            ..begin::to_disk(tx, caller, Self::CALL, (found.origin(bytes), bytes), &destination).await?
        };
        caller.facts.note("copy", id);
        begin::insert(kms, tx, &row).await?;
        volumes::set_written(tx, &intent.disk, true).await?;
        Ok(intent)
    }

    async fn act(&self, kms: &Kms, _: &Caller, intent: IntentRow) -> Result<Disk> {
        create_disk::carry_out_filled(kms, &intent).await?;
        if let Some(found) = &self.found {
            found.file.begin();
        }
        views::disk::after(kms, &intent.disk).await
    }
}

fn choose_size(disk: &mut sealblk_api::CreateDisk, found: &ImportFile) -> Result<()> {
    if disk.snapshot.is_some() || disk.image.is_some() {
        let text =
            "a disk has the data of a file, or of a snapshot or image, not of both: leave one of them out";
        return Err(Error::new(Code::InvalidRequest, text));
    }
    let size = *disk.size.get_or_insert(found.bytes);
    if size < found.bytes {
        let text = format!(
            "the file has {} bytes of data: ask for no size, or for a larger one",
            found.bytes
        );
        return Err(Error::new(Code::SizeBelowSource, text));
    }
    Ok(())
}
