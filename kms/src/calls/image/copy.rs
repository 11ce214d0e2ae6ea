//! `POST /v1/images/{image}/copy`: in the region as an encrypted image, with a key and a lineage of its own (rules I01, I02);
//! to another region it is refused (rule I06), since a KMS serves one region and knows no other's.

use crate::audit::Caller;
use crate::calls::Operation;
use crate::catalogue::images::{self, ImageRow};
use crate::catalogue::intents::{self, IntentRow};
use crate::catalogue::{Write, snapshots};
use crate::context::{Kms, find};
use crate::copies::snapshot;
use crate::error::{Code, Error, Result};
use crate::id;
use crate::intents::clone;
use crate::intents::create_disk;
use crate::intents::new_image::{self, NewImage};
use crate::profile::Profile;
use crate::rules::region;
use crate::rules::source::usable_image;
use crate::views::image::after;
use crate::volumes::sweep;
use sealblk_api::{self, Image};

/// Copies an image.
pub(crate) struct CopyImage {
    /// Id or name.
    pub(crate) image: String,
    /// The call's body.
    pub(crate) options: sealblk_api::CopyImage,
}

/// An image that is being made, and the volumes that belong to that.
pub(crate) struct Copying {
    image: String,
    /// Holds the data of the new image.
    destination: IntentRow,
    source: IntentRow,
}

impl Operation for CopyImage {
    const CALL: &'static str = "image.copy";
    type Decided = Copying;
    type Answer = Image;

    fn object(&self) -> &str {
        &self.image
    }

    async fn decide(&self, kms: &Kms, caller: &Caller, tx: &mut Write) -> Result<Copying> {
        let row = find::own_image(tx, caller, &self.image).await?;
        let sealblk_api::CopyImage {
            to_region,
            name,
            encrypted,
            key,
        } = &self.options;
        match (to_region, name) {
            (Some(region), None) if encrypted.is_none() && key.is_none() => {
                id::check_name(region)?;
                Err(refusal(kms.profile, &row, &kms.meta.region, region))
            }
            (None, Some(name)) if *encrypted == Some(true) => {
                open(kms, caller, tx, &row, name, key.as_deref()).await
            }
            (None, Some(_)) => {
                let text = "a copy in the region is an encrypted one: ask for that (--encrypt), or make another image of \
                            the same snapshot";
                Err(Error::new(Code::InvalidRequest, text))
            }
            _ => {
                let text =
                    "an image is copied either to a region, or in its own under another name and encrypted";
                Err(Error::new(Code::InvalidRequest, text))
            }
        }
    }

    async fn act(&self, kms: &Kms, caller: &Caller, copying: Copying) -> Result<Image> {
        if let Err(error) = make(kms, &copying).await {
            clone::undo(kms, &[&copying.destination, &copying.source], &error).await;
            return Err(error);
        }
        sweep::sweep_or_leave(kms).await;
        after(kms, caller, &copying.image).await
    }
}

/// Decides on the new image, and on the clone that is read.
async fn open(
    kms: &Kms,
    caller: &Caller,
    tx: &mut Write,
    row: &ImageRow,
    name: &str,
    key: Option<&str>,
) -> Result<Copying> {
    let origin = usable_image(row)?;
    let original = snapshots::get(tx, &row.snapshot).await?;
    let new = NewImage {
        name,
        size: row.size,
        encrypted: true,
        key,
        zone: &row.zone,
        kind: row.kind,
        disk_type: row.disk_type,
    };
    caller.facts.note("source_image", row.id.as_str());
    let (image, destination) = new_image::open(kms, caller, tx, &new).await?;
    let source = clone::open_source(kms, caller, tx, &original, &origin).await?;
    Ok(Copying {
        image,
        destination,
        source,
    })
}

/// Makes all, and the image is there.
async fn make(kms: &Kms, copying: &Copying) -> Result<()> {
    let Copying {
        destination, source, ..
    } = copying;
    create_disk::build(kms, destination).await?;
    clone::fill(kms, source, &destination.disk).await?;
    let image = destination.work.snapshot().unwrap_or_default();
    snapshot::take(kms, &destination.disk, &destination.id, image).await?;
    let mut tx = kms.catalogue.write().await?;
    images::set_available(&mut tx, image).await?;
    intents::close(&mut tx, destination).await?;
    intents::close(&mut tx, source).await?;
    Ok(tx.commit().await?)
}

fn refusal(profile: &Profile, row: &ImageRow, own: &str, wanted: &str) -> Error {
    let stays = row.encrypted && !profile.copy_image_across_regions;
    let here =
        "copy it under another name as an encrypted image (--encrypt), or make another image of its snapshot";
    let object = format!("image {}", row.name);
    region::refusal(
        &object,
        stays.then_some(Code::EncryptedImageStays),
        here,
        own,
        wanted,
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::catalogue::images::tests::image;

    #[test]
    fn rule_i06_is_a_switch_of_the_profile() {
        let ours = Profile::named("sealblk").unwrap();
        let lax = Profile {
            copy_image_across_regions: true,
            ..*ours
        };
        let code = |profile, encrypted, wanted| {
            let code = refusal(profile, &image(encrypted), "eu-1", wanted).code();
            (code, code.rule())
        };
        assert_eq!(code(ours, true, "eu-2"), (Code::EncryptedImageStays, Some("I06")));
        assert_eq!(code(&lax, true, "eu-2"), (Code::UnknownRegion, None));
        assert_eq!(code(ours, false, "eu-2"), (Code::UnknownRegion, None));
        assert_eq!(code(ours, true, "eu-1"), (Code::SameRegion, None));
    }
}
