//! `POST /v1/imports/images` (rules I01, I02): a new image with the data of a file, plain or encrypted, by the way of all
//! copies. It is there when all is copied and compared, and its snapshot has been taken.

use crate::audit::Caller;
use crate::calls::Operation;
use crate::catalogue::Write;
use crate::catalogue::copies::Destination;
use crate::catalogue::intents::{self, IntentRow};
use crate::context::Kms;
use crate::copies::begin;
use crate::copies::chosen_file::Chosen;
use crate::copies::chosen_file::not_looked_at;
use crate::copies::import_file::ImportFile;
use crate::error::Result;
use crate::intents::create_disk;
use crate::intents::new_image::{self, NewImage};
use crate::rules::disk_kind::{DEFAULT_KIND, DEFAULT_TYPE};
use crate::rules::disk_size::check_size;
use crate::views::image::after;
use sealblk_api::{self, Image};

/// Begins to make an image of a file.
pub(crate) struct ImportImage {
    /// The call's body.
    wanted: sealblk_api::ImportImage,
    /// Until it has been looked at.
    from: Option<Chosen>,
    /// What the file was seen to be.
    found: Option<ImportFile>,
}

impl ImportImage {
    pub(crate) fn new(wanted: sealblk_api::ImportImage, from: Chosen) -> Self {
        ImportImage {
            wanted,
            from: Some(from),
            found: None,
        }
    }
}

impl Operation for ImportImage {
    const CALL: &'static str = "image.import";
    type Decided = (String, IntentRow);
    type Answer = Image;

    fn object(&self) -> &str {
        &self.wanted.name
    }

    async fn prepare(&mut self, kms: &Kms, caller: &Caller) -> Result<()> {
        let format = self.wanted.format.as_deref();
        let from = self.from.take().ok_or_else(not_looked_at)?;
        self.found = Some(ImportFile::look(kms, caller, from, format).await?);
        Ok(())
    }

    async fn decide(&self, kms: &Kms, caller: &Caller, tx: &mut Write) -> Result<(String, IntentRow)> {
        let found = self.found.as_ref().ok_or_else(not_looked_at)?;
        check_size(found.bytes)?;
        let size = i64::try_from(found.bytes).unwrap_or(i64::MAX);
        let key = self.wanted.key.as_deref();
        let new = NewImage {
            name: &self.wanted.name,
            size,
            // A key says that it is to be encrypted.
            encrypted: self.wanted.encrypted.unwrap_or(key.is_some()),
            key,
            zone: &kms.meta.zone,
            kind: DEFAULT_KIND,
            disk_type: DEFAULT_TYPE,
        };
        let (image, intent) = new_image::open(kms, caller, tx, &new).await?;
        let destination = Destination::Image {
            volume: intent.disk.clone(),
            image: image.clone(),
        };
        let ends = (found.origin(size), destination);
        let row = begin::copy(found.file.copy_id()?, caller, Self::CALL, ends, size);
        begin::insert(kms, tx, &row).await?;
        Ok((image, intent))
    }

    async fn act(&self, kms: &Kms, caller: &Caller, (image, intent): (String, IntentRow)) -> Result<Image> {
        if let Err(error) = make_volume(kms, &intent).await {
            create_disk::undo(kms, &intent, &error).await?;
            return Err(error);
        }
        if let Some(found) = &self.found {
            found.file.begin();
        }
        kms.copies.begin();
        after(kms, caller, &image).await
    }
}

/// From here on there is an image, which is being made.
async fn make_volume(kms: &Kms, intent: &IntentRow) -> Result<()> {
    create_disk::build(kms, intent).await?;
    let mut tx = kms.catalogue.write().await?;
    intents::close(&mut tx, intent).await?;
    Ok(tx.commit().await?)
}
