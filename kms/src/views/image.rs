//! `GET /v1/images` and `/v1/images/{image}`.

use sqlx::SqliteConnection;

use crate::audit::Caller;
use crate::catalogue::Page;
use crate::catalogue::images::{self, ImageRow};
use crate::context::{Kms, find};
use crate::copies::job;
use crate::error::Result;
use sealblk_api::{Image, ImageList};

/// A page of the account's images and of those that are shared with it, or of those of one lineage.
pub(crate) async fn list(
    kms: &Kms,
    caller: &Caller,
    lineage: Option<&str>,
    page: &Page,
) -> Result<ImageList> {
    let (rows, next) = {
        let mut db = kms.catalogue.read().await?;
        images::list(&mut db, &caller.account, lineage, page).await?
    };
    let mut list = Vec::with_capacity(rows.len());
    for row in rows {
        list.push(shown(kms, caller, row).await?);
    }
    Ok(ImageList { images: list, next })
}

/// One image.
pub(crate) async fn show(kms: &Kms, caller: &Caller, wanted: &str) -> Result<Image> {
    let row = {
        let mut db = kms.catalogue.read().await?;
        find::image(&mut db, caller, wanted).await?
    };
    shown(kms, caller, row).await
}

/// The image after something was done with it.
pub(crate) async fn after(kms: &Kms, caller: &Caller, id: &str) -> Result<Image> {
    let row = {
        let mut db = kms.catalogue.read().await?;
        images::get(&mut db, id).await?
    };
    shown(kms, caller, row).await
}

/// As the API gives it to the caller, with the copy that goes on with it, or has.
async fn shown(kms: &Kms, caller: &Caller, row: ImageRow) -> Result<Image> {
    let own = row.account == caller.account;
    let copy = match own {
        true => job::of_image(kms, &row.id).await?,
        false => None,
    };
    let mut db = kms.catalogue.read().await?;
    let mut image = answer(&mut db, caller, row).await?;
    let ended = copy
        .as_ref()
        .is_some_and(|copy| matches!(copy.phase.as_str(), "failed" | "cancelled"));
    if image.state == "creating" && ended {
        image.state = "error".to_owned();
    }
    Ok(Image { copy, ..image })
}

/// Likewise, without what a copy changes all the time.
pub(crate) async fn answer(db: &mut SqliteConnection, caller: &Caller, row: ImageRow) -> Result<Image> {
    let own = row.account == caller.account;
    let shared_with = match own {
        true => Some(images::shares(db, &row.id).await?),
        false => None,
    };
    let broken = row.snapshot_state == "error";
    let deleted = matches!(row.snapshot_state.as_str(), "hidden" | "deleting");
    Ok(Image {
        id: row.id,
        name: row.name,
        account: row.account,
        state: if broken { "error".to_owned() } else { row.state },
        size: row.size.unsigned_abs(),
        encrypted: row.encrypted,
        lineage: row.lineage,
        key: row.key,
        kind: row.kind,
        disk_type: row.disk_type,
        zone: row.zone,
        snapshot: (own && !deleted).then_some(row.snapshot),
        shared_with,
        copy: None,
        created: row.created,
    })
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// An image, for the tables of its refusals.
    pub(crate) fn image(encrypted: bool) -> ImageRow {
        ImageRow {
            id: "img-1".into(),
            account: "default".into(),
            name: "base".into(),
            state: "available".into(),
            snapshot: "snap-1".into(),
            snapshot_state: "available".into(),
            size: 512,
            encrypted,
            lineage: None,
            key: None,
            zone: "z1".into(),
            kind: "cloud".into(),
            disk_type: "ssd".into(),
            created: String::new(),
        }
    }
}
