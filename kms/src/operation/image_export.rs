//! `POST /v1/images/{image}/export` (rule I07). This version writes no image to a file, so every export is refused, each for
//! its own reason.

use std::convert::Infallible;

use super::image_show::find_own_image;
use super::{Kms, Operation};
use crate::api::types::{self, Image};
use crate::audit::Caller;
use crate::catalogue::Write;
use crate::catalogue::images::ImageRow;
use crate::error::{Code, Error, Result};
use crate::profile::Profile;

/// Writes an image to a file.
pub(crate) struct ExportImage {
    /// Id or name.
    pub(crate) image: String,
    /// The call's body.
    pub(crate) options: types::ExportImage,
}

impl Operation for ExportImage {
    const CALL: &'static str = "image.export";
    type Decided = Infallible;
    type Answer = Image;

    fn object(&self) -> &str {
        &self.image
    }

    async fn decide(&self, kms: &Kms, caller: &Caller, tx: &mut Write) -> Result<Infallible> {
        let row = find_own_image(tx, caller, &self.image).await?;
        Err(refusal(kms.profile, &row, &self.options.path))
    }

    async fn act(&self, _: &Kms, _: &Caller, decided: Infallible) -> Result<Image> {
        match decided {}
    }
}

fn refusal(profile: &Profile, row: &ImageRow, path: &str) -> Error {
    let name = &row.name;
    if row.encrypted && !profile.export_image {
        let text = format!(
            "image {name} is encrypted, and its data does not leave in the clear: make a disk from it, and copy in a \
             guest what may leave"
        );
        return Error::new(Code::EncryptedImageNotExported, text);
    }
    let text = format!(
        "images are not written to files such as {path:?} by this version: make a disk from image {name}, attach it, and \
         read it in a guest"
    );
    Error::new(Code::NotSupported, text)
}

#[cfg(test)]
mod tests {
    use super::super::image_show::tests::image;
    use super::*;

    #[test]
    fn rule_i07_is_a_switch_of_the_profile() {
        let ours = Profile::named("sealblk").unwrap();
        let lax = Profile {
            export_image: true,
            ..*ours
        };
        let code = |profile, encrypted| {
            let code = refusal(profile, &image(encrypted), "/f").code();
            (code, code.rule())
        };
        assert_eq!(code(ours, true), (Code::EncryptedImageNotExported, Some("I07")));
        assert_eq!(code(&lax, true), (Code::NotSupported, None));
        assert_eq!(code(ours, false), (Code::NotSupported, None));
    }
}
