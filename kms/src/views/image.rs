//! `GET /v1/images` and `/v1/images/{image}`.

use sqlx::SqliteConnection;

use crate::audit::Caller;
use crate::catalogue::Page;
use crate::catalogue::copies::{self, CopyRow, Phase};
use crate::catalogue::images::{self, ImageRow};
use crate::catalogue::states::{ImageState, SnapshotState};
use crate::context::{Kms, find};
use crate::copies::job;
use crate::error::Result;
use sealblk_api::{Image, ImageList};

/// The state of an image whose data cannot be read, or never came.
const BROKEN: &str = "error";

/// A page of the account's images and of those that are shared with it, or of those of one lineage.
pub(crate) async fn list(
    kms: &Kms,
    caller: &Caller,
    lineage: Option<&str>,
    page: &Page,
) -> Result<ImageList> {
    let mut db = kms.catalogue.snapshot().await?;
    let (rows, next) = images::list(&mut db, &caller.account, lineage, page).await?;
    let images = shown(kms, &mut db, caller, rows).await?;
    Ok(ImageList { images, next })
}

/// One image.
pub(crate) async fn show(kms: &Kms, caller: &Caller, wanted: &str) -> Result<Image> {
    let mut db = kms.catalogue.snapshot().await?;
    let row = find::image(&mut db, caller, wanted).await?;
    Ok(shown(kms, &mut db, caller, vec![row]).await?.remove(0))
}

/// The image after something was done with it.
pub(crate) async fn after(kms: &Kms, caller: &Caller, id: &str) -> Result<Image> {
    let mut db = kms.catalogue.snapshot().await?;
    let row = images::get(&mut db, id).await?;
    Ok(shown(kms, &mut db, caller, vec![row]).await?.remove(0))
}

/// As the API gives them to the caller, each with the copy that goes on with it, or has.
async fn shown(
    kms: &Kms,
    db: &mut SqliteConnection,
    caller: &Caller,
    rows: Vec<ImageRow>,
) -> Result<Vec<Image>> {
    let own = || {
        let own = rows.iter().filter(|row| row.account == caller.account);
        own.map(|row| row.id.as_str())
    };
    let mut copies = copies::of_images(db, own()).await?;
    let mut shares = images::shares_of(db, own()).await?;
    let images = rows.into_iter().map(|row| {
        let copy = copies.remove(&row.id);
        let shares = shares.remove(&row.id).unwrap_or_default();
        let is_being_made = row.state == ImageState::Creating;
        let mut image = as_given(caller, row, shares);
        let ended = |copy: &CopyRow| matches!(copy.phase, Phase::Failed | Phase::Cancelled);
        if is_being_made && copy.as_ref().is_some_and(ended) {
            image.state = BROKEN.to_owned();
        }
        let copy = copy.map(|copy| job::shown(kms, copy));
        Image { copy, ..image }
    });
    Ok(images.collect())
}

/// The image as callers see it, without the progress of a copy, which changes all the time.
pub(crate) async fn answer(db: &mut SqliteConnection, caller: &Caller, row: ImageRow) -> Result<Image> {
    let shares = images::shares(db, &row.id).await?;
    Ok(as_given(caller, row, shares))
}

fn as_given(caller: &Caller, row: ImageRow, shares: Vec<String>) -> Image {
    let own = row.account == caller.account;
    let broken = row.snapshot_state == SnapshotState::Error;
    let deleted = row.snapshot_state.is_gone();
    Image {
        id: row.id,
        name: row.name,
        account: row.account,
        state: if broken {
            BROKEN.to_owned()
        } else {
            row.state.to_string()
        },
        size: row.size.unsigned_abs(),
        encrypted: row.encrypted,
        lineage: row.lineage,
        key: row.key,
        kind: row.kind.to_string(),
        disk_type: row.disk_type.to_string(),
        zone: row.zone,
        snapshot: (own && !deleted).then_some(row.snapshot),
        shared_with: own.then_some(shares),
        copy: None,
        created: row.created,
    }
}
