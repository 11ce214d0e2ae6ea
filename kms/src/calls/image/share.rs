//! `POST /v1/images/{image}/share` and `/unshare` (rule I05). The account that it is shared with sees the image and makes
//! disks from it; these stay when the sharing ends.

use crate::audit::Caller;
use crate::calls::Operation;
use crate::catalogue::images::{self, ImageRow};
use crate::catalogue::{Write, accounts};
use crate::context::find::not_found;
use crate::context::{Kms, find};
use crate::error::{Code, Error, Result};
use crate::limits;
use crate::profile::Profile;
use crate::views::image::after;
use sealblk_api::{self, Image};

/// Shares an image with an account.
pub(crate) struct ShareImage {
    /// Id or name.
    pub(crate) image: String,
    /// The call's body.
    pub(crate) options: sealblk_api::ShareImage,
}

impl Operation for ShareImage {
    const CALL: &'static str = "image.share";
    type Decided = String;
    type Answer = Image;

    fn object(&self) -> &str {
        &self.image
    }

    async fn decide(&self, kms: &Kms, caller: &Caller, tx: &mut Write) -> Result<String> {
        let row = find::own_image(tx, caller, &self.image).await?;
        check_sharing(kms.profile, &row)?;
        let account = &self.options.account;
        if *account == caller.account {
            let text = format!("image {} is this account's own: name another account", row.name);
            return Err(Error::new(Code::InvalidRequest, text));
        }
        if accounts::find(tx, account).await?.is_none() {
            return Err(not_found("account", account));
        }
        let shares = images::shares(tx, &row.id).await?;
        if shares.len() >= limits::SHARES_OF_IMAGE && !shares.contains(account) {
            let text = format!(
                "image {} is shared with {} accounts, the most there can be: end some of that first",
                row.name,
                shares.len()
            );
            return Err(Error::new(Code::TooMany, text));
        }
        images::share(tx, &row.id, account).await?;
        Ok(row.id)
    }

    async fn act(&self, kms: &Kms, caller: &Caller, id: String) -> Result<Image> {
        after(kms, caller, &id).await
    }
}

/// Ends the sharing of an image with an account.
pub(crate) struct UnshareImage {
    /// Id or name.
    pub(crate) image: String,
    /// The call's body.
    pub(crate) options: sealblk_api::ShareImage,
}

impl Operation for UnshareImage {
    const CALL: &'static str = "image.unshare";
    type Decided = String;
    type Answer = Image;

    fn object(&self) -> &str {
        &self.image
    }

    async fn decide(&self, _: &Kms, caller: &Caller, tx: &mut Write) -> Result<String> {
        let row = find::own_image(tx, caller, &self.image).await?;
        if !images::unshare(tx, &row.id, &self.options.account).await? {
            let text = format!(
                "image {} is not shared with account {:?}: see whom it is shared with (`sealctl image show {}`)",
                row.name, self.options.account, row.id
            );
            return Err(Error::new(Code::NotFound, text));
        }
        Ok(row.id)
    }

    async fn act(&self, kms: &Kms, caller: &Caller, id: String) -> Result<Image> {
        after(kms, caller, &id).await
    }
}

fn check_sharing(profile: &Profile, row: &ImageRow) -> Result<()> {
    if row.encrypted && !profile.share_image {
        let text = format!(
            "image {} is encrypted, and another account has no use of its key: copy its data to a plain disk, and share \
             an image of that",
            row.name
        );
        return Err(Error::new(Code::EncryptedImageNotShared, text));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::catalogue::images::tests::image;

    #[test]
    fn rule_i05_is_a_switch_of_the_profile() {
        let ours = Profile::named("sealblk").unwrap();
        let lax = Profile {
            share_image: true,
            ..*ours
        };
        let refused = check_sharing(ours, &image(true)).unwrap_err().code();
        assert_eq!(
            (refused, refused.rule()),
            (Code::EncryptedImageNotShared, Some("I05"))
        );
        assert!(check_sharing(&lax, &image(true)).is_ok());
        assert!(check_sharing(ours, &image(false)).is_ok());
    }
}
