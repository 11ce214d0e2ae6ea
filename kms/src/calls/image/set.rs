//! `PATCH /v1/images/{image}`: an image can be renamed; what never changes is refused (rule I02).

use crate::audit::Caller;
use crate::calls::Operation;
use crate::catalogue::images::{self, ImageRow};
use crate::catalogue::{Write, keys};
use crate::context::{Kms, find};
use crate::error::{Code, Error, Result};
use crate::id;
use crate::rules::image_name::check_name_free;
use crate::views::image::after;
use sealblk_api::{self, Image};

/// Changes what can be changed.
pub(crate) struct SetImage {
    /// Id or name.
    pub(crate) image: String,
    /// The call's body.
    pub(crate) options: sealblk_api::SetImage,
}

impl Operation for SetImage {
    const CALL: &'static str = "image.set";
    type Decided = String;
    type Answer = Image;

    fn object(&self) -> &str {
        &self.image
    }

    async fn decide(&self, _: &Kms, caller: &Caller, tx: &mut Write) -> Result<String> {
        let row = find::own_image(tx, caller, &self.image).await?;
        let sealblk_api::SetImage { name, encrypted, key } = &self.options;
        check_encryption(&row, *encrypted)?;
        if let Some(wanted) = key {
            check_key(caller, tx, &row, wanted).await?;
        }
        if let Some(name) = name.as_ref().filter(|name| **name != row.name) {
            id::check_name(name)?;
            check_name_free(tx, caller, name).await?;
            images::set_name(tx, &row.id, name).await?;
        } else if name.is_none() && encrypted.is_none() && key.is_none() {
            let text = "nothing is to be changed: give a name";
            return Err(Error::new(Code::InvalidRequest, text));
        }
        Ok(row.id)
    }

    async fn act(&self, kms: &Kms, caller: &Caller, id: String) -> Result<Image> {
        after(kms, caller, &id).await
    }
}

/// To ask for what it is changes nothing.
fn check_encryption(row: &ImageRow, wanted: Option<bool>) -> Result<()> {
    if wanted.is_none_or(|wanted| wanted == row.encrypted) {
        return Ok(());
    }
    let (is, other) = match row.encrypted {
        true => ("encrypted", "a plain"),
        false => ("plain", "an encrypted"),
    };
    let text = format!(
        "image {} is {is}, as its snapshot is, and stays so: make a disk from it, copy the data to {other} disk, and \
         make an image of that",
        row.name
    );
    Err(Error::new(Code::ImageEncryptionFixed, text))
}

/// To name the key that it has changes nothing.
async fn check_key(caller: &Caller, tx: &mut Write, row: &ImageRow, wanted: &str) -> Result<()> {
    let named = keys::find(tx, &caller.account, wanted).await?;
    if row.key.is_some() && named.map(|key| key.id) == row.key {
        return Ok(());
    }
    let has = match &row.key {
        Some(key) => format!("key {key}, as its snapshot has, and keeps it"),
        None => "no key, since it is plain, and stays so".to_owned(),
    };
    let text = format!(
        "image {} has {has}: make a disk from it, copy the data to a disk with the other key, and make an image of that",
        row.name
    );
    Err(Error::new(Code::ImageEncryptionFixed, text))
}
