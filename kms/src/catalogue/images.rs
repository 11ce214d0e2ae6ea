//! Images: names over snapshots, and the accounts that they are shared with.

use std::collections::HashMap;

use sqlx::{FromRow, SqliteConnection};

use super::kinds::DiskKind;
use super::states::{ImageState, SnapshotState};
use super::{Page, several};
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
    pub(crate) disk_type: String,
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
pub(crate) async fn find(
    db: &mut SqliteConnection,
    account: &str,
    wanted: &str,
) -> Result<Option<ImageRow>, sqlx::Error> {
    // An image's name has no slash.
    let (owner, name) = wanted.rsplit_once('/').unzip();
    sqlx::query_as(select_images!(
        "WHERE images.state <> 'deleting' AND (
             images.account = ?1 AND images.name = ?2 OR images.id = ?2 OR images.account = ?3 AND images.name = ?4)
         AND (images.account = ?1 AND (images.id = ?2 OR images.name = ?2)
             OR (images.id = ?2 OR images.account = ?3 AND images.name = ?4)
                 AND EXISTS (SELECT 1 FROM image_shares WHERE image = images.id AND account = ?1))"
    ))
    .bind(account)
    .bind(wanted)
    .bind(owner)
    .bind(name)
    .fetch_optional(db)
    .await
}

/// The image of this id, of whatever account.
pub(crate) async fn get(db: &mut SqliteConnection, id: &str) -> Result<ImageRow, sqlx::Error> {
    sqlx::query_as(select_images!("WHERE images.id = ?1"))
        .bind(id)
        .fetch_one(db)
        .await
}

/// Whether the account has an image of this name.
pub(crate) async fn has_name(
    db: &mut SqliteConnection,
    account: &str,
    name: &str,
) -> Result<bool, sqlx::Error> {
    sqlx::query_scalar("SELECT EXISTS (SELECT 1 FROM images WHERE account = ?1 AND name = ?2)")
        .bind(account)
        .bind(name)
        .fetch_one(db)
        .await
}

/// A page of the account's images and of those that are shared with it, of one lineage or of all, and where to go on.
pub(crate) async fn list(
    db: &mut SqliteConnection,
    account: &str,
    lineage: Option<&str>,
    page: &Page,
) -> Result<(Vec<ImageRow>, Option<String>), sqlx::Error> {
    let mut rows: Vec<ImageRow> = sqlx::query_as(select_images!(
        "WHERE images.state <> 'deleting' AND images.id > ?3 AND (?2 IS NULL OR volumes.lineage = ?2)
           AND (images.account = ?1
                OR EXISTS (SELECT 1 FROM image_shares WHERE image = images.id AND account = ?1))
         ORDER BY images.id LIMIT ?4"
    ))
    .bind(account)
    .bind(lineage)
    .bind(&page.after)
    .bind(page.probe())
    .fetch_all(db)
    .await?;
    let next = page.cut(&mut rows, |row| &row.id);
    Ok((rows, next))
}

/// Stores a new image.
pub(crate) async fn insert(
    db: &mut SqliteConnection,
    (id, account, name): (&str, &str, &str),
    snapshot: &str,
    state: ImageState,
) -> Result<(), sqlx::Error> {
    sqlx::query(
        "INSERT INTO images (id, account, name, snapshot, state, created) VALUES (?1, ?2, ?3, ?4, ?5, ?6)",
    )
    .bind(id)
    .bind(account)
    .bind(name)
    .bind(snapshot)
    .bind(state)
    .bind(clock::now())
    .execute(db)
    .await?;
    Ok(())
}

/// Renames it.
pub(crate) async fn set_name(db: &mut SqliteConnection, id: &str, name: &str) -> Result<(), sqlx::Error> {
    sqlx::query("UPDATE images SET name = ?1 WHERE id = ?2")
        .bind(name)
        .bind(id)
        .execute(db)
        .await?;
    Ok(())
}

/// Changes the state.
pub(crate) async fn set_state(
    db: &mut SqliteConnection,
    id: &str,
    state: ImageState,
) -> Result<(), sqlx::Error> {
    sqlx::query("UPDATE images SET state = ?1 WHERE id = ?2")
        .bind(state)
        .bind(id)
        .execute(db)
        .await?;
    Ok(())
}

/// The snapshot has been taken, or stays after all: its images can be used.
pub(crate) async fn set_available(db: &mut SqliteConnection, snapshot: &str) -> Result<(), sqlx::Error> {
    sqlx::query("UPDATE images SET state = 'available' WHERE snapshot = ?1")
        .bind(snapshot)
        .execute(db)
        .await?;
    Ok(())
}

/// Removes it, and ends its sharing.
pub(crate) async fn delete(db: &mut SqliteConnection, id: &str) -> Result<(), sqlx::Error> {
    sqlx::query("DELETE FROM images WHERE id = ?1")
        .bind(id)
        .execute(db)
        .await?;
    Ok(())
}

/// Removes the images that come and go with their snapshot, which has not come or is gone.
pub(crate) async fn delete_with_snapshot(
    db: &mut SqliteConnection,
    snapshot: &str,
) -> Result<(), sqlx::Error> {
    sqlx::query("DELETE FROM images WHERE snapshot = ?1 AND state <> 'available'")
        .bind(snapshot)
        .execute(db)
        .await?;
    Ok(())
}

/// Accounts that it is shared with.
pub(crate) async fn shares(db: &mut SqliteConnection, id: &str) -> Result<Vec<String>, sqlx::Error> {
    Ok(shares_of(db, [id]).await?.remove(id).unwrap_or_default())
}

/// The accounts that each of the images is shared with, in order; of one that is not shared there is nothing.
pub(crate) async fn shares_of(
    db: &mut SqliteConnection,
    ids: impl IntoIterator<Item = &str>,
) -> Result<HashMap<String, Vec<String>>, sqlx::Error> {
    let rows: Vec<(String, String)> = sqlx::query_as(
        "SELECT image, account FROM image_shares WHERE image IN (SELECT value FROM json_each(?1)) ORDER BY account",
    )
    .bind(several(ids))
    .fetch_all(db)
    .await?;
    let mut shares: HashMap<String, Vec<String>> = HashMap::new();
    for (image, account) in rows {
        shares.entry(image).or_default().push(account);
    }
    Ok(shares)
}

/// Shares it with an account. Can be repeated.
pub(crate) async fn share(db: &mut SqliteConnection, id: &str, account: &str) -> Result<(), sqlx::Error> {
    sqlx::query(
        "INSERT INTO image_shares (image, account, created) VALUES (?1, ?2, ?3) ON CONFLICT DO NOTHING",
    )
    .bind(id)
    .bind(account)
    .bind(clock::now())
    .execute(db)
    .await?;
    Ok(())
}

/// Ends the sharing with an account: whether there was one.
pub(crate) async fn unshare(db: &mut SqliteConnection, id: &str, account: &str) -> Result<bool, sqlx::Error> {
    let done = sqlx::query("DELETE FROM image_shares WHERE image = ?1 AND account = ?2")
        .bind(id)
        .bind(account)
        .execute(db)
        .await?;
    Ok(done.rows_affected() > 0)
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
            disk_type: "ssd".into(),
            created: String::new(),
        }
    }
}
