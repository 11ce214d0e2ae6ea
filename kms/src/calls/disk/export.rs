//! `POST /v1/disks/{disk}/export`: the data of a disk in a file, plain and raw, by the way of all copies.

use crate::audit::Caller;
use crate::calls::Operation;
use crate::catalogue::Write;
use crate::catalogue::copies::{CopyRow, Origin};
use crate::context::{Kms, find};
use crate::copies::begin;
use crate::copies::chosen_file::not_looked_at;
use crate::copies::chosen_file::{self, Chosen, ChosenFile};
use crate::error::{Code, Error, Result};
use crate::rules::copyable::check_source;
use crate::views;
use sealblk_api::{self, Disk};

/// Begins to write a disk's data to a file.
pub(crate) struct ExportDisk {
    /// Id or name.
    disk: String,
    /// The call's body.
    options: sealblk_api::ExportDisk,
    /// Until it has been looked at.
    to: Option<Chosen>,
    /// The file.
    file: Option<ChosenFile>,
}

impl ExportDisk {
    pub(crate) fn new(disk: String, options: sealblk_api::ExportDisk, to: Chosen) -> Self {
        ExportDisk {
            disk,
            options,
            to: Some(to),
            file: None,
        }
    }
}

impl Operation for ExportDisk {
    const CALL: &'static str = "disk.export";
    type Decided = String;
    type Answer = Disk;

    fn object(&self) -> &str {
        &self.disk
    }

    async fn prepare(&mut self, kms: &Kms, caller: &Caller) -> Result<()> {
        let source = {
            let mut db = kms.catalogue.read().await?;
            find::disk(&mut db, caller, &self.disk).await?
        };
        let to = self.to.take().ok_or_else(not_looked_at)?;
        self.file = Some(chosen_file::output(kms, caller, to, source.size.unsigned_abs()).await?);
        Ok(())
    }

    async fn decide(&self, kms: &Kms, caller: &Caller, tx: &mut Write) -> Result<String> {
        let source = find::disk(tx, caller, &self.disk).await?;
        check_source(kms, caller, tx, &source).await?;
        if source.encrypted && !self.options.decrypt {
            let text = format!(
                "disk {} is encrypted, and the file would hold its data in the clear: use --decrypt if that is wanted, \
                 or copy it to another encrypted disk",
                source.name
            );
            return Err(Error::new(Code::DecryptionNotAsked, text));
        }
        let file = self.file.as_ref().ok_or_else(not_looked_at)?;
        let origin = Origin::Volume(Some(source.id.clone()));
        let row = CopyRow {
            unprepared: true,
            ..begin::copy(
                file.copy_id()?,
                caller,
                Self::CALL,
                (origin, file.destination(source.size, None)),
                source.size,
            )
        };
        begin::insert(kms, tx, &row).await?;
        Ok(source.id)
    }

    async fn act(&self, kms: &Kms, _: &Caller, source: String) -> Result<Disk> {
        if let Some(file) = &self.file {
            file.begin();
        }
        kms.copies.begin();
        views::disk::after(kms, &source).await
    }
}
