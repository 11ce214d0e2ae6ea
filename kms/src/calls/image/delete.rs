//! `DELETE /v1/images/{image}` (rules S07, K14).

use crate::audit::{self, Caller, Decision};
use crate::calls::Operation;
use crate::catalogue::copies::{self, CopyRow};
use crate::catalogue::images::{self, ImageRow};
use crate::catalogue::intents::{self, IntentRow, Work};
use crate::catalogue::states::{ImageState, SnapshotState};
use crate::catalogue::{Write, snapshots};
use crate::context::{Kms, facts, find};
use crate::copies::job;
use crate::error::{Code, Error, Result};
use crate::intents::{Subject, delete_snapshot};
use crate::rules::source::being_written;
use crate::views::image::answer;
use crate::volumes::sweep;
use sealblk_api::Image;

/// What is to be done besides.
#[derive(Debug)]
pub(crate) enum Rest {
    Nothing,
    /// The image's snapshot goes with it.
    Snapshot(Box<IntentRow>),
    /// The image is being made of a file.
    Making(Box<CopyRow>),
}

/// Deletes an image; one that is being made of a file is not made. Its snapshot stays, unless that was deleted before and
/// this is the last image of it; disks that were made from it stay.
pub(crate) struct DeleteImage {
    /// Id or name.
    pub(crate) image: String,
}

impl Operation for DeleteImage {
    const CALL: &'static str = "image.delete";
    const FREES: bool = true;
    type Decided = (Image, Rest);
    type Answer = Image;

    fn object(&self) -> &str {
        &self.image
    }

    async fn decide(&self, kms: &Kms, caller: &Caller, tx: &mut Write) -> Result<(Image, Rest)> {
        let row = find::own_image(tx, caller, &self.image).await?;
        if let Some(copy) = making(tx, &row).await? {
            return Ok((answer(tx, caller, row).await?, Rest::Making(Box::new(copy))));
        }
        if row.state != ImageState::Available {
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
            return Ok((image, Rest::Nothing));
        }
        images::set_state(tx, &id, ImageState::Deleting).await?;
        snapshots::set_state(tx, &snapshot.id, SnapshotState::Deleting).await?;
        let work = Work::DeleteSnapshot {
            snapshot: snapshot.id.clone(),
        };
        let subject = Subject {
            volume: &snapshot.volume,
            encrypted: snapshot.encrypted,
            ..Subject::default()
        };
        let intent = kms.open_intent(tx, caller, work, subject).await?;
        let part = caller.apart();
        facts::snapshot(&part.facts, &snapshot);
        audit::append(tx, &part, intent.work.call(), &snapshot.id, Decision::Allowed).await?;
        Ok((image, Rest::Snapshot(Box::new(intent))))
    }

    async fn act(&self, kms: &Kms, _: &Caller, (image, rest): (Image, Rest)) -> Result<Image> {
        match rest {
            Rest::Snapshot(intent) => delete_snapshot::finish(kms, &intent).await?,
            Rest::Nothing => sweep::sweep_or_leave(kms).await,
            Rest::Making(copy) => unmake(kms, &image, &copy).await?,
        }
        Ok(image)
    }
}

/// The import that has not made the image yet, and will not if it has failed.
async fn making(tx: &mut Write, image: &ImageRow) -> Result<Option<CopyRow>> {
    if image.state != ImageState::Creating {
        return Ok(None);
    }
    let copy = copies::of_image(tx, &image.id)
        .await?
        .filter(CopyRow::makes_image);
    let volume = copy.as_ref().and_then(|copy| copy.destination.volume());
    // The image's store is being made: that is ended or undone by the call that has begun it.
    match intents::on_volume(tx, volume.unwrap_or_default()).await? {
        Some(_) => Ok(None),
        None => Ok(copy),
    }
}

/// The import ends, and all that it has made is given up.
async fn unmake(kms: &Kms, image: &Image, copy: &CopyRow) -> Result<()> {
    job::cancel(kms, copy).await?;
    let mut tx = kms.catalogue.write().await?;
    let row = images::get(&mut tx, &image.id).await?;
    if row.state != ImageState::Creating {
        let text = format!("image {} has been made meanwhile: delete it again", row.name);
        tx.rollback().await?;
        return Err(Error::new(Code::ImageNotAvailable, text));
    }
    images::delete(&mut tx, &row.id).await?;
    snapshots::delete(&mut tx, &row.snapshot).await?;
    tx.commit().await?;
    sweep::sweep_or_leave(kms).await;
    Ok(())
}
