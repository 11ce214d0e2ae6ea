//! `POST /v1/images/{image}/copy` (rule I06). A KMS serves one region and knows no other's, so every copy is refused, each
//! for its own reason.

use std::convert::Infallible;

use super::image_show::find_own_image;
use super::{Kms, Operation};
use crate::api::types::{self, Image};
use crate::audit::Caller;
use crate::catalogue::Write;
use crate::catalogue::images::ImageRow;
use crate::error::{Code, Error, Result};
use crate::id;
use crate::profile::Profile;

/// Copies an image to a region.
pub(crate) struct CopyImage {
    /// Id or name.
    pub(crate) image: String,
    /// The call's body.
    pub(crate) options: types::CopyImage,
}

impl Operation for CopyImage {
    const CALL: &'static str = "image.copy";
    type Decided = Infallible;
    type Answer = Image;

    fn object(&self) -> &str {
        &self.image
    }

    async fn decide(&self, kms: &Kms, caller: &Caller, tx: &mut Write) -> Result<Infallible> {
        let row = find_own_image(tx, caller, &self.image).await?;
        id::check_name(&self.options.to_region)?;
        Err(refusal(
            kms.profile,
            &row,
            &kms.meta.region,
            &self.options.to_region,
        ))
    }

    async fn act(&self, _: &Kms, _: &Caller, decided: Infallible) -> Result<Image> {
        match decided {}
    }
}

fn refusal(profile: &Profile, row: &ImageRow, own: &str, wanted: &str) -> Error {
    let name = &row.name;
    if wanted == own {
        let text = format!(
            "image {name} is in region {own} already: make another image of its data (`sealctl image create NAME \
             --snapshot …`)"
        );
        return Error::new(Code::SameRegion, text);
    }
    if row.encrypted && !profile.copy_image_across_regions {
        let text = format!(
            "image {name} is encrypted, and its key does not leave region {own}: make a disk from it here, and copy the \
             data in a guest to a disk of region {wanted}"
        );
        return Error::new(Code::EncryptedImageStays, text);
    }
    let text = format!(
        "this KMS serves region {own} and knows no service of region {wanted}: make a disk from image {name} here, and \
         copy the data in a guest to a disk there"
    );
    Error::new(Code::UnknownRegion, text)
}

#[cfg(test)]
mod tests {
    use super::super::image_show::tests::image;
    use super::*;

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
