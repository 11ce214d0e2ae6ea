//! `PATCH /v1/images/{image}`: an image can be renamed; what never changes is refused (rule I02).

use crate::audit::Caller;
use crate::calls::Operation;
use crate::catalogue::{Write, images};
use crate::context::{Kms, find};
use crate::error::{Code, Error, Result};
use crate::id;
use crate::rules::fixed::{Fixed, Object};
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
        let fixed = Fixed {
            object: Object::Image,
            name: &row.name,
            encrypted: row.encrypted,
            key: row.key.as_deref(),
        };
        fixed.check(caller, tx, *encrypted, key.as_deref()).await?;
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
