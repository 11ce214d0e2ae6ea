//! `POST /v1/images/{image}/export` and `/v1/images/{image}/export/cancel` (rule I07): the data of an image in a file, plain
//! and raw, by the way of all copies. It is read through a clone of the image's snapshot.

use crate::audit::Caller;
use crate::calls::Operation;
use crate::catalogue::copies::{self, CopyRow, Origin, Phase};
use crate::catalogue::images::ImageRow;
use crate::catalogue::{Write, snapshots};
use crate::context::{Kms, find};
use crate::copies::begin;
use crate::copies::chosen_file::not_looked_at;
use crate::copies::chosen_file::{self, Chosen, ChosenFile};
use crate::copies::{fresh, job};
use crate::error::{Code, Error, Result};
use crate::profile::Profile;
use crate::rules::source::being_written;
use crate::rules::source::usable_image;
use crate::views::image::after;
use sealblk_api::{self, Image};

/// Begins to write an image to a file.
pub(crate) struct ExportImage {
    /// Id or name.
    image: String,
    /// The call's body.
    options: sealblk_api::ExportImage,
    /// Until it has been looked at.
    to: Option<Chosen>,
    /// The file.
    file: Option<ChosenFile>,
}

impl ExportImage {
    pub(crate) fn new(image: String, options: sealblk_api::ExportImage, to: Chosen) -> Self {
        ExportImage {
            image,
            options,
            to: Some(to),
            file: None,
        }
    }
}

impl Operation for ExportImage {
    const CALL: &'static str = "image.export";
    type Decided = String;
    type Answer = Image;

    fn object(&self) -> &str {
        &self.image
    }

    async fn prepare(&mut self, kms: &Kms, caller: &Caller) -> Result<()> {
        let image = {
            let mut db = kms.catalogue.read().await?;
            find::own_image(&mut db, caller, &self.image).await?
        };
        let to = self.to.take().ok_or_else(not_looked_at)?;
        self.file = Some(chosen_file::output(kms, caller, to, image.size.unsigned_abs()).await?);
        Ok(())
    }

    async fn decide(&self, kms: &Kms, caller: &Caller, tx: &mut Write) -> Result<String> {
        let image = find::own_image(tx, caller, &self.image).await?;
        check(kms.profile, &image, self.options.decrypt)?;
        let origin = usable_image(&image)?;
        if let Some(copy) = copies::of_image(tx, &image.id).await?.filter(CopyRow::goes_on) {
            return Err(being_written(&image, &copy));
        }
        let snapshot = snapshots::get(tx, &image.snapshot).await?;
        let clone = fresh::open_copied(kms, caller, tx, &snapshot, &origin).await?;
        let file = self.file.as_ref().ok_or_else(not_looked_at)?;
        let origin = Origin::Clone {
            volume: Some(clone),
            snapshot: snapshot.id,
        };
        let row = CopyRow {
            unprepared: true,
            ..begin::copy(
                file.copy_id()?,
                caller,
                Self::CALL,
                (origin, file.destination(image.size, Some(image.id.clone()))),
                image.size,
            )
        };
        begin::insert(kms, tx, &row).await?;
        Ok(image.id)
    }

    async fn act(&self, kms: &Kms, caller: &Caller, image: String) -> Result<Image> {
        if let Some(file) = &self.file {
            file.begin();
        }
        kms.copies.begin();
        after(kms, caller, &image).await
    }
}

/// Ends the writing of an image to a file, which is removed.
pub(crate) struct CancelExport {
    /// Id or name.
    pub(crate) image: String,
}

impl Operation for CancelExport {
    const CALL: &'static str = "image.export.cancel";
    const FREES: bool = true;
    type Decided = CopyRow;
    type Answer = Image;

    fn object(&self) -> &str {
        &self.image
    }

    async fn decide(&self, _: &Kms, caller: &Caller, tx: &mut Write) -> Result<CopyRow> {
        let image = find::own_image(tx, caller, &self.image).await?;
        let copy = copies::of_image(tx, &image.id).await?;
        let copy = copy.filter(|copy| !copy.makes_image() && (copy.goes_on() || copy.phase == Phase::Failed));
        caller
            .facts
            .note_if("copy", copy.as_ref().map(|copy| copy.id.as_str()));
        copy.ok_or_else(|| {
            let text = format!("image {} is not being written to a file", image.name);
            Error::new(Code::NoCopy, text)
        })
    }

    async fn act(&self, kms: &Kms, caller: &Caller, copy: CopyRow) -> Result<Image> {
        job::cancel(kms, &copy).await?;
        after(kms, caller, copy.image().unwrap_or_default()).await
    }
}

fn check(profile: &Profile, row: &ImageRow, decrypt: bool) -> Result<()> {
    let name = &row.name;
    if row.encrypted && !profile.export_image {
        let text = format!(
            "image {name} is encrypted, and its data does not leave in the clear: make a disk from it, and copy in a \
             guest what may leave"
        );
        return Err(Error::new(Code::EncryptedImageNotExported, text));
    }
    if row.encrypted && !decrypt {
        let text = format!(
            "image {name} is encrypted, and the file would hold its data in the clear: use --decrypt if that is wanted"
        );
        return Err(Error::new(Code::DecryptionNotAsked, text));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::catalogue::images::tests::image;

    #[test]
    fn rule_i07_is_a_switch_of_the_profile() {
        let ours = Profile::named("sealblk").unwrap();
        let lax = Profile {
            export_image: true,
            ..*ours
        };
        let outcome = |profile, encrypted, decrypt| {
            let checked = check(profile, &image(encrypted), decrypt);
            checked.map_err(|error| (error.code(), error.code().rule()))
        };
        let refused = Err((Code::EncryptedImageNotExported, Some("I07")));
        assert_eq!(outcome(ours, true, false), refused);
        assert_eq!(outcome(ours, true, true), refused);
        assert_eq!(outcome(&lax, true, false), Err((Code::DecryptionNotAsked, None)));
        assert_eq!(outcome(&lax, true, true), Ok(()));
        assert_eq!(outcome(ours, false, false), Ok(()));
    }
}
