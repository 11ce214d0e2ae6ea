//! `POST /v1/images` (rules S01, K05, S07). An image of a snapshot is a row and nothing else; one of a disk is a row and
//! a snapshot, which are there together or not at all.

use std::sync::Arc;

use crate::audit::Caller;
use crate::calls::Operation;
use crate::calls::idempotency::Creates;
use crate::catalogue::counts::Counted;
use crate::catalogue::intents::IntentRow;
use crate::catalogue::states::{ImageState, SnapshotState};
use crate::catalogue::{Write, images};
use crate::context::{Kms, find};
use crate::error::{Code, Error, Result};
use crate::id::{self, Kind};
use crate::limits;
use crate::rules::image_name::check_name_free;
use crate::rules::quota;
use crate::views;
use crate::views::image::after;
use sealblk_api::{CreateImage, CreateSnapshot, Image};

/// A new image, and the snapshot that is taken for it.
pub(crate) struct Decided {
    pub(crate) image: String,
    snapshot: Option<(CreateSnapshot, IntentRow)>,
}

impl Operation for CreateImage {
    const CALL: &'static str = "image.create";
    type Decided = Decided;
    type Answer = Image;

    fn object(&self) -> &str {
        &self.name
    }

    async fn decide(&self, kms: &Kms, caller: &Caller, tx: &mut Write) -> Result<Decided> {
        id::check_name(&self.name)?;
        check_name_free(tx, caller, &self.name).await?;
        quota::check(kms, tx, &caller.account, Counted::Images).await?;
        let image = id::new(Kind::Image)?;
        caller.facts.note("image", image.as_str());
        let row = (image.as_str(), caller.account.as_str(), self.name.as_str());
        match (&self.snapshot, &self.disk) {
            (Some(snapshot), None) => {
                let snapshot = usable_snapshot(tx, caller, snapshot).await?;
                images::insert(tx, row, &snapshot, ImageState::Available).await?;
                let snapshot = None;
                Ok(Decided { image, snapshot })
            }
            (None, Some(disk)) => {
                let take = CreateSnapshot {
                    disk: disk.clone(),
                    name: self.name.clone(),
                };
                let intent = kms.decide_part(caller, tx, &take).await?;
                let taken = intent.work.snapshot().unwrap_or_default();
                caller.facts.note("disk", intent.disk.as_str());
                caller.facts.note("snapshot", taken);
                images::insert(tx, row, taken, ImageState::Creating).await?;
                let snapshot = Some((take, intent));
                Ok(Decided { image, snapshot })
            }
            _ => {
                let text = "an image is made either of a snapshot or of a disk: name one of them";
                Err(Error::new(Code::InvalidRequest, text))
            }
        }
    }

    async fn act(&self, kms: &Kms, caller: &Caller, decided: Decided) -> Result<Image> {
        if let Some((take, intent)) = decided.snapshot {
            take.act(kms, caller, intent).await?;
        }
        after(kms, caller, &decided.image).await
    }
}

impl Creates for CreateImage {
    fn created(decided: &Decided) -> &str {
        &decided.image
    }

    async fn present(kms: &Arc<Kms>, caller: &Caller, id: &str) -> Result<Image> {
        views::image::show(kms, caller, id).await
    }
}

async fn usable_snapshot(tx: &mut Write, caller: &Caller, wanted: &str) -> Result<String> {
    let row = find::snapshot(tx, caller, None, wanted).await?;
    if row.state != SnapshotState::Available {
        let text = format!(
            "snapshot {} is in state {}: an image needs one that is available",
            row.name, row.state
        );
        return Err(Error::new(Code::SnapshotNotAvailable, text));
    }
    if row.images.unsigned_abs() >= limits::IMAGES_OF_SNAPSHOT {
        let text = format!(
            "snapshot {} has {} images, the most there can be: delete some first",
            row.name, row.images
        );
        return Err(Error::new(Code::TooMany, text));
    }
    Ok(row.id)
}
