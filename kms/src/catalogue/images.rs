//! Images: names over snapshots, and the accounts that they are shared with.

use std::collections::HashMap;

use sqlx::FromRow;

use super::kinds::{DiskKind, DiskType};
use super::states::{ImageState, SnapshotState};
use super::{Db, Listed, Page, changed, execute, find_row, row, rows, several, value};
use crate::clock;

/// An image, with what it has from its snapshot.
#[derive(Clone, Debug, FromRow)]
pub(crate) struct ImageRow {
    pub(crate) id: String,
    /// Account of the owner.
    pub(crate) account: String,
    pub(crate) name: String,
    pub(crate) state: ImageState,
    pub(crate) snapshot: String,
    /// `hidden` if the snapshot has been deleted.
    pub(crate) snapshot_state: SnapshotState,
    /// In bytes.
    pub(crate) size: i64,
    pub(crate) encrypted: bool,
    pub(crate) lineage: Option<String>,
    pub(crate) key: Option<String>,
    pub(crate) zone: String,
    pub(crate) kind: DiskKind,
    pub(crate) disk_type: DiskType,
    pub(crate) created: String,
}

macro_rules! select_images {
    ($rest:literal) => {
        concat!(
            "SELECT images.id, images.account, images.name, images.state, images.snapshot,
                    snapshots.state AS snapshot_state, snapshots.size, volumes.encrypted, volumes.lineage,
                    lineages.key, volumes.zone, volumes.kind, volumes.disk_type, images.created
             FROM images
             JOIN snapshots ON snapshots.id = images.snapshot
             JOIN volumes ON volumes.id = snapshots.volume
             LEFT JOIN lineages ON lineages.id = volumes.lineage ",
            $rest
        )
    };
}

/// The account's own image of this id or name, or one that is shared with it of this id or `ACCOUNT/NAME`.
pub(crate) async fn find(db: &mut Db, account: &str, wanted: &str) -> sqlx::Result<Option<ImageRow>> {
    // An image's name has no slash.
    let (owner, name) = wanted.rsplit_once('/').unzip();
    find_row!(
        db,
        select_images!("WHERE images.state <> 'deleting' AND (
             images.account = ?1 AND images.name = ?2 OR images.id = ?2 OR images.account = ?3 AND images.name = ?4)
         AND (images.account = ?1 AND (images.id = ?2 OR images.name = ?2)
             OR (images.id = ?2 OR images.account = ?3 AND images.name = ?4)
                 AND EXISTS (SELECT 1 FROM image_shares WHERE image = images.id AND account = ?1))");
        account, wanted, owner, name
    )
    .await
}

/// The image of this id, of whatever account.
pub(crate) async fn get(db: &mut Db, id: &str) -> sqlx::Result<ImageRow> {
    row!(db, select_images!("WHERE images.id = ?1"); id).await
}

/// Whether the account has an image of this name.
pub(crate) async fn has_name(db: &mut Db, account: &str, name: &str) -> sqlx::Result<bool> {
    value!(db, "SELECT EXISTS (SELECT 1 FROM images WHERE account = ?1 AND name = ?2)"; account, name).await
}

/// A page of the account's images and of those that are shared with it, of one lineage or of all, and where to go on.
pub(crate) async fn list(
    db: &mut Db,
    account: &str,
    lineage: Option<&str>,
    page: &Page,
) -> sqlx::Result<Listed<ImageRow>> {
    let rows = rows!(
        db,
        select_images!("WHERE images.state <> 'deleting' AND images.id > ?3 AND (?2 IS NULL OR volumes.lineage = ?2)
           AND (images.account = ?1
                OR EXISTS (SELECT 1 FROM image_shares WHERE image = images.id AND account = ?1))
         ORDER BY images.id LIMIT ?4");
        account, lineage, &page.after, page.probe()
    )
    .await?;
    Ok(page.cut(rows, |row: &ImageRow| &row.id))
}

/// Stores a new image.
pub(crate) async fn insert(
    db: &mut Db,
    (id, account, name): (&str, &str, &str),
    snapshot: &str,
    state: ImageState,
) -> sqlx::Result<()> {
    execute!(
        db,
        "INSERT INTO images (id, account, name, snapshot, state, created) VALUES (?1, ?2, ?3, ?4, ?5, ?6)";
        id, account, name, snapshot, state, clock::now()
    )
    .await
}

/// Renames it.
pub(crate) async fn set_name(db: &mut Db, id: &str, name: &str) -> sqlx::Result<()> {
    execute!(db, "UPDATE images SET name = ?1 WHERE id = ?2"; name, id).await
}

/// Changes the state.
pub(crate) async fn set_state(db: &mut Db, id: &str, state: ImageState) -> sqlx::Result<()> {
    execute!(db, "UPDATE images SET state = ?1 WHERE id = ?2"; state, id).await
}

/// The snapshot has been taken, or stays after all: its images can be used.
pub(crate) async fn set_available(db: &mut Db, snapshot: &str) -> sqlx::Result<()> {
    execute!(db, "UPDATE images SET state = 'available' WHERE snapshot = ?1"; snapshot).await
}

/// Removes it, and ends its sharing.
pub(crate) async fn delete(db: &mut Db, id: &str) -> sqlx::Result<()> {
    execute!(db, "DELETE FROM images WHERE id = ?1"; id).await
}

/// Removes the images that come and go with their snapshot, which has not come or is gone.
pub(crate) async fn delete_with_snapshot(db: &mut Db, snapshot: &str) -> sqlx::Result<()> {
    execute!(db, "DELETE FROM images WHERE snapshot = ?1 AND state <> 'available'"; snapshot).await
}

/// Accounts that it is shared with.
pub(crate) async fn shares(db: &mut Db, id: &str) -> sqlx::Result<Vec<String>> {
    Ok(shares_of(db, [id]).await?.remove(id).unwrap_or_default())
}

/// The accounts that each of the images is shared with, in order; of one that is not shared there is nothing.
pub(crate) async fn shares_of(
    db: &mut Db,
    ids: impl IntoIterator<Item = &str>,
) -> sqlx::Result<HashMap<String, Vec<String>>> {
    let rows: Vec<(String, String)> = rows!(
        db,
        "SELECT image, account FROM image_shares WHERE image IN (SELECT value FROM json_each(?1)) ORDER BY account";
        several(ids)
    )
    .await?;
    let mut shares: HashMap<String, Vec<String>> = HashMap::new();
    for (image, account) in rows {
        shares.entry(image).or_default().push(account);
    }
    Ok(shares)
}

/// Shares it with an account. Can be repeated.
pub(crate) async fn share(db: &mut Db, id: &str, account: &str) -> sqlx::Result<()> {
    execute!(
        db,
        "INSERT INTO image_shares (image, account, created) VALUES (?1, ?2, ?3) ON CONFLICT DO NOTHING";
        id, account, clock::now()
    )
    .await
}

/// Ends the sharing with an account: whether there was one.
pub(crate) async fn unshare(db: &mut Db, id: &str, account: &str) -> sqlx::Result<bool> {
    Ok(changed!(db, "DELETE FROM image_shares WHERE image = ?1 AND account = ?2"; id, account).await? > 0)
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
            state: ImageState::Available,
            snapshot: "snap-1".into(),
            snapshot_state: SnapshotState::Available,
            size: 512,
            encrypted,
            lineage: None,
            key: None,
            zone: "z1".into(),
            kind: DiskKind::Cloud,
            disk_type: DiskType::Ssd,
            created: String::new(),
        }
    }
}
