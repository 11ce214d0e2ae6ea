//! Volumes: the files and devices that hold disks and their snapshots.

use std::path::PathBuf;

use sqlx::FromRow;

use super::kinds::{DiskKind, DiskType, Store};
use super::{Db, execute, find_value, row, rows, value, values};
use crate::clock;
use crate::state::StateDir;

/// A volume. Its id is that of the disk that it was made for, which may have been deleted, or of a backup.
#[derive(Clone, Debug, FromRow)]
pub(crate) struct VolumeRow {
    pub(crate) id: String,
    pub(crate) account: String,
    pub(crate) encrypted: bool,
    /// Size of the disk, in bytes.
    pub(crate) size: i64,
    pub(crate) store: Store,
    /// Path that was given for the store; none is in the state directory.
    pub(crate) path: Option<String>,
    /// What the store at `path` is; see `store::Identity`. None: not known (yet).
    pub(crate) identity: Option<String>,
    pub(crate) zone: String,
    pub(crate) lineage: Option<String>,
    /// A clone's: the snapshot that it was made from.
    pub(crate) base: Option<String>,
    /// False from the catalogue's restore until catalogue and store have been compared.
    pub(crate) compared: bool,
    pub(crate) kind: DiskKind,
    pub(crate) disk_type: DiskType,
    pub(crate) created: String,
}

impl VolumeRow {
    /// A new volume in the state directory, layered and plain, for a cloud disk of type ssd; its zone is not said.
    pub(crate) fn new(id: String, account: String, size: i64) -> Self {
        VolumeRow {
            id,
            account,
            encrypted: false,
            size,
            store: Store::Layered,
            path: None,
            identity: None,
            zone: String::new(),
            lineage: None,
            base: None,
            compared: true,
            kind: DiskKind::Cloud,
            disk_type: DiskType::Ssd,
            created: clock::now(),
        }
    }

    /// A new volume for a disk as this one's, with the same key, that begins as nothing.
    pub(crate) fn alike(self, id: String, account: String) -> Self {
        VolumeRow {
            encrypted: self.encrypted,
            store: self.store,
            zone: self.zone,
            lineage: self.lineage,
            kind: self.kind,
            disk_type: self.disk_type,
            ..VolumeRow::new(id, account, self.size)
        }
    }

    /// Where the store is.
    pub(crate) fn location(&self, state: &StateDir) -> PathBuf {
        state.store(&self.id, self.path.as_deref())
    }

    /// Length of the store's file in bytes, where that is known.
    pub(crate) fn length(&self) -> Option<u64> {
        (self.store == Store::Raw).then(|| self.size.unsigned_abs())
    }
}

/// Stores a new volume.
pub(crate) async fn insert(db: &mut Db, volume: &VolumeRow) -> sqlx::Result<()> {
    execute!(
        db,
        "INSERT INTO volumes (id, account, encrypted, size, store, path, zone, lineage, base, created, kind, disk_type)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12)";
        &volume.id, &volume.account, volume.encrypted, volume.size, volume.store, &volume.path, &volume.zone,
        &volume.lineage, &volume.base, &volume.created, volume.kind, volume.disk_type
    )
    .await
}

/// The volume of this id, of whatever account.
pub(crate) async fn get(db: &mut Db, id: &str) -> sqlx::Result<VolumeRow> {
    row!(db, "SELECT * FROM volumes WHERE id = ?1"; id).await
}

/// Lineage of a volume; none if it is plain, or there is no such volume.
pub(crate) async fn lineage(db: &mut Db, id: &str) -> sqlx::Result<Option<String>> {
    let lineage: Option<Option<String>> =
        find_value!(db, "SELECT lineage FROM volumes WHERE id = ?1"; id).await?;
    Ok(lineage.flatten())
}

/// The volumes of the disks that are attached.
pub(crate) async fn attached(db: &mut Db) -> sqlx::Result<Vec<VolumeRow>> {
    rows!(
        db,
        "SELECT * FROM volumes WHERE id IN (SELECT disk FROM attachments)"
    )
    .await
}

/// Whether there is a volume of this id, of whatever account.
pub(crate) async fn exists(db: &mut Db, id: &str) -> sqlx::Result<bool> {
    value!(db, "SELECT EXISTS (SELECT 1 FROM volumes WHERE id = ?1)"; id).await
}

/// The volumes that a clone reads besides its own, nearest first: the slots of its store.
pub(crate) async fn bases(db: &mut Db, id: &str) -> sqlx::Result<Vec<VolumeRow>> {
    rows!(
        db,
        "WITH RECURSIVE chain (id, slot) AS (
             SELECT snapshots.volume, 1 FROM volumes JOIN snapshots ON snapshots.id = volumes.base
             WHERE volumes.id = ?1
             UNION ALL
             SELECT snapshots.volume, slot + 1 FROM chain
             JOIN volumes ON volumes.id = chain.id JOIN snapshots ON snapshots.id = volumes.base
         )
         SELECT volumes.* FROM chain JOIN volumes ON volumes.id = chain.id ORDER BY slot";
        id
    )
    .await
}

/// Whether a volume of whatever account has this path of its own.
pub(crate) async fn has_path(db: &mut Db, path: &str) -> sqlx::Result<bool> {
    value!(db, "SELECT EXISTS (SELECT 1 FROM volumes WHERE path = ?1)"; path).await
}

/// Other paths of volumes, of whatever account, that were on this medium when they were looked at.
pub(crate) async fn paths_on(db: &mut Db, medium: &str, but: &str) -> sqlx::Result<Vec<String>> {
    values!(db, "SELECT path FROM volumes WHERE medium = ?1 AND path <> ?2"; medium, but).await
}

/// Ids and paths of the volumes with a path of their own whose medium is not known, or known by a number that may be another's.
pub(crate) async fn on_doubtful_media(db: &mut Db) -> sqlx::Result<Vec<(String, String)>> {
    rows!(
        db,
        "SELECT id, path FROM volumes
         WHERE path IS NOT NULL AND (medium IS NULL OR medium LIKE 'device %' OR medium LIKE 'file %:%')"
    )
    .await
}

/// Remembers on which medium a volume is; see `store::medium`.
pub(crate) async fn set_medium(db: &mut Db, id: &str, medium: Option<&str>) -> sqlx::Result<()> {
    execute!(db, "UPDATE volumes SET medium = ?2 WHERE id = ?1 AND medium IS NOT ?2"; id, medium).await
}

/// Changes the size of the disk.
pub(crate) async fn set_size(db: &mut Db, id: &str, size: i64) -> sqlx::Result<()> {
    execute!(db, "UPDATE volumes SET size = ?1 WHERE id = ?2"; size, id).await
}

/// Remembers which file or device is the volume's.
pub(crate) async fn set_identity(db: &mut Db, id: &str, identity: &str) -> sqlx::Result<()> {
    execute!(db, "UPDATE volumes SET identity = ?1 WHERE id = ?2"; identity, id).await
}

/// Whether the volume may hold data.
pub(crate) async fn is_written(db: &mut Db, id: &str) -> sqlx::Result<bool> {
    value!(db, "SELECT written OR base IS NOT NULL FROM volumes WHERE id = ?1"; id).await
}

/// From now on the volume may hold data, or holds none.
pub(crate) async fn set_written(db: &mut Db, id: &str, written: bool) -> sqlx::Result<()> {
    execute!(db, "UPDATE volumes SET written = ?1 WHERE id = ?2"; written, id).await
}

/// After the restore of a catalogue. Forgets which files and devices the volumes were made on, for they may be copies
/// by now: so they are served, and never emptied or removed. And what they hold may be newer than the catalogue, but not older.
pub(crate) async fn forget_identities(db: &mut Db) -> sqlx::Result<()> {
    execute!(
        db,
        "UPDATE volumes SET identity = NULL, medium = NULL, compared = (store <> 'layered'), written = 1, closed = 0"
    )
    .await
}

/// Catalogue and store have been compared.
pub(crate) async fn set_compared(db: &mut Db, id: &str) -> sqlx::Result<()> {
    execute!(db, "UPDATE volumes SET compared = 1 WHERE id = ?1"; id).await
}

/// Layered volumes whose stores must be compared with the catalogue: those that clones read, and all after a restore.
pub(crate) async fn to_compare(db: &mut Db) -> sqlx::Result<Vec<String>> {
    values!(
        db,
        "SELECT id FROM volumes WHERE NOT compared OR EXISTS (
             SELECT 1 FROM snapshots JOIN volumes AS clones ON clones.base = snapshots.id
             WHERE snapshots.volume = volumes.id)
         ORDER BY id"
    )
    .await
}

/// Whether the volume's disk is there, or can be restored.
pub(crate) async fn has_disk(db: &mut Db, id: &str) -> sqlx::Result<bool> {
    value!(
        db,
        "SELECT EXISTS (SELECT 1 FROM disks WHERE id = ?1) OR EXISTS (SELECT 1 FROM bin WHERE id = ?1)"; id
    )
    .await
}

/// Volumes that nothing needs any more, and that no operation is at work on.
pub(crate) async fn unneeded(db: &mut Db) -> sqlx::Result<Vec<String>> {
    values!(
        db,
        "SELECT volume FROM released WHERE EXISTS (SELECT 1 FROM unneeded WHERE unneeded.id = released.volume)"
    )
    .await
}

/// Removes the volume; with the last one of a lineage, its keys (rule K14); and with the last clone of a deleted
/// snapshot, that.
pub(crate) async fn delete(db: &mut Db, volume: &VolumeRow) -> sqlx::Result<()> {
    // What has ended, and is shown with nothing else.
    execute!(
        db,
        "DELETE FROM copies WHERE source = ?1 AND destination IS NULL AND image IS NULL";
        &volume.id
    )
    .await?;
    execute!(db, "DELETE FROM volumes WHERE id = ?1"; &volume.id).await?;
    if let Some(snapshot) = &volume.base {
        super::snapshots::delete_if_forgotten(db, snapshot).await?;
    }
    if let Some(lineage) = &volume.lineage {
        super::lineages::delete(db, lineage).await?;
    }
    Ok(())
}
