//! `DELETE /v1/images/{image}` (rules S07, K14).

use super::image_export::being_written;
use super::image_show::{answer, find_own_image};
use super::snapshot_delete::{self, DeleteSnapshot};
use super::{Kms, Operation, Subject, reclaim};
use crate::api::types::Image;
use crate::audit::{self, Caller, Decision};
use crate::catalogue::copies::{self, CopyRow};
use crate::catalogue::intents::IntentRow;
use crate::catalogue::{Write, images, snapshots};
use crate::error::{Code, Error, Result};

/// Deletes an image. Its snapshot stays, unless that was deleted before and this is the last image of it; disks that were
/// made from it stay.
pub(crate) struct DeleteImage {
    /// Id or name.
    pub(crate) image: String,
}

impl Operation for DeleteImage {
    const CALL: &'static str = "image.delete";
    type Decided = (Image, Option<IntentRow>);
    type Answer = Image;

    fn object(&self) -> &str {
        &self.image
    }

    async fn decide(&self, kms: &Kms, caller: &Caller, tx: &mut Write) -> Result<(Image, Option<IntentRow>)> {
        let row = find_own_image(tx, caller, &self.image).await?;
        if row.state != "available" {
            let text = format!("image {} is {}: wait until it is available", row.name, row.state);
            return Err(Error::new(Code::ImageNotAvailable, text));
        }
        if let Some(copy) = copies::of_image(tx, &row.id).await?.filter(CopyRow::goes_on) {
            return Err(being_written(&row, &copy));
        }
        let (image, id) = (answer(tx, caller, row.clone()).await?, row.id);
        let snapshot = snapshots::get(tx, &row.snapshot).await?;
        if !snapshot.held || snapshot.images > 1 {
            images::delete(tx, &id).await?;
            snapshots::delete_if_forgotten(tx, &snapshot.id).await?;
            return Ok((image, None));
        }
        images::set_state(tx, &id, "deleting").await?;
        snapshots::set_state(tx, &snapshot.id, "deleting").await?;
        let subject = Subject {
            volume: &snapshot.volume,
            encrypted: snapshot.encrypted,
            snapshot: Some(&snapshot.id),
            ..Subject::default()
        };
        let intent = kms.open_intent(tx, caller, DeleteSnapshot::CALL, subject).await?;
        audit::append(tx, caller, DeleteSnapshot::CALL, &snapshot.id, Decision::Allowed).await?;
        Ok((image, Some(intent)))
    }

    async fn act(&self, kms: &Kms, _: &Caller, (image, intent): (Image, Option<IntentRow>)) -> Result<Image> {
        match intent {
            Some(intent) => snapshot_delete::finish(kms, &intent).await?,
            None => reclaim::sweep_or_leave(kms).await,
        }
        Ok(image)
    }
}
