//! Snapshots.

use std::collections::HashMap;

use sqlx::FromRow;

use super::states::SnapshotState;
use super::{Db, Listed, Page, execute, row, rows, several, values};

/// A snapshot, with what it has from its volume.
#[derive(Clone, Debug, FromRow)]
pub(crate) struct SnapshotRow {
    pub(crate) id: String,
    /// Volume of the snapshot; its id is also that of the disk that was taken a snapshot of.
    pub(crate) volume: String,
    pub(crate) name: String,
    pub(crate) state: SnapshotState,
    /// Size of the disk when the snapshot was taken, in bytes.
    pub(crate) size: i64,
    pub(crate) created: String,
    /// Name of the disk; none if that has been deleted.
    pub(crate) disk_name: Option<String>,
    pub(crate) encrypted: bool,
    pub(crate) lineage: Option<String>,
    pub(crate) zone: String,
    /// Volumes that were made from it.
    pub(crate) clones: i64,
    pub(crate) images: i64,
    /// Whether the snapshot has been deleted and its store has not been told, since images need it.
    pub(crate) held: bool,
    /// The schedule that it was taken by.
    pub(crate) schedule: Option<String>,
}

/// A snapshot to be stored.
pub(crate) struct NewSnapshot {
    pub(crate) id: String,
    pub(crate) account: String,
    pub(crate) volume: String,
    pub(crate) name: String,
    pub(crate) state: SnapshotState,
    pub(crate) size: i64,
    pub(crate) created: String,
}

macro_rules! select_snapshots {
    ($rest:literal) => {
        concat!(
            "SELECT snapshots.id, snapshots.volume, snapshots.name, snapshots.state,
                    snapshots.size, snapshots.created, disks.name AS disk_name, volumes.encrypted, volumes.lineage,
                    volumes.zone, snapshots.held, snapshots.schedule,
                    (SELECT count(*) FROM volumes AS clones WHERE clones.base = snapshots.id) AS clones,
                    (SELECT count(*) FROM images WHERE images.snapshot = snapshots.id) AS images
             FROM snapshots
             JOIN volumes ON volumes.id = snapshots.volume
             LEFT JOIN disks ON disks.id = snapshots.volume ",
            $rest
        )
    };
}

/// The account's snapshots of this id or name that have not been deleted; `volume` narrows the search.
pub(crate) async fn find(
    db: &mut Db,
    account: &str,
    volume: Option<&str>,
    id_or_name: &str,
) -> sqlx::Result<Vec<SnapshotRow>> {
    rows!(
        db,
        select_snapshots!("WHERE snapshots.account = ?1 AND (snapshots.id = ?3 OR snapshots.name = ?3)
           AND (?2 IS NULL OR snapshots.volume = ?2) AND snapshots.state NOT IN ('hidden', 'deleting')
         ORDER BY snapshots.id");
        account, volume, id_or_name
    )
    .await
}

/// The snapshot of this id, of whatever account and state.
pub(crate) async fn get(db: &mut Db, id: &str) -> sqlx::Result<SnapshotRow> {
    row!(db, select_snapshots!("WHERE snapshots.id = ?1"); id).await
}

/// A page of the account's snapshots, of one volume or of all, and where to go on.
pub(crate) async fn list(
    db: &mut Db,
    account: &str,
    volume: Option<&str>,
    page: &Page,
) -> sqlx::Result<Listed<SnapshotRow>> {
    let rows = rows!(
        db,
        select_snapshots!("WHERE snapshots.account = ?1 AND (?2 IS NULL OR snapshots.volume = ?2)
           AND snapshots.state NOT IN ('hidden', 'deleting') AND snapshots.id > ?3
         ORDER BY snapshots.id LIMIT ?4");
        account, volume, &page.after, page.probe()
    )
    .await?;
    Ok(page.cut(rows, |row: &SnapshotRow| &row.id))
}

/// All snapshots of a volume, hidden ones too, oldest first.
pub(crate) async fn of_volume(db: &mut Db, volume: &str) -> sqlx::Result<Vec<SnapshotRow>> {
    rows!(
        db,
        select_snapshots!("WHERE snapshots.volume = ?1 ORDER BY snapshots.created, snapshots.rowid");
        volume
    )
    .await
}

/// How many snapshots each of the volumes has that have not been deleted; those without are missing.
pub(crate) async fn counts(
    db: &mut Db,
    volumes: impl IntoIterator<Item = &str>,
) -> sqlx::Result<HashMap<String, u32>> {
    let counts: Vec<(String, u32)> = rows!(
        db,
        "SELECT volume, count(*) FROM snapshots WHERE volume IN (SELECT value FROM json_each(?1))
           AND state <> 'hidden' AND state <> 'deleting' GROUP BY volume";
        several(volumes)
    )
    .await?;
    Ok(counts.into_iter().collect())
}

/// Ids of the volumes that were made from a snapshot.
pub(crate) async fn clones(db: &mut Db, id: &str) -> sqlx::Result<Vec<String>> {
    values!(db, "SELECT id FROM volumes WHERE base = ?1 ORDER BY id"; id).await
}

/// The clones of a volume's snapshots that no operation is at work on, and that are needed.
pub(crate) async fn settled_clones(db: &mut Db, id: &str) -> sqlx::Result<Vec<String>> {
    values!(
        db,
        "SELECT id FROM volumes WHERE base = ?1 AND NOT EXISTS (SELECT 1 FROM intents WHERE disk = volumes.id)
             AND (EXISTS (SELECT 1 FROM disks WHERE disks.id = volumes.id)
                  OR EXISTS (SELECT 1 FROM bin WHERE bin.id = volumes.id)
                  OR EXISTS (SELECT 1 FROM snapshots WHERE volume = volumes.id))
         ORDER BY id";
        id
    )
    .await
}

/// Stores a new snapshot.
pub(crate) async fn insert(db: &mut Db, row: &NewSnapshot) -> sqlx::Result<()> {
    execute!(
        db,
        "INSERT INTO snapshots (id, account, volume, name, state, size, created) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)";
        &row.id, &row.account, &row.volume, &row.name, row.state, row.size, &row.created
    )
    .await
}

/// Renames it.
pub(crate) async fn set_name(db: &mut Db, id: &str, name: &str) -> sqlx::Result<()> {
    execute!(db, "UPDATE snapshots SET name = ?1 WHERE id = ?2"; name, id).await
}

/// Notes the schedule that it is taken by.
pub(crate) async fn set_schedule(db: &mut Db, id: &str, schedule: &str) -> sqlx::Result<()> {
    execute!(db, "UPDATE snapshots SET schedule = ?1 WHERE id = ?2"; schedule, id).await
}

/// Changes the state.
pub(crate) async fn set_state(db: &mut Db, id: &str, state: SnapshotState) -> sqlx::Result<()> {
    execute!(db, "UPDATE snapshots SET state = ?1 WHERE id = ?2"; state, id).await
}

/// Notes that nothing is done with a snapshot any more: it is available, or out of sight as it was if it is held.
pub(crate) async fn set_idle(db: &mut Db, id: &str) -> sqlx::Result<()> {
    execute!(
        db,
        "UPDATE snapshots SET state = CASE WHEN held THEN 'hidden' ELSE 'available' END WHERE id = ?1";
        id
    )
    .await
}

/// Takes a snapshot out of sight, whose store is told later: images need it (rule S07).
pub(crate) async fn hold(db: &mut Db, id: &str) -> sqlx::Result<()> {
    execute!(db, "UPDATE snapshots SET state = 'hidden', held = 1 WHERE id = ?1"; id).await
}

/// Notes that a snapshot has been deleted in its store; what clones read of it is still there.
pub(crate) async fn hide(db: &mut Db, id: &str) -> sqlx::Result<()> {
    execute!(db, "UPDATE snapshots SET state = 'hidden', held = 0 WHERE id = ?1"; id).await
}

/// Removes it.
pub(crate) async fn delete(db: &mut Db, id: &str) -> sqlx::Result<()> {
    execute!(db, "DELETE FROM snapshots WHERE id = ?1"; id).await
}

/// Removes it if it has been deleted and neither clone nor image needs it any more (rule S07).
pub(crate) async fn delete_if_forgotten(db: &mut Db, id: &str) -> sqlx::Result<()> {
    execute!(
        db,
        "DELETE FROM snapshots WHERE id = ?1 AND state = 'hidden'
         AND NOT EXISTS (SELECT 1 FROM volumes WHERE base = ?1)
         AND NOT EXISTS (SELECT 1 FROM images WHERE snapshot = ?1)";
        id
    )
    .await
}
